/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-entries.h - a few L2 entries that are about to change: what
 * qcow2-write.c and qcow2-unmap.c share.
 */
#ifndef FORMATS_QCOW2_ENTRIES_H
#define FORMATS_QCOW2_ENTRIES_H

#include "qcow2.h"

#define PAGE_ENTRIES (4096 / 8)

/* Entries of one page of an L2 table. */
struct entries {
	uint64_t table;         /* host offset of the L2 table */
	uint64_t index;         /* of the first one in the table */
	uint64_t n;
	struct mpage *pg;
	uint64_t off;           /* guest offset of the first one's cluster */
	struct qcow2_l2 old[PAGE_ENTRIES];      /* as they were when looked
						 * at */
};

/*
 * Pins the page with the entry of @off (of a cluster's first byte), of a table
 * that may be changed, and looks at what it holds for up to @len bytes.  The
 * claim keeps that as it is.
 */
int entries_get(struct image *img, uint64_t off, uint64_t len,
		struct entries *en);
/* Under the page's lock. */
unsigned char *entry_at(struct image *img, const struct entries *en,
			uint64_t i);
/* Inside the gate: nothing points any more where @old and the @n - 1 behind it
 * pointed. */
void entries_retire(struct image *img, const struct qcow2_l2 *old, uint64_t n);
/* The same for one entry. */
void entry_retire(struct image *img, uint64_t e);

#endif
