/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-check.c - entries that lead nowhere, and second tables that do not say
 * what the first ones say; both put right from whichever is sound.
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
	uint64_t end;           /* of the file as it is now */
	unsigned char *first, *second;
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

/* A new table at the end of the file, durable before @root leads there. */
static int table_anew(struct scan *s, uint64_t root, const void *entries)
{
	uint64_t at = round_up(s->end, SECTOR_SIZE);
	unsigned char e[4];
	int ret;

	if (at / SECTOR_SIZE > UINT32_MAX)
		return -EFBIG;
	le32_put(e, (uint32_t)(at / SECTOR_SIZE));
	ret = repair_write(s->img, s->x->file, entries, table_bytes(s), at);
	if (!ret)
		ret = repair_barrier(s->img);
	if (!ret)
		ret = repair_write(s->img, s->x->file, e, sizeof(e), root);
	s->end = at + table_bytes(s);
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
	bool good = table_good(s, table);

	if (good && !memcmp(s->first, s->second, table_bytes(s)))
		return 0;
	if (good && is_behind(s)) {
		check_say(s->res, "%s redundant grain table %" PRIu64
			  " is behind", s->fix ? "Repairing" : "Leaked:",
			  index);
		*(s->fix ? &s->res->leaks_fixed : &s->res->leaks) += 1;
		return s->fix ? repair_write(s->img, s->x->file, s->first,
					     table_bytes(s), table) : 0;
	}
	check_say(s->res, "%s redundant grain table %" PRIu64 " differs",
		  fixes(s) ? "Repairing" : "ERROR:", index);
	found(s);
	if (!fixes(s))
		return 0;
	if (good)
		return repair_write(s->img, s->x->file, s->first,
				    table_bytes(s), table);
	return table_anew(s, s->x->rgd + 4 * index, s->first);
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
	ret = table_anew(s, s->x->gd + 4 * index, s->first);
	if (!ret && changed)
		ret = repair_write(s->img, s->x->file, s->first,
				   table_bytes(s), second);
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
	if (!ret)
		ret = load(s, first, s->first);
	if (ret)
		return ret;
	check_entries(s, index, has_second, &changed);
	if (changed)
		ret = repair_write(s->img, s->x->file, s->first,
				   table_bytes(s), first);
	if (!ret && s->x->rgd && second != first)
		ret = check_second(s, index, second);
	return ret;
}

/* ---- an extent ----------------------------------------------------------- */

static int check_extent(struct scan *s)
{
	const struct vmdk_extent *x = s->x;
	uint64_t nr = div_up(x->size, x->gtes * x->grain);
	uint64_t first = 0, second = 0, last = 0, last_second = 0;
	int ret = file_size(x->file, &s->end);

	for (uint64_t i = 0; !ret && i < nr; i++) {
		if (s->res->cancel && atomic_load(s->res->cancel))
			return -EINTR;
		ret = vmdk_table_at(s->img, x, x->gd, i, &first);
		if (!ret && x->rgd)
			ret = vmdk_table_at(s->img, x, x->rgd, i, &second);
		/* A table that all entries share is looked at once. */
		if (!ret && (first || second) &&
		    (first != last || second != last_second))
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
