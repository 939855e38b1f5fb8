/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhdx.h - what the parts of the VHDX driver share (vhdx.md).
 *
 * vhdx.c opens; vhdx-map.c says where bytes live and changes it; vhdx-log.c
 * understands the log and writes it; vhdx-replay.c is a file as the log leaves
 * it; vhdx-create.c, vhdx-check.c, vhdx-parent.c are what they are called.
 */
#ifndef FORMATS_VHDX_H
#define FORMATS_VHDX_H

#include "blockcore.h"
#include "spare.h"

#define VHDX_SIGNATURE "vhdxfile"
#define VHDX_SECTOR 4096u               /* of the log and of each header */
#define VHDX_REGION_AT (192 * KiB)
#define VHDX_TABLE (64 * KiB)           /* a region or metadata table */
#define VHDX_MAX_SIZE (64 * TiB)
#define VHDX_MAX_ITEMS 2047u

enum {
	H_CRC = 4,
	H_SEQ = 8,
	H_FILE_GUID = 16,
	H_DATA_GUID = 32,
	H_LOG_GUID = 48,
	H_LOG_VERSION = 64,
	H_VERSION = 66,
	H_LOG_LENGTH = 68,
	H_LOG_OFFSET = 72,
};

enum {
	R_CRC = 4,
	R_COUNT = 8,
	R_ENTRIES = 16,
	M_COUNT = 10,
	M_ENTRIES = 32,
	ENTRY = 32,             /* bytes of an entry of either table */
	ENTRY_OFFSET = 16,
	R_ENTRY_LENGTH = 24,
	R_ENTRY_REQUIRED = 28,
	M_ENTRY_LENGTH = 20,
	M_ENTRY_FLAGS = 24,
	M_REQUIRED = 4,
};

enum vhdx_state {
	BLOCK_NOT_PRESENT = 0,
	BLOCK_UNDEFINED = 1,
	BLOCK_ZERO = 2,
	BLOCK_UNMAPPED = 3,
	BLOCK_PRESENT = 6,
	BLOCK_PARTIAL = 7,
	BITMAP_PRESENT = 6,
};

#define BAT_STATE(e) ((e) & 7)
#define BAT_HOST(e) ((e) & ~(MiB - 1))

enum vhdx_item {
	ITEM_PARAMS, ITEM_SIZE, ITEM_PAGE83, ITEM_LOGICAL, ITEM_PHYSICAL,
	ITEM_PARENT, NR_ITEMS
};
extern const unsigned char vhdx_item_guid[NR_ITEMS][16];
extern const unsigned char vhdx_bat_guid[16], vhdx_metadata_guid[16];

struct vhdx {
	struct file *file;      /* img->file, or as its log leaves it */
	struct file *replayed;  /* the latter, until close */
	unsigned char header[VHDX_SECTOR];      /* the current one */
	unsigned slot;          /* where it is: 0, 1 */
	bool other_bad;         /* the other one is no header */
	uint64_t log, log_len, bat, bat_len, meta, meta_len;
	uint64_t entries;       /* of the BAT */
	uint64_t ratio;         /* payload entries between two bitmaps */
	uint32_t sector;        /* logical */
	bool fixed, differencing;
	bool was_pending;       /* a log was found, and replayed */
	unsigned char linkage[16], linkage2[16];

	pthread_mutex_t lock;   /* who takes space */
	struct spare spare;
	_Atomic uint64_t end;   /* no block ends beyond it */

	/* The log as we write it: one flush at a time. */
	uint64_t log_pos, log_seq;
	unsigned char log_guid[16];
};

static inline struct vhdx *vhdx_of(const struct image *img)
{
	return img->priv;
}

/* Index in the BAT of payload block @block. */
static inline uint64_t vhdx_index(const struct vhdx *v, uint64_t block)
{
	return block + block / v->ratio;
}

static inline bool vhdx_guid_null(const unsigned char *guid)
{
	static const unsigned char none[16];

	return !memcmp(guid, none, sizeof(none));
}

void vhdx_guid_new(unsigned char *guid);
/* Where the checksum is zero: for headers and region tables. */
void vhdx_seal(unsigned char *buf, size_t len);
bool vhdx_sealed(const unsigned char *buf, size_t len);
bool vhdx_header_good(const unsigned char *h);
/* @h becomes the current header, with the next number; durable on return. */
int vhdx_header_write(struct image *img, const unsigned char *h);
/* Twice: then both say the same. */
int vhdx_headers_write(struct image *img, const unsigned char *h);
/* A block may lie there: behind the header, on none of the regions. */
bool vhdx_may_lie(const struct vhdx *v, uint64_t host, uint64_t len);

/* ---- the log ---- */

/* What one descriptor of the log does to the file. */
struct vhdx_patch {
	uint64_t off, len;
	uint64_t from;          /* host offset of the data sector; 0: zeroes */
	unsigned char lead[8], trail[4];
	uint32_t order;
};

struct vhdx_patches {
	struct vhdx_patch *p;   /* in the order of the log */
	size_t n, room;
	uint64_t flushed, last; /* file sizes */
};

/* The active sequence of the log; -EINVAL: there is none.  No patches: nothing
 * was ever logged. */
int vhdx_log_read(struct file *f, const struct vhdx *v,
		  struct vhdx_patches *out);
/* The 4 KiB that data patch @p puts into the file. */
int vhdx_patch_read(struct file *f, const struct vhdx_patch *p,
		    unsigned char *sector);
int vhdx_journal(struct image *img, const struct journal_page *pages,
		 size_t n, size_t *done);

/* ---- replay ---- */

/* A file like @base but for the patches, which it takes over. */
int vhdx_replay_view(struct file *base, struct vhdx_patches *patches,
		     struct file **out);
/* Into the file itself. */
int vhdx_replay(struct image *img, const struct vhdx_patches *patches);

/* ---- mapping ---- */

int vhdx_map(const struct view *view, uint64_t off, uint64_t len,
	     struct extent *ext);
int vhdx_find_end(struct image *img);
int vhdx_reserve(struct image *img, struct reserve *res);
void vhdx_commit(struct image *img, const struct reserve *res);
void vhdx_abort(struct image *img, const struct reserve *res);
int vhdx_unmap(struct image *img, uint64_t off, uint64_t len,
	       enum unmap_how how, uint64_t *done);

/* ---- parents, creation, check ---- */

int vhdx_parent(struct image *img, uint64_t at, uint32_t len,
		struct err *err);
extern const struct option_spec vhdx_create_options[];
int vhdx_create_check(const struct options *o, uint64_t size,
		      struct err *err);
int vhdx_create(struct file *f, const struct options *o, uint64_t size,
		struct err *err);
int vhdx_check(struct image *img, struct check_result *res);
int vhdx_repair(struct image *img, unsigned fix, struct check_result *res);

#endif
