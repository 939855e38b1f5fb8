/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tables-compact.c - closes the gaps in the file of an image with two-level
 * tables that is known to be sound.
 *
 * Data clusters that lie beyond what is needed for all of them move into the
 * gaps, one L2 table's at a time: copies, then the table's new entries.  Then
 * tables move, each into the first run of clusters that holds it; if there is
 * none, by way of the end of the file, whereby the gap before it becomes large
 * enough.  If no gap lies before a table, all data slides down until one does.
 * Streams stay where they are.
 *
 * Nothing is written where a durable entry leads, and what moves ends nearer to
 * the beginning of the file: the rounds have an end.
 */
#include "tables-scan.h"

struct compact {
	struct scan *s;
	uint64_t limit;         /* cluster: data beyond it moves ... */
	bool slide;             /* ... or all data that finds a gap before */
	uint64_t free;          /* no cluster before it is free */
	uint64_t moved;         /* in this round */
	uint64_t *left;         /* places that a table's entries have left ... */
	uint64_t nr_left;       /* ... but not durably: not to be used */
};

/* ---- gaps ---------------------------------------------------------------- */

/* A gap that lies before cluster @from and that it should fill. */
static bool find_gap(struct compact *c, uint64_t from)
{
	uint64_t end = c->slide ? from : min_u64(from, c->limit);

	while (c->free < end && scan_used(c->s, c->free))
		c->free++;
	return c->free < end && (c->slide || from >= c->limit);
}

/* Clusters that stay if there are no gaps. */
static uint64_t count_needed(const struct scan *s)
{
	uint64_t n = scan_first(s);

	for (uint64_t i = n, end = s->nr; i < end; i++)
		n += scan_used(s, i);
	return n;
}

/* ---- data ---------------------------------------------------------------- */

/* Entry @p of a table: its cluster is copied into a gap.  What lies beyond the
 * end of the disk is read by nobody and must lead nowhere. */
static int move_cluster(struct compact *c, unsigned char *p, uint64_t off,
			bool *changed)
{
	struct scan *s = c->s;
	struct image *img = s->img;
	uint64_t to;
	struct entry e;
	int ret;

	if (!scan_entry(s, p))
		return 0;
	if (off >= image_size(img)) {
		scan_put(s, p, 0);
		*changed = true;
		return 0;
	}
	tables_of(img)->kind->decode(img, scan_entry(s, p), &e);
	if (e.kind != EXT_DATA || e.host % img->unit ||
	    !find_gap(c, e.host / img->unit))
		return 0;
	to = c->free * img->unit;
	ret = scan_copy(s, e.host, to, img->unit);
	if (ret)
		return ret;
	scan_mark(s, to, 1);
	c->left[c->nr_left++] = e.host;
	scan_put(s, p, tables_of(img)->kind->encode(img, to, 0));
	c->moved++;
	*changed = true;
	return 0;
}

static int move_data(struct compact *c, uint64_t index, uint64_t table)
{
	struct scan *s = c->s;
	const struct tables *t = tables_of(s->img);
	uint64_t off = index * t->l2_entries * s->img->unit;
	bool changed = false;
	int ret = meta_read(s->img, s->img->file, s->table,
			    scan_table_bytes(s), table);

	for (uint64_t i = 0; !ret && i < t->l2_entries; i++)
		ret = move_cluster(c, s->table + 8 * i,
				   off + i * s->img->unit, &changed);
	if (ret || !changed)
		return ret;
	ret = repair_barrier(s->img);
	if (!ret)
		ret = repair_write(s->img, s->img->file, s->table,
				   scan_table_bytes(s), table);
	if (!ret)
		ret = repair_barrier(s->img);
	while (!ret && c->nr_left)
		scan_unmark(s, c->left[--c->nr_left], 1);
	return ret;
}

/* ---- tables -------------------------------------------------------------- */

/* A run of free clusters that holds a table and begins before @below. */
static bool find_run(const struct scan *s, uint64_t below, uint64_t *host)
{
	uint64_t need = div_up(scan_table_bytes(s), s->img->unit), n = 0;

	for (uint64_t i = scan_first(s); i < s->nr && i < below + need; i++) {
		n = scan_used(s, i) ? 0 : n + 1;
		if (n < need || i + 1 - need >= below)
			continue;
		*host = (i + 1 - need) * s->img->unit;
		return true;
	}
	return false;
}

static int move_table_to(struct compact *c, uint64_t index, uint64_t from,
			 uint64_t to)
{
	struct scan *s = c->s;
	int ret = scan_copy(s, from, to, scan_table_bytes(s));

	if (!ret)
		ret = scan_put_entry(s, tables_of(s->img)->l1_offset +
				     8 * index, to);
	if (ret)
		return ret;
	scan_mark(s, to, scan_table_bytes(s));
	scan_unmark(s, from, scan_table_bytes(s));
	c->moved++;
	return 0;
}

static int move_table(struct compact *c, uint64_t index, uint64_t table)
{
	struct scan *s = c->s;
	uint64_t at = table / s->img->unit, to, end;
	int ret;

	if (table % s->img->unit || at <= scan_first(s))
		return 0;
	if (find_run(s, at, &to))
		return move_table_to(c, index, table, to);
	/* Only a gap directly before it would become large enough. */
	if (scan_used(s, at - 1))
		return 0;
	ret = scan_append(s, scan_table_bytes(s), &end);
	if (!ret)
		ret = move_table_to(c, index, table, end);
	if (!ret && find_run(s, at, &to))
		ret = move_table_to(c, index, end, to);
	return ret;
}

/* ---- rounds -------------------------------------------------------------- */

static int each_table(struct compact *c, int (*move)(struct compact *,
						     uint64_t, uint64_t))
{
	struct scan *s = c->s;
	const struct tables *t = tables_of(s->img);
	int ret = 0;

	for (uint64_t i = 0; !ret && i < t->l1_entries; i++) {
		unsigned char e[8];

		if (s->res->cancel && atomic_load(s->res->cancel))
			return -EINTR;
		ret = meta_read(s->img, s->img->file, e, sizeof(e),
				t->l1_offset + 8 * i);
		if (!ret && scan_entry(s, e))
			ret = move(c, i, scan_entry(s, e));
	}
	return ret;
}

/* The file ends where the last cluster in use does. */
static int cut(struct scan *s)
{
	uint64_t end = s->nr;
	int ret = repair_barrier(s->img);

	while (end > scan_first(s) && !scan_used(s, end - 1))
		end--;
	if (ret || end == s->nr || !tables_of(s->img)->grows)
		return ret;
	s->nr = end;
	return file_truncate(s->img->file, end * s->img->unit);
}

static int one_round(struct compact *c, bool slide)
{
	int ret;

	c->slide = slide;
	c->moved = 0;
	c->free = scan_first(c->s);
	c->limit = count_needed(c->s);
	if (c->limit == c->s->nr)
		return 0;
	ret = each_table(c, move_data);
	if (!ret)
		ret = each_table(c, move_table);
	return ret ? ret : cut(c->s);
}

int tables_compact(struct scan *s)
{
	struct compact c = { .s = s };
	autofree uint64_t *left = malloc(scan_table_bytes(s));
	int ret;

	c.left = left;
	if (!left)
		return -ENOMEM;
	do {
		ret = one_round(&c, false);
		if (!ret && !c.moved)
			ret = one_round(&c, true);
	} while (!ret && c.moved);
	return ret;
}
