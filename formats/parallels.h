/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* parallels.h - what the files of the Parallels driver share. */
#ifndef FORMATS_PARALLELS_H
#define FORMATS_PARALLELS_H

#include "blockcore.h"
#include "spare.h"

enum {
	PH_MAGIC = 0,
	PH_VERSION = 16,
	PH_HEADS = 20,
	PH_CYLINDERS = 24,
	PH_TRACKS = 28,
	PH_ENTRIES = 32,
	PH_SECTORS = 36,
	PH_IN_USE = 44,
	PH_DATA = 48,
	PH_FLAGS = 52,
	PH_EXTENSION = 56,
	PH_LENGTH = 64,         /* the table follows */
};

#define PARALLELS_V1 "WithoutFreeSpace"
#define PARALLELS_V2 "WithouFreSpacExt"
#define PARALLELS_IN_USE 0x746f6e59u
#define PARALLELS_MAX_TRACKS ((uint32_t)INT32_MAX / 513)
#define PARALLELS_MAX_ENTRIES ((uint32_t)INT32_MAX / 4)

#define PARALLELS_BITMAP_NAME 37        /* a UUID and a zero */

/* A dirty bitmap of the Format Extension. */
struct parallels_bitmap {
	char name[PARALLELS_BITMAP_NAME];
	uint32_t granularity;   /* sectors */
	uint64_t sectors;       /* of the disk that it speaks of */
	uint64_t *table;        /* a cluster of bits each */
	uint32_t nr;
};

struct parallels_bitmaps {
	struct parallels_bitmap *item;
	size_t n;
};

struct parallels {
	/* Constant after open. */
	uint32_t entries;
	uint64_t step;          /* bytes that an entry counts in */
	uint64_t start;         /* nothing lies before: the table's end */
	struct parallels_bitmaps bitmaps;       /* of the extension */

	bool unclosed;          /* somebody else's mark was found */
	_Atomic uint64_t extension;     /* sectors; 0: none (any more) */
	pthread_mutex_t lock;   /* who takes space */
	_Atomic uint64_t next;  /* free from here on */
	struct spare spare;
	_Atomic uint64_t end;   /* of the file; readers go by it, before a
				 * writer came and when it has gone */
};

static inline struct parallels *parallels_of(const struct image *img)
{
	return img->priv;
}

extern const struct format_admin parallels_admin;

/* Of PH_LENGTH bytes, in a file of @file bytes: can it be opened? */
int parallels_check_header(const unsigned char *h, uint64_t file,
			   struct err *err);

/* ---- parallels-extension.c ---- */

/* Reads and checks the Format Extension: fills *@bitmaps. */
int parallels_extension_read(struct image *img,
			     struct parallels_bitmaps *bitmaps,
			     struct err *err);
void parallels_extension_free(struct parallels_bitmaps *bitmaps);
/* What info shows of them; NULL: nothing. */
struct json *parallels_bitmaps_json(const struct image *img);
extern const struct format_bitmaps parallels_bitmap_ops;

#endif
