/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-layout.h - where the clusters of a new qcow2 image go: the allocator of
 * an image that nobody has opened yet.  Counts are 0 or 1, so it remembers
 * runs, not counts.  Positions and lengths are in clusters.
 */
#ifndef FORMATS_QCOW2_LAYOUT_H
#define FORMATS_QCOW2_LAYOUT_H

#include "blockcore.h"

struct layout_run {
	uint64_t first, end;
};

struct layout {
	struct file *file;
	unsigned cluster_bits, refcount_order;
	uint64_t per_block;     /* counts in one refcount block */
	struct layout_run *used;        /* in order, never adjacent */
	size_t nr_used, room;
	uint64_t free_index;    /* the search for free clusters starts here */
	uint64_t table, table_clusters; /* refcount table */
	uint64_t *blocks;       /* its entries: a cluster, 0 = no block */
	uint64_t nr_blocks;     /* entries that fit into the table */
};

/* Header, refcount table and first block in clusters 0, 1, 2. */
int layout_init(struct layout *l, struct file *f, unsigned cluster_bits,
		unsigned refcount_order);
void layout_free(struct layout *l);
/* The first @n free clusters in a row, and their counts. */
int layout_alloc(struct layout *l, uint64_t n, uint64_t *first);
/*
 * Puts a new refcount table and blocks for @n more clusters at @first, behind
 * everything.  @exact: no room for growth.  *@end: the cluster behind it all.
 */
int layout_area(struct layout *l, uint64_t first, uint64_t n, bool exact,
		uint64_t *end);
/* Takes clusters for which layout_area() made counts. */
int layout_take(struct layout *l, uint64_t first, uint64_t n);
/* The cluster behind the last one in use. */
uint64_t layout_end(const struct layout *l);
/* Writes blocks and table. */
int layout_write(struct layout *l);

#endif
