/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-counts.h - how often each cluster of a file is referenced, counted by
 * check.  Memory is taken where clusters are referenced, not for the holes of a
 * sparse file, and only up to a limit.
 */
#ifndef FORMATS_QCOW2_COUNTS_H
#define FORMATS_QCOW2_COUNTS_H

#include "util.h"

/* Bytes: enough for 32 TiB of clusters of 64 KiB. */
#define COUNTS_LIMIT (1 * GiB)
/* Counts in a chunk. */
#define COUNTS_CHUNK 16384u

struct counts {
	uint32_t **wide;        /* chunks, for counts of 32 bits and more */
	uint16_t **narrow;      /* chunks, for the others */
	uint64_t nr_chunks;
	uint64_t nr;            /* clusters that may be counted */
	uint64_t max;           /* no count is larger */
	uint64_t bytes;         /* taken by chunks */
};

int counts_init(struct counts *c, uint64_t nr, uint64_t max);
void counts_free(struct counts *c);
/* -EFBIG: cannot be counted; -EOVERFLOW: the count is as large as it can be; -ENOMEM: over the limit. */
int counts_add(struct counts *c, uint64_t cluster);
/* Takes back what counts_add() did. */
void counts_drop(struct counts *c, uint64_t cluster);
uint64_t counts_get(const struct counts *c, uint64_t cluster);
/* Is no cluster of [first, first + n) referenced?  May say no without need. */
bool counts_none(const struct counts *c, uint64_t first, uint64_t n);

#endif
