/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* parallels-bundle.h - what the files of the driver for .hdd bundles share. */
#ifndef FORMATS_PARALLELS_BUNDLE_H
#define FORMATS_PARALLELS_BUNDLE_H

#include "blockcore.h"

#define BUNDLE_GUID 40          /* "{8-4-4-4-12}" and a zero */
#define BUNDLE_MAX_SHOTS 256u
#define BUNDLE_MAX_STORAGES 256u
#define BUNDLE_MAX_IMAGES 1024u

/* A state of the disk: all that was written between two snapshots. */
struct bundle_shot {
	char guid[BUNDLE_GUID], parent[BUNDLE_GUID];
};

/* One state of one storage, in a file of its own. */
struct bundle_image {
	char guid[BUNDLE_GUID];
	char *name;             /* of the file, as stored */
	bool plain;             /* raw bytes; else an expanding disk */
	unsigned storage;
	struct file *file;      /* NULL: cannot be opened, and the open state
				 * does not need it */
	uint64_t entries;       /* of its table */
	uint64_t cluster;       /* bytes */
	uint64_t step;          /* bytes that an entry counts in */
	uint64_t start;         /* nothing lies before */
	uint64_t end;           /* of the file */
};

/* A range of the disk. */
struct bundle_storage {
	uint64_t start, end;    /* sectors */
};

/* What a storage consists of in one state. */
struct bundle_chain {
	unsigned *image;        /* indices, newest first */
	unsigned n;
};

/* A state of the whole disk: a chain for each storage. */
struct bundle_state {
	struct bundle_chain *chain;
};

struct bundle {
	uint64_t sectors;
	char top[BUNDLE_GUID];  /* "" until it is known */
	struct bundle_shot *shots;
	unsigned nr_shots;
	struct bundle_image *images;
	unsigned nr_images;
	struct bundle_storage *storages;
	unsigned nr_storages;
	struct bundle_state live;       /* of @top */
};

static inline struct bundle *bundle_of(const struct image *img)
{
	return img->priv;
}

/* ---- parallels-descriptor.c ---- */

/* Reads and checks DiskDescriptor.xml: all but the files that it names. */
int bundle_descriptor_read(struct image *img, struct err *err);
void bundle_descriptor_free(struct bundle *b);
/* The state of @guid; to be freed if it succeeds. */
int bundle_state_make(const struct bundle *b, const char *guid,
		      struct bundle_state *state, struct err *err);
void bundle_state_free(const struct bundle *b, struct bundle_state *state);

/* ---- parallels-states.c ---- */

/* The older states, as snapshots; the root of a view is a bundle_state. */
extern const struct format_snapshots bundle_snapshots;

#endif
