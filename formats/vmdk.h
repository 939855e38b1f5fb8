/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk.h - what the files of the VMDK driver share: the descriptor as parsed,
 * and the extents that make up the disk.
 */
#ifndef FORMATS_VMDK_H
#define FORMATS_VMDK_H

#include "blockcore.h"
#include "spare.h"

#define VMDK_NO_PARENT UINT32_C(0xffffffff)
#define VMDK_GTES_MAX 4096u             /* entries of a table: COWD's */
#define VMDK_COWD_HEADER 2048u          /* bytes */

enum vmdk_store {
	VMDK_FLAT,              /* one to one */
	VMDK_SPARSE,            /* grains behind two levels of tables */
	VMDK_SESPARSE,          /* the same in another shape, to read */
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
	uint64_t rgd;           /* of the redundant one; 0: none, or unusable */
	uint64_t roots;         /* entries of a directory */
	const char *gd_fault;   /* how it lies wrong: check says it; or NULL */
	const char *rgd_fault;
	uint64_t tables, nr_tables;     /* SESPARSE: host offset, how many */
	uint64_t grains, nr_grains;     /* SESPARSE: the same of grains */
	bool cowd;              /* the header is COWD's */
	bool zeroes;            /* entry 1 is a grain of zeroes */
	bool packed;            /* grains are zlib streams */
	bool ended;             /* behind the directory comes a footer */
	bool read_only;         /* the descriptor says so */
	_Atomic uint64_t next;  /* free from here on; changes under "space" */
	struct spare spare;     /* under "space" */
};

struct vmdk {
	_Atomic uint32_t cid;
	_Atomic uint32_t parent_cid;
	char *text;             /* the descriptor as it is in img->file ... */
	uint64_t text_at;       /* ... and where */
	uint64_t text_room;
	pthread_mutex_t lock;   /* who makes a table */
	pthread_mutex_t space;  /* who takes space or gives it back: inner */
	char *create_type;
	char *parent;           /* parentFileNameHint, or NULL */
	struct vmdk_extent *extents;
	unsigned nr;
};

static inline struct vmdk *vmdk_of(const struct image *img)
{
	return img->priv;
}

/* The extent that holds guest byte @off. */
struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, uint64_t off);

/* ---- vmdk-descriptor.c ---- */

/* Parses @text, which ends with a zero byte: all but extents[].file and what a
 * sparse extent's own header says.  On error vmdk_free() what is there. */
int vmdk_parse(struct vmdk *v, const char *text, struct err *err);
void vmdk_free(struct vmdk *v);

/* ---- vmdk-sparse.c ---- */

/* The header of a sparse extent (KDMV or COWD) in x->file; checks all of it.
 * The descriptor is in the same file at @text_at, @text_len bytes; 0: beside. */
int vmdk_sparse_open(struct vmdk_extent *x, uint64_t text_at,
		     uint64_t text_len, struct err *err);
/* @in: guest offset inside of the extent; fills kind, host, len ... */
int vmdk_sparse_map(struct image *img, const struct vmdk_extent *x,
		    uint64_t in, uint64_t len, struct extent *ext);
/* The table that entry @index of the directory at @gd leads to; 0: none. */
int vmdk_table_at(struct image *img, const struct vmdk_extent *x, uint64_t gd,
		  uint64_t index, uint64_t *table);
enum extent_kind vmdk_kind_of(const struct vmdk_extent *x, uint32_t gte);
/* May a compressed grain's stream of @size bytes follow the marker at @host? */
bool vmdk_stream_fits(const struct vmdk_extent *x, uint64_t host,
		      uint32_t size, uint64_t end);
/* Where the descriptor is inside of a KDMV file: bytes. */
int vmdk_embedded(struct file *f, uint64_t *offset, uint64_t *len,
		  struct err *err);

/* ---- vmdk-sesparse.c ---- */

int vmdk_sesparse_open(struct vmdk_extent *x, struct err *err);
int vmdk_sesparse_map(struct image *img, const struct vmdk_extent *x,
		      uint64_t in, uint64_t len, struct extent *ext);
int vmdk_sesparse_check(struct image *img, const struct vmdk_extent *x,
			struct check_result *res);

/* ---- vmdk-write.c ---- */

/* Refuses what cannot be written: extents, sizes, subformats. */
int vmdk_writable(const struct image *img, struct err *err);
int vmdk_upgrade(struct image *img, struct err *err);
int vmdk_dirty(struct image *img);
int vmdk_clean(struct image *img);
int vmdk_reserve(struct image *img, struct reserve *res);
void vmdk_commit(struct image *img, const struct reserve *res);
void vmdk_abort(struct image *img, const struct reserve *res);
int vmdk_unmap(struct image *img, uint64_t off, uint64_t len,
	       enum unmap_how how, uint64_t *done);

/* ---- vmdk-check.c ---- */

int vmdk_check(struct image *img, struct check_result *res);
int vmdk_repair(struct image *img, unsigned fix, struct check_result *res);

/* ---- vmdk-create.c ---- */

extern const struct option_spec vmdk_create_options[];
int vmdk_create_check(const struct options *o, uint64_t size, struct err *err);
int vmdk_create(struct file *f, const struct options *o, uint64_t size,
		struct err *err);
/* The CID of an image that becomes a parent, and a fresh one. */
uint32_t vmdk_new_cid(void);

#endif
