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
	/* Of those that the open state consists of: */
	struct file *file;
	uint64_t entries;       /* of its table */
	uint64_t cluster;       /* bytes */
	uint64_t step;          /* bytes that an entry counts in */
	uint64_t start;         /* nothing lies before */
	uint64_t end;           /* of the file */
};

/* A range of the disk. */
struct bundle_storage {
	uint64_t start, end;    /* sectors */
	unsigned *chain;        /* indices of images, newest first */
	unsigned nr_chain;
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
};

static inline struct bundle *bundle_of(const struct image *img)
{
	return img->priv;
}

/* ---- parallels-descriptor.c ---- */

/* Reads and checks DiskDescriptor.xml: all but the files that it names. */
int bundle_descriptor_read(struct image *img, struct err *err);
void bundle_descriptor_free(struct bundle *b);

#endif
