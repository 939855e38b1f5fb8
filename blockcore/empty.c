/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * empty.c - an image gives up all that it stores, after a commit.
 *
 * Knows that nobody else uses the image, and what the engine remembers of it
 * that is no longer true then.  Refuses to know how a format does it.
 */
#include "engine-int.h"

/* Nothing is dirty, and no host space waits to be given back. */
static int quiet(struct image *img)
{
	struct engine *e = img->eng;
	int ret = image_flush(img);

	if (ret)
		return ret;
	image_wait_epochs(img);
	pthread_mutex_lock(&e->flush_lock);
	space_reap(e);
	pthread_mutex_unlock(&e->flush_lock);
	return image_flush(img);
}

static int unmap_all(struct image *img)
{
	int ret = image_unmap(&img->live, 0, image_size(img), UNMAP_HOLE);

	return ret ? ret : quiet(img);
}

int image_empty(struct image *img)
{
	const struct format_admin *admin = img->fmt->admin;
	int ret;

	if (!admin || !admin->empty)
		return -ENOTSUP;
	ret = engine_begin(img->eng);
	if (!ret)
		ret = quiet(img);
	if (ret)
		return ret;
	ret = admin->empty(img);
	if (ret == -EAGAIN)
		return unmap_all(img);
	/* Also after an error: who knows how far it came. */
	meta_drop_all(img->eng);
	unit_forget(img->file, 0, UINT64_MAX);
	change_begin(img);
	change_end(img);
	return ret ? ret : sync_files(img);
}
