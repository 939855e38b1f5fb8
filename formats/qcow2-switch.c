/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-switch.c - from one set of roots to another at one instant (rule 15).
 *
 * Creating, deleting and applying a snapshot change counts, COPIED bits, L1 and
 * the snapshot table together.  Everything that becomes different is made at
 * new places, beside writers, in steps: copies of refcount blocks
 * (qcow2-shadow.c) and of L2 tables (qcow2-step.c), a new L1, a new refcount
 * table.  What the guest changes meanwhile is looked at again, until little is
 * left; then the image is frozen, the rest follows, and the header's first
 * sector, which names all roots, is changed in memory.  The next flush writes
 * it last (STAGE_ROOT): the file holds the old state or the new one, whenever
 * the power fails.
 *
 * What only the old roots used is free in memory from the turn on, but held
 * back until that flush has ended and nobody can be reading there.
 *
 * Refuses to know what a snapshot is.
 */
#include "qcow2-switch.h"
#include "job.h"

#include <inttypes.h>

/* ---- space --------------------------------------------------------------- */

static int mine_add(struct qcow2_switch *sw, const struct qcow2_run *run)
{
	size_t room = sw->room_mine ? 2 * sw->room_mine : 64;
	struct qcow2_run *grown;

	if (sw->nr_mine == sw->room_mine) {
		grown = realloc(sw->mine, room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		sw->mine = grown;
		sw->room_mine = room;
	}
	sw->mine[sw->nr_mine++] = *run;
	return 0;
}

/* With "alloc" held. */
static int place_locked(struct qcow2_switch *sw, uint64_t bytes, uint64_t *host)
{
	uint64_t n = div_up(bytes + !bytes, sw->img->unit);
	struct qcow2_run run;
	int ret = qcow2_alloc_locked(sw->img, n, &run);

	if (!ret)
		ret = mine_add(sw, &run);
	if (!ret && run.n < n)
		ret = -ENOSPC;
	if (!ret)
		*host = run.host;
	return ret;
}

int qcow2_switch_place(struct qcow2_switch *sw, uint64_t bytes, uint64_t *host)
{
	with_lock(&qcow2_of(sw->img)->alloc);

	return place_locked(sw, bytes, host);
}

int qcow2_switch_write(struct qcow2_switch *sw, const void *bytes,
		       uint64_t len, uint64_t host)
{
	struct image *img = sw->img;

	/* Stale pages of an earlier life would be taken for what is written
	 * now. */
	meta_forget(img, img->file, host, len);
	return len ? file_write(img->file, bytes, len, host) : 0;
}

int qcow2_switch_put(struct qcow2_switch *sw, const void *bytes, uint64_t len,
		     uint64_t *host)
{
	int ret = qcow2_switch_place(sw, len, host);

	return ret ? ret : qcow2_switch_write(sw, bytes, len, *host);
}

int qcow2_switch_count(struct qcow2_switch *sw, uint64_t host, uint64_t len,
		       int delta)
{
	with_lock(&qcow2_of(sw->img)->alloc);

	return qcow2_shadow_add(sw->img, host, len, delta);
}

int qcow2_switch_tick(struct qcow2_switch *sw, uint64_t n)
{
	struct progress *p = sw->p;

	if (!p)
		return 0;
	atomic_fetch_add(&p->done, n);
	if (p->tick)
		p->tick(p);
	return atomic_load(&p->cancel) && !sw->late ? -ECANCELED : 0;
}

/* ---- the turn ------------------------------------------------------------ */

static int write_l1(struct qcow2_switch *sw)
{
	int ret = qcow2_switch_write(sw, sw->l1_bytes, sw->l1_size * 8,
				     sw->l1);

	if (!ret && sw->twin)
		ret = qcow2_switch_write(sw, sw->l1_bytes, sw->l1_size * 8,
					 sw->twin);
	return ret;
}

/* With "alloc" held: sees to it that there are copies of the blocks that count
 * the refcount table at @at, and a place for the new one. */
static int prepare_reftable(struct qcow2_switch *sw, uint64_t at,
			    uint64_t clusters)
{
	struct image *img = sw->img;
	int ret = 0;

	if (sw->reftable_clusters != clusters)
		ret = place_locked(sw, clusters * img->unit, &sw->reftable);
	if (ret)
		return ret;
	sw->reftable_clusters = clusters;
	ret = qcow2_shadow_add(img, at, clusters * img->unit, 1);
	if (!ret)
		ret = qcow2_shadow_add(img, at, clusters * img->unit, -1);
	return ret ? ret : qcow2_shadow_settle(img);
}

/* With "alloc" held.  Allocating may make a larger refcount table: once more
 * then. */
static int place_reftable(struct qcow2_switch *sw)
{
	struct image *img = sw->img;
	struct qcow2 *q = qcow2_of(img);
	uint64_t clusters, at;
	int ret;

	do {
		clusters = q->reftable_clusters;
		at = q->reftable_offset;
		ret = prepare_reftable(sw, at, clusters);
	} while (!ret && at != q->reftable_offset);
	return ret ? ret : qcow2_shadow_add(img, at, clusters * img->unit, -1);
}

/* With "alloc" held: the table as it is, with the copies in it. */
static int write_reftable(struct qcow2_switch *sw)
{
	struct image *img = sw->img;
	struct qcow2 *q = qcow2_of(img);
	const struct qcow2_shadow *s = q->shadow;
	uint64_t len = sw->reftable_clusters * img->unit;
	autofree unsigned char *bytes = malloc(len);
	int ret = bytes ? meta_read(img, img->file, bytes, len,
				    q->reftable_offset) : -ENOMEM;

	if (ret)
		return ret;
	for (uint64_t b = 0; b < s->nr && b < len / 8; b++)
		if (s->copy[b])
			be64_put(bytes + 8 * b, s->copy[b]);
	return qcow2_switch_write(sw, bytes, len, sw->reftable);
}

/* The old roots are dropped. */
static int drop_roots(struct qcow2_switch *sw)
{
	struct image *img = sw->img;
	struct qcow2 *q = qcow2_of(img);
	int ret = 0;
	with_lock(&q->alloc);

	if (q->l1_size)
		ret = qcow2_shadow_add(img, q->l1_offset,
				       (uint64_t)q->l1_size * 8, -1);
	if (!ret && q->nb_snapshots)
		ret = qcow2_shadow_add(img, q->snapshots_offset,
				       q->snapshots_len, -1);
	if (!ret)
		ret = qcow2_shadow_settle(img);
	return ret ? ret : place_reftable(sw);
}

static void put_header(const struct qcow2_switch *sw, unsigned char *p)
{
	be64_put(p + QH_SIZE, sw->size);
	be32_put(p + QH_L1_SIZE, (uint32_t)sw->l1_size);
	be64_put(p + QH_L1_OFFSET, sw->l1);
	be64_put(p + QH_REFTABLE_OFFSET, sw->reftable);
	be32_put(p + QH_REFTABLE_CLUSTERS, (uint32_t)sw->reftable_clusters);
	be32_put(p + QH_NB_SNAPSHOTS, (uint32_t)sw->nb_snapshots);
	be64_put(p + QH_SNAPSHOTS_OFFSET, sw->snapshots);
}

/* Inside the gate. */
static void put_memory(const struct qcow2_switch *sw)
{
	struct qcow2 *q = qcow2_of(sw->img);

	qcow2_l1_set(q, sw->l1, (uint32_t)sw->l1_size);
	atomic_store(&q->reftable_offset, sw->reftable);
	atomic_store(&q->reftable_clusters, (uint32_t)sw->reftable_clusters);
	atomic_store(&q->nb_snapshots, (uint32_t)sw->nb_snapshots);
	atomic_store(&q->snapshots_offset, sw->snapshots);
	atomic_store(&q->snapshots_len, sw->snapshots_len);
	atomic_store(&sw->img->size, sw->size);
}

/* With "alloc" held. */
static void turn(struct qcow2_switch *sw, struct mpage *head)
{
	struct image *img = sw->img;

	change_begin(img);
	meta_wrlock(head);
	put_header(sw, meta_bytes(head));
	meta_dirty(head, STAGE_ROOT);
	qcow2_of(img)->head_is_root = true;
	meta_unlock(head);
	put_memory(sw);
	/* Its cluster may be free now, and somebody else's soon. */
	qcow2_of(img)->packed_next = 0;
	change_end(img);
	qcow2_shadow_drop(img, false);
	sw->turned = true;
}

/* A header that waits for a flush belongs to an earlier stage. */
static int turn_clean(struct qcow2_switch *sw, struct mpage *head, bool *dirty)
{
	struct qcow2 *q = qcow2_of(sw->img);
	int ret;
	with_lock(&q->alloc);

	*dirty = meta_is_dirty(head);
	if (*dirty)
		return 0;
	ret = write_reftable(sw);
	if (!ret)
		ret = q->shadow->error;
	if (!ret)
		turn(sw, head);
	return ret;
}

int qcow2_switch_turn(struct qcow2_switch *sw)
{
	struct image *img = sw->img;
	struct mpage *head;
	bool dirty = false;
	int ret = write_l1(sw);

	if (!ret)
		ret = drop_roots(sw);
	if (!ret)
		ret = meta_get(img, img->file, 0, &head);
	if (ret)
		return ret;
	do {
		if (dirty)
			ret = image_flush(img);
		if (!ret)
			ret = turn_clean(sw, head, &dirty);
	} while (!ret && dirty);
	meta_put(head);
	return ret;
}

/* ---- begin --------------------------------------------------------------- */

static int watch_init(struct qcow2_watch *w, struct image *img, uint64_t tables)
{
	w->tables = tables;
	w->pages = img->unit / img->page;
	/* At most 2^22 * 2^9 bits. */
	w->bits = calloc(tables * w->pages / 64 + 2, sizeof(*w->bits));
	return w->bits ? 0 : -ENOMEM;
}

static int switch_init(struct qcow2_switch *sw, struct image *img,
		       struct progress *p)
{
	struct qcow2 *q = qcow2_of(img);

	*sw = (struct qcow2_switch) {
		.img = img, .p = p, .nr = q->l1_size,
		.old_l1 = qcow2_l1(q),
		.l1_size = q->l1_size, .size = image_size(img),
		.nb_snapshots = q->nb_snapshots,
		.snapshots = q->snapshots_offset,
		.snapshots_len = q->snapshots_len,
	};
	sw->step = calloc(sw->nr + 1, sizeof(*sw->step));
	sw->l1_bytes = calloc(sw->nr + 1, 8);
	sw->live = malloc(img->unit);
	sw->old = malloc(img->unit);
	if (!sw->step || !sw->l1_bytes || !sw->live || !sw->old)
		return -ENOMEM;
	return watch_init(&sw->watch, img, sw->nr);
}

int qcow2_switch_begin(struct qcow2_switch *sw, struct image *img,
		       struct progress *p)
{
	struct qcow2 *q = qcow2_of(img);
	int ret = switch_init(sw, img, p);
	with_lock(&q->alloc);

	if (ret)
		return ret;
	q->shadow = calloc(1, sizeof(*q->shadow));
	if (!q->hold)   /* else of a turn whose flush failed: held on */
		q->hold = qcow2_hold_new();
	if (!q->shadow || !q->hold)
		return -ENOMEM;
	atomic_store(&q->watch, &sw->watch);
	return 0;
}

/* ---- the end --------------------------------------------------------------- */

/* How many clusters from @first on, of a page of counts at most, are free. */
static uint64_t free_run(struct image *img, uint64_t first, uint64_t n)
{
	uint64_t per = qcow2_counts_per_page(img), k = 0;
	struct mpage *pg;
	with_lock(&qcow2_of(img)->alloc);

	n = min_u64(n, per - first % per);
	if (qcow2_counts_get(img, first, &pg) || !pg)
		return 0;
	meta_rdlock(pg);
	while (k < n && !qcow2_count_at(img, pg, first + k))
		k++;
	meta_unlock(pg);
	meta_put(pg);
	return k;
}

/* The host gets the space of held clusters that are free: nobody can take one
 * meanwhile. */
static void give_back(struct image *img)
{
	const struct qcow2_hold *h = qcow2_of(img)->hold;
	uint64_t at = 0, first, n, k;

	while ((n = qcow2_hold_run(h, at, &first))) {
		k = free_run(img, first, n);
		if (k)
			(void)file_discard(img->file, first * img->unit,
					   k * img->unit);
		at = first + k + !k;
	}
}

/* Held clusters may be handed out. */
static void hold_end(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);

	if (q->hold && img->flags & IMAGE_DISCARD)
		give_back(img);
	with_lock(&q->alloc);
	if (!q->hold)
		return;
	q->free_index = min_u64(q->free_index, q->hold->lowest);
	qcow2_hold_free(q->hold);
	q->hold = NULL;
}

/* Rule 17.  Clean by now, and nobody looks there any more. */
static void forget_old(struct qcow2_switch *sw)
{
	struct image *img = sw->img;

	meta_forget(img, img->file, sw->old_l1.l1_offset,
		    (uint64_t)sw->old_l1.l1_size * 8);
	for (uint64_t i = 0; sw->step && i < sw->nr; i++)
		if (sw->step[i].gone || qcow2_step_is_copy(&sw->step[i]))
			meta_forget(img, img->file,
				    sw->step[i].entry & QL1_HOST, img->unit);
}

/* The clusters of the copies of blocks; what is not noted down leaks. */
static void take_copies(struct qcow2_switch *sw)
{
	struct qcow2 *q = qcow2_of(sw->img);
	struct qcow2_shadow *s = q->shadow;
	int ret = 0;
	with_lock(&q->alloc);

	for (uint64_t b = 0; s && !ret && b < s->nr; b++)
		if (s->copy[b])
			ret = mine_add(sw, &(struct qcow2_run) {
					s->copy[b], 1, false });
	qcow2_shadow_drop(sw->img, true);
}

/* Nothing has pointed to what was allocated. */
static void undo(struct qcow2_switch *sw)
{
	struct image *img = sw->img;

	take_copies(sw);
	for (size_t i = 0; i < sw->nr_mine; i++)
		meta_forget(img, img->file, sw->mine[i].host,
			    sw->mine[i].n * img->unit);
	for (size_t i = 0; i < sw->nr_mine; i++)
		qcow2_unalloc(img, sw->mine[i].host, sw->mine[i].n);
}

void qcow2_switch_end(struct qcow2_switch *sw, bool durable)
{
	struct qcow2 *q = qcow2_of(sw->img);

	if (atomic_load(&q->watch) == &sw->watch) {
		image_freeze(sw->img);  /* somebody may be about to touch it */
		atomic_store(&q->watch, NULL);
		image_thaw(sw->img);
	}
	if (!sw->turned)
		undo(sw);
	if (sw->turned && durable) {
		image_wait_epochs(sw->img);
		forget_old(sw);
	}
	if (!sw->turned || durable)
		hold_end(sw->img);
	free(sw->step);
	free(sw->l1_bytes);
	free(sw->live);
	free(sw->old);
	free(sw->watch.bits);
	free(sw->mine);
}
