/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repair.c - check -r as the engine sees it: a format puts its own metadata
 * right, in a quiet image, by writes around the cache with barriers between
 * them.
 *
 * Refuses to know what is wrong with an image.
 */
#include "engine-int.h"

int repair_barrier(struct image *img)
{
	return knobs.no_barriers ? 0 : sync_files(img);
}

static void changed(struct image *img, struct file *f, uint64_t host,
		    uint64_t len)
{
	meta_forget(img, f, host, len);
	change_begin(img);
	change_end(img);
}

int repair_write(struct image *img, struct file *f, const void *buf,
		 size_t len, uint64_t host)
{
	int ret = engine_begin(img->eng);

	if (!ret)
		ret = file_write(f, buf, len, host);
	changed(img, f, host, len);
	return ret;
}

int repair_discard(struct image *img, struct file *f, uint64_t host,
		   uint64_t len)
{
	int ret = engine_begin(img->eng);

	if (!ret)
		ret = file_discard(f, host, len);
	changed(img, f, host, len);
	return ret;
}

int image_repair(struct image *img, unsigned fix, struct check_result *res)
{
	const struct format_admin *admin = img->fmt->admin;
	int ret;

	if (!admin || !admin->repair)
		return -ENOTSUP;
	if (!img->writable || !(img->flags & IMAGE_REPAIR))
		return -EROFS;
	ret = image_flush(img);
	if (ret)
		return ret;
	ret = admin->repair(img, fix, res);
	img->live.size = image_size(img);
	return ret ? ret : sync_files(img);
}

int image_repair_shut(struct image *img, unsigned fix,
		      struct check_result *res, struct err *err)
{
	unsigned flags = img->flags;
	int ret, ended;

	img->flags |= IMAGE_REPAIR | IMAGE_CHECK;
	ret = image_upgrade(img, err);
	if (!ret) {
		ret = image_repair(img, fix, res);
		ended = image_downgrade_anyhow(img, err);
		ret = ret ? ret : ended;
	}
	img->flags = flags;
	return ret;
}

int image_repair_held(struct image *img, unsigned fix,
		      struct check_result *res)
{
	unsigned flags = img->flags;
	int ret = engine_begin(img->eng);

	if (ret)
		return ret;
	img->flags |= IMAGE_REPAIR | IMAGE_CHECK;
	ret = image_repair(img, fix, res);
	img->flags = flags;
	return ret;
}
