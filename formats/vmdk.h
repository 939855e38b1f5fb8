/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk.h - what the files of the VMDK driver share: the descriptor as parsed,
 * and the extents that make up the disk.
 */
#ifndef FORMATS_VMDK_H
#define FORMATS_VMDK_H

#include "blockcore.h"

#define VMDK_NO_PARENT UINT32_C(0xffffffff)

enum vmdk_store {
	VMDK_FLAT,              /* one to one */
	VMDK_SPARSE,            /* grains behind two levels of tables */
	VMDK_ZERO,              /* nothing is stored */
};

struct vmdk_extent {
	enum vmdk_store store;
	char *type;             /* as the descriptor calls it, "" if alone */
	char *name;             /* as the descriptor names it, or NULL */
	uint64_t start, size;   /* guest bytes */
	struct file *file;      /* a reference; NULL: VMDK_ZERO */
	uint64_t offset;        /* FLAT: host byte of its first one */
	uint64_t file_end;      /* SPARSE: what follows, too */
	uint64_t grain;         /* bytes */
	uint64_t gd;            /* host offset of the directory */
	uint32_t gtes;          /* entries of a table */
	bool zeroes;            /* entry 1 is a grain of zeroes */
	bool packed;            /* grains are zlib streams */
};

struct vmdk {
	uint32_t cid, parent_cid;
	char *create_type;
	char *parent;           /* parentFileNameHint, or NULL */
	struct vmdk_extent *extents;
	unsigned nr;
};

static inline struct vmdk *vmdk_of(const struct image *img)
{
	return img->priv;
}

/* ---- vmdk-descriptor.c ---- */

/* Parses @text, which ends with a zero byte: all but extents[].file and what a
 * sparse extent's own header says.  On error vmdk_free() what is there. */
int vmdk_parse(struct vmdk *v, const char *text, struct err *err);
void vmdk_free(struct vmdk *v);

/* ---- vmdk-sparse.c ---- */

/* The header of a sparse extent (KDMV or COWD) in x->file; checks all of it. */
int vmdk_sparse_open(struct vmdk_extent *x, struct err *err);
/* @in: guest offset inside of the extent; fills kind, host, len ... */
int vmdk_sparse_map(struct image *img, const struct vmdk_extent *x,
		    uint64_t in, uint64_t len, struct extent *ext);
int vmdk_sparse_check(struct image *img, const struct vmdk_extent *x,
		      struct check_result *res);
/* Where the descriptor is inside of a KDMV file: bytes. */
int vmdk_embedded(struct file *f, uint64_t *offset, uint64_t *len,
		  struct err *err);

#endif
