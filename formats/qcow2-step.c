/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-step.c - a switch of roots (qcow2-switch.c) table by table: what hangs
 * below an L1 that does not change, and the active tables, which do while they
 * are looked at.
 *
 * An active table is copied if an entry of it will be different.  Writers go on
 * changing the table; the pages that they touch are noted (struct qcow2_watch)
 * and looked at again.
 */
#include "qcow2-switch.h"

#include <inttypes.h>

/* ---- counting ------------------------------------------------------------ */

/* Entries of one table; those that are equal in @but are left out. */
struct span {
	uint64_t table;         /* host offset, for messages */
	uint64_t off;           /* guest offset of the first one's cluster */
	const unsigned char *bytes, *but;       /* the latter may be NULL */
	uint64_t n;
};

bool qcow2_same_entry(const struct qcow2 *q, const unsigned char *a,
		      const unsigned char *b)
{
	return (be64_at(a) & ~QCOPIED) == (be64_at(b) & ~QCOPIED) &&
	       (!qcow2_has_subs(q) || be64_at(a + 8) == be64_at(b + 8));
}

/* Rule 14: what an entry refers to will be counted, and may be freed. */
static int entry_check(struct image *img, const struct span *s, uint64_t i,
		       struct qcow2_l2 l2, uint64_t host, uint64_t len)
{
	int ret = qcow2_l2_check(img, s->table, s->off + i * img->unit, l2);

	if (ret || !len || !qcow2_is_meta(qcow2_of(img), host, len))
		return ret;
	image_corrupt(img, "Preventing invalid write on metadata: cluster at"
		      " offset %#" PRIx64 " (L2 offset: %#" PRIx64 ")", host,
		      s->table);
	return -EIO;
}

/* Adjacent clusters are counted at once. */
struct gather {
	uint64_t host, len;
	int delta;
};

static int gather_end(struct image *img, struct gather *g)
{
	uint64_t len = g->len;

	g->len = 0;
	return len ? qcow2_shadow_add(img, g->host, len, g->delta) : 0;
}

static int gather_add(struct image *img, struct gather *g, uint64_t host,
		      uint64_t len)
{
	bool whole = !(host % img->unit) && len == img->unit;
	int ret;

	if (g->len && whole && g->host + g->len == host) {
		g->len += len;
		return 0;
	}
	ret = gather_end(img, g);
	if (!ret && !whole)     /* a stream: each counts for itself */
		return qcow2_shadow_add(img, host, len, g->delta);
	*g = (struct gather) { host, len, g->delta };
	return ret;
}

/* How many entries from @p on, @max at most, are the first one with the cluster
 * before it taken one further each time, all other bits alike. */
static uint64_t entries_in_row(const struct image *img, const unsigned char *p,
			       struct qcow2_l2 l2, uint64_t max)
{
	const struct qcow2 *q = qcow2_of(img);
	bool subs = qcow2_has_subs(q);
	uint64_t want = l2.e, n = 1;

	if (l2.e & QL2_COMPRESSED || !(l2.e & QL2_HOST) || q->data)
		return 1;
	for (; n < max; n++) {
		p += q->l2_entry;
		want += img->unit;
		if (be64_at(p) != want || (subs && be64_at(p + 8) != l2.subs))
			break;
	}
	return n;
}

/* So many entries in a row of which the first is sound: are the others?  They
 * only differ in the place. */
static bool row_is_sound(struct image *img, uint64_t host, uint64_t n)
{
	uint64_t last = host + (n - 1) * img->unit;

	return last < QCOW2_MAX_HOST && qcow2_inside(img, last) &&
	       !qcow2_is_meta(qcow2_of(img), host, n * img->unit);
}

/* Entries from number @i on that are one run of clusters are counted at once:
 * *@n.  Not those that may be left out. */
static int row_count(struct image *img, const struct span *s, uint64_t i,
		     struct qcow2_l2 l2, struct gather *g, uint64_t *n)
{
	uint64_t host, len;
	int ret;

	host = qcow2_entry_space(img, l2.e, &len);
	ret = entry_check(img, s, i, l2, host, len);
	*n = 1;
	if (ret || !len)
		return ret;
	ret = gather_add(img, g, host, len);
	if (ret || s->but || !g->len)
		return ret;
	*n = entries_in_row(img, s->bytes + i * qcow2_of(img)->l2_entry, l2,
			    s->n - i);
	if (*n > 1 && row_is_sound(img, host, *n))
		g->len += (*n - 1) * len;
	else
		*n = 1;
	return 0;
}

/* With "alloc" held. */
static int span_count(struct image *img, const struct span *s, int delta)
{
	const struct qcow2 *q = qcow2_of(img);
	struct gather g = { .delta = delta };
	uint64_t n;
	int ret = 0;

	for (uint64_t i = 0; !ret && i < s->n; i += n) {
		const unsigned char *p = s->bytes + i * q->l2_entry;
		struct qcow2_l2 l2 = qcow2_l2_at(q, p);

		n = 1;
		if ((!l2.e && !l2.subs) ||
		    (s->but && qcow2_same_entry(q, p, s->but + i * q->l2_entry)))
			continue;
		ret = row_count(img, s, i, l2, &g, &n);
	}
	return ret ? ret : gather_end(img, &g);
}

/* Page by page: who allocates meanwhile does not wait for long. */
static int table_count(struct image *img, uint64_t index, uint64_t table,
		       const unsigned char *bytes, const unsigned char *but,
		       int delta)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t cover = qcow2_l2_cover(q), per = img->page / q->l2_entry;
	int ret = 0;

	for (uint64_t at = 0; !ret && at < img->unit; at += img->page) {
		struct span s = {
			.table = table, .bytes = bytes + at, .n = per,
			.but = but ? but + at : NULL,
			.off = index * cover + at / q->l2_entry * img->unit,
		};
		with_lock(&q->alloc);

		ret = span_count(img, &s, delta);
	}
	return ret;
}

int qcow2_switch_table(struct image *img, uint64_t index, uint64_t e,
		       uint64_t *table)
{
	int ret = qcow2_l1_check(img, index, e);

	if (ret)
		return ret;
	*table = e & QL1_HOST;
	if (!*table || !qcow2_is_meta(qcow2_of(img), *table, img->unit))
		return 0;
	image_corrupt(img, "L2 table at offset %#" PRIx64 " overlaps with"
		      " other metadata", *table);
	return -EIO;
}

int qcow2_switch_branch(struct qcow2_switch *sw, uint64_t index, uint64_t e,
			int delta)
{
	struct image *img = sw->img;
	uint64_t table;
	int ret = qcow2_switch_table(img, index, e, &table);

	if (ret || !table)
		return ret;
	ret = meta_read(img, img->file, sw->live, img->unit, table);
	if (!ret)
		ret = table_count(img, index, table, sw->live, NULL, delta);
	if (!ret)
		ret = qcow2_switch_count(sw, table, img->unit, delta);
	if (!ret)
		ret = image_throttle(img);
	return ret ? ret : qcow2_switch_tick(sw, 1);
}

int qcow2_switch_tree(struct qcow2_switch *sw, struct qcow2_root l1, int delta)
{
	struct image *img = sw->img;
	int ret = 0;

	for (uint64_t i = 0; !ret && i < l1.l1_size; i++) {
		uint64_t e;

		ret = qcow2_entry(img, l1.l1_offset + 8 * i, &e);
		if (!ret && e)
			ret = qcow2_switch_branch(sw, i, e, delta);
	}
	return ret;
}

/* ---- COPIED ---------------------------------------------------------------- */

/* Those that were COPIED are not any more. */
static bool disown(const struct qcow2 *q, unsigned char *bytes, uint64_t len)
{
	bool changed = false;

	for (uint64_t at = 0; at < len; at += q->l2_entry) {
		uint64_t e = be64_at(bytes + at);

		changed |= e & QCOPIED;
		be64_put(bytes + at, e & ~QCOPIED);
	}
	return changed;
}

/* With "alloc" held: do the first entries at @p, of @max, have to become COPIED?
 * *@n: how many the answer is for. */
static int owns(struct image *img, const unsigned char *p, uint64_t max,
		bool *yes, uint64_t *n)
{
	struct qcow2_l2 l2 = qcow2_l2_at(qcow2_of(img), p);
	uint64_t host, len;

	*yes = false;
	*n = 1;
	if (l2.e & (QL2_COMPRESSED | QCOPIED))
		return 0;
	host = qcow2_entry_space(img, l2.e, &len);
	if (!len)
		return 0;
	return qcow2_shadow_ones(img, host,
				 entries_in_row(img, p, l2, max), yes, n);
}

static int own(struct image *img, unsigned char *bytes, uint64_t len,
	       bool *changed)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t n, entry = q->l2_entry;
	int ret = 0;
	with_lock(&q->alloc);

	for (uint64_t at = 0; !ret && at < len; at += n * entry) {
		bool yes = false;

		ret = owns(img, bytes + at, (len - at) / entry, &yes, &n);
		if (ret || !yes)
			continue;
		*changed = true;
		for (uint64_t k = at; k < at + n * entry; k += entry)
			be64_put(bytes + k, be64_at(bytes + k) | QCOPIED);
	}
	return ret;
}

/* Makes of entries as they are what they shall be; *@changed: some differ. */
static int turn_entries(struct qcow2_switch *sw, unsigned char *bytes,
			uint64_t len, bool *changed)
{
	if (sw->turn != TURN_SHARED)
		return own(sw->img, bytes, len, changed);
	*changed |= disown(qcow2_of(sw->img), bytes, len);
	return 0;
}

int qcow2_switch_uncopied(struct qcow2_switch *sw, uint64_t host,
			  uint64_t *copy)
{
	struct image *img = sw->img;
	bool changed = false;
	int ret = meta_read(img, img->file, sw->live, img->unit, host);

	*copy = 0;
	if (!ret)
		ret = turn_entries(sw, sw->live, img->unit, &changed);
	if (!ret && changed)
		ret = qcow2_switch_put(sw, sw->live, img->unit, copy);
	return ret;
}

/* ---- pages that have changed ----------------------------------------------- */

/* Takes and clears the bits of a table's pages: those of at most 64 from page
 * @first on. */
static uint64_t stale_pages(struct qcow2_switch *sw, uint64_t index,
			    unsigned first)
{
	const struct qcow2_watch *w = &sw->watch;
	uint64_t bit = index * w->pages + first, found = 0;
	unsigned n = w->pages - first < 64 ? w->pages - first : 64;

	for (unsigned i = 0; i < n; i++) {
		_Atomic uint64_t *word = &w->bits[(bit + i) / 64];
		uint64_t mask = UINT64_C(1) << (bit + i) % 64;

		if (atomic_load(word) & mask) {
			atomic_fetch_and(word, ~mask);
			found |= UINT64_C(1) << i;
		}
	}
	return found;
}

/* May say yes for the sake of a neighbour. */
static bool any_stale(const struct qcow2_switch *sw, uint64_t index)
{
	const struct qcow2_watch *w = &sw->watch;
	uint64_t first = index * w->pages, last = first + w->pages - 1;

	for (uint64_t word = first / 64; word <= last / 64; word++)
		if (atomic_load(&w->bits[word]))
			return true;
	return false;
}

/* ---- the active tables ----------------------------------------------------- */

/* What the table refers to is counted for a second L1, in place of what was. */
static int recount(struct qcow2_switch *sw, uint64_t index, uint64_t table,
		   const unsigned char *now, const unsigned char *was)
{
	int ret;

	if (sw->turn != TURN_SHARED)
		return 0;
	ret = table_count(sw->img, index, table, now, was, 1);
	if (!ret && was)
		ret = table_count(sw->img, index, table, was, now, -1);
	return ret;
}

/* A second L1 uses the table now in place of the one that was. */
static int share(struct qcow2_switch *sw, uint64_t table, uint64_t was)
{
	int ret;

	if (sw->turn != TURN_SHARED)
		return 0;
	ret = qcow2_switch_count(sw, table, sw->img->unit, 1);
	if (!ret && was)
		ret = qcow2_switch_count(sw, was, sw->img->unit, -1);
	return ret;
}

/* Shall the table stay where it is?  One that others use as well does, and all
 * that is below it is theirs, too. */
static int stays(struct qcow2_switch *sw, uint64_t e, bool *yes)
{
	uint64_t count = 0;
	int ret = 0;

	*yes = !(e & QCOPIED);
	if (*yes && sw->turn == TURN_OWN) {
		with_lock(&qcow2_of(sw->img)->alloc);

		ret = qcow2_shadow_count(sw->img, e & QL1_HOST, &count);
		*yes = count != 1;
	}
	return ret;
}

/* The table of @e, which is sw->live, goes where it shall be. */
static int step_place(struct qcow2_switch *sw, struct qcow2_step *st,
		      uint64_t e)
{
	uint64_t host = qcow2_step_is_copy(st) ? st->table : 0;
	uint64_t was = st->table;
	bool stay, changed = false;
	int ret = stays(sw, e, &stay);

	if (!ret && !stay)
		ret = turn_entries(sw, sw->live, sw->img->unit, &changed);
	if (ret)
		return ret;
	if (!host && (stay || (sw->turn == TURN_OWN && !changed))) {
		st->table = e & QL1_HOST;
		return share(sw, st->table, was);
	}
	if (!host) {
		ret = qcow2_switch_place(sw, sw->img->unit, &host);
		if (!ret)
			ret = share(sw, host, was);
	}
	if (!ret)
		ret = qcow2_switch_write(sw, sw->live, sw->img->unit, host);
	if (!ret)
		st->table = host;
	return ret;
}

/* A table that has not been looked at, or is another one than then. */
static int step_whole(struct qcow2_switch *sw, uint64_t index, uint64_t e)
{
	struct image *img = sw->img;
	struct qcow2_step *st = &sw->step[index];
	uint64_t table = 0;
	int ret = qcow2_switch_table(img, index, e, &table);

	for (unsigned i = 0; i < sw->watch.pages; i += 64)
		(void)stale_pages(sw, index, i);
	if (ret)
		return ret;
	if (!table)     /* a table that was there does not go away */
		return st->table ? -EIO : 0;
	ret = meta_read(img, img->file, sw->live, img->unit, table);
	if (!ret && st->table)
		ret = meta_read(img, img->file, sw->old, img->unit, st->table);
	if (!ret)
		ret = recount(sw, index, table, sw->live,
			      st->table ? sw->old : NULL);
	if (!ret)
		ret = step_place(sw, st, e);
	if (!ret)
		st->entry = e;
	return ret;
}

static int page_recount(struct qcow2_switch *sw, uint64_t index, uint64_t at)
{
	struct image *img = sw->img;
	struct qcow2 *q = qcow2_of(img);
	struct span now = {
		.table = sw->step[index].entry & QL1_HOST,
		.bytes = sw->live, .but = sw->old,
		.n = img->page / q->l2_entry,
		.off = index * qcow2_l2_cover(q) + at / q->l2_entry * img->unit,
	}, was = now;
	int ret;
	with_lock(&q->alloc);

	was.bytes = sw->old;
	was.but = sw->live;
	ret = span_count(img, &now, 1);
	return ret ? ret : span_count(img, &was, -1);
}

/* One page of a table that has a copy. */
static int step_page(struct qcow2_switch *sw, uint64_t index, unsigned page)
{
	struct image *img = sw->img;
	const struct qcow2_step *st = &sw->step[index];
	uint64_t at = (uint64_t)page * img->page;
	bool changed = false;
	struct mpage *pg;
	int ret = meta_peek(img, img->file, sw->live, img->page,
			    (st->entry & QL1_HOST) + at);

	if (!ret)
		ret = meta_get(img, img->file, st->table + at, &pg);
	if (ret)
		return ret;
	memcpy(sw->old, meta_bytes(pg), img->page);     /* nobody else's */
	if (sw->turn == TURN_SHARED)
		ret = page_recount(sw, index, at);
	if (!ret)
		ret = turn_entries(sw, sw->live, img->page, &changed);
	if (!ret) {
		change_begin(img);
		meta_wrlock(pg);
		memcpy(meta_bytes(pg), sw->live, img->page);
		meta_dirty(pg, STAGE_LINK);
		meta_unlock(pg);
		change_end(img);
	}
	meta_put(pg);
	return ret;
}

/* *@found: how many. */
static int step_pages(struct qcow2_switch *sw, uint64_t index, uint64_t *found)
{
	int ret = 0;

	for (unsigned i = 0; !ret && i < sw->watch.pages; i += 64) {
		uint64_t stale = stale_pages(sw, index, i);

		for (; !ret && stale; stale &= stale - 1, ++*found)
			ret = step_page(sw, index, i +
					(unsigned)__builtin_ctzll(stale));
	}
	return ret;
}

/* A table that others use as well is never changed, only replaced; one that is
 * ours already and stays gets no entry that would have to be different. */
static int step_look(struct qcow2_switch *sw, uint64_t index, uint64_t *found)
{
	struct qcow2_step *st = &sw->step[index];
	uint64_t e;
	int ret = qcow2_entry(sw->img, sw->old_l1.l1_offset + 8 * index, &e);

	if (ret || (e == st->entry && !any_stale(sw, index)))
		return ret;
	if (e == st->entry)
		return qcow2_step_is_copy(st) ?
		       step_pages(sw, index, found) : 0;
	++*found;
	return step_whole(sw, index, e);
}

int qcow2_switch_look(struct qcow2_switch *sw, uint64_t *found)
{
	int ret = 0;

	*found = 0;
	for (uint64_t i = 0; !ret && i < sw->nr; i++) {
		uint64_t before = *found;

		ret = step_look(sw, i, found);
		if (!ret && *found != before)
			ret = image_throttle(sw->img);
		if (!ret && *found != before)
			ret = qcow2_switch_tick(sw, 1);
	}
	return ret;
}

/* ---- the new L1 ------------------------------------------------------------ */

static int new_entry(struct qcow2_switch *sw, uint64_t i, uint64_t *e)
{
	const struct qcow2_step *st = &sw->step[i];
	uint64_t count = 1;
	int ret = 0;

	*e = st->table;
	if (!st->table || sw->turn == TURN_SHARED)
		return 0;
	if (!qcow2_step_is_copy(st) && !(st->entry & QCOPIED)) {
		with_lock(&qcow2_of(sw->img)->alloc);

		ret = qcow2_shadow_count(sw->img, st->table, &count);
	}
	*e |= count == 1 ? QCOPIED : 0;
	return ret;
}

/* The tables that have been replaced are dropped only here: as long as the
 * guest may still replace one itself, it would be dropped twice. */
int qcow2_switch_settle(struct qcow2_switch *sw)
{
	uint64_t found, e = 0;
	int ret = qcow2_switch_look(sw, &found);

	if (!ret && qcow2_of(sw->img)->l1_offset != sw->old_l1.l1_offset)
		ret = -EAGAIN;
	for (uint64_t i = 0; !ret && i < sw->nr; i++) {
		const struct qcow2_step *st = &sw->step[i];

		if (qcow2_step_is_copy(st))
			ret = qcow2_switch_count(sw, st->entry & QL1_HOST,
						 sw->img->unit, -1);
		if (!ret)
			ret = new_entry(sw, i, &e);
		be64_put(sw->l1_bytes + 8 * i, e);
	}
	return ret;
}
