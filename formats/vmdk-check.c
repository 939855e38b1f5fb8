/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-check.c - entries that lead nowhere, and second tables that do not say
 * what the first ones say; both put right from whichever is sound.
 *
 * Where a second table lies something else may be, too: none is changed, a new
 * one is made.
 *
 * The first table counts where both could be true.  An entry that leads beyond
 * the end of the file takes the second one's place if that is sound, else the
 * grain is gone.  A second table that is only behind does no harm: a leak; one
 * that has grains where there is no first one is copied.
 * Refuses to know what is in a grain.
 */
#include "vmdk.h"

#include <inttypes.h>

struct scan {
	struct image *img;
	struct vmdk_extent *x;
	struct check_result *res;
	unsigned fix;
	uint64_t rgd;           /* 0: there is none, or it is unusable */
	uint64_t end;           /* of the file as it is now */
	unsigned char *first, *second;
	/* Where the tables of the last entries have gone; 0: nowhere. */
	uint64_t gone_first, gone_second;
};

static uint64_t table_bytes(const struct scan *s)
{
	return 4 * (uint64_t)s->x->gtes;
}

static bool fixes(const struct scan *s)
{
	return s->fix & CHECK_FIX_ERRORS;
}

static void found(struct scan *s)
{
	if (fixes(s))
		s->res->corruptions_fixed++;
	else
		s->res->corruptions++;
}

static bool table_good(const struct scan *s, uint64_t table)
{
	return table && range_within(table, table_bytes(s), s->end);
}

static uint64_t directory_bytes(const struct scan *s)
{
	return 4 * div_up(s->x->size, s->x->gtes * s->x->grain);
}

static bool meet(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* Does a table lie on the header, the descriptor or a directory? */
static bool lies_on_others(const struct scan *s, uint64_t table)
{
	const struct vmdk *v = vmdk_of(s->img);
	uint64_t len = table_bytes(s), dir = directory_bytes(s);

	return meet(table, len, 0, SECTOR_SIZE) ||
	       (s->x->file == s->img->file &&
		meet(table, len, v->text_at, v->text_room)) ||
	       meet(table, len, s->x->gd, dir) ||
	       (s->x->rgd && meet(table, len, s->x->rgd, dir));
}

static bool entry_good(const struct scan *s, uint32_t gte)
{
	enum extent_kind kind = vmdk_kind_of(s->x, gte);

	return (kind != EXT_DATA && kind != EXT_PACKED) ||
	       (uint64_t)gte * SECTOR_SIZE < s->end;
}

/* ---- one table ----------------------------------------------------------- */

/* Entries of the first table; *@changed: some were put right. */
static void check_entries(struct scan *s, uint64_t index, bool second,
			  bool *changed)
{
	const struct vmdk_extent *x = s->x;

	for (uint64_t i = 0; i < x->gtes; i++) {
		uint64_t g = index * x->gtes + i;
		uint32_t other = second ? le32_at(s->second + 4 * i) : 0;

		if (g * x->grain >= x->size ||
		    entry_good(s, le32_at(s->first + 4 * i)))
			continue;
		check_say(s->res, "%s cluster offset for sector %" PRIu64
			  " points after EOF", fixes(s) ? "Repairing" :
			  "ERROR:", (x->start + g * x->grain) / SECTOR_SIZE);
		found(s);
		if (!fixes(s))
			continue;
		le32_put(s->first + 4 * i, entry_good(s, other) ? other : 0);
		*changed = true;
	}
}

static int put_root(struct scan *s, uint64_t dir, uint64_t index,
		    uint64_t table)
{
	unsigned char e[4];

	le32_put(e, (uint32_t)(table / SECTOR_SIZE));
	return repair_write(s->img, s->x->file, e, sizeof(e), dir + 4 * index);
}

/* A new table at the end of the file, durable before the directory @dir leads
 * there. */
static int table_anew(struct scan *s, uint64_t dir, uint64_t index)
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
	*(dir == s->rgd ? &s->gone_second : &s->gone_first) = at;
	return ret;
}

/* Entries that are what the last ones were go where those went. */
static int follow(struct scan *s, uint64_t index)
{
	int ret = s->gone_first ? put_root(s, s->x->gd, index, s->gone_first) :
		  0;

	if (!ret && s->gone_second)
		ret = put_root(s, s->rgd, index, s->gone_second);
	return ret;
}

/* Where they differ one of them is empty: what a power failure leaves of two
 * tables that were about to be written.  The first one is right. */
static bool is_behind(const struct scan *s)
{
	for (uint64_t i = 0; i < s->x->gtes; i++) {
		uint32_t a = le32_at(s->first + 4 * i);
		uint32_t b = le32_at(s->second + 4 * i);

		if (a != b && a > 1 && b > 1)
			return false;
	}
	return true;
}

static int check_second(struct scan *s, uint64_t index, uint64_t table)
{
	bool good = table_good(s, table) && !lies_on_others(s, table);

	if (good && !memcmp(s->first, s->second, table_bytes(s)))
		return 0;
	if (good && is_behind(s)) {
		check_say(s->res, "%s redundant grain table %" PRIu64
			  " is behind", s->fix ? "Repairing" : "Leaked:",
			  index);
		*(s->fix ? &s->res->leaks_fixed : &s->res->leaks) += 1;
		return s->fix ? table_anew(s, s->rgd, index) : 0;
	}
	check_say(s->res, "%s redundant grain table %" PRIu64 " differs",
		  fixes(s) ? "Repairing" : "ERROR:", index);
	found(s);
	return fixes(s) ? table_anew(s, s->rgd, index) : 0;
}

/* The first table is not there: the second one at @second, unless that is 0, is
 * copied, but for entries that are as bad. */
static int check_lost(struct scan *s, uint64_t index, const char *how,
		      uint64_t second)
{
	bool can = fixes(s) && second, changed = false;
	int ret;

	check_say(s->res, "%s grain table %" PRIu64 " %s",
		  can ? "Repairing" : "ERROR:", index, how);
	if (!can) {
		s->res->corruptions++;
		return 0;
	}
	s->res->corruptions_fixed++;
	memcpy(s->first, s->second, table_bytes(s));
	check_entries(s, index, false, &changed);
	ret = table_anew(s, s->x->gd, index);
	if (!ret && changed)
		ret = table_anew(s, s->rgd, index);
	return ret;
}

/* A power failure may leave an empty second table alone: that is no loss. */
static bool second_is_empty(const struct scan *s)
{
	for (uint64_t i = 0; i < s->x->gtes; i++)
		if (le32_at(s->second + 4 * i))
			return false;
	return true;
}

static int load(struct scan *s, uint64_t table, unsigned char *buf)
{
	return meta_read(s->img, s->x->file, buf, table_bytes(s), table);
}

static int check_tables(struct scan *s, uint64_t index, uint64_t first,
			uint64_t second)
{
	bool has_second = table_good(s, second) && second != first;
	bool changed = false;
	int ret = has_second ? load(s, second, s->second) : 0;

	if (!ret && !first)
		return !has_second || second_is_empty(s) ? 0 :
		       check_lost(s, index, "is missing", second);
	if (!ret && !table_good(s, first))
		return check_lost(s, index, "points after EOF",
				  has_second ? second : 0);
	if (!ret && lies_on_others(s, first))
		return check_lost(s, index, "lies on other metadata",
				  has_second ? second : 0);
	if (!ret)
		ret = load(s, first, s->first);
	if (ret)
		return ret;
	check_entries(s, index, has_second, &changed);
	if (changed)
		ret = repair_write(s->img, s->x->file, s->first,
				   table_bytes(s), first);
	if (!ret && s->rgd && second != first)
		ret = check_second(s, index, second);
	return ret;
}

/* ---- an extent ----------------------------------------------------------- */

/* The entries of one that lies on the first cannot be changed. */
static void check_directories(struct scan *s)
{
	uint64_t len = directory_bytes(s);

	s->rgd = s->x->rgd;
	if (!s->rgd || !meet(s->x->gd, len, s->rgd, len))
		return;
	s->rgd = 0;
	check_say(s->res, "ERROR: redundant grain directory lies on the"
		  " other one");
	s->res->corruptions++;
}

static int check_extent(struct scan *s)
{
	const struct vmdk_extent *x = s->x;
	uint64_t nr = div_up(x->size, x->gtes * x->grain);
	uint64_t first = 0, second = 0, last = 0, last_second = 0;
	int ret = file_size(x->file, &s->end);

	check_directories(s);
	for (uint64_t i = 0; !ret && i < nr; i++) {
		if (s->res->cancel && atomic_load(s->res->cancel))
			return -EINTR;
		ret = vmdk_table_at(s->img, x, x->gd, i, &first);
		if (!ret && s->rgd)
			ret = vmdk_table_at(s->img, x, s->rgd, i, &second);
		if (ret || (!first && !second))
			continue;
		/* A table that all entries share is looked at once. */
		if (first == last && second == last_second) {
			ret = follow(s, i);
			continue;
		}
		s->gone_first = s->gone_second = 0;
		ret = check_tables(s, i, first, second);
		last = first;
		last_second = second;
	}
	return ret;
}

static int scan(struct image *img, unsigned fix, struct check_result *res)
{
	const struct vmdk *v = vmdk_of(img);
	int ret = 0;

	for (unsigned i = 0; !ret && i < v->nr; i++) {
		struct vmdk_extent *x = &v->extents[i];
		struct scan s = { .img = img, .x = x, .res = res, .fix = fix };

		if (x->store == VMDK_SESPARSE)
			ret = vmdk_sesparse_check(img, x, res);
		if (x->store != VMDK_SPARSE)
			continue;
		s.first = malloc(table_bytes(&s));
		s.second = malloc(table_bytes(&s));
		ret = s.first && s.second ? check_extent(&s) : -ENOMEM;
		free(s.first);
		free(s.second);
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
