/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-empty.c - an image becomes what create made of it: a header, an empty
 * L1, and counts of no more than that.
 *
 * First L1 lets go of everything, then the refcount table of all blocks but the
 * first, then that block counts what is left, each durable before the next one
 * begins.  A power failure in between leaks clusters, and nothing is worse if
 * only a part of one step arrived: an entry of L1 or of the refcount table is
 * there or gone, a count is too high or right.
 */
#include "qcow2.h"

/* A piece of metadata that stays. */
struct kept {
	uint64_t host, len;
};

struct emptied {
	struct image *img;
	struct qcow2 *q;
	struct kept kept[4];    /* header, L1, refcount table, its block */
	uint64_t end;           /* of the last one */
};

static int write_zeroes(struct image *img, uint64_t host, uint64_t len)
{
	static const char zeroes[64 * KiB];
	int ret = 0;

	for (uint64_t n; len && !ret; host += n, len -= n) {
		n = min_u64(len, sizeof(zeroes));
		ret = repair_write(img, img->file, zeroes, n, host);
	}
	return ret;
}

/* May the image be taken apart by this simple plan? */
static bool is_plain(const struct qcow2 *q)
{
	return !q->nb_snapshots && !q->has_bitmaps && !q->has_luks &&
	       !q->crypt_method && !(q->incompat & QINCOMPAT_DATA_FILE);
}

/* What stays, if the first block counts all of it; else -EAGAIN. */
static int what_stays(struct emptied *e)
{
	struct qcow2 *q = e->q;
	uint64_t unit = e->img->unit, block;
	uint64_t table = atomic_load(&q->reftable_offset);
	int ret = qcow2_entry(e->img, table, &block);

	if (ret)
		return ret;
	e->kept[0] = (struct kept) { 0, unit };
	e->kept[1] = (struct kept) { q->l1_offset, 8ul * q->l1_size };
	e->kept[2] = (struct kept) { table, unit *
				     atomic_load(&q->reftable_clusters) };
	e->kept[3] = (struct kept) { block & QRT_HOST, unit };
	for (unsigned i = 0; i < ARRAY_SIZE(e->kept); i++)
		e->end = max_u64(e->end, round_up(e->kept[i].host +
						  e->kept[i].len, unit));
	if (!(block & QRT_HOST) || e->end / unit > qcow2_refs_per_block(q))
		return -EAGAIN;
	return 0;
}

static void count_kept(const struct emptied *e, unsigned char *counts)
{
	uint64_t unit = e->img->unit;

	for (unsigned i = 0; i < ARRAY_SIZE(e->kept); i++) {
		const struct kept *k = &e->kept[i];

		for (uint64_t c = k->host / unit;
		     c < div_up(k->host + k->len, unit); c++)
			refcount_put(counts, e->q->refcount_order, c, 1);
	}
}

static int rewrite_counts(struct emptied *e)
{
	autofree unsigned char *counts = calloc(1, e->img->unit);

	if (!counts)
		return -ENOMEM;
	count_kept(e, counts);
	return repair_write(e->img, e->img->file, counts, e->img->unit,
			    e->kept[3].host);
}

static int let_go(struct emptied *e)
{
	struct image *img = e->img;
	int ret = write_zeroes(img, e->kept[1].host, e->kept[1].len);

	if (!ret)
		ret = repair_barrier(img);
	pause_point("empty-l1");
	if (!ret)
		ret = write_zeroes(img, e->kept[2].host + 8,
				   e->kept[2].len - 8);
	if (!ret)
		ret = repair_barrier(img);
	if (!ret)
		ret = rewrite_counts(e);
	if (!ret)
		ret = repair_barrier(img);
	pause_point("empty-counts");
	return ret;
}

int qcow2_empty(struct image *img)
{
	struct emptied e = { .img = img, .q = qcow2_of(img) };
	struct qcow2 *q = e.q;
	int ret = is_plain(q) ? what_stays(&e) : -EAGAIN;

	if (!ret)
		ret = let_go(&e);
	if (!ret && img->file->traits.grows)
		ret = file_truncate(img->file, e.end);
	if (ret)
		return ret;
	return qcow2_alloc_init(img, atomic_load(&q->reftable_offset),
				atomic_load(&q->reftable_clusters));
}
