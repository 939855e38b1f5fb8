/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-shadow.h - a second set of reference counts, as they shall be after a
 * switch to other roots (qcow2-switch.c), and what watches the tables until
 * then.
 */
#ifndef FORMATS_QCOW2_SHADOW_H
#define FORMATS_QCOW2_SHADOW_H

#include "qcow2.h"

/* ---- clusters that are free in memory and in use on the disk ------------- */

/* A set of clusters.  Memory is taken where there are some. */
struct qcow2_hold {
	uint64_t **chunk;
	uint64_t nr_chunks;
	uint64_t lowest;        /* of all of them */
};

struct qcow2_hold *qcow2_hold_new(void);
void qcow2_hold_free(struct qcow2_hold *h);
int qcow2_hold_add(struct qcow2_hold *h, uint64_t cluster);
bool qcow2_hold_has(const struct qcow2_hold *h, uint64_t cluster);
/* The first cluster of it at or behind @from, and how many follow each other;
 * 0: there is none. */
uint64_t qcow2_hold_run(const struct qcow2_hold *h, uint64_t from,
			uint64_t *first);

/* ---- counts (with "alloc" held) ------------------------------------------ */

/*
 * Copies of the blocks in which something will be different.  A change of a
 * count (of the image as it is) is made to its copy as well: what differs is
 * only what the operation itself has added and dropped.
 */
struct qcow2_shadow {
	uint64_t *copy;         /* by index of block: host offset; 0: none */
	uint64_t nr;
	uint64_t *was;          /* host offsets of blocks that have copies,
				 * in the order of copying ... */
	uint64_t nr_was, room_was;
	uint64_t settled;       /* ... so many of them are dropped already */
	int error;              /* the copies are not in step any more */
};

/*
 * Adds @delta (1 or -1) to what the counts of all clusters that [host, host +
 * len) touches shall be.  A cluster that is free then, and is in use now, is
 * held back.
 */
int qcow2_shadow_add(struct image *img, uint64_t host, uint64_t len,
		     int delta);
/* What the count of the cluster that holds @host shall be. */
int qcow2_shadow_count(struct image *img, uint64_t host, uint64_t *count);
/* Is it 1?  *@n: of so many clusters, @max at most, the answer is the same. */
int qcow2_shadow_ones(struct image *img, uint64_t host, uint64_t max,
		      bool *one, uint64_t *n);
/* The blocks that have copies now are not needed then. */
int qcow2_shadow_settle(struct image *img);
/* Pins the copy of the page that counts @cluster; NULL: there is none. */
struct mpage *qcow2_shadow_pin(struct image *img, uint64_t cluster);
/* Inside the gate: what just became of the counts of [i, end), all of them in
 * the page of which @pg is the copy, and @base what it was made from. */
void qcow2_shadow_follow(struct image *img, struct mpage *pg,
			 struct mpage *base, uint64_t i, uint64_t end,
			 int delta);
/* Forgets the pages of the copies and frees the struct; not the clusters. */
void qcow2_shadow_drop(struct image *img, bool forget);

/* As qcow2_alloc(), with "alloc" held. */
int qcow2_alloc_locked(struct image *img, uint64_t want,
		       struct qcow2_run *run);
/* Where block @b is; 0: nowhere. */
int qcow2_block_find(struct image *img, uint64_t b, uint64_t *host);
/* The page of the block at @block that counts @cluster. */
uint64_t qcow2_counts_page(struct image *img, uint64_t block,
			   uint64_t cluster);

/* ---- L2 tables ------------------------------------------------------------ */

/* A bit for each page of each L2 table of the active L1: it has changed. */
struct qcow2_watch {
	uint64_t tables;
	unsigned pages;         /* of a table */
	_Atomic uint64_t *bits;
};

/* Inside the gate, after entries of the page with that of @off have changed. */
static inline void qcow2_watch_touch(struct image *img, uint64_t off)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_watch *w = atomic_load(&q->watch);
	uint64_t cluster, per, bit;

	if (!w)
		return;
	cluster = off / img->unit;
	per = img->unit / q->l2_entry;
	if (cluster / per >= w->tables)
		return;
	bit = cluster / per * w->pages +
	      cluster % per * q->l2_entry / img->page;
	atomic_fetch_or(&w->bits[bit / 64], UINT64_C(1) << bit % 64);
}

#endif
