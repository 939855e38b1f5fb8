/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-width.c - reference counts of another width (qcow2.md 6).
 *
 * All blocks and the table are made anew, in clusters that the old ones count,
 * and written around the cache; then one sector, the header, changes place,
 * length and width together.  What the old ones took is retired.  Counts that
 * are higher in memory than on the disk are right in the new blocks: they are
 * of clusters that nothing durable points to.
 *
 * Under the lock "alloc" all along.
 */
#include "qcow2-amend.h"

#include <inttypes.h>

struct width {
	struct image *img;
	unsigned order;         /* the new one */
	uint64_t per;           /* counts in a new block */
	uint64_t clusters;      /* those that the old table can count */
	struct qcow2_run run;   /* where blocks and table go */
	uint64_t blocks, table; /* clusters */
	struct progress *progress;
};

/* The count of @cluster as it is. */
static int count_of(struct image *img, uint64_t cluster, struct mpage **pg,
		    uint64_t *page, uint64_t *count)
{
	uint64_t per = qcow2_counts_per_page(img);

	if (cluster / per != *page) {
		int ret;

		meta_put(*pg);
		*pg = NULL;
		*page = UINT64_MAX;
		ret = qcow2_counts_get(img, cluster, pg);
		if (ret)
			return ret;
		*page = cluster / per;
	}
	*count = *pg ? qcow2_count_at(img, *pg, cluster) : 0;
	return 0;
}

/*
 * One new block, number @b, into @bytes (NULL: only look); *used: has it counts
 * at all?
 */
static int block_make(struct width *w, uint64_t b, void *bytes, bool *used,
		      struct err *err)
{
	uint64_t page = UINT64_MAX, max = refcount_max(w->order), count;
	uint64_t end = min_u64((b + 1) * w->per, w->clusters);
	struct mpage *pg = NULL;
	int ret = 0;

	*used = false;
	for (uint64_t i = b * w->per; !ret && i < end; i++) {
		ret = count_of(w->img, i, &pg, &page, &count);
		if (!ret && !pg) {      /* none in all of this page */
			i += qcow2_counts_per_page(w->img) -
			     i % qcow2_counts_per_page(w->img) - 1;
			continue;
		}
		if (ret || !count)
			continue;
		*used = true;
		if (count > max)
			ret = err_set(err, -ENOTSUP, "Cannot decrease refcount"
				      " entry width to %u bits: Cluster at"
				      " offset %#" PRIx64 " has a refcount of %"
				      PRIu64, 1u << w->order,
				      i * w->img->unit, count);
		else if (bytes)
			refcount_put(bytes, w->order, i - b * w->per, count);
	}
	meta_put(pg);
	return ret;
}

static uint64_t block_limit(const struct width *w)
{
	return div_up(w->clusters, w->per);
}

/* How many clusters blocks and table take. */
static int plan(struct width *w, struct err *err)
{
	struct qcow2 *q = qcow2_of(w->img);
	uint64_t last = 0;
	int ret = 0;
	bool used;

	w->clusters = (uint64_t)atomic_load(&q->reftable_clusters) *
		      w->img->unit / 8 * qcow2_refs_per_block(q);
	w->blocks = 0;
	for (uint64_t b = 0; !ret && b < block_limit(w); b++) {
		ret = block_make(w, b, NULL, &used, err);
		if (used)
			last = b + 1;
		w->blocks += used;
		if (!ret)
			ret = progress_step(w->progress, 0);
	}
	w->table = div_up(8 * last, w->img->unit);
	return ret;
}

static void run_drop(struct width *w)
{
	uint64_t done;

	/* A failure leaks it. */
	if (w->run.n)
		(void)qcow2_counts_add(w->img, w->run.host,
				       w->run.n * w->img->unit, -1, &done);
	w->run.n = 0;
}

/* Counting the run may take further blocks: until it is large enough. */
static int run_take(struct width *w, struct err *err)
{
	int ret = plan(w, err);

	while (!ret && w->run.n < w->blocks + w->table) {
		uint64_t n = w->blocks + w->table + w->run.n / 8 + 1, done;

		run_drop(w);
		ret = qcow2_take_run(w->img, n, UINT64_MAX, &w->run);
		if (!ret)
			ret = qcow2_counts_add(w->img, w->run.host,
					       n * w->img->unit, 1, &done);
		if (ret)
			w->run.n = 0;
		else
			ret = plan(w, err);
	}
	return ret;
}

/* What is too much goes back before it is copied.  A block that counted nothing
 * else goes with it: then there is more. */
static int run_trim(struct width *w, struct err *err)
{
	int ret = 0;

	while (!ret && w->run.n > w->blocks + w->table) {
		uint64_t need = w->blocks + w->table, done;

		ret = qcow2_counts_add(w->img, w->run.host +
				       need * w->img->unit,
				       (w->run.n - need) * w->img->unit, -1,
				       &done);
		w->run.n = need;
		if (!ret)
			ret = plan(w, err);
	}
	return ret;
}

static int write_at(struct width *w, const void *bytes, uint64_t len,
		    uint64_t host)
{
	meta_forget(w->img, w->img->file, host, len);
	return file_write(w->img->file, bytes, len, host);
}

/* Blocks from the run's start on, the table behind them. */
static int write_all(struct width *w, struct err *err)
{
	uint64_t unit = w->img->unit, at = w->run.host;
	autofree unsigned char *table = calloc(w->table, unit);
	autofree unsigned char *block = malloc(unit);
	int ret = table && block ? 0 : -ENOMEM;
	bool used;

	for (uint64_t b = 0; !ret && b < block_limit(w); b++) {
		memset(block, 0, unit);
		ret = block_make(w, b, block, &used, err);
		if (ret || !used)
			continue;
		ret = write_at(w, block, unit, at);
		be64_put(table + 8 * b, at);
		at += unit;
	}
	return ret ? ret : write_at(w, table, w->table * unit,
				    w->run.host + w->blocks * unit);
}

/* Old blocks and table: inside of the gate. */
static void retire_old(struct width *w, const uint64_t *old, uint64_t n,
		       uint64_t table, uint64_t clusters)
{
	uint64_t unit = w->img->unit;

	for (uint64_t i = 0; i < n; i++)
		if (old[i] & QRT_HOST)
			space_retire(w->img, w->img->file, old[i] & QRT_HOST,
				     unit);
	space_retire(w->img, w->img->file, table, clusters * unit);
}

static void forget_old(struct width *w, const uint64_t *old, uint64_t n,
		       uint64_t table, uint64_t clusters)
{
	uint64_t unit = w->img->unit;

	for (uint64_t i = 0; i < n; i++)
		if (old[i] & QRT_HOST)
			meta_forget(w->img, w->img->file, old[i] & QRT_HOST,
				    unit);
	meta_forget(w->img, w->img->file, table, clusters * unit);
}

static void turn(struct width *w, struct mpage *head, const uint64_t *old,
		 uint64_t n)
{
	struct qcow2 *q = qcow2_of(w->img);
	uint64_t table = q->reftable_offset, clusters = q->reftable_clusters;
	uint64_t host = w->run.host + w->blocks * w->img->unit;
	unsigned char place[12], order[4];

	be64_put(place, host);
	be32_put(place + 8, (uint32_t)w->table);
	be32_put(order, w->order);
	change_begin(w->img);
	qcow2_header_put(w->img, head, QH_REFTABLE_OFFSET, place,
			 sizeof(place));
	qcow2_header_put(w->img, head, QH_REFCOUNT_ORDER, order,
			 sizeof(order));
	atomic_store(&q->reftable_offset, host);
	atomic_store(&q->reftable_clusters, (uint32_t)w->table);
	q->refcount_order = w->order;
	q->free_index = 0;
	q->nr_old_tables = 0;
	retire_old(w, old, n, table, clusters);
	change_end(w->img);
	forget_old(w, old, n, table, clusters);
}

static int entries_read(struct image *img, uint64_t **old, uint64_t *n)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t bytes = (uint64_t)q->reftable_clusters * img->unit;
	int ret;

	*n = bytes / 8;
	*old = malloc(bytes);
	ret = *old ? meta_read(img, img->file, *old, bytes,
			       q->reftable_offset) : -ENOMEM;
	for (uint64_t i = 0; !ret && i < *n; i++)
		(*old)[i] = be64_at((unsigned char *)&(*old)[i]);
	return ret;
}

static int switch_over(struct width *w)
{
	uint64_t *old = NULL, n;
	struct mpage *head;
	int ret = entries_read(w->img, &old, &n);

	if (!ret)
		ret = qcow2_header_pin(w->img, &head);
	if (!ret) {
		turn(w, head, old, n);
		meta_put(head);
	}
	free(old);
	return ret;
}

static int change(struct width *w, struct err *err)
{
	struct qcow2 *q = qcow2_of(w->img);
	int ret;
	with_lock(&q->alloc);

	ret = run_take(w, err);
	if (!ret && w->table * w->img->unit > QCOW2_MAX_REFTABLE_BYTES)
		ret = -EFBIG;
	if (!ret)
		ret = run_trim(w, err);
	if (!ret)
		ret = write_all(w, err);
	if (!ret)
		ret = switch_over(w);
	if (ret)
		run_drop(w);
	return ret;
}

static struct width width_of(struct image *img, unsigned order,
			     struct progress *p)
{
	return (struct width) {
		.img = img, .order = order, .progress = p,
		.per = UINT64_C(8) << qcow2_of(img)->cluster_bits >> order,
	};
}

int qcow2_width_check(struct image *img, unsigned order, struct err *err)
{
	struct width w = width_of(img, order, NULL);
	with_lock(&qcow2_of(img)->alloc);

	return plan(&w, err);
}

int qcow2_change_width(struct image *img, unsigned order, struct progress *p,
		       struct err *err)
{
	struct width w = width_of(img, order, p);
	int ret = image_flush(img);

	if (!ret)
		ret = change(&w, err);
	if (!ret)
		ret = image_flush(img);
	return ret ? err_errno(err, ret,
			       "Could not change the refcount width") : 0;
}
