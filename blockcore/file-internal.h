/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file-internal.h - what the sources of files share among themselves.
 */
#ifndef BLOCKCORE_FILE_INTERNAL_H
#define BLOCKCORE_FILE_INTERNAL_H

#include "file.h"

/* file-pool.c: NULL is allowed; waits for the threads that it ends. */
void file_queue_free(struct file_queue *q);

/* file.c: may the driver's own submit() have it, or does the wrapper have work
 * to do? */
bool file_req_plain(struct file *f, const struct file_req *req);

/* ---- regular files and devices ------------------------------------------- */

enum lock_mode { LOCK_MODE_AUTO, LOCK_MODE_ON, LOCK_MODE_OFF };

/* The bytes of locking.md that one open file description holds. */
struct file_locks {
	pthread_mutex_t lock;
	enum lock_mode mode;
	unsigned used, unshared;        /* held; under @lock */
};

int file_locks_set(struct file_locks *l, int fd, const char *name,
		   unsigned used, unsigned unshared, struct err *err);

/* @from becomes what @to is open on, and holds the same bytes. */
int file_locks_move(struct file_locks *l, int from, int to, const char *name);

/* What a protocol node asks for (file-node.c); texts are the node's. */
struct posix_args {
	const char *driver;     /* "file", "host_device", "host_cdrom" */
	const char *path;
	unsigned flags;         /* file_flag */
	enum lock_mode lock;
};

int posix_open(const struct posix_args *a, const struct policy *policy,
	       struct file **f, struct err *err);

#endif
