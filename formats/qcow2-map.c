/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-map.c - from a guest offset through L1 and L2 to an extent (qcow2.md
 * 4 and 5).
 *
 * L1 and L2 are read as pages of the metadata cache, never as whole tables: an
 * L1 of 32 MiB costs nothing to open.  Answers end where a page of entries
 * ends.  Knows nothing about reference counts but the COPIED bits.
 */
#include "qcow2.h"

#include <inttypes.h>

/* ---- entries ------------------------------------------------------------- */

int qcow2_entry(struct image *img, uint64_t host, uint64_t *entry)
{
	struct mpage *pg;
	int ret = meta_get(img, img->file, round_down(host, img->page), &pg);

	if (ret)
		return ret;
	meta_rdlock(pg);
	*entry = be64_at((unsigned char *)meta_bytes(pg) + host % img->page);
	meta_unlock(pg);
	meta_put(pg);
	return 0;
}

bool qcow2_inside(struct image *img, uint64_t host)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t size;

	if (host < atomic_load_explicit(&q->file_end, memory_order_acquire))
		return true;
	/* A writer that shares the image (-U) may have made it longer. */
	return !file_size(img->file, &size) && host < size;
}

int qcow2_l1_check(struct image *img, uint64_t index, uint64_t e)
{
	uint64_t host = e & QL1_HOST;

	if (host % img->unit)
		image_corrupt(img, "L2 table offset %#" PRIx64 " unaligned"
			      " (L1 index: %#" PRIx64 ")", host, index);
	else if (e & QL1_RESERVED)
		image_corrupt(img, "L1 entry %#" PRIx64 " has reserved bits"
			      " set (L1 index: %#" PRIx64 ")", e, index);
	else if (host && !qcow2_inside(img, host))
		image_corrupt(img, "L2 table offset %#" PRIx64 " is beyond the"
			      " end of the file (L1 index: %#" PRIx64 ")",
			      host, index);
	else
		return 0;
	return -EIO;
}

int qcow2_l2_check(struct image *img, uint64_t table, uint64_t index,
		   uint64_t e)
{
	struct qcow2 *q = qcow2_of(img);
	bool packed = e & QL2_COMPRESSED;
	uint64_t host = packed ? qcow2_packed_host(q, e) : e & QL2_HOST;
	const char *what = NULL;

	if (!packed && q->version < 3 && e & QL2_ZERO) {
		image_corrupt(img, "Zero cluster entry found in pre-v3 image"
			      " (L2 offset: %#" PRIx64 ", L2 index: %#" PRIx64
			      ")", table, index);
		return -EIO;
	}
	if (!packed && host % img->unit)
		what = "unaligned";
	else if (!packed && e & QL2_RESERVED)
		what = "has reserved bits set";
	else if (host >= QCOW2_MAX_HOST || (host && !qcow2_inside(img, host)))
		what = "is beyond the end of the file";
	if (!what)
		return 0;
	image_corrupt(img, "Cluster allocation offset %#" PRIx64 " %s (L2"
		      " offset: %#" PRIx64 ", L2 index: %#" PRIx64 ")",
		      host, what, table, index);
	return -EIO;
}

/* ---- L1 ------------------------------------------------------------------ */

/* How many entries of the page from @first on are empty, up to @max. */
static uint64_t empty_run(struct mpage *pg, uint64_t first, uint64_t max)
{
	const unsigned char *p = meta_bytes(pg);
	uint64_t n = 0;

	while (n < max && !(be64_at(p + 8 * (first + n)) & QL1_HOST))
		n++;
	return n;
}

/*
 * The L1 entry of @off; when it names no table, *@span is how many guest bytes
 * from @off on (at most the page's coverage) have none.
 */
static int l1_look(const struct view *v, uint64_t off, uint64_t *entry,
		   uint64_t *span)
{
	struct image *img = v->img;
	struct qcow2 *q = qcow2_of(img);
	const struct qcow2_root *root = v->root;
	uint64_t cover = qcow2_l2_cover(q), i = off / cover;
	uint64_t l1 = root ? root->l1_offset : q->l1_offset;
	uint64_t nr = root ? root->l1_size : q->l1_size;
	uint64_t first = i % (img->page / 8);
	uint64_t max = min_u64(img->page / 8 - first, i < nr ? nr - i : 0);
	struct mpage *pg;
	int ret;

	*entry = 0;
	*span = v->size - off;
	if (!max)       /* a snapshot may be shorter than the disk is now */
		return 0;
	ret = meta_get(img, img->file, round_down(l1 + i * 8, img->page), &pg);
	if (ret)
		return ret;
	meta_rdlock(pg);
	*entry = be64_at((unsigned char *)meta_bytes(pg) + 8 * first);
	*span = empty_run(pg, first, max) * cover - off % cover;
	meta_unlock(pg);
	meta_put(pg);
	return qcow2_l1_check(img, i, *entry);
}

/* ---- L2 ------------------------------------------------------------------ */

static void decode_packed(struct image *img, uint64_t e, uint64_t in,
			  struct extent *ext)
{
	const struct qcow2 *q = qcow2_of(img);

	ext->kind = EXT_PACKED;
	ext->flags = EXT_SHARED;
	ext->host = qcow2_packed_host(q, e);
	ext->unit.codec = img->codec;
	ext->unit.packed = qcow2_packed_len(q, e);
	ext->unit.len = img->unit;
	ext->unit.skip = (uint32_t)in;
}

/* @in: offset in the cluster. */
static void decode(struct image *img, uint64_t e, uint64_t in, bool shared,
		   struct extent *ext)
{
	uint64_t host = e & QL2_HOST;

	if (e & QL2_COMPRESSED) {
		decode_packed(img, e, in, ext);
		return;
	}
	ext->kind = e & QL2_ZERO ? EXT_ZERO : host ? EXT_DATA : EXT_HOLE;
	ext->flags = 0;
	ext->host = 0;
	if (!host)
		return;
	ext->host = host + in;
	ext->flags = ext->kind == EXT_ZERO ? EXT_PREALLOC : 0;
	if (shared || !(e & QCOPIED))
		ext->flags |= EXT_SHARED;
}

/* Never overwritten in place: reserve() then says what is wrong with it. */
static void guard_meta(struct image *img, struct extent *ext)
{
	if (ext->kind == EXT_DATA && img->writable &&
	    qcow2_is_meta(qcow2_of(img), ext->host, ext->len))
		ext->flags |= EXT_SHARED;
}

/* Is @e, @clusters after the cluster of @ext, more of the same? */
static bool continues(struct image *img, uint64_t e, uint64_t first,
		      uint64_t clusters)
{
	uint64_t mask = QL2_COMPRESSED | QL2_ZERO | QCOPIED;
	uint64_t host = first & QL2_HOST;

	return (e & mask) == (first & mask) && (e & QL2_HOST) ==
	       (host ? host + clusters * img->unit : 0);
}

/* Reads the entry at @slot (a host offset) and counts its likes behind it. */
static int l2_run(struct image *img, uint64_t slot, uint64_t max,
		  uint64_t *entry, uint64_t *run)
{
	uint64_t first = slot % img->page / 8, n = 1;
	const unsigned char *p;
	struct mpage *pg;
	int ret = meta_get(img, img->file, round_down(slot, img->page), &pg);

	if (ret)
		return ret;
	max = min_u64(max, img->page / 8 - first);
	meta_rdlock(pg);
	p = (unsigned char *)meta_bytes(pg) + 8 * first;
	*entry = be64_at(p);
	while (n < max && !(*entry & QL2_COMPRESSED) &&
	       continues(img, be64_at(p + 8 * n), *entry, n))
		n++;
	meta_unlock(pg);
	meta_put(pg);
	*run = n;
	return 0;
}

static int map_l2(const struct view *v, uint64_t l1e, uint64_t off,
		  uint64_t len, struct extent *ext)
{
	struct image *img = v->img;
	uint64_t in = off % img->unit, table = l1e & QL1_HOST;
	uint64_t i = off / img->unit % (img->unit / 8), e, n;
	int ret = l2_run(img, table + 8 * i, div_up(in + len, img->unit), &e,
			 &n);

	if (!ret)
		ret = qcow2_l2_check(img, table, i, e);
	/* The entries that continue it only differ in the offset. */
	if (!ret && n > 1 && e & QL2_HOST &&
	    !qcow2_inside(img, (e & QL2_HOST) + (n - 1) * img->unit))
		n = 1;
	if (ret)
		return ret;
	decode(img, e, in, v->root || !(l1e & QCOPIED), ext);
	ext->len = min_u64(len, n * img->unit - in);
	guard_meta(img, ext);
	return 0;
}

int qcow2_map(const struct view *v, uint64_t off, uint64_t len,
	      struct extent *ext)
{
	struct extent found = {
		.kind = EXT_HOLE, .off = off, .file = v->img->file,
	};
	uint64_t l1e, span;
	int ret;

	if (!qcow2_of(v->img)->usable)
		return -ENOTSUP;
	ret = l1_look(v, off, &l1e, &span);
	if (ret)
		return ret;
	if (l1e & QL1_HOST)
		ret = map_l2(v, l1e, off, len, &found);
	else
		found.len = min_u64(len, span);
	if (!ret)
		*ext = found;
	return ret;
}
