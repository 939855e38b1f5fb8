/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-check.c - tables and grains that lead nowhere or lie on each other, and
 * second tables that do not say what the first ones say; all put right from
 * whichever is sound.
 *
 * First all that is metadata takes its place in the file: header, descriptor,
 * directories, first tables, second tables.  A table that finds its place taken
 * is not changed there: the second one is copied, or what the first one reads
 * now, to the end of the file.  Then grains take theirs (vmdk-grains.c), before
 * all others those of tables that are as their second ones.  Each table is read
 * twice at most.
 *
 * The first table counts where both could be true.  A second table that is only
 * behind does no harm: a leak; one that has grains where there is no first one
 * is copied.
 * Refuses to know what is in a grain.
 */
#include "vmdk-check.h"

#include <inttypes.h>

enum { PIECE = 4096 };          /* tables whose entries are read at once */
enum { HEADER_RGD = 48, HEADER_GD = 56, COWD_GD = 20 };

enum {
	TABLE_BAD  = 1 << 0,    /* the first one has no place of its own */
	SECOND_BAD = 1 << 1,    /* nor has the redundant one */
	TABLE_DONE = 1 << 2,
};

/* Where the entries of both directories lead, in bytes; 0: nowhere. */
struct table {
	uint64_t index;
	uint64_t first, second;
};

static uint64_t table_bytes(const struct vmdk_scan *s)
{
	return 4 * (uint64_t)s->x->gtes;
}

static uint64_t nr_tables(const struct vmdk_scan *s)
{
	return div_up(s->x->size, s->x->gtes * s->x->grain);
}

static const char *verb(bool fixes)
{
	return fixes ? "Repairing" : "ERROR:";
}

static bool in_file(const struct vmdk_scan *s, uint64_t table)
{
	return table && range_within(table, table_bytes(s), s->was);
}

static bool has_second(const struct vmdk_scan *s, const struct table *t)
{
	return t->second && t->second != t->first &&
	       !(s->tables[t->index] & SECOND_BAD);
}

static int load(struct vmdk_scan *s, uint64_t table, unsigned char *buf)
{
	return meta_read(s->img, s->x->file, buf, table_bytes(s), table);
}

/* ---- whose place it is --------------------------------------------------- */

/* 1: it is its own. */
static int takes_place(struct vmdk_scan *s, uint64_t table)
{
	return in_file(s, table) ?
	       places_take(&s->metadata, table, table_bytes(s)) : 0;
}

static int place_first(struct vmdk_scan *s, const struct table *t)
{
	int ret = t->first ? takes_place(s, t->first) : 1;

	if (!ret)
		s->tables[t->index] |= TABLE_BAD;
	return ret < 0 ? ret : 0;
}

/* Both directories may lead to one and the same. */
static int place_second(struct vmdk_scan *s, const struct table *t)
{
	bool bad = t->first && s->tables[t->index] & TABLE_BAD;
	int ret = !t->second ? 1 : t->second == t->first ? !bad :
		  takes_place(s, t->second);

	if (!ret)
		s->tables[t->index] |= SECOND_BAD;
	return ret < 0 ? ret : 0;
}

/* QEMU keeps to itself what room the descriptor has; its text is all there is. */
static int place_others(struct vmdk_scan *s)
{
	const struct vmdk *v = vmdk_of(s->img);
	const struct vmdk_extent *x = s->x;
	uint64_t dir = 4 * x->roots;
	int ret = places_take(&s->metadata, 0, x->cowd ? VMDK_COWD_HEADER :
			      SECTOR_SIZE);

	if (ret >= 0 && x->file == s->img->file)
		ret = places_take(&s->metadata, v->text_at,
				  strlen(v->text) + 1);
	if (ret >= 0)
		ret = places_take(&s->metadata, x->gd, dir);
	if (ret >= 0 && s->rgd)
		ret = places_take(&s->metadata, s->rgd, dir);
	if (ret >= 0 && x->ended)
		ret = places_take(&s->metadata, s->was - 3 * SECTOR_SIZE,
				  3 * SECTOR_SIZE);
	return ret < 0 ? ret : 0;
}

/* ---- one table ----------------------------------------------------------- */

static int put_root(struct vmdk_scan *s, uint64_t dir, uint64_t index,
		    uint64_t table)
{
	unsigned char e[4];

	le32_put(e, (uint32_t)(table / SECTOR_SIZE));
	return repair_write(s->img, s->x->file, e, sizeof(e), dir + 4 * index);
}

/* A new table at the end of the file, durable before the directory @dir leads
 * there. */
static int table_anew(struct vmdk_scan *s, uint64_t dir, uint64_t index)
{
	uint64_t at = round_up(s->end, SECTOR_SIZE);
	int ret;

	if (at / SECTOR_SIZE > UINT32_MAX)
		return -EFBIG;
	ret = repair_write(s->img, s->x->file, s->first, table_bytes(s), at);
	if (!ret)
		ret = repair_barrier(s->img);
	if (!ret)
		ret = put_root(s, dir, index, at);
	s->end = at + table_bytes(s);
	return ret;
}

/* Nothing tells what was in it. */
static int give_up(struct vmdk_scan *s, uint64_t index)
{
	int ret = put_root(s, s->x->gd, index, 0);

	s->tables[index] |= TABLE_DONE;
	if (!ret && s->rgd)
		ret = put_root(s, s->rgd, index, 0);
	return ret;
}

/* The first table is not there, or not in a place of its own. */
static int lost(struct vmdk_scan *s, const struct table *t, const char *how)
{
	uint64_t from = has_second(s, t) ? t->second :
			in_file(s, t->first) ? t->first : 0;
	int ret;

	check_say(s->res, "%s grain table %" PRIu64 " %s",
		  verb(vmdk_scan_fixes(s)), t->index, how);
	vmdk_scan_found(s);
	if (!vmdk_scan_fixes(s)) {
		s->tables[t->index] |= TABLE_DONE;
		return 0;
	}
	if (!from)
		return give_up(s, t->index);
	ret = load(s, from, s->first);
	return ret ? ret : table_anew(s, s->x->gd, t->index);
}

static void say_differs(struct vmdk_scan *s, uint64_t index)
{
	check_say(s->res, "%s redundant grain table %" PRIu64 " differs",
		  verb(vmdk_scan_fixes(s)), index);
	vmdk_scan_found(s);
}

static bool is_empty(const struct vmdk_scan *s, const unsigned char *table)
{
	for (uint64_t i = 0; i < s->x->gtes; i++)
		if (le32_at(table + 4 * i))
			return false;
	return true;
}

/* A power failure may leave an empty second table alone: that is no loss. */
static int only_second(struct vmdk_scan *s, const struct table *t)
{
	int ret;

	if (has_second(s, t)) {
		ret = load(s, t->second, s->second);
		if (ret || !is_empty(s, s->second))
			return ret ? ret : lost(s, t, "is missing");
	} else if (t->second) {
		say_differs(s, t->index);
		if (vmdk_scan_fixes(s))
			return give_up(s, t->index);
	}
	s->tables[t->index] |= TABLE_DONE;
	return 0;
}

/* What lies wrong gets another place, before any entry is looked at. */
static int check_place(struct vmdk_scan *s, const struct table *t)
{
	if (!t->first)
		return only_second(s, t);
	if (!(s->tables[t->index] & TABLE_BAD))
		return 0;
	return lost(s, t, in_file(s, t->first) ? "lies on other metadata" :
		    "points after EOF");
}

/* ---- two tables ---------------------------------------------------------- */

/* Where they differ one of them is empty: what a power failure leaves of two
 * tables that were about to be written.  The first one is right. */
static bool is_behind(const struct vmdk_scan *s)
{
	for (uint64_t i = 0; i < s->x->gtes; i++) {
		uint32_t a = le32_at(s->first + 4 * i);
		uint32_t b = le32_at(s->second + 4 * i);

		if (a != b && a > 1 && b > 1)
			return false;
	}
	return true;
}

static int check_second(struct vmdk_scan *s, uint64_t index, bool good)
{
	if (s->rgd_is_new)
		return table_anew(s, s->rgd, index);
	if (good && !memcmp(s->first, s->second, table_bytes(s)))
		return 0;
	if (good && is_behind(s)) {
		check_say(s->res, "%s redundant grain table %" PRIu64
			  " is behind", s->fix ? "Repairing" : "Leaked:",
			  index);
		*(s->fix ? &s->res->leaks_fixed : &s->res->leaks) += 1;
		return s->fix ? table_anew(s, s->rgd, index) : 0;
	}
	say_differs(s, index);
	return vmdk_scan_fixes(s) ? table_anew(s, s->rgd, index) : 0;
}

/* s->first and, if it is @good, s->second are there. */
static int check_both(struct vmdk_scan *s, const struct table *t, bool good)
{
	bool changed = false;
	int ret = vmdk_grains_check(s, t->index, good, &changed);

	s->tables[t->index] |= TABLE_DONE;
	if (!ret && changed)
		ret = repair_barrier(s->img);
	if (!ret && changed)
		ret = repair_write(s->img, s->x->file, s->first,
				   table_bytes(s), t->first);
	if (!ret && s->rgd && t->second != t->first)
		ret = check_second(s, t->index, good);
	return ret;
}

static int check_entries(struct vmdk_scan *s, const struct table *t, bool all)
{
	bool good = has_second(s, t);
	int ret;

	if (!t->first || s->tables[t->index] & TABLE_DONE)
		return 0;
	ret = load(s, t->first, s->first);
	if (!ret && good)
		ret = load(s, t->second, s->second);
	if (ret)
		return ret;
	if (!all && good && memcmp(s->first, s->second, table_bytes(s))) {
		s->differ = true;
		return 0;
	}
	return check_both(s, t, good);
}

static int check_equal(struct vmdk_scan *s, const struct table *t)
{
	return check_entries(s, t, false);
}

static int check_rest(struct vmdk_scan *s, const struct table *t)
{
	return check_entries(s, t, true);
}

/* ---- an extent ----------------------------------------------------------- */

static uint64_t root_at(const unsigned char *roots, uint64_t i)
{
	return (uint64_t)le32_at(roots + 4 * i) * SECTOR_SIZE;
}

static int read_roots(struct vmdk_scan *s, uint64_t dir, unsigned char *buf,
		      uint64_t index, uint64_t n)
{
	if (dir)
		return meta_read(s->img, s->x->file, buf, 4 * n,
				 dir + 4 * index);
	memset(buf, 0, 4 * n);
	return 0;
}

/* @look at each index at which there is a table. */
static int each_table(struct vmdk_scan *s,
		      int (*look)(struct vmdk_scan *s, const struct table *t))
{
	autofree unsigned char *buf = malloc(8 * PIECE);
	unsigned char *second = buf + 4 * PIECE;
	uint64_t nr = nr_tables(s);
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0, n; !ret && i < nr; i += n) {
		n = min_u64(PIECE, nr - i);
		ret = read_roots(s, s->x->gd, buf, i, n);
		if (!ret)
			ret = read_roots(s, s->rgd, second, i, n);
		for (uint64_t k = 0; !ret && k < n; k++) {
			struct table t = {
				.index = i + k,
				.first = root_at(buf, k),
				.second = root_at(second, k),
			};

			if (s->res->cancel && atomic_load(s->res->cancel))
				return -EINTR;
			if (t.first || t.second)
				ret = look(s, &t);
		}
	}
	return ret;
}

/* The first one's entries, or none, durable at the end of the file. */
static int write_roots(struct vmdk_scan *s, uint64_t from, uint64_t at)
{
	autofree unsigned char *buf = calloc(PIECE, 4);
	uint64_t n;
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; !ret && i < s->x->roots; i += n) {
		n = min_u64(PIECE, s->x->roots - i);
		if (from)
			ret = read_roots(s, from, buf, i, n);
		if (!ret)
			ret = repair_write(s->img, s->x->file, buf,
					   round_up(4 * n, SECTOR_SIZE),
					   at + 4 * i);
	}
	return ret ? ret : repair_barrier(s->img);
}

/* At the end of the file, before the header's @field leads there. */
static int directory_anew(struct vmdk_scan *s, uint64_t from, uint64_t field,
			  uint64_t *dir)
{
	uint64_t at = round_up(s->end, SECTOR_SIZE);
	unsigned char e[8];
	int ret = write_roots(s, from, at);

	le64_put(e, at / SECTOR_SIZE);
	if (!ret && at / SECTOR_SIZE > UINT32_MAX)
		ret = -EFBIG;
	if (!ret)
		ret = repair_write(s->img, s->x->file, e,
				   s->x->cowd ? 4 : sizeof(e), field);
	if (!ret)
		*dir = at;
	s->end = at + round_up(4 * s->x->roots, SECTOR_SIZE);
	return ret;
}

static void directory_found(struct vmdk_scan *s, const char *which,
			    const char *fault)
{
	check_say(s->res, "%s %s %s", verb(vmdk_scan_fixes(s)), which, fault);
	vmdk_scan_found(s);
}

/* The entries of one that lies on something else cannot be changed. */
static int check_directories(struct vmdk_scan *s)
{
	struct vmdk_extent *x = s->x;
	int ret = 0;

	if (x->gd_fault) {
		directory_found(s, "grain directory", x->gd_fault);
		if (vmdk_scan_fixes(s))
			ret = directory_anew(s, x->gd, x->cowd ? COWD_GD :
					     HEADER_GD, &x->gd);
	}
	if (!ret && x->rgd_fault && !x->ended) {
		directory_found(s, "redundant grain directory", x->rgd_fault);
		s->rgd_is_new = vmdk_scan_fixes(s);
		if (vmdk_scan_fixes(s))
			ret = directory_anew(s, 0, HEADER_RGD, &x->rgd);
	}
	if (!ret && vmdk_scan_fixes(s))
		x->gd_fault = x->rgd_fault = NULL;
	s->rgd = x->rgd;
	return ret;
}

/* The last grain may be cut off, wherever it begins. */
static int start(struct vmdk_scan *s)
{
	const struct vmdk_extent *x = s->x;
	int ret = file_size(x->file, &s->was);

	if (ret)
		return ret;
	s->end = x->packed ? s->was :
		 round_up(s->was + x->grain - SECTOR_SIZE, x->grain);
	ret = check_directories(s);
	if (ret)
		return ret;
	s->first = malloc(table_bytes(s));
	s->second = malloc(table_bytes(s));
	s->tables = calloc(1, nr_tables(s) + 1);
	if (!s->first || !s->second || !s->tables)
		return -ENOMEM;
	ret = places_init(&s->metadata, s->was, SECTOR_SIZE);
	if (!ret)
		ret = places_init(&s->grains, s->was, x->grain);
	return ret ? ret : place_others(s);
}

static int check_extent(struct vmdk_scan *s)
{
	int ret = start(s);

	if (!ret)
		ret = each_table(s, place_first);
	if (!ret && s->rgd)
		ret = each_table(s, place_second);
	if (!ret)
		ret = each_table(s, check_place);
	if (!ret)
		ret = each_table(s, check_equal);
	if (!ret && s->differ)
		ret = each_table(s, check_rest);
	places_free(&s->metadata);
	places_free(&s->grains);
	free(s->tables);
	free(s->first);
	free(s->second);
	return ret;
}

static int scan(struct image *img, unsigned fix, struct check_result *res)
{
	const struct vmdk *v = vmdk_of(img);
	int ret = 0;

	for (unsigned i = 0; !ret && i < v->nr; i++) {
		struct vmdk_extent *x = &v->extents[i];
		struct vmdk_scan s = {
			.img = img, .x = x, .res = res, .fix = fix,
		};

		if (x->store == VMDK_SESPARSE)
			ret = vmdk_sesparse_check(img, x, res);
		if (x->store != VMDK_SPARSE)
			continue;
		ret = check_extent(&s);
		if (fix && !ret)
			ret = file_size(x->file, &x->file_end);
		if (fix && !ret)
			atomic_store(&x->next, round_up(x->file_end,
				     x->packed ? SECTOR_SIZE : x->grain));
	}
	return ret;
}

int vmdk_check(struct image *img, struct check_result *res)
{
	return scan(img, 0, res);
}

int vmdk_repair(struct image *img, unsigned fix, struct check_result *res)
{
	return scan(img, fix, res);
}
