/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* parallels.h - what the files of the Parallels driver share. */
#ifndef FORMATS_PARALLELS_H
#define FORMATS_PARALLELS_H

#include "blockcore.h"

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

struct parallels {
	/* Constant after open. */
	uint32_t entries;
	uint64_t step;          /* bytes that an entry counts in */
	uint64_t start;         /* nothing lies before: the table's end */
	uint64_t end;           /* of the file, when it was opened */
	struct json *bitmaps;   /* what the extension tells, or NULL */

	bool unclosed;          /* somebody else's mark was found */
	uint64_t extension;     /* sectors; 0: none */
	pthread_mutex_t lock;   /* who takes space */
	_Atomic uint64_t next;  /* free from here on */
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

/* Reads and checks the Format Extension: fills bitmaps. */
int parallels_extension_open(struct image *img, struct err *err);
void parallels_extension_free(struct image *img);

#endif
