/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * testfmt.h - a format for tests of the engine: the smallest that allocates.
 *
 *   0          "testfmt1", guest size (le64)
 *   4096       table: one le64 host offset per unit of 64 KiB, 0 is a hole
 *   behind it  units
 *
 * Nothing of it is on disk but the table: who opens an image again must not
 * write to it (free space is found by the end of the file only).
 */
#ifndef TESTFMT_H
#define TESTFMT_H

#include "blockcore.h"

#define TESTFMT_UNIT 65536u

extern const struct format testfmt;

/* An empty image of @size bytes in @f. */
int testfmt_create(struct file *f, uint64_t size);
/* Rule 15's first half: from now on map() answers SHARED. */
void testfmt_set_shared(struct image *img, bool shared);
/* Opens @f, which holds a testfmt, for writing. */
struct image *testfmt_open(struct file *f);

#endif
