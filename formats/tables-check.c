/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tables-check.c - what is wrong with two-level tables: entries that lead
 * nowhere, clusters that two entries claim, space that nobody uses; and putting
 * it right.
 *
 * An entry that leads nowhere is taken out.  Who claims a cluster second gets a
 * copy, which is durable before its entry: each of the two keeps what it reads
 * now.  Each change is one entry, which is there or is not: the power may fail
 * at any time.
 *
 * Knows two bits per host cluster.  Refuses to know the formats.
 */
#include "tables-scan.h"

#include <inttypes.h>

/* ---- who uses what ------------------------------------------------------- */

static bool test_and_set(unsigned char *bits, uint64_t cluster)
{
	unsigned char bit = (unsigned char)(1u << cluster % 8);
	bool was = bits[cluster / 8] & bit;

	bits[cluster / 8] |= bit;
	return was;
}

/* Streams share clusters with each other, but not with tables and data. */
static bool mark_stream(struct scan *s, uint64_t host, uint64_t len)
{
	uint64_t unit = s->img->unit;
	bool alone = true;

	for (uint64_t c = host / unit; c <= (host + len - 1) / unit; c++) {
		if (!test_and_set(s->used, c))
			test_and_set(s->streams, c);
		else
			alone &= s->streams[c / 8] >> c % 8 & 1;
	}
	return alone;
}

bool scan_mark(struct scan *s, uint64_t host, uint64_t len)
{
	uint64_t unit = s->img->unit;
	bool twice = false;

	for (uint64_t c = host / unit; c <= (host + len - 1) / unit; c++)
		twice |= test_and_set(s->used, c);
	return !twice;
}

void scan_unmark(struct scan *s, uint64_t host, uint64_t len)
{
	uint64_t unit = s->img->unit;

	for (uint64_t c = host / unit; c <= (host + len - 1) / unit; c++)
		s->used[c / 8] &= (unsigned char)~(1u << c % 8);
}

/* @bits of s->room clusters: those of @room, the new ones clear. */
static int grow_bits(const struct scan *s, unsigned char **bits, uint64_t room)
{
	unsigned char *more = realloc(*bits, room / 8 + 1);

	if (!more)
		return -ENOMEM;
	memset(more + s->room / 8 + 1, 0, room / 8 - s->room / 8);
	*bits = more;
	return 0;
}

/* Room for @nr clusters, of which those beyond s->nr are free. */
static int scan_grow(struct scan *s, uint64_t nr)
{
	uint64_t room = nr + nr / 2;

	if (nr > s->room) {
		if (grow_bits(s, &s->used, room) ||
		    grow_bits(s, &s->streams, room))
			return -ENOMEM;
		s->room = room;
	}
	s->nr = nr;
	return 0;
}

int scan_append(struct scan *s, uint64_t len, uint64_t *host)
{
	uint64_t at = s->nr * s->img->unit;
	int ret;

	if (!range_within(at, len, tables_of(s->img)->limit))
		return -EFBIG;
	ret = scan_grow(s, s->nr + div_up(len, s->img->unit));
	if (ret)
		return ret;
	scan_mark(s, at, len);
	*host = at;
	return 0;
}

int scan_copy(struct scan *s, uint64_t from, uint64_t to, uint64_t len)
{
	int ret = 0;

	for (uint64_t at = 0; !ret && at < len; at += s->img->unit) {
		size_t n = s->img->unit;        /* zeroes behind the end */

		ret = meta_read(s->img, s->img->file, s->copy, n, from + at);
		if (!ret)
			ret = repair_write(s->img, s->img->file, s->copy, n,
					   to + at);
	}
	return ret;
}

int scan_put_entry(struct scan *s, uint64_t host, uint64_t e)
{
	unsigned char bytes[8];
	int ret = repair_barrier(s->img);

	scan_put(s, bytes, e);
	if (!ret)
		ret = repair_write(s->img, s->img->file, bytes, sizeof(bytes),
				   host);
	return ret ? ret : repair_barrier(s->img);
}

/* ---- findings ------------------------------------------------------------ */

static bool inside(const struct scan *s, uint64_t host, uint64_t len)
{
	const struct tables *t = tables_of(s->img);

	return host >= t->start &&
	       range_within(host, len, s->nr * s->img->unit);
}

/* An entry as it was found. */
struct found {
	uint64_t slot;          /* host offset of the entry */
	uint64_t e;
	uint64_t off;           /* guest offset that it speaks of */
};

/* True: it is to be mended. */
static bool bad(struct scan *s, const struct found *f, bool mends,
		const char *what)
{
	bool fix = mends && s->fix & CHECK_FIX_ERRORS;

	check_say(s->res, "%s%s (entry %#" PRIx64 ", guest offset %#" PRIx64
		  ")", fix ? "Repairing " : "ERROR: ", what, f->e, f->off);
	if (fix)
		s->res->corruptions_fixed++;
	else
		s->res->corruptions++;
	return fix;
}

static int leads_nowhere(struct scan *s, const struct found *f,
			 const char *what)
{
	return bad(s, f, true, what) ? scan_put_entry(s, f->slot, 0) : 0;
}

/* *@now: where the copy is; unchanged if there is none. */
static int used_twice(struct scan *s, const struct found *f, uint64_t len,
		      const char *what, uint64_t *now)
{
	uint64_t to;
	int ret;

	if (!bad(s, f, !(s->fix & CHECK_FIX_AS_QEMU), what))
		return 0;
	ret = scan_append(s, len, &to);
	if (!ret)
		ret = scan_copy(s, f->e, to, len);
	if (!ret)
		ret = scan_put_entry(s, f->slot, to);
	if (!ret)
		*now = to;
	return ret;
}

/* A stream where data or a table lies: who owns that may write there. */
static int move_stream(struct scan *s, const struct found *f,
		       const struct entry *entry)
{
	uint64_t to;
	int ret;

	if (!bad(s, f, !(s->fix & CHECK_FIX_AS_QEMU), "stream in a cluster that"
		 " is used"))
		return 0;
	ret = scan_append(s, entry->packed, &to);
	if (!ret)
		ret = scan_copy(s, entry->host, to, entry->packed);
	return ret ? ret : scan_put_entry(s, f->slot, tables_of(s->img)->kind->
					  encode(s->img, to, entry->packed));
}

static int check_stream(struct scan *s, const struct found *f,
			const struct entry *entry)
{
	s->res->compressed_clusters++;
	if (!entry->packed || !inside(s, entry->host, entry->packed))
		return leads_nowhere(s, f, "stream beyond the end of the"
				     " file");
	return mark_stream(s, entry->host, entry->packed) ? 0 :
	       move_stream(s, f, entry);
}

static uint64_t cluster_align(const struct image *img)
{
	return tables_of(img)->kind->whole_clusters ? img->unit : SECTOR_SIZE;
}

/* QEMU's repair knows L1 as a place that is used, and lets it be. */
static bool in_l1(const struct scan *s, uint64_t host)
{
	const struct tables *t = tables_of(s->img);

	return host >= t->l1_offset && host < t->start;
}

/*
 * The last one may be cut off by the end of the file: what it lacks is its own
 * all the same, and copies go behind it.
 */
static int check_cluster(struct scan *s, const struct found *f, uint64_t host)
{
	uint64_t now = f->e, nr = div_up(host + s->img->unit, s->img->unit);
	int ret = nr > s->nr ? scan_grow(s, nr) : 0;

	if (ret || scan_mark(s, host, s->img->unit))
		return ret;
	return used_twice(s, f, s->img->unit, "cluster is used twice", &now);
}

static int check_entry(struct scan *s, const struct found *f)
{
	struct image *img = s->img;
	struct entry entry;

	tables_of(img)->kind->decode(img, f->e, &entry);
	if (entry.kind != EXT_DATA && entry.kind != EXT_PACKED)
		return 0;
	s->res->allocated_clusters++;
	if (entry.kind == EXT_PACKED)
		return check_stream(s, f, &entry);
	if (s->last && entry.host != s->last + img->unit)
		s->res->fragmented_clusters++;
	s->last = entry.host;
	if (entry.host % cluster_align(img) == 0 && in_l1(s, entry.host))
		return bad(s, f, !(s->fix & CHECK_FIX_AS_QEMU), "cluster within"
			   " L1") ? scan_put_entry(s, f->slot, 0) : 0;
	if (entry.host % cluster_align(img) || !inside(s, entry.host, 1))
		return leads_nowhere(s, f, "cluster in an impossible place");
	return check_cluster(s, f, entry.host);
}

static int check_entries(struct scan *s, uint64_t table, uint64_t index)
{
	const struct tables *t = tables_of(s->img);
	uint64_t off = index * t->l2_entries * s->img->unit;
	int ret = meta_read(s->img, s->img->file, s->table,
			    scan_table_bytes(s), table);

	for (uint64_t i = 0; !ret && i < t->l2_entries; i++) {
		struct found f = {
			.slot = table + 8 * i,
			.e = scan_entry(s, s->table + 8 * i),
			.off = off + i * s->img->unit,
		};

		if (f.e && f.off < image_size(s->img))
			ret = check_entry(s, &f);
	}
	return ret;
}

static int check_table(struct scan *s, uint64_t table, uint64_t index)
{
	const struct tables *t = tables_of(s->img);
	uint64_t bytes = scan_table_bytes(s), now = table;
	struct found f = {
		.slot = t->l1_offset + 8 * index, .e = table,
		.off = index * t->l2_entries * s->img->unit,
	};
	int ret;

	if (table % t->kind->table_align || !inside(s, table, bytes))
		return leads_nowhere(s, &f, "L2 table in an impossible place");
	if (scan_mark(s, table, bytes))
		return check_entries(s, table, index);
	ret = used_twice(s, &f, bytes, "L2 table is used twice", &now);
	return ret || now == table ? ret : check_entries(s, now, index);
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
		table = scan_entry(s, buf + 8 * in);
		if (table)
			ret = check_table(s, table, i);
	}
	return ret;
}

static void count_leaks(struct scan *s)
{
	for (uint64_t c = scan_first(s); c < s->nr; c++)
		s->res->leaks += !scan_used(s, c);
}

/* ---- the whole ----------------------------------------------------------- */

static int scan_make(struct scan *s)
{
	uint64_t size;
	int ret = file_size(s->img->file, &size);

	if (ret)
		return ret;
	s->nr = s->room = div_up(size, s->img->unit);
	s->used = calloc(1, s->nr / 8 + 1);
	s->streams = calloc(1, s->nr / 8 + 1);
	s->table = malloc(scan_table_bytes(s));
	s->copy = malloc(s->img->unit);
	s->res->total_clusters = div_up(image_size(s->img), s->img->unit);
	return s->used && s->streams && s->table && s->copy ? 0 : -ENOMEM;
}

static void scan_free(struct scan *s)
{
	free(s->used);
	free(s->streams);
	free(s->table);
	free(s->copy);
}

int tables_check(struct image *img, struct check_result *res)
{
	struct scan s = { .img = img, .res = res };
	int ret = scan_make(&s);

	if (!ret)
		ret = check_l1(&s);
	if (!ret)
		count_leaks(&s);
	scan_free(&s);
	return ret;
}

/* Nothing moves while it is not known who owns what. */
static int give_back(struct scan *s)
{
	uint64_t before = s->res->leaks;
	int ret;

	if (!before || !(s->fix & CHECK_FIX_LEAKS) ||
	    s->fix & CHECK_FIX_AS_QEMU || s->res->corruptions)
		return 0;
	ret = tables_compact(s);
	s->res->leaks = 0;
	count_leaks(s);
	s->res->leaks_fixed += before - min_u64(before, s->res->leaks);
	return ret;
}

int tables_repair(struct image *img, unsigned fix, struct check_result *res)
{
	struct scan s = { .img = img, .res = res, .fix = fix };
	int ret;

	/* QEMU's takes entries out that lead nowhere, whatever it is asked. */
	if (fix & CHECK_FIX_AS_QEMU)
		s.fix |= CHECK_FIX_ERRORS;
	ret = scan_make(&s);
	if (!ret)
		ret = check_l1(&s);
	if (!ret)
		count_leaks(&s);
	if (!ret)
		ret = give_back(&s);
	if (!ret)
		atomic_store(&tables_of(img)->next, s.nr * img->unit);
	scan_free(&s);
	return ret;
}
