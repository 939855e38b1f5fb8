/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-mend.c - check -r of the table of snapshots: snapshots that are too
 * many are no more, entries that are too short or too long become whole ones.
 *
 * The number alone is one small write, done first: what the lost snapshots
 * referred to is found to be leaked then.  Entries change last, after the
 * counts: another table goes to clusters that nobody counts and nobody refers
 * to, each step durable before the next.  A power failure in between leaves
 * leaks.
 */
#include "qcow2-check.h"

int mend_number(struct check *c)
{
	uint32_t n = (uint32_t)c->snaps.n;
	unsigned char bytes[4];
	int ret;

	if (!c->mend.over)
		return 0;
	be32_put(bytes, n);
	ret = repair_write(c->img, c->img->file, bytes, sizeof(bytes),
			   QH_NB_SNAPSHOTS);
	if (!ret)
		ret = repair_barrier(c->img);
	if (ret)
		return ret;
	c->q->nb_snapshots = n;
	c->res->corruptions_fixed += c->mend.over;
	return 0;
}

/* ---- another table -------------------------------------------------------- */

/* Clusters side by side that are free and that a block counts.  They are not
 * those behind the end of the file that somebody refers to already. */
static int find_room(struct check *c, uint64_t want, uint64_t *first)
{
	uint64_t end = c->nr_blocks * qcow2_refs_per_block(c->q), n = 0, count;

	*first = 0;
	for (uint64_t i = 1; i < end && n < want; i++) {
		bool counted = has_block(c, i);

		if (!counted && i >= c->nr_clusters)
			break;
		n = counted && !is_wild(c, i) && !counts_get(&c->counts, i) &&
		    !stored_count(c, i, &count) && !count ? n + 1 : 0;
		*first = i + 1 - n;
	}
	return n == want ? 0 : -ENOSPC;
}

static int set_counts(struct check *c, uint64_t first, uint64_t n,
		      uint64_t count)
{
	uint64_t stored;
	int ret = 0;

	for (uint64_t i = first; i < first + n && !ret; i++) {
		ret = stored_count(c, i, &stored);      /* loads its block */
		if (!ret)
			ret = count_put(c, i, count);
	}
	return ret ? ret : block_flush(c);
}

static int table_write(struct check *c, uint64_t at, const void *bytes,
		       size_t len)
{
	size_t whole = round_up(len, c->unit);
	autofree unsigned char *buf = calloc(1, whole);
	int ret;

	if (!buf)
		return -ENOMEM;
	memcpy(buf, bytes, len);
	ret = repair_write(c->img, c->img->file, buf, whole, at);
	return ret ? ret : repair_barrier(c->img);
}

static int table_switch(struct check *c, uint64_t at)
{
	unsigned char h[12];
	int ret;

	be32_put(h, (uint32_t)c->snaps.n);
	be64_put(h + 4, at);
	ret = repair_write(c->img, c->img->file, h, sizeof(h),
			   QH_NB_SNAPSHOTS);
	if (!ret)
		ret = repair_barrier(c->img);
	if (!ret)
		c->q->snapshots_offset = at;
	return ret;
}

/* The clusters of the old table lose its reference. */
static int old_table_drop(struct check *c, uint64_t at)
{
	uint64_t first = at / c->unit, n = div_up(c->snaps.bytes, c->unit);
	int ret = 0;

	if (!region_counts(c, at, c->snaps.bytes)) {
		c->gone++;      /* which was a finding */
		return 0;
	}
	/* Where references could not be counted one less is not known either:
	 * rather a leak. */
	if (c->overflown)
		return 0;
	/* Who shares a cluster with it keeps it. */
	for (uint64_t i = first; i < first + n && !ret; i++) {
		counts_drop(&c->counts, i);
		if (has_block(c, i))
			ret = set_counts(c, i, 1, counts_get(&c->counts, i));
	}
	return ret ? ret : give_back(c, 0, true);
}

static int replace(struct check *c, const void *bytes, size_t len)
{
	uint64_t old = c->q->snapshots_offset, n = div_up(len, c->unit), first;
	int ret = find_room(c, n, &first);

	/* In this order the file reaches as far as the counts do. */
	if (!ret)
		ret = table_write(c, first * c->unit, bytes, len);
	if (!ret)
		ret = set_counts(c, first, n, 1);
	if (!ret)
		ret = repair_barrier(c->img);
	if (!ret)
		ret = table_switch(c, first * c->unit);
	return ret ? ret : old_table_drop(c, old);
}

int mend_entries(struct check *c)
{
	struct check_result *res = c->res;
	unsigned char *bytes = NULL;
	size_t len;
	int ret = -EIO;

	if (!c->mend.entries)
		return 0;
	/* Blocks are blocks and nothing else. */
	if (!c->rebuild)
		ret = qcow2_snapshots_encode(&c->snaps, &bytes, &len);
	if (!ret)
		ret = replace(c, bytes, len);
	free(bytes);
	if (ret) {
		check_say(res, "ERROR failed to update snapshot table: %s",
			  strerror(-ret));
		res->corruptions += c->mend.entries;
		return 0;
	}
	res->corruptions_fixed += c->mend.entries;
	return 0;
}
