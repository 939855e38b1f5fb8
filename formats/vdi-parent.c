/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdi-parent.c - a differencing image names its parent by a UUID only: the file
 * with that UUID in the same folder is it.
 *
 * What it looks at is an attacker's choice as little as the folder's content
 * is; files are opened under the image's policy and are not locked.
 */
#include "vdi.h"

#include <dirent.h>
#include <stdio.h>

#define FILES_MAX 65536u        /* in a folder, before we give up */

/* Does the file at @path hold a VDI with this UUID? */
static bool is_parent(const struct image *img, const char *path)
{
	unsigned char h[VH_LENGTH];
	struct file *f;
	bool found;

	if (file_open_path(path, FILE_NO_LOCK, img->policy, &f, NULL))
		return false;
	found = !file_read(f, h, sizeof(h), 0) &&
		le32_at(h + VH_SIGNATURE) == VDI_SIGNATURE &&
		!memcmp(h + VH_UUID, vdi_of(img)->parent, VDI_UUID);
	file_unref(f);
	return found;
}

static int search(struct image *img, DIR *dir, const char *folder)
{
	const struct dirent *d;

	for (unsigned n = 0; n < FILES_MAX && (d = readdir(dir)); n++) {
		autofree char *path = NULL;

		if (d->d_name[0] == '.' ||
		    (d->d_type != DT_REG && d->d_type != DT_LNK &&
		     d->d_type != DT_UNKNOWN))
			continue;
		if (asprintf(&path, "%s/%s", folder, d->d_name) < 0)
			return -ENOMEM;
		if (!is_parent(img, path))
			continue;
		img->backing_name = strdup(d->d_name);
		img->backing_fmt = strdup("vdi");
		return img->backing_name && img->backing_fmt ? 0 : -ENOMEM;
	}
	return -ENOENT;
}

/* As VirtualBox writes it: the first three fields are numbers. */
static void uuid_text(const unsigned char *u, char *out, size_t n)
{
	snprintf(out, n, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 le32_at(u), le16_at(u + 4), le16_at(u + 6), u[8], u[9], u[10],
		 u[11], u[12], u[13], u[14], u[15]);
}

int vdi_find_parent(struct image *img, struct err *err)
{
	const char *name = img->file->name, *slash = strrchr(name, '/');
	autofree char *folder = slash ? strndup(name, (size_t)(slash - name))
				      : strdup(".");
	char uuid[40];
	DIR *dir;
	int ret;

	if (!folder)
		return -ENOMEM;
	dir = opendir(*folder ? folder : "/");
	ret = dir ? search(img, dir, folder) : -errno;
	if (dir)
		closedir(dir);
	/* Who does not want to read it can do without. */
	if (!ret || img->flags & IMAGE_NO_BACKING)
		return 0;
	uuid_text(vdi_of(img)->parent, uuid, sizeof(uuid));
	return err_set(err, ret, "The parent with UUID %s is not in the"
		       " image's folder", uuid);
}
