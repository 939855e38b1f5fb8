/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy.c - the guest's bytes from one image into another by the host's own
 * means (reflinks, copy_file_range).
 *
 * Knows where bytes may be shared: stored one to one on both sides, and on the
 * target in place or as whole units that are reserved and committed as by any
 * other write (rules 2 and 3).  Everything else is the caller's to move.
 */
#include "engine-int.h"

/* All of it or an error. */
static int copy_bytes(struct file *f, uint64_t host, const struct extent *from,
		      uint64_t len)
{
	for (uint64_t pos = 0; pos < len;) {
		ssize_t n = file_copy(f, host + pos, from->file,
				      from->host + pos, len - pos);

		if (n < 0)
			return (int)n;
		pos += (uint64_t)n;
	}
	return 0;
}

/* 0: it has no place of its own. */
static ssize_t copy_in_place(struct image *img, uint64_t to,
			     const struct extent *from, uint64_t len)
{
	struct extent ext;
	ssize_t n;

	epoch_enter(img->eng);
	n = img->fmt->map(&img->live, to, len, &ext);
	if (!n && may_overwrite(img->eng, &ext)) {
		len = min_u64(len, ext.len);
		bitmaps_mark(img->eng, to, len);
		n = file_copy(ext.file, ext.host, from->file, from->host, len);
	}
	epoch_exit(img->eng);
	return n;
}

static ssize_t copy_claimed(struct image *img, uint64_t to,
			    const struct extent *from, uint64_t len)
{
	struct reserve res;
	struct extent old;
	int ret = image_map(&img->live, to, len, &old);

	if (ret)
		return ret;
	len = round_down(min_u64(len, old.len), img->unit);
	if (in_place(&old) || !len)
		return -EOPNOTSUPP;
	ret = reserve_data(img, &res, to, len);
	if (ret)
		return ret;
	len = min_u64(len, res.dst.len);
	ret = res.frame_len ? -EOPNOTSUPP :
	      copy_bytes(res.dst.file, res.dst.host, from, len);
	reserve_settle(img, &res, !ret);
	return ret ? ret : (ssize_t)len;
}

static ssize_t copy_units(struct image *img, uint64_t to,
			  const struct extent *from, uint64_t len)
{
	struct claim claim;
	ssize_t n;
	int ret;

	len = round_down(len, img->unit);
	if (!img->fmt->reserve || to % img->unit || !len)
		return -EOPNOTSUPP;
	ret = dirty_throttle(img);
	if (!ret)
		ret = claim_take(img->eng, &claim, to, to + len);
	if (ret)
		return ret;
	bitmaps_mark(img->eng, to, len);
	n = copy_claimed(img, to, from, len);
	claim_drop(img->eng, &claim);
	return n;
}

static ssize_t copy_extent(struct image *img, uint64_t to,
			   const struct extent *from, uint64_t len)
{
	ssize_t n;

	if (from->kind != EXT_DATA || from->cipher)
		return -EOPNOTSUPP;
	n = copy_in_place(img, to, from, len);
	return n ? n : copy_units(img, to, from, len);
}

/* The layer that has something to say about @from holds the bytes. */
static ssize_t copy_layer(struct image *dst, uint64_t to,
			  const struct view *src, uint64_t from, uint64_t len)
{
	struct image *below = src->img->backing;
	struct extent ext;
	ssize_t n;

	epoch_enter(src->img->eng);
	n = src->img->fmt->map(src, from, len, &ext);
	len = n ? 0 : min_u64(len, ext.len);
	if (!n && ext.kind != EXT_HOLE)
		n = copy_extent(dst, to, &ext, len);
	epoch_exit(src->img->eng);
	if (n || ext.kind != EXT_HOLE)
		return n;
	if (!below || from >= image_size(below))
		return -EOPNOTSUPP;
	return copy_layer(dst, to, &below->live, from,
			  min_u64(len, image_size(below) - from));
}

ssize_t image_copy(const struct view *dst, uint64_t to,
		   const struct view *src, uint64_t from, uint64_t len)
{
	struct image *img = dst->img;
	int ret = dst->root ? -EROFS : view_check(dst, to, len);

	if (!ret)
		ret = view_check(src, from, len);
	if (!ret && img->probed && img->fmt->probed_guard)
		ret = -EOPNOTSUPP;      /* somebody has to look at sector 0 */
	if (!ret && (img->cache == CACHE_WRITETHROUGH ||
		     img->cache == CACHE_DIRECTSYNC))
		ret = -EOPNOTSUPP;      /* each write has its flush */
	if (!ret)
		ret = engine_begin(img->eng);
	return ret ? ret : copy_layer(img, to, src, from, len);
}
