/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * work.h - a bounded pool of threads for what may wait longer than one flush
 * (F33): a check, a control command, a count of blocks.  The threads of the
 * FUSE session hand such a request over and go on.
 */
#ifndef FS_WORK_H
#define FS_WORK_H

#include "util.h"

#include <stdatomic.h>

struct work_pool;

/* Embedded in what shall be done; may be submitted again from its own run().
 * First come, first served, but for: */
struct work {
	void (*run)(struct work *w);
	const void *key;        /* work of one key runs one at a time; NULL:
				 * no such bounds */
	bool bulky;             /* may take minutes: at most half of the
				 * threads do such work at once */
	struct work *next;      /* the pool's */
};

/* At most @max threads, started when there is something to do.  NULL: no
 * memory. */
struct work_pool *work_pool_new(unsigned max);
void work_submit(struct work_pool *pool, struct work *w);
/* The same, but does nothing and says false when @stopped is set: who sets it
 * and then calls work_cancel() misses nothing. */
bool work_submit_unless(struct work_pool *pool, struct work *w,
			_Atomic bool *stopped);
/* Takes it back.  False: it runs, has run, or was never submitted. */
bool work_cancel(struct work_pool *pool, struct work *w);
/* Does what is queued, then ends the threads.  Nobody submits any more but the
 * work itself.  NULL is allowed. */
void work_pool_free(struct work_pool *pool);

#endif
