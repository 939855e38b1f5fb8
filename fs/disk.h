/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk.h - what the files of the data path share: disk.c (reading, writing,
 * durability), disk-range.c (fallocate, lseek, copies), blocks.c (st_blocks).
 */
#ifndef FS_DISK_H
#define FS_DISK_H

#include "fs/fs.h"

/* The largest request (F3); also the size of the zero buffer. */
#define DISK_IO_MAX FS_MAX_WRITE_LIMIT

/* An open disk or partition. */
struct disk_handle {
	struct handle h;
	uint64_t start;         /* window on the guest's disk ... */
	uint64_t len;           /* ... UINT64_MAX: to its end */
	struct view snapshot;   /* root: it is not the live disk */
	_Atomic bool wrote;     /* since the last flush that went well */
};

/* Is this @h a disk's?  All that is passed to our operations is. */
static inline struct disk_handle *disk_handle(struct handle *h)
{
	return container_of(h, struct disk_handle, h);
}

/*
 * The image that a node shows, with the gate held until disk_leave().  NULL:
 * it is not there (any more); the gate is not held then.
 */
struct image *disk_enter(const struct node *n);
void disk_leave(const struct node *n);

static inline const struct view *disk_view(const struct disk_handle *dh,
					   const struct image *img)
{
	return dh->snapshot.root ? &dh->snapshot : &img->live;
}

void disk_read(fuse_req_t req, struct handle *h, size_t len, off_t off);
/* Bytes of the window of @dh as @img is now. */
uint64_t disk_size(const struct disk_handle *dh, const struct image *img);

/* A page-aligned buffer of this thread's own, freed when the thread ends.  NULL:
 * no memory.  Valid until the next call (F5). */
void *disk_buffer(size_t len);

/*
 * Makes [off, off + *len) lie inside the disk: grows it if it may grow, else
 * cuts *len.  -ENOSPC: nothing of it is inside.  -EINTR: it waited, and the
 * caller is @gone (caller_watch()).  Between enter and leave.
 */
int disk_fit(struct disk_handle *dh, struct image *img, uint64_t off,
	     uint64_t *len, const _Atomic bool *gone);
/* After each change of the guest's bytes, between enter and leave. */
void disk_wrote(struct disk_handle *dh, uint64_t off, uint64_t len);

/* ---- disk-range.c -------------------------------------------------------- */

void disk_fallocate(fuse_req_t req, struct handle *h, int mode, off_t off,
		    off_t len);
void disk_lseek(fuse_req_t req, struct handle *h, off_t off, int whence);
void disk_copy(fuse_req_t req, struct handle *in, off_t off_in,
	       struct handle *out, off_t off_out, size_t len);

/* ---- blocks.c -------------------------------------------------------------- */

/*
 * st_blocks of a window of @n's image (F14): [start, start + len), with @len
 * UINT64_MAX to its end; @size is its length now.  Exact when it is known, else
 * a guess that never says "no data" or "no holes"; then counting goes on in the
 * background while a file of the image is open.  The caller holds the gate.
 */
uint64_t blocks_of(const struct node *n, struct image *img, uint64_t start,
		   uint64_t len, uint64_t size);
/* At each opening: counts in the background what is not known, and tells the
 * kernel.  The caller holds the gate and has got the image. */
void blocks_begin(const struct node *n, uint64_t start, uint64_t len,
		  uint64_t size);
/* st_blocks while the image is closed. */
uint64_t blocks_unknown(uint64_t size);
/* Bytes of the top layer changed, maybe their allocation: count again there. */
void blocks_changed(struct mimage *m, uint64_t off, uint64_t len);
/* Anything may have changed, in any layer. */
void blocks_anew(struct mimage *m);

#endif
