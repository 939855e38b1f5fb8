/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmap-int.h - what bitmap.c (recording, loading, storing) gives to
 * bitmap-admin.c (what people do with bitmaps).  All with the set's lock held.
 */
#ifndef BLOCKCORE_BITMAP_INT_H
#define BLOCKCORE_BITMAP_INT_H

#include "bitmap.h"
#include "engine-int.h"

/* Every write that began before this was called is over. */
void bitmaps_settle(struct image *img);
/* The set or what records was changed: from now on writers know, and all
 * writes that did not are over. */
int bitmaps_track(struct image *img);
int bitmaps_listed(struct image *img, bool again, struct err *err);
int bitmap_load(struct image *img, struct bitmap *b, struct err *err);
/* Marks it in the file before it changes; the caller syncs. */
int bitmap_use(struct image *img, struct bitmap *b);
void bitmap_free(struct bitmap *b);
/* The set's list, after one came or went, is in the file, with room for all of
 * it, while those that are in use say so there.  *@undo of a failure: nothing
 * was changed; otherwise it is tried again when they are stored. */
int bitmaps_place(struct image *img, bool *undo);
/* After that: the space of what was let go since is given back. */
void bitmaps_retire(struct image *img);
/* How many bits it has of a disk of @size bytes. */
uint64_t bitmap_bits(const struct bitmap *b, uint64_t size);

#endif
