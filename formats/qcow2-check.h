/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-check.h - what the parts of check share.
 *
 *   qcow2-check.c    counts every reference to every cluster
 *   qcow2-recount.c  compares that with what the image says
 *   qcow2-repair.c   check -r: new reference counts, the marks in the header
 *   qcow2-mend.c     ... and the table of snapshots
 */
#ifndef FORMATS_QCOW2_CHECK_H
#define FORMATS_QCOW2_CHECK_H

#include "qcow2.h"
#include "qcow2-counts.h"

/* Where the image's own structures are, L2 tables apart: disjoint, sorted. */
struct meta_range {
	uint64_t at, end;       /* bytes of the file */
};

struct meta_map {
	struct meta_range *range;
	size_t n, room;
};

struct check {
	struct image *img;
	struct qcow2 *q;
	struct check_result *res;
	uint64_t unit;
	uint64_t file_size;
	uint64_t nr_clusters;   /* of the file, the last one may be short, and
				 * of what is counted behind it */
	struct counts counts;   /* two more: see region_counts() */
	bool *wild;             /* of @nr_wild clusters behind the file, from
				 * @wild_from on: a reference that was not
				 * counted leads there */
	uint64_t wild_from, nr_wild;
	bool overflown;         /* there are more references than @counts has */
	unsigned char *l2;      /* one table ... */
	uint64_t l2_at;         /* ... and where it is; UINT64_MAX: none */
	unsigned char *block;   /* one refcount block */
	uint64_t block_at;      /* likewise */
	bool skip_l2;           /* references to L2 tables are not counted */
	struct counts others;   /* what that makes, if @others_known */
	bool others_counted, others_known;
	bool counts_hold;       /* compare_all() found the image to agree */
	unsigned char *reftable;
	uint64_t nr_blocks;     /* entries of @reftable */
	bool unaligned_said;
	struct qcow2_snapshots snaps;
	struct qcow2_mend mend; /* what @snaps lacks of the table in the file */

	uint64_t gone;          /* corruptions that were found and are no more:
				 * something was put right with another */
	unsigned fix;           /* check_fix: what may be changed now */
	bool rebuild;           /* the counts' own structures are wrong, or
				 * lack what counts a cluster */
	uint64_t block_dirty, block_clean;      /* bytes of @block to be
				 * written: [dirty, clean) */
	uint64_t freed, nr_freed;       /* clusters to be given back */
	struct meta_map meta;   /* what an L2 table may not be */
	bool l1_shared;         /* the L1 is something else of these, or an L2
				 * table, as well */
};

int check_cancelled(const struct check *c);
void corrupt(struct check *c, const char *fmt, ...) printf_like(2, 3);

int check_begin(struct check *c, struct image *img, unsigned fix,
		struct check_result *res);
void check_end(struct check *c);
/* Before (another) counting: the refcount table as it is now, nothing counted.
 * @more clusters than the file has may be counted. */
int check_reload(struct check *c, uint64_t more);
/* Counts all references but those of check_reftable(). */
int check_count(struct check *c);
/* Do these bytes lie in the file, so that they can be counted? */
bool region_counts(const struct check *c, uint64_t off, uint64_t size);
bool is_wild(const struct check *c, uint64_t cluster);
/* ... one to every cluster that holds some of these bytes. */
int count_region(struct check *c, uint64_t off, uint64_t size);
/* The table at @at into c->l2. */
int l2_load(struct check *c, uint64_t at);
/* Calls @fn for every entry that is not 0. */
int l1_walk(struct check *c, uint64_t at, uint32_t n, bool live,
	    int (*fn)(struct check *c, uint32_t i, uint64_t e, bool live));

/* References to the refcount table and its blocks. */
int check_reftable(struct check *c);
/* Counts against references; with @fix what may be is put right. */
int compare_all(struct check *c);
/* What the image says about a cluster; changes that, in memory and, at the
 * latest by block_flush(), in the file (the block is nothing but a block). */
bool has_block(const struct check *c, uint64_t cluster);
int stored_count(struct check *c, uint64_t cluster, uint64_t *count);
int count_put(struct check *c, uint64_t cluster, uint64_t count);
int block_flush(struct check *c);
/* Space of clusters whose count has become 0; @last: of those so far. */
int give_back(struct check *c, uint64_t cluster, bool last);
/* COPIED bits against counts, likewise. */
int check_copied(struct check *c);

/* The table of snapshots is as long as what can be read of it; before anything
 * is counted. */
int mend_number(struct check *c);
/* Another table, when all counts are right, in which entries are whole. */
int mend_entries(struct check *c);

/* Is the L2 table in @cluster nothing else that was counted?  What a wrong L1
 * leads to may be the guest's data. */
bool only_l2(struct check *c, uint64_t cluster);
/* May the table at @at be changed: is it none of the other structures? */
bool may_change(struct check *c, uint64_t at);
/* Writes an entry; @mem (or NULL) is where it is in memory. */
int table_put(struct check *c, uint64_t host, void *mem, uint64_t entry);

#endif
