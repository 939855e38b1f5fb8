/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image.c - the life of an open image: its locks (locking.md), from read-only
 * to writable and back, closing.
 */
#include "image.h"
#include "snapshot.h"

#include <stdio.h>

/* ---- locks --------------------------------------------------------------------- */

/* locking.md, "Rules for an interoperable program". */
static void lock_set(const struct image *img, bool writable, unsigned *used,
		     unsigned *unshared)
{
	bool raw = img->fmt->probed_guard && !(img->flags & IMAGE_INNER);
	unsigned both = PERM_WRITE | PERM_RESIZE;

	*used = img->flags & IMAGE_INFO ? 0 : PERM_READ;
	*unshared = 0;
	if (img->flags & IMAGE_SHARE)
		return;
	if (!raw || img->flags & IMAGE_STILL)
		*unshared = both;
	else if (img->flags & IMAGE_ALONE)
		*unshared = PERM_WRITE;
	if (writable)
		*used |= raw && !(img->flags & IMAGE_RESIZE) ? PERM_WRITE :
			 both;
}

int image_lock(struct image *img, bool writable, struct err *err)
{
	unsigned used, unshared;
	int ret;

	if (img->flags & IMAGE_NO_LOCK)
		return 0;
	lock_set(img, writable, &used, &unshared);
	ret = file_lock(img->file, used, unshared, err);
	for (unsigned i = 0; i < img->nr_children && !ret; i++)
		ret = file_lock(img->children[i].file, used, unshared, err);
	return ret;
}

/* ---- writable or not -------------------------------------------------------------- */

static bool files_writable(const struct image *img)
{
	bool ok = !img->file->traits.read_only;

	for (unsigned i = 0; i < img->nr_children && ok; i++)
		ok = !img->children[i].file->traits.read_only;
	return ok;
}

/* Nodes below (qcow2 over raw over a file) follow, lowest first. */
static int upgrade_below(struct image *img, struct err *err)
{
	struct image *below = image_of_file(img->file);

	return below ? image_upgrade(below, err) : 0;
}

static int upgrade_locked(struct image *img, struct err *err)
{
	int ret = 0;

	img->want_write = true;
	if (img->fmt->upgrade)
		ret = img->fmt->upgrade(img, err);
	else if (!img->fmt->reserve && !img->fmt->probed_guard)
		ret = err_set(err, -ENOTSUP, "Format driver '%s' cannot write",
			      img->fmt->name);
	if (!ret)
		ret = bitmaps_begin(img, err);
	if (ret) {
		img->want_write = false;
		(void)image_lock(img, false, NULL);
	}
	return ret;
}

int image_upgrade(struct image *img, struct err *err)
{
	int ret;

	if (img->writable)
		return 0;
	if (!(img->flags & IMAGE_RDWR_LATER) || img->flags & IMAGE_SHARE)
		return err_set(err, -EROFS, "Image was opened read-only");
	if (!files_writable(img))
		return err_set(err, -EROFS, "Image file is not writable");
	ret = upgrade_below(img, err);
	if (ret)
		return ret;
	ret = image_lock(img, true, err);
	if (ret) {
		(void)image_lock(img, false, NULL);
		return ret == -ENOMEM ? ret : -ETXTBSY;
	}
	ret = upgrade_locked(img, err);
	if (!ret)
		img->writable = true;
	return ret;
}

/* Files that may be written below the image; qcow2 over raw over a file. */
static int make_files_writable(struct image *img, struct err *err)
{
	struct image *below = image_of_file(img->file);
	int ret = below ? image_upgrade_base(below, true, err) :
			  file_make_writable(img->file, err);

	for (unsigned i = 0; i < img->nr_children && !ret; i++)
		ret = file_make_writable(img->children[i].file, err);
	return ret;
}

int image_upgrade_base(struct image *img, bool grow, struct err *err)
{
	int ret = img->writable ? 0 : make_files_writable(img, err);

	if (ret)
		return err_errno(err, ret, "Could not open '%s'", img->name);
	img->flags |= IMAGE_RDWR_LATER | (grow ? IMAGE_RESIZE : 0);
	return image_upgrade(img, err);
}

/* Nothing is written any more. */
static int end_writing(struct image *img, struct err *err)
{
	bitmaps_end(img);
	img->writable = false;
	img->want_write = false;
	return image_lock(img, false, err);
}

static int clean(struct image *img, struct err *err)
{
	int ret = engine_clean(img);

	return ret ? err_errno(err, ret, "Could not flush '%s'", img->name) :
		     0;
}

/* There will be no other chance. */
static int clean_last(struct image *img)
{
	int ret = engine_clean(img);

	if (ret && bitmaps_roughly(img, ret)) {
		ret = engine_clean(img);
		if (!ret)
			log_line("%s: No space for the persistent bitmaps: they"
				 " say more than what was written", img->name ?
				 img->name : img->fmt->name);
	}
	if (ret)
		bitmaps_lost(img, ret);
	return ret;
}

int image_downgrade(struct image *img, struct err *err)
{
	struct image *below = image_of_file(img->file);
	int ret;

	if (!img->writable)
		return 0;
	ret = clean(img, err);
	if (!ret)
		ret = end_writing(img, err);
	return ret || !below ? ret : image_downgrade(below, err);
}

int image_downgrade_anyhow(struct image *img, struct err *err)
{
	struct image *below = image_of_file(img->file);
	int ret, failed;

	if (!img->writable)
		return 0;
	ret = clean_last(img);
	if (ret)
		err_errno(err, ret, "Could not flush '%s'", img->name);
	failed = end_writing(img, err);
	if (!failed && below)
		failed = image_downgrade_anyhow(below, err);
	return ret ? ret : failed;
}

/* ---- the end ------------------------------------------------------------------------ */

void image_free(struct image *img)
{
	if (!img)
		return;
	/* First its pages: their file may be the format's own. */
	if (img->eng)
		engine_free(img->eng);
	image_view_close(&img->live);
	if (img->priv && img->fmt->close)
		img->fmt->close(img);
	for (unsigned i = 0; i < img->nr_children; i++) {
		free(img->children[i].role);
		file_unref(img->children[i].file);
	}
	free(img->children);
	file_unref(img->file);
	image_free(img->backing);
	json_free(img->node);
	free(img->priv);
	free(img->name);
	free(img->backing_name);
	free(img->backing_fmt);
	free(img);
}

int image_close(struct image *img)
{
	int ret = img && img->writable ? clean_last(img) : 0;

	image_free(img);
	return ret;
}

/* ---- odds and ends --------------------------------------------------------------------- */

bool cache_mode_parse(const char *text, enum cache_mode *mode)
{
	static const char *const names[] = {
		[CACHE_WRITEBACK] = "writeback",
		[CACHE_NONE] = "none",
		[CACHE_WRITETHROUGH] = "writethrough",
		[CACHE_DIRECTSYNC] = "directsync",
		[CACHE_UNSAFE] = "unsafe",
	};

	if (!strcmp(text, "off"))
		text = "none";
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(text, names[i])) {
			*mode = (enum cache_mode)i;
			return true;
		}
	return false;
}

void image_info_free(struct image_info *info)
{
	for (size_t i = 0; i < info->nr_snapshots; i++) {
		free(info->snapshots[i].id);
		free(info->snapshots[i].name);
	}
	free(info->snapshots);
	json_free(info->specific);
	*info = (struct image_info) { 0 };
}

void check_say(struct check_result *res, const char *fmt, ...)
{
	autofree char *line = NULL;
	va_list ap;
	int n;

	if (!res->say)
		return;
	va_start(ap, fmt);
	n = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (n >= 0)
		res->say(res->data, line);
}
