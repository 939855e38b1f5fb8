/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vpc-parent.c - a differencing image names its parent by locators and by its
 * UUID (vpc.md, "Differencing"): the relative path, else the last part of the
 * absolute one or of the name, in the image's folder.  Only a file with the
 * right UUID is it.
 */
#include "vpc.h"

#include "spec.h"

enum { NAME_MAX_BYTES = 2048, LOCATORS = 8 };

static void put_utf8(char **p, uint32_t c)
{
	char *o = *p;

	if (c < 0x80) {
		*o++ = (char)c;
	} else if (c < 0x800) {
		*o++ = (char)(0xc0 | c >> 6);
		*o++ = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		*o++ = (char)(0xe0 | c >> 12);
		*o++ = (char)(0x80 | (c >> 6 & 0x3f));
		*o++ = (char)(0x80 | (c & 0x3f));
	} else {
		*o++ = (char)(0xf0 | c >> 18);
		*o++ = (char)(0x80 | (c >> 12 & 0x3f));
		*o++ = (char)(0x80 | (c >> 6 & 0x3f));
		*o++ = (char)(0x80 | (c & 0x3f));
	}
	*p = o;
}

static uint16_t unit_at(const unsigned char *p, bool big)
{
	return big ? be16_at(p) : le16_at(p);
}

/* UTF-16 to UTF-8, '\' to '/'. */
static char *to_path(const unsigned char *p, size_t n, bool big)
{
	char *text = malloc(2 * n + 1), *o = text;

	for (size_t i = 0; text && i + 2 <= n && unit_at(p + i, big); i += 2) {
		uint32_t c = unit_at(p + i, big), low;

		if (c >= 0xd800 && c < 0xdc00 && i + 4 <= n) {
			low = unit_at(p + i + 2, big);
			c = 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
			i += 2;
		}
		put_utf8(&o, c == '\\' ? '/' : c);
	}
	if (text)
		*o = 0;
	return text;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Is the file @name, seen from the image, the parent?  @err gets what the policy
 * says about it. */
static bool is_parent(struct image *img, const char *name,
		      const unsigned char *uuid, struct err *err)
{
	autofree char *path = spec_join(img->file->name, name);
	unsigned char f[VF_LENGTH];
	autoerr why = ERR_INIT;
	struct file *file;
	uint64_t size;
	int ret;

	if (!path || !*name)
		return false;
	if (file_open_path(path, FILE_NO_LOCK, img->policy, &file, &why)) {
		if (why.code != -ENOENT)
			err_move(err, &why);
		return false;
	}
	ret = file_size(file, &size);
	if (!ret)
		ret = file_read(file, f, sizeof(f), 0);
	if (!ret && !vpc_is_footer(f) && size >= VF_LENGTH)
		ret = file_read(file, f, sizeof(f), size - VF_LENGTH);
	file_unref(file);
	return !ret && vpc_is_footer(f) &&
	       !memcmp(f + VF_UUID, uuid, VPC_UUID);
}

/* 1: that is it. */
static int try(struct image *img, const char *name, const unsigned char *uuid,
	       struct err *err)
{
	while (!strncmp(name, "./", 2))
		name += 2;
	if (!is_parent(img, name, uuid, err))
		return 0;
	img->backing_name = strdup(name);
	img->backing_fmt = strdup("vpc");
	return img->backing_name && img->backing_fmt ? 1 : -ENOMEM;
}

static int try_locator(struct image *img, const unsigned char *l,
		       const char *code, const unsigned char *uuid,
		       struct err *err)
{
	uint32_t len = be32_at(l + 8);
	uint64_t at = be64_at(l + 16);
	unsigned char buf[NAME_MAX_BYTES];
	autofree char *path = NULL;
	int ret;

	/* What leads nowhere is as good as none. */
	if (memcmp(l, code, 4) || len > sizeof(buf) ||
	    !range_within(at, len, INT64_MAX))
		return 0;
	ret = file_read(img->file, buf, len, at);
	if (ret)
		return ret;
	path = to_path(buf, len, false);
	if (!path)
		return -ENOMEM;
	ret = code[2] == 'r' ? try(img, path, uuid, err) : 0;
	return ret ? ret : try(img, last_part(path), uuid, err);
}

int vpc_find_parent(struct image *img, const unsigned char *h,
		    struct err *err)
{
	static const char *const codes[] = { "W2ru", "W2ku" };
	const unsigned char *uuid = h + VD_PARENT_UUID;
	autofree char *name = to_path(h + VD_PARENT_NAME, 512, true);
	autoerr why = ERR_INIT;
	int ret = name ? 0 : -ENOMEM;

	for (size_t c = 0; !ret && c < ARRAY_SIZE(codes); c++)
		for (unsigned i = 0; !ret && i < LOCATORS; i++)
			ret = try_locator(img, h + VD_LOCATORS + 24 * i,
					  codes[c], uuid, &why);
	if (!ret)
		ret = try(img, last_part(name), uuid, &why);
	if (ret < 0)
		return err_errno(err, ret, "Could not find the parent");
	if (ret || (img->flags & IMAGE_NO_BACKING && !*last_part(name)))
		return 0;
	/* Who does not read it is told what the image says. */
	if (img->flags & IMAGE_NO_BACKING) {
		img->backing_name = strdup(last_part(name));
		img->backing_fmt = strdup("vpc");
		return img->backing_name && img->backing_fmt ? 0 : -ENOMEM;
	}
	err_move(err, &why);
	return err_set(err, -ENOENT, "The parent '%s' is not where the image"
		       " says, or has another UUID", name);
}
