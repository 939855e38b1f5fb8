/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-alloc.c - reference counts and free clusters (qcow2.md 6): finding a
 * run, raising and lowering counts, and giving space back after a flush
 * (rule 16).
 *
 * Refuses to know who points at a cluster, and where counts are stored beyond
 * "in a page" (qcow2-blocks.c).
 *
 * A count is raised when space is reserved, long before anything points there:
 * a crash leaks it.  It is lowered by release(), when nothing durable points
 * there any more.  Both belong to STAGE_SPACE.
 */
#include "qcow2.h"
#include "qcow2-shadow.h"

#include <inttypes.h>

/* How many counts one search may look at.  An honest image of 16 TiB has a
 * quarter of that; blocks that share their bytes can pretend to any number. */
#define SEARCH_MAX (UINT64_C(1) << 30)

#define SHORT_L1 2048u          /* entries: 1 TiB at 64 KiB clusters */

/* ---- opening ------------------------------------------------------------- */

int qcow2_alloc_init(struct image *img, uint64_t reftable_offset,
		     uint32_t reftable_clusters)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t size, unit = UINT64_C(1) << q->cluster_bits;
	int ret = file_size(img->file, &size);

	if (ret)
		return ret;
	atomic_store(&q->reftable_offset, reftable_offset);
	atomic_store(&q->reftable_clusters, reftable_clusters);
	q->host_limit = img->file->traits.grows ? QCOW2_MAX_HOST : size;
	q->free_index = 0;
	q->packed_next = 0;
	q->nr_old_tables = 0;
	q->used_end = 0;
	atomic_store(&q->file_end, round_up(size, unit));
	return 0;
}

/* The snapshot table's entries have no fixed length. */
int qcow2_alloc_begin(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned char h[QS_FIXED];
	uint64_t at = q->snapshots_offset;

	for (uint32_t i = 0; i < q->nb_snapshots; i++) {
		int ret = file_read(img->file, h, sizeof(h), at);

		if (ret)
			return ret;
		at += round_up(QS_FIXED + (uint64_t)be32_at(h + QS_EXTRA_SIZE) +
			       be16_at(h + QS_ID_LEN) +
			       be16_at(h + QS_NAME_LEN), 8);
	}
	q->snapshots_len = at - q->snapshots_offset;
	return 0;
}

/* ---- finding free clusters ----------------------------------------------- */

void qcow2_used_to(struct image *img, uint64_t end)
{
	struct qcow2 *q = qcow2_of(img);

	if (end > atomic_load(&q->file_end))
		atomic_store_explicit(&q->file_end, round_up(end, img->unit),
				      memory_order_release);
	q->used_end = max_u64(q->used_end, end);
}

/* From cluster @i to where its page of counts ends. */
static uint64_t page_end(const struct image *img, uint64_t i)
{
	uint64_t per = qcow2_counts_per_page(img);

	return (i / per + 1) * per;
}

/* From cluster @i on, until the run of free clusters before it has grown to
 * @want or the page ends: where it stopped. */
static uint64_t page_search(struct image *img, struct mpage *pg, uint64_t i,
			    uint64_t want, uint64_t *run)
{
	const struct qcow2_hold *hold = qcow2_of(img)->hold;
	uint64_t end = page_end(img, i), n = *run;

	meta_rdlock(pg);
	for (; i < end && n < want; i++)
		n = qcow2_count_at(img, pg, i) ||
		    (hold && qcow2_hold_has(hold, i)) ? 0 : n + 1;
	meta_unlock(pg);
	*run = n;
	return i;
}

/* The next free clusters at or behind free_index; moves it behind them, as
 * QEMU does: holes that were too small stay until something is freed. */
static int search(struct image *img, uint64_t want, uint64_t limit,
		  uint64_t *first)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t i = q->free_index, stop = i + SEARCH_MAX, run = 0, n;
	uint64_t end = min_u64(limit, q->host_limit) / img->unit;

	while (run < want) {
		struct mpage *pg;
		int ret = qcow2_counts_get(img, i, &pg);

		if (ret)
			return ret;
		if (pg) {
			i = page_search(img, pg, i, want, &run);
			meta_put(pg);
		} else {
			n = min_u64(want - run, page_end(img, i) - i);
			run += n;
			i += n;
		}
		if (i - run + want > end)
			return q->host_limit < QCOW2_MAX_HOST ? -ENOSPC :
								-EFBIG;
		if (i >= stop) {
			q->free_index = i - run;
			return -EFBIG;
		}
	}
	*first = i - want;
	q->free_index = i;
	return 0;
}

/* Every cluster of the run is counted somewhere afterwards. */
static int blocks_ensure(struct image *img, uint64_t first, uint64_t n)
{
	uint64_t per = qcow2_refs_per_block(qcow2_of(img));
	int ret = 0;

	for (uint64_t b = first / per; !ret && b <= (first + n - 1) / per; b++)
		ret = qcow2_block_ensure(img, b);
	return ret;
}

/* Is one of the entries at @host, @n of them, in [first, first + len)? */
static int names_one_of(struct image *img, uint64_t host, uint64_t n,
			uint64_t first, uint64_t len, bool *found)
{
	uint64_t per = img->page / 8;

	for (uint64_t i = 0; i < n && !*found; i += per) {
		struct mpage *pg;
		int ret = meta_get(img, img->file, host + 8 * i, &pg);

		if (ret)
			return ret;
		meta_rdlock(pg);
		for (uint64_t k = 0; k < min_u64(per, n - i); k++) {
			uint64_t at = be64_at((unsigned char *)meta_bytes(pg) +
					      8 * k) & QL1_HOST;

			*found |= at >= first && at - first < len;
		}
		meta_unlock(pg);
		meta_put(pg);
	}
	return 0;
}

/*
 * A count of 0 for what is in use: the image lies.  Known for sure of tables
 * that are at fixed places; of L2 tables in space that was used before, where
 * L1 is short enough to be looked through each time.
 */
static int check_free(struct image *img, uint64_t host, uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);
	bool used = qcow2_is_meta(q, host, len);
	int ret = 0;

	if (!used && host < atomic_load(&q->file_end) &&
	    q->l1_size <= SHORT_L1)
		ret = names_one_of(img, q->l1_offset, q->l1_size, host, len,
				   &used);
	if (ret || !used)
		return ret;
	image_corrupt(img, "Preventing invalid allocation of clusters at"
		      " offset %#" PRIx64 " (overlaps with metadata)", host);
	return -EIO;
}

int qcow2_take_run(struct image *img, uint64_t want, uint64_t limit,
		   struct qcow2_run *run)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t before = q->free_index, first, len = want * img->unit;
	int ret = search(img, want, limit, &first);

	if (ret)
		return ret;
	ret = check_free(img, first * img->unit, len);
	if (!ret)
		ret = blocks_ensure(img, first, want);
	if (ret) {
		q->free_index = before;
		return ret;
	}
	*run = (struct qcow2_run) {
		.host = first * img->unit,
		.n = want,
		.fresh = first * img->unit >= atomic_load(&q->file_end),
	};
	qcow2_used_to(img, run->host + len);
	return 0;
}

int qcow2_take_cluster(struct image *img, uint64_t *cluster)
{
	uint64_t first;
	int ret = search(img, 1, UINT64_MAX, &first);

	if (!ret)
		ret = check_free(img, first * img->unit, img->unit);
	if (ret)
		return ret;
	qcow2_used_to(img, (first + 1) * img->unit);
	*cluster = first;
	return 0;
}

/* ---- changing counts ----------------------------------------------------- */

/* Would all counts of the clusters fit? */
static int page_check(struct image *img, struct mpage *pg, uint64_t i,
		      uint64_t end, int delta)
{
	uint64_t max = refcount_max(qcow2_of(img)->refcount_order);
	int ret = 0;

	meta_rdlock(pg);
	for (; !ret && i < end; i++) {
		uint64_t count = qcow2_count_at(img, pg, i);

		if (delta > 0 ? count == max : !count)
			ret = -EOVERFLOW;
	}
	meta_unlock(pg);
	return ret;
}

static void page_change(struct image *img, struct mpage *pg, uint64_t i,
			uint64_t end, int delta)
{
	struct qcow2 *q = qcow2_of(img);
	struct mpage *shadow = qcow2_shadow_pin(img, i);

	change_begin(img);
	meta_wrlock(pg);
	for (uint64_t k = i; k < end; k++) {
		uint64_t count = qcow2_count_at(img, pg, k) + (uint64_t)delta;

		qcow2_count_set(img, pg, k, count);
		if (!count)
			q->free_index = min_u64(q->free_index, k);
	}
	meta_dirty(pg, STAGE_SPACE);
	meta_unlock(pg);
	if (shadow)
		qcow2_shadow_follow(img, shadow, pg, i, end, delta);
	change_end(img);
	meta_put(shadow);
}

static int page_add(struct image *img, uint64_t i, uint64_t end, int delta)
{
	struct mpage *pg;
	int ret = qcow2_counts_get(img, i, &pg);

	if (ret)
		return ret;
	if (!pg)
		return delta > 0 ? -EIO : -EOVERFLOW;
	ret = page_check(img, pg, i, end, delta);
	if (!ret)
		page_change(img, pg, i, end, delta);
	meta_put(pg);
	return ret;
}

/* Page by page; @done: how many bytes from the first cluster on were counted,
 * also on failure. */
int qcow2_counts_add(struct image *img, uint64_t host, uint64_t len, int delta,
		     uint64_t *done)
{
	uint64_t first = host / img->unit, i = first, n;
	uint64_t end = div_up(host + len, img->unit);
	int ret = 0;

	for (; !ret && i < end; i += n) {
		n = min_u64(end, page_end(img, i)) - i;
		ret = page_add(img, i, i + n, delta);
		if (ret)
			break;
	}
	*done = (i - first) * img->unit;
	return ret;
}

int qcow2_refcount_add(struct image *img, uint64_t host, uint64_t len,
		       int delta)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t done, undone;
	int ret;
	with_lock(&q->alloc);

	ret = qcow2_counts_add(img, host, len, delta, &done);
	if (ret && done)
		(void)qcow2_counts_add(img, round_down(host, img->unit), done,
				       -delta, &undone);
	return ret;
}

static int count_locked(struct image *img, uint64_t cluster, uint64_t *count)
{
	struct mpage *pg;
	int ret = qcow2_counts_get(img, cluster, &pg);

	if (ret)
		return ret;
	*count = 0;
	if (pg) {
		meta_rdlock(pg);
		*count = qcow2_count_at(img, pg, cluster);
		meta_unlock(pg);
		meta_put(pg);
	}
	return 0;
}

int qcow2_refcount(struct image *img, uint64_t host, uint64_t *count)
{
	with_lock(&qcow2_of(img)->alloc);

	return count_locked(img, host / img->unit, count);
}

/* ---- allocating ---------------------------------------------------------- */

/* As qcow2_take_run(); on a device that is nearly full also in holes that were
 * passed over. */
static int take_some(struct image *img, uint64_t *want, struct qcow2_run *run)
{
	int ret = qcow2_take_run(img, *want, UINT64_MAX, run);

	if (ret != -ENOSPC)
		return ret;
	*want = 1;
	qcow2_of(img)->free_index = 0;
	return qcow2_take_run(img, *want, UINT64_MAX, run);
}

int qcow2_alloc(struct image *img, uint64_t want, struct qcow2_run *run)
{
	with_lock(&qcow2_of(img)->alloc);

	return qcow2_alloc_locked(img, want, run);
}

int qcow2_alloc_locked(struct image *img, uint64_t want,
		       struct qcow2_run *run)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_run found;
	uint64_t done;
	int ret;

	ret = take_some(img, &want, &found);
	if (ret)
		return ret;
	ret = qcow2_counts_add(img, found.host, want * img->unit, 1, &done);
	if (ret)        /* what follows is free still */
		q->free_index = min_u64(q->free_index,
					(found.host + done) / img->unit);
	if (ret && !done)
		return ret;
	found.n = done / img->unit;
	*run = found;
	return 0;
}

void qcow2_unalloc(struct image *img, uint64_t host, uint64_t n)
{
	/* A failure leaks them. */
	(void)qcow2_refcount_add(img, host, n * img->unit, -1);
}

/* ---- rule 16 ------------------------------------------------------------- */

/* Nothing may be added to a cluster of streams that is about to be free. */
static void packed_leave(struct image *img, uint64_t host, uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);

	if (q->packed_next > host && q->packed_next < host + len + img->unit)
		q->packed_next = 0;
}

int qcow2_release_probe(struct image *img, struct file *f, uint64_t host,
			uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t first = host / img->unit, end = div_up(host + len, img->unit);
	with_lock(&q->alloc);

	(void)f;        /* an image has one file */
	for (uint64_t i = first; i < end; i++) {
		uint64_t count;
		int ret = count_locked(img, i, &count);

		if (ret)
			return ret;
		if (!count)
			return -EIO;
		if (count > 1)
			return 0;
	}
	packed_leave(img, first * img->unit, (end - first) * img->unit);
	return 1;
}

/* Is that a refcount table that has become too small?  QEMU frees it while it
 * looks for a run and passes over it: the next clusters do not go there. */
static bool was_table(struct qcow2 *q, uint64_t host)
{
	for (unsigned i = 0; i < q->nr_old_tables; i++)
		if (q->old_table[i] == host) {
			q->old_table[i] = q->old_table[--q->nr_old_tables];
			return true;
		}
	return false;
}

int qcow2_release(struct image *img, struct file *f, uint64_t host,
		  uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t before, done;
	int ret;
	with_lock(&q->alloc);

	(void)f;
	before = q->free_index;
	ret = qcow2_counts_add(img, host, len, -1, &done);
	if (was_table(q, host))
		q->free_index = before;
	return ret;
}
