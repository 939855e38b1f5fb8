/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhdx-map.c - the block allocation table: where a block lives, and what
 * changes when it gets a place.
 *
 * Blocks are taken from the end of the file and keep their place.  The table's
 * pages reach the file through the log (vhdx-log.c).  A block of a differencing
 * image that is there in part is not written to: it gets a new place as a whole.
 */
#include "vhdx.h"

#include <inttypes.h>

enum {
	LOOK = 64,              /* entries that are read at once */
	LOOK_BITS = 4096,       /* bytes of a sector bitmap */
	COOKIE_SLOT = 0,
	COOKIE_N,
	SCAN = 64 * 1024,
};

/* ---- mapping ------------------------------------------------------------- */

static int entry_bad(struct image *img, uint64_t e, uint64_t off)
{
	image_corrupt(img, "Block entry %#" PRIx64 " is invalid (guest"
		      " offset: %#" PRIx64 ")", e, off);
	return -EIO;
}

/* Rule 14.  The last block of a file may be cut off. */
static bool host_good(const struct image *img, uint64_t host)
{
	const struct vhdx *v = vhdx_of(img);

	return host < atomic_load_explicit(&v->end, memory_order_acquire) &&
	       vhdx_may_lie(v, host, img->unit);
}

static bool kind_of(const struct image *img, uint64_t e,
		    enum extent_kind *kind)
{
	const struct vhdx *v = vhdx_of(img);

	switch (BAT_STATE(e)) {
	case BLOCK_NOT_PRESENT:
		*kind = v->differencing ? EXT_HOLE : EXT_ZERO;
		return true;
	case BLOCK_UNDEFINED:
	case BLOCK_ZERO:
	case BLOCK_UNMAPPED:
		*kind = EXT_ZERO;
		return true;
	case BLOCK_PARTIAL:
		if (!v->differencing)
			return false;
		/* fall through */
	case BLOCK_PRESENT:
		*kind = EXT_DATA;
		return host_good(img, BAT_HOST(e));
	default:
		return false;
	}
}

/* Equal bits of @bits from @i on, at most @n. */
static uint64_t equal_bits(const unsigned char *bits, uint64_t i, uint64_t n)
{
	unsigned first = bits[i / 8] >> i % 8 & 1;
	uint64_t run = 1;

	while (run < n && (bits[(i + run) / 8] >> (i + run) % 8 & 1) == first)
		run++;
	return run;
}

/* Which sectors of a partial block are here (bit 1) and which are below. */
static int map_sectors(struct image *img, uint64_t host, uint64_t off,
		       uint64_t len, struct extent *ext)
{
	struct vhdx *v = vhdx_of(img);
	uint64_t sector = off / v->sector;
	uint64_t in = sector % (MiB * 8);       /* of the chunk */
	uint64_t first = in % 8, n, run;
	unsigned char buf[LOOK_BITS], entry[8];
	uint64_t slot = (off / img->unit / v->ratio + 1) * (v->ratio + 1) - 1;
	int ret = meta_peek(img, v->file, entry, 8, v->bat + 8 * slot);

	if (ret)
		return ret;
	if (BAT_STATE(le64_at(entry)) != BITMAP_PRESENT ||
	    BAT_HOST(le64_at(entry)) >= atomic_load(&v->end) ||
	    !vhdx_may_lie(v, BAT_HOST(le64_at(entry)), MiB))
		return entry_bad(img, le64_at(entry), off);
	n = min_u64(div_up(off % v->sector + len, v->sector),
		    8 * LOOK_BITS - 8);
	n = min_u64(n, (img->unit - off % img->unit + v->sector - 1) /
		    v->sector);
	ret = meta_peek(img, v->file, buf, div_up(first + n, 8),
			BAT_HOST(le64_at(entry)) + in / 8);
	if (ret)
		return ret;
	run = equal_bits(buf, first, n);
	ext->kind = buf[0] >> first & 1 ? EXT_DATA : EXT_HOLE;
	ext->flags = ext->kind == EXT_DATA ? EXT_SHARED : 0;
	ext->host = host + off % img->unit;
	ext->len = min_u64(len, run * v->sector - off % v->sector);
	return 0;
}

/* A parent that was written to since says something else now. */
static bool parent_changed(const struct image *img)
{
	const struct vhdx *v = vhdx_of(img);
	const struct image *parent = img->backing;
	const unsigned char *now;

	if (!parent || parent->fmt != img->fmt)
		return false;
	now = vhdx_of(parent)->header + H_DATA_GUID;
	return memcmp(now, v->linkage, 16) && memcmp(now, v->linkage2, 16);
}

static bool continues(const struct image *img, uint64_t first, uint64_t e,
		      uint64_t n)
{
	enum extent_kind a, b;

	if (BAT_STATE(e) == BLOCK_PARTIAL || !kind_of(img, first, &a) ||
	    !kind_of(img, e, &b) || a != b)
		return false;
	return a != EXT_DATA ||
	       BAT_HOST(e) == BAT_HOST(first) + n * img->unit;
}

int vhdx_map(const struct view *view, uint64_t off, uint64_t len,
	     struct extent *out)
{
	struct image *img = view->img;
	struct vhdx *v = vhdx_of(img);
	uint64_t block = off / img->unit, in = off % img->unit, run = 1;
	uint64_t n = min_u64(div_up(in + len, img->unit),
			     min_u64(LOOK, v->ratio - block % v->ratio));
	struct extent ext = { .off = off, .file = v->file };
	unsigned char buf[8 * LOOK];
	int ret = meta_peek(img, v->file, buf, 8 * n,
			    v->bat + 8 * vhdx_index(v, block));

	if (ret)
		return ret;
	if (!kind_of(img, le64_at(buf), &ext.kind))
		return entry_bad(img, le64_at(buf), off);
	if (BAT_STATE(le64_at(buf)) == BLOCK_PARTIAL) {
		ret = map_sectors(img, BAT_HOST(le64_at(buf)), off, len, &ext);
	} else {
		while (run < n &&
		       continues(img, le64_at(buf), le64_at(buf + 8 * run),
				 run))
			run++;
		ext.host = BAT_HOST(le64_at(buf)) + in;
		ext.len = min_u64(len, run * img->unit - in);
	}
	if (!ret && ext.kind == EXT_HOLE && parent_changed(img))
		ret = -EINVAL;
	if (!ret)
		*out = ext;
	return ret;
}

/* ---- space --------------------------------------------------------------- */

/* A bitmap's entry where there are no bitmaps: older writers left anything. */
static bool is_slack(const struct vhdx *v, uint64_t index)
{
	return !v->differencing && index % (v->ratio + 1) == v->ratio;
}

/*
 * Before writing: where the last block ends, which may stick out of the file.
 * Behind that new ones go; an entry that points there already would meet them.
 */
int vhdx_find_end(struct image *img)
{
	struct vhdx *v = vhdx_of(img);
	autofree unsigned char *buf = malloc(SCAN);
	uint64_t size, end = 8 * MiB;
	int ret = buf ? file_size(v->file, &size) : -ENOMEM;

	for (uint64_t i = 0; !ret && i < v->entries; i += SCAN / 8) {
		uint64_t n = min_u64(SCAN / 8, v->entries - i);

		ret = meta_read(img, v->file, buf, 8 * n, v->bat + 8 * i);
		for (uint64_t k = 0; !ret && k < n; k++) {
			uint64_t e = le64_at(buf + 8 * k);

			if (BAT_STATE(e) < BLOCK_PRESENT || is_slack(v, i + k))
				continue;
			if (BAT_HOST(e) < size)
				end = max_u64(end, BAT_HOST(e) + img->unit);
			else if (!(img->flags & IMAGE_REPAIR))
				ret = -EUCLEAN;
		}
	}
	if (!ret)
		atomic_store(&v->end, max_u64(end, round_up(size, MiB)));
	return ret;
}

/* The file is as long as what was given out: what reads it finds zeroes. */
static int take(struct image *img, uint64_t len, uint64_t *host)
{
	struct vhdx *v = vhdx_of(img);
	uint64_t at, size;
	int ret;
	with_lock(&v->lock);

	if (spare_take(&v->spare, len, MiB, host))
		return 0;
	at = atomic_load(&v->end);
	if (!range_within(at, len, INT64_MAX))
		return -EFBIG;
	ret = file_size(img->file, &size);
	if (!ret && size < at + len)
		ret = img->file->traits.grows ?
		      file_truncate(img->file, at + len) : -ENOSPC;
	if (ret)
		return ret;
	atomic_store_explicit(&v->end, at + len, memory_order_release);
	*host = at;
	return 0;
}

/* ---- reserve, commit, abort ---------------------------------------------- */

/* How many entries from @block on lie in one page, with no bitmap between. */
static uint64_t entries_together(const struct image *img, uint64_t block,
				 uint64_t len)
{
	const struct vhdx *v = vhdx_of(img);
	uint64_t slot = v->bat + 8 * vhdx_index(v, block);

	return min_u64(div_up(len, img->unit),
		       min_u64(v->ratio - block % v->ratio,
			       (img->page - slot % img->page) / 8));
}

int vhdx_reserve(struct image *img, struct reserve *res)
{
	struct vhdx *v = vhdx_of(img);
	uint64_t block = res->off / img->unit, host;
	uint64_t n = entries_together(img, block, res->len);
	uint64_t slot = v->bat + 8 * vhdx_index(v, block);
	int ret;

	if (res->intent != STORE_DATA)
		return -ENOTSUP;
	ret = meta_get(img, v->file, round_down(slot, img->page),
		       &res->pins[0]);
	if (ret)
		return ret;
	ret = take(img, n * img->unit, &host);
	if (ret) {
		meta_put(res->pins[0]);
		return ret;
	}
	res->dst = (struct extent) {
		.kind = EXT_DATA, .off = res->off, .len = n * img->unit,
		.file = img->file, .host = host,
	};
	res->fresh = img->file->traits.grows && !spare_used(&v->spare, host);
	res->cookie[COOKIE_SLOT] = slot;
	res->cookie[COOKIE_N] = n;
	return 0;
}

static void put_entries(struct image *img, struct mpage *pg, uint64_t slot,
			uint64_t n, uint64_t e, uint64_t step)
{
	unsigned char *p;

	meta_wrlock(pg);
	p = (unsigned char *)meta_bytes(pg) + slot % img->page;
	for (uint64_t i = 0; i < n; i++)
		le64_put(p + 8 * i, e + i * step);
	meta_dirty(pg, STAGE_LINK);
	meta_unlock(pg);
}

void vhdx_commit(struct image *img, const struct reserve *res)
{
	put_entries(img, res->pins[0], res->cookie[COOKIE_SLOT],
		    res->cookie[COOKIE_N], res->dst.host | BLOCK_PRESENT,
		    img->unit);
	meta_put(res->pins[0]);
}

void vhdx_abort(struct image *img, const struct reserve *res)
{
	struct vhdx *v = vhdx_of(img);
	with_lock(&v->lock);

	atomic_store(&v->end, spare_give(&v->spare, res->dst.host,
					 res->cookie[COOKIE_N] * img->unit,
					 atomic_load(&v->end)));
	meta_put(res->pins[0]);
}

/* ---- unmap --------------------------------------------------------------- */

static int set_state(struct image *img, uint64_t off, uint64_t len,
		     enum vhdx_state state, uint64_t *done)
{
	struct vhdx *v = vhdx_of(img);
	uint64_t block = off / img->unit;
	uint64_t slot = v->bat + 8 * vhdx_index(v, block);
	uint64_t n = entries_together(img, block, len);
	struct mpage *pg;
	int ret = meta_get(img, v->file, round_down(slot, img->page), &pg);

	if (ret)
		return ret;
	change_begin(img);
	put_entries(img, pg, slot, n, state, 0);
	change_end(img);
	meta_put(pg);
	*done = n * img->unit;
	return 0;
}

/* What has a place keeps it: the engine makes zeroes there, which are a hole of
 * the file. */
int vhdx_unmap(struct image *img, uint64_t off, uint64_t len,
	       enum unmap_how how, uint64_t *done)
{
	struct extent ext;
	int ret = vhdx_map(&img->live, off,
			   min_u64(len, image_size(img) - off), &ext);

	if (ret)
		return ret;
	/* Of a block that is here in part the extents are smaller. */
	if (ext.kind == EXT_DATA ||
	    (ext.len % img->unit && off + ext.len < image_size(img)))
		return -ENOTSUP;
	if (ext.kind == (how == UNMAP_HOLE ? EXT_HOLE : EXT_ZERO) ||
	    (how == UNMAP_HOLE && !vhdx_of(img)->differencing)) {
		*done = ext.len;
		return 0;
	}
	return set_state(img, off, ext.len, how == UNMAP_HOLE ?
			 BLOCK_NOT_PRESENT : BLOCK_ZERO, done);
}
