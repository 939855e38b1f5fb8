/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-recount.c - what a qcow2 image says about its clusters, compared with
 * the references that qcow2-check.c has counted: reference counts and COPIED
 * bits (qcow2.md 14).  With c->fix it puts right what may be, where the image
 * says it: the counts first, durable before a COPIED bit relies on them.
 *
 * Refuses to know how the references were found.
 */
#include "qcow2-check.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- reference counts ---------------------------------------------------- */

/* A new table will not have it. */
static void block_outside(struct check *c, uint64_t i)
{
	if (!(c->fix & CHECK_FIX_ERRORS)) {
		corrupt(c, "ERROR refcount block %" PRIu64 " is outside image",
			i);
		return;
	}
	check_say(c->res, "Repairing refcount block %" PRIu64 " is outside"
		  " image", i);
	c->res->corruptions_fixed++;
	c->rebuild = true;
}

static int check_block(struct check *c, uint64_t i)
{
	uint64_t e = be64_at(c->reftable + 8 * i), at = e & QRT_HOST, n;
	int ret;

	if (e & QRT_RESERVED) {
		c->rebuild = true;
		corrupt(c, "ERROR refcount table entry %" PRIu64 " has"
			" reserved bits set", i);
		return 0;
	}
	if (at % c->unit) {
		c->rebuild = true;
		corrupt(c, "ERROR refcount block %" PRIu64 " is not cluster"
			" aligned; refcount table entry corrupted", i);
		return 0;
	}
	if (at / c->unit >= c->nr_clusters) {
		block_outside(c, i);
		return 0;
	}
	if (!at)
		return 0;
	ret = count_region(c, at, c->unit);
	n = counts_get(&c->counts, at / c->unit);
	if (!ret && n != 1) {
		c->rebuild = true;
		corrupt(c, "ERROR refcount block %" PRIu64 " refcount=%"
			PRIu64, i, n);
	}
	return ret;
}

int check_reftable(struct check *c)
{
	uint64_t bytes = c->nr_blocks * 8;
	int ret = count_region(c, c->q->reftable_offset, bytes);

	for (uint64_t i = 0; i < c->nr_blocks && !ret; i++)
		ret = check_block(c, i);
	return ret;
}

/* Writes what was changed of the block in memory. */
int block_flush(struct check *c)
{
	uint64_t from = c->block_dirty, len = c->block_clean - from;

	c->block_dirty = c->block_clean = 0;
	return !len ? 0 : repair_write(c->img, c->img->file, c->block + from,
				       len, c->block_at + from);
}

/* -EIO: the block is nowhere. */
static int block_load(struct check *c, uint64_t i)
{
	uint64_t at = be64_at(c->reftable + 8 * i) & QRT_HOST;
	int ret;

	if (at % c->unit) {
		if (!c->unaligned_said)
			check_say(c->res, "qcow2: Image is corrupt: Refblock"
				  " offset %#" PRIx64 " unaligned (reftable"
				  " index: %#" PRIx64 "); further non-fatal"
				  " corruption events will be suppressed", at,
				  i);
		c->unaligned_said = true;
		return -EIO;
	}
	if (at > INT64_MAX - c->unit)
		return -EIO;
	if (c->block_at == at)
		return 0;
	ret = block_flush(c);
	if (ret)
		return ret;
	c->block_at = UINT64_MAX;
	ret = meta_read(c->img, c->img->file, c->block, c->unit, at);
	if (!ret)
		c->block_at = at;
	return ret;
}

bool has_block(const struct check *c, uint64_t cluster)
{
	uint64_t i = cluster / qcow2_refs_per_block(c->q);

	return i < c->nr_blocks && be64_at(c->reftable + 8 * i) & QRT_HOST;
}

/* What the image says about a cluster. */
int stored_count(struct check *c, uint64_t cluster, uint64_t *count)
{
	uint64_t per = qcow2_refs_per_block(c->q);
	int ret;

	*count = 0;
	if (!has_block(c, cluster))
		return 0;
	ret = block_load(c, cluster / per);
	if (!ret)
		*count = refcount_get(c->block, c->q->refcount_order,
				      cluster % per);
	return ret;
}

/* The file's bytes of clusters that are free now are given back. */
int give_back(struct check *c, uint64_t cluster, bool last)
{
	uint64_t from = c->freed, n = c->nr_freed;

	if (!last && n && from + n == cluster) {
		c->nr_freed++;
		return 0;
	}
	c->freed = cluster;
	c->nr_freed = last ? 0 : 1;
	return !n ? 0 : repair_discard(c->img, c->img->file, from * c->unit,
				       n * c->unit);
}

/* The block of @cluster is in memory and nothing but a block: otherwise all
 * blocks are made anew. */
int count_put(struct check *c, uint64_t cluster, uint64_t count)
{
	uint64_t i = cluster % qcow2_refs_per_block(c->q);
	uint64_t at = round_down((i << c->q->refcount_order) / 8, 8);

	refcount_put(c->block, c->q->refcount_order, i, count);
	if (!c->block_clean)
		c->block_dirty = at;
	c->block_dirty = min_u64(c->block_dirty, at);
	c->block_clean = max_u64(c->block_clean, at + 8);
	return count ? 0 : give_back(c, cluster, false);
}

static int differs(struct check *c, uint64_t i, uint64_t stored,
		   uint64_t found)
{
	struct check_result *res = c->res;
	bool leak = stored > found;
	bool fix = c->fix & (leak ? CHECK_FIX_LEAKS : CHECK_FIX_ERRORS) &&
		   has_block(c, i);

	check_say(res, "%s cluster %" PRIu64 " refcount=%" PRIu64
		  " reference=%" PRIu64, fix ? "Repairing" : leak ? "Leaked" :
		  "ERROR", i, stored, found);
	if (!stored)
		c->rebuild = true;
	if (leak)
		fix ? res->leaks_fixed++ : res->leaks++;
	else
		fix ? res->corruptions_fixed++ : res->corruptions++;
	return fix ? count_put(c, i, found) : 0;
}

static int compare(struct check *c, uint64_t i, uint64_t *end)
{
	uint64_t stored, found = counts_get(&c->counts, i);
	int ret = stored_count(c, i, &stored);

	if (ret) {
		check_say(c->res, "Can't get refcount for cluster %" PRIu64
			  ": %s", i, strerror(-ret));
		c->res->check_errors++;
		c->counts_hold = false;
		return 0;
	}
	if (stored || found)
		*end = i + 1;
	if (stored == found)
		return 0;
	c->counts_hold = false;
	return differs(c, i, stored, found);
}

/* Nobody says or has anything about [first, first + n), which one block
 * counts? */
static bool nothing_there(struct check *c, uint64_t first, uint64_t n)
{
	uint64_t i = first / qcow2_refs_per_block(c->q);

	return counts_none(&c->counts, first, n) &&
	       (i >= c->nr_blocks || !be64_at(c->reftable + 8 * i));
}

int compare_all(struct check *c)
{
	uint64_t per = qcow2_refs_per_block(c->q), end = 1;
	int ret = 0;

	c->counts_hold = true;
	for (uint64_t at = 0; at < c->nr_clusters && !ret; at += per) {
		uint64_t n = min_u64(per, c->nr_clusters - at);

		if (!nothing_there(c, at, n))
			for (uint64_t i = 0; i < n && !ret; i++)
				ret = compare(c, at + i, &end);
		ret = ret ? ret : check_cancelled(c);
	}
	c->res->image_end_offset = end * c->unit;
	ret = ret ? ret : block_flush(c);
	return ret ? ret : give_back(c, 0, true);
}

/* ---- COPIED -------------------------------------------------------------- */

int table_put(struct check *c, uint64_t host, void *mem, uint64_t entry)
{
	unsigned char bytes[8];

	be64_put(bytes, entry);
	if (mem)
		memcpy(mem, bytes, sizeof(bytes));
	return repair_write(c->img, c->img->file, bytes, sizeof(bytes), host);
}

static int copied_found(struct check *c, bool fix, const char *what)
{
	check_say(c->res, "%s OFLAG_COPIED %s", fix ? "Repairing" : "ERROR",
		  what);
	if (fix)
		c->res->corruptions_fixed++;
	else
		c->res->corruptions++;
	return fix;
}

/* What the image says, from memory where that is the same: entries lead hither
 * and thither, and one block is loaded at a time. */
static int count_of(struct check *c, uint64_t cluster, uint64_t *count)
{
	if (!c->counts_hold || cluster >= c->nr_clusters)
		return stored_count(c, cluster, count);
	*count = counts_get(&c->counts, cluster);
	return 0;
}

static int check_copied_entry(struct check *c, uint64_t at, bool fix)
{
	uint64_t e = be64_at(c->l2 + at), host = e & QL2_HOST, count = 1;
	char what[80];

	/* Without a count there is nothing to compare the bit with. */
	if (!qcow2_l2_has_host(c->q, e) ||
	    (!c->q->data && count_of(c, host / c->unit, &count)) ||
	    (count == 1) == !!(e & QCOPIED))
		return 0;
	snprintf(what, sizeof(what), "data cluster: l2_entry=%" PRIx64
		 " refcount=%" PRIu64, e, count);
	return copied_found(c, fix, what) ?
	       table_put(c, c->l2_at + at, c->l2 + at, e ^ QCOPIED) : 0;
}

/* Does what is in memory look like a table? */
static bool looks_like_l2(const struct check *c)
{
	for (uint64_t i = 0; i < c->unit; i += c->q->l2_entry) {
		uint64_t e = be64_at(c->l2 + i);

		if (!(e & QL2_COMPRESSED) && e & QL2_RESERVED)
			return false;
	}
	return true;
}

static int check_copied_l2(struct check *c, uint64_t at)
{
	int ret = l2_load(c, at);
	bool fix = !ret && c->fix && may_change(c, at) &&
		   (looks_like_l2(c) || only_l2(c, at / c->unit));

	for (uint64_t i = 0; i < c->unit && !ret; i += c->q->l2_entry)
		if (be64_at(c->l2 + i))
			ret = check_copied_entry(c, i, fix);
	return ret;
}

static int check_copied_l1(struct check *c, uint32_t i, uint64_t e, bool live)
{
	uint64_t at = e & QL1_HOST, count, entry = c->q->l1_offset + 8ul * i;
	int ret = at ? check_cancelled(c) : 0;
	char what[96];

	(void)live;
	if (!at || ret || count_of(c, at / c->unit, &count))
		return ret;
	if ((count == 1) != !!(e & QCOPIED)) {
		bool fix = c->fix && !c->l1_shared;

		snprintf(what, sizeof(what), "L2 cluster: l1_index=%" PRIu32
			 " l1_entry=%" PRIx64 " refcount=%" PRIu64, i, e,
			 count);
		if (copied_found(c, fix, what))
			ret = table_put(c, entry, NULL, e ^ QCOPIED);
	}
	return ret ? ret : check_copied_l2(c, at);
}

int check_copied(struct check *c)
{
	return l1_walk(c, c->q->l1_offset, c->q->l1_size, true,
		       check_copied_l1);
}
