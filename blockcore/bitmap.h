/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmap.h - dirty bitmaps: which parts of the guest's disk were written since
 * a bitmap was made.  The engine owns the bits; a format lists, loads and
 * stores them (struct format_bitmaps).
 *
 * Three promises:
 *   - a bit is set before the write that it speaks of is issued;
 *   - bitmap_add() and bitmap_clear() return when every write that the bitmap
 *     does not know of is over: what a snapshot made later does not show is in
 *     the bitmap;
 *   - in the file a bitmap is marked "in use" before anything happens that it
 *     does not hold there (rule 12), and the mark goes when it was stored.
 *
 * A bitmap may say more than what was written, never less.  Marking cannot
 * fail: without memory whole ranges count as written.
 */
#ifndef BLOCKCORE_BITMAP_H
#define BLOCKCORE_BITMAP_H

#include "blockcore.h"

/* ---- the bits of one bitmap (bits.c) -------------------------------------- */

/*
 * A growing part of them is made of chunks that exist where a bit was set.
 * bits_set() and bits_next() may run in any number of threads at once; the
 * others need an object that nobody else knows or whose writers are over.
 */
struct bits;

/* NULL: no memory, or beyond the bound of all bitmaps. */
struct bits *bits_new(uint64_t n);
void bits_free(struct bits *b);         /* NULL is allowed */
uint64_t bits_number(const struct bits *b);
/* Clipped to what there is. */
void bits_set(struct bits *b, uint64_t first, uint64_t n);
/* How many from @first on (which exists) are alike, at most @max, and what
 * they are. */
uint64_t bits_next(const struct bits *b, uint64_t first, uint64_t max,
		   bool *set);
uint64_t bits_count(const struct bits *b);
/* The bits from @first on (a multiple of 64) as bytes, lowest bit first; what
 * is behind the last bit is 0 and ignored. */
void bits_store(const struct bits *b, uint64_t first, unsigned char *bytes,
		size_t len);
void bits_load(struct bits *b, uint64_t first, const unsigned char *bytes,
	       size_t len);
/* Sets in @to what is set in @from, of other granularities as well (bytes of
 * the disk are 1 << shift per bit). */
void bits_merge(struct bits *to, unsigned to_shift, const struct bits *from,
		unsigned from_shift);

/* ---- what an image has ---------------------------------------------------- */

#define BITMAP_GRANULARITY_MIN 9u       /* bits */
#define BITMAP_GRANULARITY_MAX 31u

/* Fields change under the set's lock, what is atomic is read without it. */
struct bitmap {
	char *name;
	unsigned shift;         /* a bit is 1 << shift bytes of the disk */
	bool enabled;           /* writes are recorded */
	bool inconsistent;      /* was in use when its image was left: can
				 * only be removed */
	bool fresh;             /* is not in the file */
	bool in_use;            /* is marked so in the file, by us */
	struct bits *_Atomic bits;      /* NULL: in the file only */
	uint64_t place[3];      /* the format's: where it is in the file */
	uint32_t extra;         /* the format's: flags to be kept */
};

struct bitmap_set {
	struct bitmap **item;   /* in the order of the file */
	size_t n;
	bool changed;           /* not those of the file, or not there */
	struct bitmap **gone;   /* on no list; their space is in use still */
	size_t nr_gone;
	bool roughly;           /* this is the last chance: parts for which
				 * there is no space are stored as dirty */
};

/* A format's part.  Called by one thread at a time, under the set's lock.  One
 * that only shows what others have recorded ends with load(): it lists none in
 * an image that is to be written to. */
struct format_bitmaps {
	/* This image cannot have any (an old version of the format). */
	bool (*never)(const struct image *img);
	/* Adds what the file lists, by bitmap_found(). */
	int (*list)(struct image *img, struct bitmap_set *set,
		    struct err *err);
	/* Sets the bits of @b, a new object, as the file has them. */
	int (*load)(struct image *img, struct bitmap *b, struct bits *bits,
		    struct err *err);
	/* Could one of that kind be stored beside those of @set?  Sentences as
	 * QEMU's, without "Can't make bitmap ...". */
	int (*check)(struct image *img, const struct bitmap_set *set,
		     const struct bitmap *b, struct err *err);
	/* Marks @b, which is in the file, as in use; the engine syncs. */
	int (*use)(struct image *img, struct bitmap *b);
	/*
	 * Stores bits and, if @set was changed, the list, in a way that does
	 * not count yet.  What was allocated and stored is durable when the
	 * engine calls publish(), which makes it count and retires what was
	 * replaced and what is gone; then the engine flushes again.  Each may
	 * fail and is called anew then.
	 */
	int (*store)(struct image *img, struct bitmap_set *set);
	/* The same beside writers: no bits but room for those that are fresh,
	 * and a list that says which are in use. */
	int (*place)(struct image *img, struct bitmap_set *set);
	int (*publish)(struct image *img, struct bitmap_set *set);
	/* Retires what the bitmaps in @set->gone have; no list in the file names
	 * them any more. */
	void (*retire)(struct image *img, const struct bitmap_set *set);
};

/* For list().  Takes @name; the caller fills in what is the format's. */
struct bitmap *bitmap_found_take(struct bitmap_set *set, char *name,
				 unsigned shift);

/* ---- for everybody -------------------------------------------------------- */

struct bitmap_info {
	char *name;
	uint64_t granularity;   /* bytes */
	bool enabled, inconsistent;
};

/* The bitmaps of an image, writable or not; of one that is writable as they
 * are now.  To be freed; *n is 0 for formats without. */
int bitmap_list(struct image *img, struct bitmap_info **list, size_t *n,
		struct err *err);
void bitmap_list_free(struct bitmap_info *list, size_t n);

/*
 * Changes, on a writable image, in QEMU's sentences.  They are in the file when
 * the image was closed or downgraded; but what comes or goes has its place on
 * the list there, marked as in use, at once, or has not come or gone: a full
 * host is told to who asked.  @granularity: bytes, 0 for the default.
 */
int bitmap_add(struct image *img, const char *name, uint64_t granularity,
	       struct err *err);
int bitmap_remove(struct image *img, const char *name, struct err *err);
int bitmap_clear(struct image *img, const char *name, struct err *err);
int bitmap_enable(struct image *img, const char *name, bool on,
		  struct err *err);
/* Adds what @from of @src, which may be @img or a read-only image, says. */
int bitmap_merge(struct image *img, const char *name, struct image *src,
		 const char *from, struct err *err);

/* The bytes from @off on that are alike: *len (at most to the disk's end), and
 * whether they are dirty. */
int bitmap_run(struct image *img, const char *name, uint64_t off,
	       uint64_t *len, bool *dirty, struct err *err);
/* Dirty bytes, in whole granules but for the disk's end. */
int bitmap_count(struct image *img, const char *name, uint64_t *bytes,
		 struct err *err);

/*
 * For operations that change the disk by other ways than image_write() and
 * image_unmap() (a snapshot that is applied): the guest's bytes there are about
 * to be others.
 */
int bitmaps_touch(struct image *img, uint64_t off, uint64_t len);
/* For resize.  Before anything is changed: marks all as in use, since their
 * tables no longer fit the disk when the header has another size; refuses those
 * that cannot be changed.  Then, before the disk grows or after it has shrunk,
 * the bits.  What is new is not dirty (as QEMU has it). */
int bitmaps_resize_begin(struct image *img, struct err *err);
int bitmaps_resize(struct image *img, uint64_t size, struct err *err);
/* Does the image have any, inconsistent ones too? */
bool bitmaps_any(struct image *img);

#endif
