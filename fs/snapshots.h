/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshots.h - snapshots/ of an image: which names there are, and which
 * snapshot each of them is; see snapshots.c.
 */
#ifndef FS_SNAPSHOTS_H
#define FS_SNAPSHOTS_H

#include "fs/fs.h"

/* A copy of what is known of one, to be given back. */
struct snapshot_known {
	char *id, *name;        /* the image's; id NULL: it is being made */
	char *file;             /* its directory's name */
	uint64_t size;          /* guest bytes */
};
void snapshot_known_free(struct snapshot_known *k);

/* What the node number @number is.  False: it is gone. */
bool snapshot_known(struct mimage *m, unsigned number,
		    struct snapshot_known *k);
/* Reads the table of layer @layer anew: may wait for a disk. */
int snapshots_refresh(struct mimage *m, unsigned layer);
/* The number of the directory @file of @layer; 0: there is none.  Also of what
 * is being made. */
unsigned snapshot_number(struct mimage *m, unsigned layer, const char *file);
/* With the snapshot open nobody deletes it, and the other way round: -ENOENT,
 * -EBUSY. */
int snapshot_hold(struct mimage *m, unsigned number);
void snapshot_release(struct mimage *m, unsigned number);
int snapshot_delete_begin(struct mimage *m, const char *id, const char *name);
void snapshot_delete_end(struct mimage *m, const char *id, const char *name);

/* The name of a snapshot that is made as @file; false: it cannot be one. */
bool snapshot_name_of(const char *file, struct strbuf *name);

/* Until it is there, if it is being made: 0 or the error that it ended with. */
int snapshot_wait(struct mimage *m, unsigned number, _Atomic bool *cancel);

#endif
