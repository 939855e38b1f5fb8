/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdi.h - what the parts of the VDI driver share (vdi.md).
 *
 *   vdi.c          header, mapping, allocation
 *   vdi-create.c   new images
 *   vdi-check.c    check, repair, and the count after a crash
 *   vdi-parent.c   the parent of a differencing image, by its UUID
 */
#ifndef FORMATS_VDI_H
#define FORMATS_VDI_H

#include "blockcore.h"

enum {
	VH_TEXT = 0x00,
	VH_SIGNATURE = 0x40,
	VH_VERSION = 0x44,
	VH_HEADER_SIZE = 0x48,
	VH_TYPE = 0x4c,
	VH_MAP = 0x154,
	VH_DATA = 0x158,
	VH_SECTOR = 0x168,
	VH_DISK = 0x170,
	VH_BLOCK = 0x178,
	VH_BLOCKS = 0x180,
	VH_ALLOCATED = 0x184,
	VH_UUID = 0x188,
	VH_UUID_SNAPSHOT = 0x198,
	VH_UUID_LINK = 0x1a8,
	VH_UUID_PARENT = 0x1b8,
	VH_LENGTH = 0x200,
};

#define VDI_SIGNATURE 0xbeda107fu
#define VDI_VERSION_1_1 0x00010001u
#define VDI_BLOCK 1048576u
#define VDI_BLOCKS_MAX 0x1fffff80u
#define VDI_SIZE_MAX ((uint64_t)VDI_BLOCKS_MAX * VDI_BLOCK)
#define VDI_UUID 16u

#define VDI_FREE 0xffffffffu            /* never written */
#define VDI_DISCARDED 0xfffffffeu       /* reads as zeroes */

enum { VDI_DYNAMIC = 1, VDI_STATIC = 2, VDI_DIFFERENCING = 4 };

struct vdi {
	uint64_t map, data;     /* host offsets */
	uint32_t blocks;        /* entries of the map ... */
	uint32_t there;         /* ... and how many of them the file has */
	bool has_parent;
	unsigned char parent[VDI_UUID];
	/* Blocks that exist in the file: no sound entry is as large. */
	_Atomic uint64_t room;
	pthread_mutex_t extending;      /* the file's length */
	pthread_mutex_t lock;   /* the rest: how space is handed out */
	uint64_t next;          /* nothing uses this block or later ones */
	uint64_t fresh;         /* from this block on the file has nothing */
	uint32_t *spare;        /* blocks that were promised and not used */
	size_t nr_spare, spare_room;
};

static inline struct vdi *vdi_of(const struct image *img)
{
	return img->priv;
}

static inline bool vdi_is_block(uint32_t entry)
{
	return entry < VDI_DISCARDED;
}

/* "unsupported VDI image (...)", "Image not in VDI format (...)". */
int vdi_check_header(const unsigned char *h, struct err *err);

extern const struct option_spec vdi_create_options[];
int vdi_create_check(const struct options *o, uint64_t size, struct err *err);
int vdi_create(struct file *f, const struct options *o, uint64_t size,
	       struct err *err);

int vdi_check(struct image *img, struct check_result *res);
int vdi_repair(struct image *img, unsigned fix, struct check_result *res);
/*
 * For opening for writing: blocks that a crash left without an entry are
 * filled with the last ones, the count is made true, and v->next is known.
 * A map with other faults is left as it is: then new blocks go behind
 * everything.
 */
int vdi_settle(struct image *img);

/* Sets img->backing_name to the file in the image's folder whose UUID is
 * v->parent. */
int vdi_find_parent(struct image *img, struct err *err);

#endif
