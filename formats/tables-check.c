/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tables-check.c - what is wrong with two-level tables: entries that lead
 * nowhere, clusters that two entries claim, space that nobody uses.
 *
 * Knows a bit per host cluster.  Refuses to know the formats.
 */
#include "tables.h"

#include <inttypes.h>

struct scan {
	struct image *img;
	struct check_result *res;
	unsigned char *used;    /* a bit per host cluster */
	uint64_t nr;            /* host clusters */
	unsigned char *table;   /* one L2 table */
	uint64_t last;          /* host of the data cluster before; or 0 */
};

static bool test_and_set(struct scan *s, uint64_t cluster)
{
	unsigned char bit = (unsigned char)(1u << cluster % 8);
	bool was = s->used[cluster / 8] & bit;

	s->used[cluster / 8] |= bit;
	return was;
}

/* Marks clusters of one owner; false: somebody has one of them already.
 * Streams share clusters with each other, but not with tables and data. */
static bool mark(struct scan *s, uint64_t host, uint64_t len)
{
	uint64_t unit = s->img->unit;
	bool twice = false;

	for (uint64_t c = host / unit; c <= (host + len - 1) / unit; c++)
		twice |= test_and_set(s, c);
	return !twice;
}

static bool inside(const struct scan *s, uint64_t host, uint64_t len)
{
	const struct tables *t = tables_of(s->img);

	return host >= t->start &&
	       range_within(host, len, s->nr * s->img->unit);
}

static void bad(struct scan *s, const char *what, uint64_t e, uint64_t off)
{
	check_say(s->res, "ERROR: %s (entry %#" PRIx64 ", guest offset %#"
		  PRIx64 ")", what, e, off);
	s->res->corruptions++;
}

static void check_entry(struct scan *s, uint64_t e, uint64_t off)
{
	struct image *img = s->img;
	struct entry entry;

	tables_of(img)->kind->decode(img, e, &entry);
	if (entry.kind != EXT_DATA && entry.kind != EXT_PACKED)
		return;
	s->res->allocated_clusters++;
	if (entry.kind == EXT_PACKED) {
		s->res->compressed_clusters++;
		if (!entry.packed || !inside(s, entry.host, entry.packed))
			bad(s, "stream beyond the end of the file", e, off);
		else
			mark(s, entry.host, entry.packed);
		return;
	}
	if (s->last && entry.host != s->last + img->unit)
		s->res->fragmented_clusters++;
	s->last = entry.host;
	if (entry.host % SECTOR_SIZE || !inside(s, entry.host, 1))
		bad(s, "cluster in an impossible place", e, off);
	else if (!mark(s, entry.host, 1))
		bad(s, "cluster is used twice", e, off);
}

static int check_table(struct scan *s, uint64_t table, uint64_t index)
{
	const struct tables *t = tables_of(s->img);
	uint64_t bytes = 8 * t->l2_entries, off;
	uint64_t cover = t->l2_entries * s->img->unit;
	int ret;

	off = index * cover;
	if (table % t->kind->table_align || !inside(s, table, bytes)) {
		bad(s, "L2 table in an impossible place", table, off);
		return 0;
	}
	if (!mark(s, table, bytes)) {
		bad(s, "L2 table is used twice", table, off);
		return 0;
	}
	ret = meta_read(s->img, s->img->file, s->table, bytes, table);
	for (uint64_t i = 0; !ret && i < t->l2_entries; i++) {
		const unsigned char *p = s->table + 8 * i;
		uint64_t e = t->kind->little_endian ? le64_at(p) : be64_at(p);

		if (e && off + i * s->img->unit < image_size(s->img))
			check_entry(s, e, off + i * s->img->unit);
	}
	return ret;
}

static int check_l1(struct scan *s)
{
	const struct tables *t = tables_of(s->img);
	unsigned char buf[4096];
	int ret = 0;

	for (uint64_t i = 0; !ret && i < t->l1_entries; i++) {
		uint64_t in = i % (sizeof(buf) / 8), table;

		if (!in)
			ret = meta_read(s->img, s->img->file, buf,
					min_u64(sizeof(buf),
						8 * (t->l1_entries - i)),
					t->l1_offset + 8 * i);
		if (ret)
			break;
		if (s->res->cancel && atomic_load(s->res->cancel))
			return -EINTR;
		table = t->kind->little_endian ? le64_at(buf + 8 * in) :
						 be64_at(buf + 8 * in);
		if (table)
			ret = check_table(s, table, i);
	}
	return ret;
}

static void count_leaks(struct scan *s)
{
	uint64_t first = div_up(tables_of(s->img)->start, s->img->unit);

	for (uint64_t c = first; c < s->nr; c++)
		s->res->leaks += !(s->used[c / 8] >> c % 8 & 1);
}

int tables_check(struct image *img, bool leaks, struct check_result *res)
{
	const struct tables *t = tables_of(img);
	struct scan s = { .img = img, .res = res };
	autofree void *used = NULL, *table = NULL;
	uint64_t size;
	int ret = file_size(img->file, &size);

	if (ret)
		return ret;
	s.nr = div_up(size, img->unit);
	s.used = used = calloc(1, s.nr / 8 + 1);
	s.table = table = malloc(8 * t->l2_entries);
	if (!used || !table)
		return -ENOMEM;
	res->total_clusters = div_up(image_size(img), img->unit);
	ret = check_l1(&s);
	if (!ret && leaks)
		count_leaks(&s);
	return ret;
}
