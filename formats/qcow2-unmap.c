/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-unmap.c - zeroes, holes and space given back, as QEMU leaves them
 * (qcow2.md 4 and 12): of whole clusters and, of zeroes, of subclusters.
 */
#include "qcow2-entries.h"
#include "qcow2-shadow.h"

static bool has_backing(const struct image *img)
{
	return img->backing || img->backing_name || img->keep_zeroes;
}

/* What becomes of an entry, as QEMU leaves it (qcow2.md 4 and 12). */
static struct qcow2_l2 unmapped(struct image *img, struct qcow2_l2 l2,
				enum unmap_how how)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t zero = qcow2_has_subs(q) ? 0 : QL2_ZERO;

	if (how == UNMAP_HOLE || q->version < 3)
		return (struct qcow2_l2) { 0, 0 };
	if (how == UNMAP_ZERO_KEEP && q->data && !(l2.e & QL2_HOST))
		return (struct qcow2_l2) { zero, QSUBS_ZERO };
	if (how == UNMAP_ZERO_KEEP)
		return (struct qcow2_l2) {
			l2.e & QL2_COMPRESSED ? zero : l2.e | zero, QSUBS_ZERO,
		};
	if (l2.e || l2.subs || has_backing(img))
		return (struct qcow2_l2) { zero, QSUBS_ZERO };
	return (struct qcow2_l2) { 0, 0 };
}

/* Is all of @ext as it would be afterwards? */
static bool unmap_is_noop(struct image *img, const struct extent *ext,
			  enum unmap_how how)
{
	if (ext->flags & EXT_PREALLOC && how != UNMAP_ZERO_KEEP)
		return false;
	if (ext->kind == EXT_HOLE)
		return !unmapped(img, (struct qcow2_l2) { 0, 0 }, how).subs;
	return ext->kind == EXT_ZERO && how != UNMAP_HOLE;
}

static void entries_unmap(struct image *img, struct entries *en,
			  enum unmap_how how)
{
	const struct qcow2 *q = qcow2_of(img);

	change_begin(img);
	meta_wrlock(en->pg);
	for (uint64_t i = 0; i < en->n; i++) {
		struct qcow2_l2 l2 = unmapped(img, en->old[i], how);

		qcow2_l2_put(q, entry_at(img, en, i), l2);
		if (l2.e & QL2_HOST || q->data) /* keeps its space */
			en->old[i].e = 0;
	}
	meta_dirty(en->pg, STAGE_LINK);
	meta_unlock(en->pg);
	qcow2_watch_touch(img, en->off);
	entries_retire(img, en->old, en->n);
	change_end(img);
}

/* How many bytes at @off need no change; whole clusters (or @len, which is less
 * than one), as far as the disk has them. */
static int unmap_nothing(struct image *img, uint64_t off, uint64_t len,
			 enum unmap_how how, uint64_t *n)
{
	uint64_t left = image_size(img) - off;
	struct extent ext;
	int ret = qcow2_map(&img->live, off, min_u64(len, left), &ext);

	*n = 0;
	if (!ret && unmap_is_noop(img, &ext, how))
		*n = ext.len == min_u64(len, left) ? ext.len :
		     round_down(ext.len, img->unit);
	return ret;
}

/* Less than a cluster that the disk has. */
static bool is_part(struct image *img, uint64_t off, uint64_t len)
{
	return off % img->unit ||
	       (len < img->unit && off + len != image_size(img));
}

/* Under the claim: afterwards the same place may be used again. */
static void data_discard(struct image *img, uint64_t off, uint64_t len,
			 enum unmap_how how)
{
	struct file *data = qcow2_of(img)->data;

	if (data && img->flags & IMAGE_DISCARD &&
	    (how == UNMAP_ZERO || how == UNMAP_FREE))
		(void)file_discard(data, off, len);
}

/* A raw data file has its zeroes as bytes, and nothing is below it. */
static int unmap_raw(struct image *img, uint64_t off, uint64_t len,
		     enum unmap_how how, uint64_t *done)
{
	if (how == UNMAP_ZERO || how == UNMAP_ZERO_KEEP || has_backing(img))
		return -ENOTSUP;        /* the engine clears them */
	*done = len;
	return qcow2_data_zero(img, off, len);
}

/*
 * Zeroes in some subclusters of one cluster.  It keeps its place, even when
 * nothing in it is data any more: as with QEMU.
 */
static int unmap_part(struct image *img, uint64_t off, uint64_t len,
		      enum unmap_how how, uint64_t *done)
{
	uint64_t in = off % img->unit;
	uint64_t subs = qcow2_subs(in / img->piece,
				   div_up(in + len, img->piece));
	struct entries en;
	int ret = entries_get(img, off - in, img->unit, &en);

	if (ret)
		return ret;
	if (en.old[0].e & QL2_COMPRESSED) {
		meta_put(en.pg);
		return -ENOTSUP;
	}
	data_discard(img, off, len, how);
	change_begin(img);
	meta_wrlock(en.pg);
	en.old[0].subs = (en.old[0].subs & ~subs) | subs << QSUBS;
	qcow2_l2_put(qcow2_of(img), entry_at(img, &en, 0), en.old[0]);
	meta_dirty(en.pg, STAGE_LINK);
	meta_unlock(en.pg);
	qcow2_watch_touch(img, off);
	change_end(img);
	meta_put(en.pg);
	*done = len;
	return 0;
}

int qcow2_unmap(struct image *img, uint64_t off, uint64_t len,
		enum unmap_how how, uint64_t *done)
{
	const struct qcow2 *q = qcow2_of(img);
	struct entries en;
	uint64_t n;
	int ret;

	if (q->raw)
		return unmap_raw(img, off, len, how, done);
	/* Without a zero flag only holes read as zeroes, if nothing is below:
	 * QEMU then frees what it was told to keep as well. */
	if (qcow2_of(img)->version < 3 && how != UNMAP_HOLE &&
	    has_backing(img))
		return -ENOTSUP;
	ret = unmap_nothing(img, off, len, how, &n);
	if (!ret && n) {
		*done = n;
		return 0;
	}
	if (!ret && is_part(img, off, len))
		return unmap_part(img, off, len, how, done);
	if (!ret)
		ret = entries_get(img, off, len, &en);
	if (ret)
		return ret;
	data_discard(img, off, en.n * img->unit, how);
	entries_unmap(img, &en, how);
	meta_put(en.pg);
	*done = en.n * img->unit;
	return 0;
}
