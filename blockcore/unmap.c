/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unmap.c - zeroes, holes and space without bytes: what discard, write-zeroes
 * and fallocate become.
 *
 * Whole units go to the format, under a claim; of zeroes also pieces.  What the
 * format cannot say, and what is smaller, becomes zeroes: the file makes them
 * where it can, else they are written.
 */
#include "engine-int.h"

#define CLAIM_MAX (1 * GiB)     /* one claim: others get in between */
#define ZERO_CHUNK (1 * MiB)

static const char zeroes[ZERO_CHUNK] __attribute__((aligned(4096)));

static bool is_zero_how(enum unmap_how how)
{
	return how == UNMAP_ZERO || how == UNMAP_ZERO_KEEP;
}

/* ---- without the format's help --------------------------------------------- */

/* What has a place of its own is cleared there: that many bytes, or 0. */
static ssize_t clear_in_place(struct image *img, uint64_t off, uint64_t len,
			      enum unmap_how how)
{
	struct extent ext;
	ssize_t ret;

	epoch_enter(img->eng);
	ret = img->fmt->map(&img->live, off, len, &ext);
	if (!ret && may_overwrite(img->eng, &ext)) {
		len = min_u64(len, ext.len);
		bitmaps_mark(img->eng, off, len);
		pause_point("write:mapped");
		if (how == UNMAP_FREE)
			ret = file_discard(ext.file, ext.host, len);
		else
			ret = file_zero(ext.file, ext.host, len,
					how == UNMAP_ZERO ? ZERO_MAY_UNMAP : 0);
		if (!ret)
			ret = (ssize_t)len;
	}
	epoch_exit(img->eng);
	return ret;
}

/* Everything reads as zero afterwards; nothing is written where it does. */
static int clear(struct image *img, uint64_t off, uint64_t len,
		 enum unmap_how how)
{
	while (len) {
		struct run run;
		ssize_t n = clear_in_place(img, off, len, how);

		if (n < 0)
			return (int)n;
		if (!n) {
			int ret = walk_step(&img->live, off, len, 0, 0, &run);

			if (ret)
				return ret;
			n = (ssize_t)run.len;
			if (!run.zero) {
				n = (ssize_t)min_u64(run.len, ZERO_CHUNK);
				ret = image_write(&img->live, zeroes,
						  (size_t)n, off);
			}
			if (ret)
				return ret;
		}
		off += (size_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* FREE where the format cannot: only what lies in place, as hints. */
static int free_in_place(struct image *img, uint64_t off, uint64_t len)
{
	while (len) {
		struct extent ext;
		ssize_t n = clear_in_place(img, off, len, UNMAP_FREE);

		if (n < 0)
			return (int)n;
		if (!n) {
			int ret = image_map(&img->live, off, len, &ext);

			if (ret)
				return ret;
			n = (ssize_t)ext.len;
		}
		off += (size_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int without_format(struct image *img, uint64_t off, uint64_t len,
			  enum unmap_how how)
{
	if (is_zero_how(how))
		return clear(img, off, len, how);
	return how == UNMAP_FREE && !img->fmt->unmap ?
	       free_in_place(img, off, len) : 0;
}

/* ---- with it ---------------------------------------------------------------- */

/* Units, under a claim.  *@done: how far it came. */
static int unmap_claimed(struct image *img, uint64_t off, uint64_t len,
			 enum unmap_how how, uint64_t *done)
{
	uint64_t n;
	int ret = 0;

	for (*done = 0; !ret && *done < len; *done += n) {
		n = 0;
		ret = dirty_throttle(img);
		if (!ret)
			ret = img->fmt->unmap(img, off + *done, len - *done,
					      how, &n);
		BUG_ON(!ret && !n);
		n = min_u64(n, len - *done);
	}
	return ret;
}

static int unmap_units(struct image *img, uint64_t off, uint64_t len,
		       enum unmap_how how)
{
	struct engine *e = img->eng;
	struct claim claim;
	uint64_t done = 0;
	int ret = -ENOTSUP;

	if (img->fmt->unmap) {
		ret = claim_take(e, &claim, round_down(off, img->unit),
				 round_up(off + len, img->unit));
		if (ret)
			return ret;
		bitmaps_mark(e, off, len);
		ret = unmap_claimed(img, off, len, how, &done);
		claim_drop(e, &claim);
	}
	if (ret == -ENOTSUP)
		ret = without_format(img, off + done, len - done, how);
	return ret;
}

/* The part of [off, end) that is whole units (zeroes: pieces); the last one of
 * an image may be cut off by its size. */
static void whole_units(struct image *img, uint64_t off, uint64_t end,
			enum unmap_how how, uint64_t *first, uint64_t *last)
{
	uint64_t size = is_zero_how(how) ? img->piece : img->unit;

	*first = round_up(off, size);
	*last = end == image_size(img) ? end : round_down(end, size);
	if (*first >= *last)
		*first = *last = end;
}

uint64_t unmap_reach(struct image *img, uint64_t off, uint64_t end,
		     uint64_t max)
{
	uint64_t in = off % img->unit, len = end - off;

	if (in || len < img->unit)
		return min_u64(len, img->unit - in);
	if (len > max)  /* a unit of Parallels may be larger than that */
		return max_u64(round_down(max, img->unit), img->unit);
	return end == image_size(img) ? len : round_down(len, img->unit);
}

int image_unmap(const struct view *v, uint64_t off, uint64_t len,
		enum unmap_how how)
{
	struct image *img = v->img;
	uint64_t end = off + len, first, last;
	int ret = v->root ? -EROFS : view_check(v, off, len);

	if (!ret && len)
		ret = engine_begin(img->eng);
	if (ret || !len)
		return ret;
	whole_units(img, off, end, how, &first, &last);
	if (is_zero_how(how))
		ret = clear(img, off, first - off, how);
	while (!ret && first < last) {
		uint64_t n = unmap_reach(img, first, last, CLAIM_MAX);

		ret = unmap_units(img, first, n, how);
		first += n;
	}
	if (!ret && is_zero_how(how))
		ret = clear(img, last, end - last, how);
	if (ret || (img->cache != CACHE_WRITETHROUGH &&
		    img->cache != CACHE_DIRECTSYNC))
		return ret;
	return image_flush(img);
}

/* ---- allocate --------------------------------------------------------------- */

/* The file is at least that long: nothing may point behind its end. */
static int reach(struct file *f, uint64_t end)
{
	uint64_t size;
	int ret = file_size(f, &size);

	if (ret || size >= end)
		return ret;
	return file_write(f, zeroes, SECTOR_SIZE, end - SECTOR_SIZE);
}

/* Space that reads as zeroes, for whole units under a claim. */
static int reserve_zero(struct image *img, uint64_t off, uint64_t len,
			bool host, uint64_t *done)
{
	struct reserve res = {
		.intent = STORE_PREALLOC, .off = off, .len = len,
	};
	int ret = img->fmt->reserve(img, &res);

	if (ret)
		return ret;
	ret = host ? file_allocate(res.dst.file, res.dst.host, res.dst.len) :
		     reach(res.dst.file, res.dst.host + res.dst.len);
	change_begin(img);
	if (ret)
		img->fmt->abort(img, &res);
	else
		img->fmt->commit(img, &res);
	change_end(img);
	*done = res.dst.len;
	return ret;
}

/* Stores again what the guest sees in one extent of one unit, which is claimed:
 * it gets a place of its own. */
static int rewrite(struct image *img, const struct extent *old, uint64_t *done)
{
	uint64_t n = min_u64(old->len, img->unit - old->off % img->unit);
	autofree void *buf = malloc(n);
	ssize_t ret;

	if (!buf)
		return -ENOMEM;
	ret = image_read(&img->live, buf, n, old->off);
	if (!ret)
		ret = store_claimed(img, old, buf, n, old->off);
	if (ret < 0)
		return (int)ret;
	*done = (uint64_t)ret;
	return 0;
}

/* Bytes of the units that @ext is all of. */
static uint64_t units_of(struct image *img, const struct extent *ext)
{
	if (ext->off % img->unit)
		return 0;
	return ext->off + ext->len == image_size(img) ?
	       round_up(ext->len, img->unit) :
	       round_down(ext->len, img->unit);
}

static int allocate_extent(struct image *img, const struct extent *ext,
			   bool host, uint64_t *done)
{
	uint64_t units = units_of(img, ext);
	int ret = -ENOTSUP;

	*done = ext->len;
	if (in_place(ext) || ext->flags & EXT_PREALLOC)
		return host ? file_allocate(ext->file, ext->host, ext->len) :
			      0;
	if (!img->fmt->reserve)
		return -EROFS;
	if (units && (ext->kind == EXT_ZERO || (ext->kind == EXT_HOLE &&
		      below_is_zero(img, ext->off, ext->len) == 1)))
		ret = reserve_zero(img, ext->off, units, host, done);
	return ret == -ENOTSUP ? rewrite(img, ext, done) : ret;
}

/* Bytes from @off on that are alike; *@done of them have space then. */
static int allocate_some(struct image *img, uint64_t off, uint64_t len,
			 bool host, uint64_t *done)
{
	struct engine *e = img->eng;
	struct claim claim;
	struct extent ext;
	int ret = claim_take(e, &claim, round_down(off, img->unit),
			     round_up(off + len, img->unit));

	if (ret)
		return ret;
	ret = image_map(&img->live, off, len, &ext);
	if (!ret)
		ret = allocate_extent(img, &ext, host, done);
	claim_drop(e, &claim);
	return ret;
}

int image_allocate(const struct view *v, uint64_t off, uint64_t len)
{
	return v->root ? -EROFS : allocate_range(v->img, off, len, true);
}

int allocate_range(struct image *img, uint64_t off, uint64_t len, bool host)
{
	uint64_t end, done = 0;
	int ret = view_check(&img->live, off, len);

	if (!ret && len)
		ret = engine_begin(img->eng);
	if (ret || !len)
		return ret;
	end = min_u64(round_up(off + len, img->unit), image_size(img));
	for (off = round_down(off, img->unit); !ret && off < end; off += done) {
		ret = dirty_throttle(img);
		if (!ret)
			ret = allocate_some(img, off,
					    min_u64(end - off, CLAIM_MAX),
					    host, &done);
	}
	return ret;
}
