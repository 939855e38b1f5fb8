/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * work.h - a bounded pool of threads for what may wait longer than one flush
 * (F33): a check, a control command, a count of blocks.  The threads of the
 * FUSE session hand such a request over and go on.
 */
#ifndef FS_WORK_H
#define FS_WORK_H

#include "util.h"

struct work_pool;

/* Embedded in what shall be done; may be submitted again from its own run(). */
struct work {
	void (*run)(struct work *w);
	struct work *next;      /* the pool's */
};

/* At most @max threads, started when there is something to do.  NULL: no
 * memory. */
struct work_pool *work_pool_new(unsigned max);
/* Runs @w on some thread of the pool, first come, first served. */
void work_submit(struct work_pool *pool, struct work *w);
/* Does what is queued, then ends the threads.  Nobody submits any more but the
 * work itself.  NULL is allowed. */
void work_pool_free(struct work_pool *pool);

#endif
