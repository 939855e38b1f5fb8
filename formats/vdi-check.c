/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdi-check.c - is the map sound, is the count true, and how both get so again
 * (vdi.md, "check" and "Order of the two updates").
 *
 * A crash may leave blocks that were counted and have no entry.  The blocks at
 * the end move into their places, data first, then entries, then the count: the
 * power may fail between any two of them.
 */
#include "vdi.h"

#include <inttypes.h>

enum { PIECE = 16384 };         /* entries looked at in one go */

/* What the whole map says. */
struct scan {
	unsigned char *used;    /* a bit per block of the file */
	uint64_t bits;
	uint64_t allocated;     /* entries that name a block */
	uint64_t end;           /* behind the largest of them */
	uint64_t faults;        /* entries that no image may have */
	struct check_result *res;       /* NULL: silent */
	bool fix;               /* put entries right */
};

static bool bit_at(const struct scan *s, uint64_t i)
{
	return s->used[i / 8] >> i % 8 & 1;
}

static void bit_set(struct scan *s, uint64_t i)
{
	s->used[i / 8] |= (unsigned char)(1u << i % 8);
}

static int scan_init(const struct image *img, struct scan *s)
{
	s->bits = min_u64(atomic_load(&vdi_of(img)->room), VDI_BLOCKS_MAX);
	s->used = calloc(1, s->bits / 8 + 1);
	return s->used ? 0 : -ENOMEM;
}

/* ---- writing ------------------------------------------------------------- */

/* While the image is being opened the engine takes no writes yet. */
static int put(struct image *img, const void *buf, size_t len, uint64_t host)
{
	int ret;

	if (img->writable)
		return repair_write(img, img->file, buf, len, host);
	ret = file_write(img->file, buf, len, host);
	meta_forget(img, img->file, host, len);
	return ret;
}

static int put_count(struct image *img, uint64_t count)
{
	unsigned char h[VH_LENGTH];
	int ret = repair_barrier(img);

	if (!ret)
		ret = meta_read(img, img->file, h, sizeof(h), 0);
	if (ret)
		return ret;
	le32_put(h + VH_ALLOCATED, (uint32_t)count);
	return put(img, h, sizeof(h), 0);
}

static int get_count(struct image *img, uint64_t *count)
{
	unsigned char at[4];
	int ret = meta_read(img, img->file, at, sizeof(at), VH_ALLOCATED);

	*count = ret ? 0 : le32_at(at);
	return ret;
}

static int copy_block(struct image *img, uint64_t from, uint64_t to)
{
	const struct vdi *v = vdi_of(img);
	autofree void *buf = malloc(VDI_BLOCK);
	int ret = buf ? 0 : -ENOMEM;

	if (!ret)
		ret = file_read(img->file, buf, VDI_BLOCK,
				v->data + from * VDI_BLOCK);
	return ret ? ret : put(img, buf, VDI_BLOCK, v->data + to * VDI_BLOCK);
}

/* ---- walking ------------------------------------------------------------- */

/* @look is asked about a piece of the map, which it may change: 1, then it is
 * written, behind a barrier. */
static int each_piece(struct image *img, struct scan *s,
		      int (*look)(struct image *img, struct scan *s,
				  uint64_t first, unsigned char *entries,
				  uint64_t n))
{
	const struct vdi *v = vdi_of(img);
	autofree unsigned char *buf = malloc(4 * PIECE);
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; ret >= 0 && i < v->there; i += PIECE) {
		uint64_t n = min_u64(PIECE, v->there - i);

		if (s->res && s->res->cancel && atomic_load(s->res->cancel))
			return -EINTR;
		ret = meta_read(img, img->file, buf, 4 * n, v->map + 4 * i);
		if (!ret)
			ret = look(img, s, i, buf, n);
		if (ret != 1)
			continue;
		ret = repair_barrier(img);
		if (!ret)
			ret = put(img, buf, 4 * n, v->map + 4 * i);
	}
	return ret < 0 ? ret : 0;
}

static void say_fault(struct scan *s, const char *what, uint64_t block,
		      uint32_t entry)
{
	if (!s->res)
		return;
	check_say(s->res, "ERROR: block index %" PRIu64 " %s %u", block, what,
		  entry);
	if (s->fix)
		s->res->corruptions_fixed++;
	else
		s->res->corruptions++;
}

/* A copy of the block at the end, for the second one who uses it. */
static int separate(struct image *img, struct scan *s, unsigned char *at)
{
	struct vdi *v = vdi_of(img);
	uint64_t to = v->next;
	int ret = copy_block(img, le32_at(at), to);

	if (ret)
		return ret;
	v->next++;
	s->end = v->next;
	le32_put(at, (uint32_t)to);
	return 1;
}

/* An entry of a block that is not in the file: 1 if it was changed. */
static int drop_entry(struct scan *s, unsigned char *at, bool counts)
{
	s->faults++;
	s->allocated += counts && !s->fix;
	if (s->fix)
		le32_put(at, VDI_FREE);
	return s->fix;
}

/* One entry: 1 if it was changed.  QEMU does not count what is too large; if it
 * is in the file, packing puts it right. */
static int look_at_entry(struct image *img, struct scan *s, uint64_t i,
			 unsigned char *at)
{
	uint32_t e = le32_at(at);
	bool large = e >= vdi_of(img)->blocks, outside = e >= s->bits;

	if (!vdi_is_block(e))
		return 0;
	if (large)
		say_fault(s, "too large, is", i, e);
	else if (outside)
		say_fault(s, "beyond the end of the file, is", i, e);
	if (outside)
		return drop_entry(s, at, !large);
	s->allocated += !large || !s->res || s->fix;
	s->end = max_u64(s->end, e + UINT64_C(1));
	if (bit_at(s, e)) {
		say_fault(s, "also used by", e, e);
		s->faults++;
		return s->fix ? separate(img, s, at) : 0;
	}
	bit_set(s, e);
	return 0;
}

static int look(struct image *img, struct scan *s, uint64_t first,
		unsigned char *entries, uint64_t n)
{
	int changed = 0;

	for (uint64_t i = 0; i < n; i++) {
		int ret = look_at_entry(img, s, first + i, entries + 4 * i);

		if (ret < 0)
			return ret;
		changed |= ret;
	}
	return changed;
}

/* ---- holes ---------------------------------------------------------------- */

/* s->end is where the search for a hole goes on. */
static int fill_holes(struct image *img, struct scan *s, uint64_t first,
		      unsigned char *entries, uint64_t n)
{
	int changed = 0, ret;

	(void)first;
	for (uint64_t i = 0; i < n; i++) {
		uint32_t e = le32_at(entries + 4 * i);

		if (!vdi_is_block(e) || e < s->allocated)
			continue;
		while (s->end < s->allocated && bit_at(s, s->end))
			s->end++;
		if (s->end >= s->allocated)
			return -EUCLEAN;
		ret = copy_block(img, e, s->end);
		if (ret)
			return ret;
		le32_put(entries + 4 * i, (uint32_t)s->end);
		bit_set(s, s->end);
		changed = 1;
	}
	return changed;
}

/* What lies behind the last block goes, for it must read as zeroes when it is
 * handed out again; on a device it stays. */
static int cut_off(struct image *img)
{
	struct vdi *v = vdi_of(img);
	uint64_t room = atomic_load(&v->room);

	if (room <= v->next)
		return 0;
	if (file_truncate(img->file, v->data + v->next * VDI_BLOCK))
		v->fresh = room;
	else
		atomic_store(&v->room, v->next);
	return 0;
}

/*
 * The map is sound.  Count and end become the number of blocks in use.  The
 * count is never less than what an entry on the disk needs: first it grows, if
 * it is behind, then blocks move, then it shrinks.
 */
static int pack(struct image *img, struct scan *s)
{
	struct vdi *v = vdi_of(img);
	uint64_t count;
	int ret = get_count(img, &count);

	if (!ret && count < s->end && s->end != s->allocated) {
		ret = put_count(img, s->end);
		count = s->end;
	}
	if (!ret && s->end != s->allocated) {
		s->end = 0;
		ret = each_piece(img, s, fill_holes);
	}
	if (!ret && count != s->allocated)
		ret = put_count(img, s->allocated);
	if (ret)
		return ret;
	v->next = v->fresh = s->allocated;
	ret = repair_barrier(img);
	return ret ? ret : cut_off(img);
}

int vdi_settle(struct image *img)
{
	struct vdi *v = vdi_of(img);
	struct scan s = { 0 };
	autofree unsigned char *used = NULL;
	uint64_t count;
	int ret = scan_init(img, &s);

	used = s.used;
	if (!ret)
		ret = each_piece(img, &s, look);
	if (!ret)
		ret = get_count(img, &count);
	if (ret)
		return ret;
	if (!s.faults)
		return pack(img, &s);
	v->next = max_u64(max_u64(atomic_load(&v->room), s.end),
			  min_u64(count, VDI_BLOCKS_MAX));
	v->fresh = v->next;
	return 0;
}

/* ---- check ----------------------------------------------------------------- */

static void say_count(struct check_result *res, uint64_t is, uint64_t header)
{
	check_say(res, "ERROR: allocated blocks mismatch, is %" PRIu64
		  ", should be %" PRIu64, is, header);
}

int vdi_check(struct image *img, struct check_result *res)
{
	struct scan s = { .res = res };
	autofree unsigned char *used = NULL;
	uint64_t count;
	int ret = scan_init(img, &s);

	used = s.used;
	if (!ret)
		ret = each_piece(img, &s, look);
	if (!ret)
		ret = get_count(img, &count);
	if (ret)
		return ret;
	if (s.allocated != count) {
		say_count(res, s.allocated, count);
		res->corruptions++;
	}
	if (vdi_of(img)->there < vdi_of(img)->blocks) {
		check_say(res, "ERROR: the block map is cut off by the end of"
			  " the file");
		res->corruptions++;
	}
	return 0;
}

/* Entries first: each one is then of a block of its own. */
int vdi_repair(struct image *img, unsigned fix, struct check_result *res)
{
	struct vdi *v = vdi_of(img);
	struct scan s = { .res = res, .fix = true };
	autofree unsigned char *used = NULL;
	uint64_t count;
	int ret;

	if (!(fix & CHECK_FIX_ERRORS) || v->there < v->blocks)
		return vdi_check(img, res);
	v->next = atomic_load(&v->room);
	ret = scan_init(img, &s);
	used = s.used;
	if (!ret)
		ret = each_piece(img, &s, look);
	if (!ret)
		ret = get_count(img, &count);
	if (ret)
		return ret;
	if (s.allocated != count) {
		say_count(res, s.allocated, count);
		res->corruptions_fixed++;
	}
	if (!s.faults)
		return pack(img, &s);
	/* Copies lie behind what the bits know of: look again. */
	atomic_store(&v->room, max_u64(atomic_load(&v->room), v->next));
	return vdi_settle(img);
}
