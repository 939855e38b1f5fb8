/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-packed.c - where compressed streams go (qcow2.md 5): one behind the
 * other without gaps, over the edges of adjacent clusters.  Each stream is a
 * reference to every cluster that it touches.
 *
 * Refuses to know what is in them.
 */
#include "qcow2.h"

/* The end of the last stream if another may follow it there, else 0. */
static int last_end(struct image *img, uint64_t *at)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t cluster = q->packed_next / img->unit, count = 0;
	struct mpage *pg;
	int ret;

	*at = 0;
	if (q->packed_next % img->unit == 0)
		return 0;
	ret = qcow2_counts_get(img, cluster, &pg);
	if (ret)
		return ret;
	if (pg) {
		meta_rdlock(pg);
		count = qcow2_count_at(img, pg, cluster);
		meta_unlock(pg);
		meta_put(pg);
	}
	if (count && count < refcount_max(q->refcount_order))
		*at = q->packed_next;
	return 0;
}

/* Where @len bytes go: behind the last stream as far as that cluster and, if
 * it comes next, a new one have room, else into the new one. */
static int place(struct image *img, uint32_t len, uint64_t *host)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t limit = UINT64_C(1) << qcow2_packed_shift(q->cluster_bits);
	struct qcow2_run run;
	uint64_t at, room;
	int ret = last_end(img, &at);

	if (ret)
		return ret;
	room = at ? img->unit - at % img->unit : 0;
	if (len > room) {
		ret = qcow2_take_run(img, 1, limit, &run);
		if (ret)
			return ret;
		if (!at || run.host != at + room)
			at = run.host;
	}
	*host = at;
	return 0;
}

int qcow2_packed_alloc(struct image *img, uint32_t len, uint64_t *host)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t at, used, before, done, undone;
	int ret;
	with_lock(&q->alloc);

	used = q->used_end;
	before = q->free_index;
	ret = place(img, len, &at);
	if (ret)
		return ret;
	ret = qcow2_counts_add(img, at, len, 1, &done);
	if (ret) {
		if (done)
			(void)qcow2_counts_add(img, round_down(at, img->unit),
					       done, -1, &undone);
		q->free_index = min_u64(q->free_index, before);
		return ret;
	}
	/* The file need not reach to the end of the cluster, as it must for
	 * others: whole sectors are enough. */
	q->used_end = max_u64(used, round_up(at + len, SECTOR_SIZE));
	q->packed_next = at + len;
	*host = at;
	return 0;
}

uint64_t qcow2_packed_entry(const struct qcow2 *q, uint64_t host, uint32_t len)
{
	uint64_t sectors = (host + len - 1) / SECTOR_SIZE - host / SECTOR_SIZE;

	return QL2_COMPRESSED | sectors << qcow2_packed_shift(q->cluster_bits) |
	       host;
}
