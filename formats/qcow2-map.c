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
	else if (host && !qcow2_inside(img, host))
		image_corrupt(img, "L2 table offset %#" PRIx64 " is beyond the"
			      " end of the file (L1 index: %#" PRIx64 ")",
			      host, index);
	else
		return 0;
	return -EIO;
}

static const char *data_file_check(struct image *img, uint64_t e,
				   uint64_t off)
{
	if (e & QL2_COMPRESSED)
		return "is of a compressed cluster in an external data file";
	if (qcow2_l2_has_host(qcow2_of(img), e) &&
	    (e & QL2_HOST) != round_down(off, img->unit))
		return "does not match guest cluster offset";
	return NULL;
}

int qcow2_l2_check(struct image *img, uint64_t table, uint64_t off,
		   struct qcow2_l2 l2)
{
	struct qcow2 *q = qcow2_of(img);
	bool packed = l2.e & QL2_COMPRESSED;
	uint64_t host = packed ? qcow2_packed_host(q, l2.e) : l2.e & QL2_HOST;
	uint64_t index = off / img->unit % (img->unit / q->l2_entry);
	const char *what = NULL;

	if (!packed && q->version < 3 && l2.e & QL2_ZERO) {
		image_corrupt(img, "Zero cluster entry found in pre-v3 image"
			      " (L2 offset: %#" PRIx64 ", L2 index: %#" PRIx64
			      ")", table, index);
		return -EIO;
	}
	if (qcow2_has_subs(q) && !packed &&
	    (l2.subs & l2.subs >> 32 & QSUBS_DATA ||
	     (!qcow2_l2_has_host(q, l2.e) && l2.subs & QSUBS_DATA))) {
		image_corrupt(img, "Invalid cluster entry found  (L2 offset: %#"
			      PRIx64 ", L2 index: %#" PRIx64 ")",
			      table, index);
		return -EIO;
	}
	if (!packed && host % img->unit)
		what = "unaligned";
	else if (q->incompat & QINCOMPAT_DATA_FILE)
		what = data_file_check(img, l2.e, off);
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
 * from @off on (at most the page's coverage) have none.  Who asks for more @len
 * will want the next pages of L1.
 */
static int l1_look(const struct view *v, uint64_t off, uint64_t len,
		   uint64_t *entry, uint64_t *span)
{
	struct image *img = v->img;
	struct qcow2 *q = qcow2_of(img);
	const struct qcow2_root *root = v->root;
	struct qcow2_root l1 = root ? *root : qcow2_l1(q);
	uint64_t cover = qcow2_l2_cover(q), i = off / cover, nr = l1.l1_size;
	uint64_t first = i % (img->page / 8);
	uint64_t max = min_u64(img->page / 8 - first, i < nr ? nr - i : 0);
	struct mpage *pg;
	int ret;

	*entry = 0;
	*span = v->size - off;
	if (!max)       /* a snapshot may be shorter than the disk is now */
		return 0;
	ret = meta_get_run(img, img->file,
			   round_down(l1.l1_offset + i * 8, img->page),
			   l1.l1_offset + min_u64(nr, i + len / cover + 1) * 8,
			   &pg);
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

/* What a subcluster is: data, zeroes, neither. */
static enum extent_kind sub_kind(uint64_t subs, unsigned i)
{
	return subs >> i & 1 ? EXT_DATA :
	       subs >> (QSUBS + i) & 1 ? EXT_ZERO : EXT_HOLE;
}

/* Is every subcluster as the first one is? */
static bool is_whole(uint64_t subs)
{
	return !subs || subs == QSUBS_DATA || subs == QSUBS_ZERO;
}

/* How many bytes of the cluster, from its byte @in on, are of one kind. */
static uint64_t subs_alike(struct image *img, uint64_t subs, uint64_t in)
{
	uint64_t size = img->unit / QSUBS;
	unsigned first = (unsigned)(in / size), i = first + 1;

	if (is_whole(subs))
		return img->unit - in;
	while (i < QSUBS && sub_kind(subs, i) == sub_kind(subs, first))
		i++;
	return i * size - in;
}

/*
 * @in: offset in the cluster.  Subclusters that are data are changed in place
 * even while others of their cluster become data under a claim: that never
 * moves a cluster of its own, and fills nothing but what was no data.
 */
static void decode(struct image *img, struct qcow2_l2 l2, uint64_t in,
		   bool shared, struct extent *ext)
{
	const struct qcow2 *q = qcow2_of(img);

	if (l2.e & QL2_COMPRESSED) {
		decode_packed(img, l2.e, in, ext);
		return;
	}
	ext->kind = sub_kind(l2.subs, (unsigned)(in / (img->unit / QSUBS)));
	ext->flags = 0;
	ext->host = 0;
	if (!qcow2_l2_has_host(q, l2.e))
		return;
	ext->host = (l2.e & QL2_HOST) + in;
	ext->flags = ext->kind == EXT_DATA ? 0 : EXT_PREALLOC;
	if (q->data)
		ext->flags |= EXT_OPAQUE;
	if (shared || !(l2.e & QCOPIED) || ext->kind != EXT_DATA)
		ext->flags |= EXT_SHARED;
}

/* Never overwritten in place: reserve() then says what is wrong with it. */
static void guard_meta(struct image *img, struct extent *ext)
{
	if (ext->kind == EXT_DATA && img->writable &&
	    ext->file == img->file &&
	    qcow2_is_meta(qcow2_of(img), ext->host, ext->len))
		ext->flags |= EXT_SHARED;
}

/*
 * How many of the @max entries from @p on are as the first, @l2, is: of the same
 * kind, their clusters one behind the other.  Of large tables this loop is what
 * a walk takes its time for.
 */
static uint64_t alike(struct image *img, const unsigned char *p,
		      struct qcow2_l2 l2, uint64_t max)
{
	const struct qcow2 *q = qcow2_of(img);
	const uint64_t mask = QL2_COMPRESSED | QL2_ZERO | QCOPIED | QL2_HOST;
	const uint64_t step = qcow2_l2_has_host(q, l2.e) ? img->unit : 0;
	const size_t size = q->l2_entry;
	const bool subs = qcow2_has_subs(q);
	uint64_t want = l2.e & (step ? mask : mask & ~QL2_HOST), n = 1;

	for (; n < max; n++) {
		p += size;
		want += step;
		if ((be64_at(p) & mask) != want ||
		    (subs && be64_at(p + 8) != l2.subs))
			break;
	}
	return n;
}

/* Reads the entry at @slot (a host offset) and counts its likes behind it.  Who
 * asks for more than a page says will want the next ones of its table. */
static int l2_run(struct image *img, uint64_t slot, uint64_t max,
		  struct qcow2_l2 *l2, uint64_t *run)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t n = 1;
	const unsigned char *p;
	uint64_t left = (img->unit - slot % img->unit) / q->l2_entry;
	struct mpage *pg;
	int ret = meta_get_run(img, img->file, round_down(slot, img->page),
			       slot + min_u64(max, left) * q->l2_entry, &pg);

	if (ret)
		return ret;
	max = min_u64(max, (img->page - slot % img->page) / q->l2_entry);
	meta_rdlock(pg);
	p = (unsigned char *)meta_bytes(pg) + slot % img->page;
	*l2 = qcow2_l2_at(q, p);
	if (!(l2->e & QL2_COMPRESSED) && is_whole(l2->subs))
		n = alike(img, p, *l2, max);
	meta_unlock(pg);
	meta_put(pg);
	*run = n;
	return 0;
}

static int map_l2(const struct view *v, uint64_t l1e, uint64_t off,
		  uint64_t len, struct extent *ext)
{
	struct image *img = v->img;
	struct qcow2 *q = qcow2_of(img);
	uint64_t in = off % img->unit, table = l1e & QL1_HOST, n;
	uint64_t i = off / img->unit % (img->unit / q->l2_entry);
	struct qcow2_l2 l2;
	int ret = l2_run(img, table + q->l2_entry * i,
			 div_up(in + len, img->unit), &l2, &n);

	if (!ret)
		ret = qcow2_l2_check(img, table, off, l2);
	if (ret)
		return ret;
	/* The entries that continue it only differ in the offset. */
	if (n > 1 && l2.e & QL2_HOST && !q->data &&
	    !qcow2_inside(img, (l2.e & QL2_HOST) + (n - 1) * img->unit))
		n = 1;
	decode(img, l2, in, v->root || !(l1e & QCOPIED), ext);
	ext->len = min_u64(len, n > 1 ? n * img->unit - in :
			   l2.e & QL2_COMPRESSED ? img->unit - in :
			   subs_alike(img, l2.subs, in));
	if (q->raw && qcow2_raw_turning(q, off, ext->len))
		ext->flags |= EXT_SHARED;
	guard_meta(img, ext);
	return 0;
}

int qcow2_map(const struct view *v, uint64_t off, uint64_t len,
	      struct extent *ext)
{
	struct extent found = {
		.kind = EXT_HOLE, .off = off,
		.file = qcow2_data_of(v->img),
	};
	uint64_t l1e, span;
	int ret;

	if (!qcow2_of(v->img)->usable)
		return -ENOTSUP;
	ret = l1_look(v, off, len, &l1e, &span);
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
