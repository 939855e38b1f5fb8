/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pull.c - what lies below an image becomes its own: for a rebase, beside
 * writers.
 *
 * Knows that only what the image does not store itself may be stored, under a
 * claim of it, so that nothing newer is overwritten.
 */
#include "engine-int.h"

static int pull_zero(struct image *img, uint64_t off, uint64_t len,
		     uint64_t *done)
{
	len = unmap_reach(img, off, off + len, UINT64_MAX);
	if (!img->fmt->unmap || off % img->piece ||
	    (len % img->piece && off + len != image_size(img)))
		return -ENOTSUP;
	return img->fmt->unmap(img, off, len, UNMAP_ZERO, done);
}

/* A hole of the image, claimed; @buf NULL: zeroes. */
static ssize_t pull_hole(struct image *img, const struct extent *ext,
			 const char *buf, uint64_t off)
{
	autofree char *zeroes = NULL;
	uint64_t done = 0;
	int ret = buf ? -ENOTSUP : pull_zero(img, off, ext->len, &done);

	if (ret != -ENOTSUP)
		return ret ? ret : (ssize_t)min_u64(done, ext->len);
	if (!buf)
		buf = zeroes = calloc(1, ext->len);
	return buf ? store_claimed(img, ext, buf, ext->len, off) : -ENOMEM;
}

static int pull_claimed(struct image *img, const char *buf, size_t len,
			uint64_t off)
{
	while (len) {
		struct extent ext;
		ssize_t n = image_map(&img->live, off, len, &ext);

		if (!n && ext.kind == EXT_HOLE)
			n = pull_hole(img, &ext, buf, off);
		else if (!n)
			n = (ssize_t)ext.len;
		if (n < 0)
			return (int)n;
		buf = buf ? buf + n : NULL;
		off += (size_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int image_pull(struct image *img, const void *buf, size_t len, uint64_t off)
{
	struct claim claim;
	int ret = view_check(&img->live, off, len);

	if (!ret && !img->fmt->reserve)
		ret = -EROFS;
	if (!ret)
		ret = engine_begin(img->eng);
	if (!ret)
		ret = dirty_throttle(img);
	if (!ret)
		ret = claim_take(img->eng, &claim, round_down(off, img->unit),
				 round_up(off + len, img->unit));
	if (ret)
		return ret;
	ret = pull_claimed(img, buf, len, off);
	claim_drop(img->eng, &claim);
	return ret;
}
