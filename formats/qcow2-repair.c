/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-repair.c - check -r of a qcow2 image: the order in which things are put
 * right, refcount structures made anew, and the marks in the header.
 *
 * The references are the truth, the counts are made to fit.  Every single write
 * leaves an image that is no worse than before: a count that is nearer to the
 * truth, a COPIED bit that agrees with a durable count, new structures where
 * nothing was, which one write of 12 bytes puts in the place of the old ones.
 *
 * Refuses to know how references are found and compared.
 */
#include "qcow2-check.h"

#include <inttypes.h>

/* ---- what an L2 table may not be ----------------------------------------- */

static int map_add(struct meta_map *m, uint64_t at, uint64_t len)
{
	uint64_t end;

	if (!len || add_overflows(at, len, &end))
		return 0;
	if (m->n == m->room) {
		size_t room = m->room ? 2 * m->room : 64;
		struct meta_range *grown = realloc(m->range,
						   room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		m->range = grown;
		m->room = room;
	}
	m->range[m->n++] = (struct meta_range) { at, end };
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct meta_range *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

/* Sorted, and what overlaps made one. */
static void map_finish(struct meta_map *m)
{
	size_t n = 0;

	qsort(m->range, m->n, sizeof(*m->range), by_place);
	for (size_t i = 1; i < m->n; i++) {
		struct meta_range *last = &m->range[n];

		if (m->range[i].at <= last->end)
			last->end = max_u64(last->end, m->range[i].end);
		else
			m->range[++n] = m->range[i];
	}
	m->n = n + 1;
}

static int map_bitmaps(struct check *c)
{
	struct qcow2_bitmaps list = { NULL, 0 };
	int ret = qcow2_bitmaps_read(c->img, &list, NULL);

	if (!ret && c->q->has_bitmaps)
		ret = map_add(&c->meta, c->q->bitmaps_offset,
			      c->q->bitmaps_size);
	for (size_t i = 0; i < list.n && !ret; i++)
		ret = map_add(&c->meta, list.items[i].table_offset,
			      8ul * list.items[i].table_size);
	qcow2_bitmaps_free(&list);
	return ret;
}

/* All but the L1. */
static int map_others(struct check *c)
{
	struct meta_map *m = &c->meta;
	struct qcow2 *q = c->q;
	int ret = map_add(m, 0, c->unit);

	if (!ret)
		ret = map_add(m, q->reftable_offset, c->nr_blocks * 8);
	for (uint64_t i = 0; i < c->nr_blocks && !ret; i++) {
		uint64_t at = be64_at(c->reftable + 8 * i) & QRT_HOST;

		if (at)
			ret = map_add(m, at, c->unit);
	}
	if (!ret)
		ret = map_add(m, q->snapshots_offset, c->snaps.bytes);
	for (size_t i = 0; i < c->snaps.n && !ret; i++)
		ret = map_add(m, c->snaps.items[i].l1_offset,
			      8ul * c->snaps.items[i].l1_size);
	return ret ? ret : map_bitmaps(c);
}

static bool map_has(const struct meta_map *m, uint64_t at, uint64_t end)
{
	size_t low = 0, high = m->n;

	/* The first range that ends behind @at. */
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (m->range[mid].end <= at)
			low = mid + 1;
		else
			high = mid;
	}
	return low < m->n && m->range[low].at < end;
}

static int map_make(struct check *c)
{
	uint64_t at = c->q->l1_offset, len = 8ul * c->q->l1_size;
	int ret;

	c->meta.n = 0;
	ret = map_others(c);
	if (ret)
		return ret;
	map_finish(&c->meta);
	c->l1_shared = map_has(&c->meta, at, at + len);
	ret = map_add(&c->meta, at, len);
	if (!ret)
		map_finish(&c->meta);
	return ret;
}

bool may_change(struct check *c, uint64_t at)
{
	return !(at % c->unit) && !map_has(&c->meta, at, at + c->unit);
}

/* ---- refcount structures made anew --------------------------------------- */

struct rebuild {
	struct check *c;
	uint64_t *block;        /* cluster of each new block, 0: none */
	uint64_t n, room;       /* entries of @block */
	uint64_t table, table_n;        /* clusters */
	uint64_t next;          /* no free cluster before this one */
};

/* The first run of @n clusters that nothing refers to, rightly or not; they
 * count as used. */
static int take(struct rebuild *r, uint64_t n, uint64_t *first)
{
	struct counts *counts = &r->c->counts;
	uint64_t at = r->next, run = 0;
	int ret = 0;

	while (run < n) {
		if (at >= counts->nr)
			return -EFBIG;
		run = counts_get(counts, at) || is_wild(r->c, at) ? 0 : run + 1;
		at++;
		if (n == 1)
			r->next = at;
	}
	*first = at - n;
	for (uint64_t i = *first; i < at && !ret; i++)
		ret = counts_add(counts, i);
	r->c->nr_clusters = max_u64(r->c->nr_clusters, at);
	return ret;
}

static bool anything(const struct check *c, uint64_t first, uint64_t n)
{
	if (counts_none(&c->counts, first, n))
		return false;
	for (uint64_t i = first; i < first + n; i++)
		if (counts_get(&c->counts, i))
			return true;
	return false;
}

/* A block for whatever has counts; taking one may ask for another. */
static int take_blocks(struct rebuild *r)
{
	uint64_t per = qcow2_refs_per_block(r->c->q);
	bool again = true;
	int ret = 0;

	while (again && !ret) {
		again = false;
		for (uint64_t i = 0; i * per < r->c->nr_clusters && !ret; i++) {
			if ((i < r->n && r->block[i]) ||
			    !anything(r->c, i * per, per))
				continue;
			if (i >= r->room)
				return -EFBIG;
			again = true;
			r->n = max_u64(r->n, i + 1);
			ret = take(r, 1, &r->block[i]);
		}
		ret = ret ? ret : check_cancelled(r->c);
	}
	return ret;
}

static int take_places(struct rebuild *r)
{
	uint64_t need;
	int ret = take_blocks(r);

	while (!ret) {
		need = div_up(r->n * 8, r->c->unit);
		if (need <= r->table_n)
			return 0;
		for (uint64_t i = 0; i < r->table_n; i++)
			counts_drop(&r->c->counts, r->table + i);
		r->next = r->table_n ? min_u64(r->next, r->table) : r->next;
		r->table_n = need;
		ret = take(r, need, &r->table);
		if (!ret)
			ret = take_blocks(r);
	}
	return ret;
}

static int write_block(struct rebuild *r, uint64_t i)
{
	struct check *c = r->c;
	uint64_t per = qcow2_refs_per_block(c->q);

	memset(c->block, 0, c->unit);
	for (uint64_t j = 0; j < per; j++) {
		uint64_t n = counts_get(&c->counts, i * per + j);

		if (n)
			refcount_put(c->block, c->q->refcount_order, j, n);
	}
	return repair_write(c->img, c->img->file, c->block, c->unit,
			    r->block[i] * c->unit);
}

static int write_table(struct rebuild *r)
{
	struct check *c = r->c;
	uint64_t per = c->unit / 8;
	int ret = 0;

	for (uint64_t i = 0; i < r->table_n && !ret; i++) {
		memset(c->block, 0, c->unit);
		for (uint64_t j = i * per; j < r->n && j < (i + 1) * per; j++)
			be64_put(c->block + 8 * (j - i * per),
				 r->block[j] * c->unit);
		ret = repair_write(c->img, c->img->file, c->block, c->unit,
				   (r->table + i) * c->unit);
	}
	return ret;
}

static int write_all(struct rebuild *r)
{
	int ret = 0;

	r->c->block_at = UINT64_MAX;
	for (uint64_t i = 0; i < r->n && !ret; i++)
		if (r->block[i])
			ret = write_block(r, i);
	if (!ret)
		ret = write_table(r);
	return ret ? ret : repair_barrier(r->c->img);
}

/* The one write that makes them the image's. */
static int put_in_place(struct rebuild *r)
{
	struct image *img = r->c->img;
	uint64_t at = r->table * r->c->unit;
	unsigned char h[12];
	int ret;

	be64_put(h, at);
	be32_put(h + 8, (uint32_t)r->table_n);
	ret = repair_write(img, img->file, h, sizeof(h), QH_REFTABLE_OFFSET);
	if (!ret)
		ret = repair_barrier(img);
	return ret ? ret : qcow2_alloc_init(img, at, (uint32_t)r->table_n);
}

static int rebuild(struct check *c)
{
	struct rebuild r = { .c = c };
	int ret = 0;

	r.room = QCOW2_MAX_REFTABLE_BYTES / 8;
	r.block = calloc(r.room, sizeof(*r.block));
	if (!r.block)
		return -ENOMEM;
	ret = take_places(&r);
	if (!ret)
		ret = write_all(&r);
	if (!ret)
		ret = put_in_place(&r);
	free(r.block);
	if (ret)
		check_say(c->res, "ERROR could not rebuild the refcount"
			  " structures: %s", strerror(-ret));
	return ret;
}

/* Clusters behind the file that a repair may come to use, and more. */
static uint64_t room_behind(struct check *c)
{
	uint64_t per = qcow2_refs_per_block(c->q);
	uint64_t table = c->snaps.bytes + 32 * c->snaps.n;

	return 2 * div_up(c->nr_clusters, per) + div_up(table, c->unit) +
	       2 * div_up(QCOW2_MAX_REFTABLE_BYTES, c->unit) + 64;
}

/* The old structures are counted in the new ones, and nothing else is.  What
 * cannot be repaired is found again. */
static int drop_old(struct check *c, unsigned fix)
{
	struct check_result *res = c->res;
	uint64_t leaks_fixed = res->leaks_fixed;
	uint64_t fixed = res->corruptions_fixed;
	bool broken;
	int ret = check_reload(c, room_behind(c));

	res->corruptions = res->leaks = res->check_errors = 0;
	c->fix = 0;             /* what may be put right there has been */
	c->rebuild = false;
	if (!ret)
		ret = map_make(c);
	if (!ret)
		ret = check_count(c);
	c->fix = fix;
	if (!ret)
		ret = check_reftable(c);
	/* What pointed into what was not counted may now point there. */
	broken = c->rebuild;
	if (!ret && broken)
		check_say(res, "ERROR rebuilt refcount structure is still"
			  " broken");
	c->fix = broken ? 0 : fix;
	if (!ret)
		ret = compare_all(c);
	c->rebuild = broken;
	/* Nothing of this was found before. */
	res->leaks_fixed = leaks_fixed;
	res->corruptions_fixed = fixed;
	return ret;
}

/* ---- all of it ------------------------------------------------------------ */

static void back_to(struct check_result *res, const struct check_result *then)
{
	res->leaks = then->leaks;
	res->corruptions = then->corruptions;
	res->check_errors = then->check_errors;
}

/* @before: what was found before the structures of the counts were looked at,
 * @then: before the counts were. */
static int put_counts_right(struct check *c, unsigned fix,
			    const struct check_result *before,
			    const struct check_result *then)
{
	struct check_result *res = c->res;
	uint64_t leaks = res->leaks, corruptions = res->corruptions;
	int ret;

	if (c->rebuild && !(fix & CHECK_FIX_ERRORS)) {
		check_say(res, "ERROR need to rebuild refcount structures");
		return -EIO;
	}
	if (!c->rebuild && !leaks && !corruptions && !res->check_errors)
		return 0;
	if (!c->rebuild) {
		back_to(res, then);
		c->fix = fix;
		return compare_all(c);
	}
	back_to(res, before);
	check_say(res, "Rebuilding refcount structure");
	ret = rebuild(c);
	if (ret)
		return ret;
	ret = drop_old(c, fix);
	/* What is not found again is no more. */
	if (!ret && res->leaks < leaks)
		res->leaks_fixed += leaks - res->leaks;
	if (!ret && res->corruptions < corruptions)
		res->corruptions_fixed += corruptions - res->corruptions;
	return ret;
}

/* @counted: the counts are right, whatever else is not. */
static int clear_marks(struct check *c, bool counted)
{
	struct qcow2 *q = c->q;
	const struct check_result *res = c->res;
	uint64_t keep = q->incompat;
	unsigned char bytes[8];
	int ret;

	if (counted)
		keep &= ~QINCOMPAT_DIRTY;
	if (res->corruptions == c->gone && !res->check_errors)
		keep &= ~QINCOMPAT_CORRUPT;
	if (q->version < 3 || keep == q->incompat)
		return 0;
	ret = repair_barrier(c->img);
	be64_put(bytes, keep);
	if (!ret)
		ret = repair_write(c->img, c->img->file, bytes, sizeof(bytes),
				   QH_INCOMPAT);
	if (!ret)
		q->incompat = keep;
	return ret;
}

static int repair_counts(struct check *c, unsigned fix)
{
	struct check_result before = *c->res, then;
	int ret = check_reftable(c);

	then = *c->res;
	c->fix = 0;
	if (!ret)
		ret = compare_all(c);
	if (!ret)
		ret = put_counts_right(c, fix, &before, &then);
	if (!ret)
		ret = repair_barrier(c->img);
	return ret;
}

static int repair_all(struct check *c, unsigned fix)
{
	struct check_result *res = c->res;
	uint64_t found, short_entries = res->corruptions;
	bool counted, sound;
	int ret = mend_number(c);

	if (!ret)
		ret = map_make(c);
	c->fix = fix;
	if (!ret)
		ret = check_count(c);
	found = res->corruptions;
	if (!ret)
		ret = repair_counts(c, fix);
	if (ret)
		return ret;
	counted = res->corruptions == found && !res->leaks &&
		  !res->check_errors;
	/* A COPIED bit is as good as the counts are: without ERRORS it is
	 * changed only where all of them are right, whatever the table of
	 * snapshots lacks. */
	sound = !res->leaks && !res->check_errors &&
		res->corruptions == short_entries;
	c->fix = fix & CHECK_FIX_ERRORS || sound ? fix : 0;
	ret = check_copied(c);
	if (!ret)
		ret = mend_entries(c);
	return ret ? ret : clear_marks(c, counted);
}

int qcow2_repair(struct image *img, unsigned fix, struct check_result *res)
{
	struct check c;
	int ret = check_begin(&c, img, fix, res);

	if (!ret && fix & CHECK_FIX_ERRORS)
		ret = check_reload(&c, room_behind(&c));
	if (!ret)
		ret = repair_all(&c, fix);
	check_end(&c);
	return ret;
}
