/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * slow.h - a request that left FUSE's thread and is answered by a worker; its
 * caller may be interrupted meanwhile (F21, F33).
 */
#ifndef FS_SLOW_H
#define FS_SLOW_H

#include "fs/fs.h"

/* Embedded first in an allocated struct of the operation's own. */
struct slow {
	struct work work;               /* key and bulky: see work.h */
	struct work_pool *pool;
	fuse_req_t req;
	_Atomic bool interrupted;
	struct long_work use;           /* of an image; an interrupt sets
					 * use.cancel as well */
	void (*run)(struct slow *s);
	_Atomic bool *_Atomic flag[2];  /* slow_watch() */
};

/*
 * Hands the request over to @pool, instead of a reply.  @run calls slow_end()
 * and then answers; it frees @s.  A caller that is interrupted while its
 * request is still queued gets EINTR at once and @s is freed.
 */
void slow_start(struct slow *s, fuse_req_t req, struct work_pool *pool,
		void (*run)(struct slow *s));
/* From now on an interrupt, also one that came already, sets these as well.
 * With NULL: no longer; on return nobody is about to. */
void slow_watch(struct slow *s, _Atomic bool *a, _Atomic bool *b);
/* No interrupt can come any more: before the reply.  Returns the request. */
fuse_req_t slow_end(struct slow *s);

/* Of a request that is served where it is, for a moment in which it may have to
 * wait: *@gone becomes true when its caller is interrupted. */
void caller_watch(fuse_req_t req, _Atomic bool *gone);
void caller_unwatch(fuse_req_t req);

static inline bool slow_interrupted(struct slow *s)
{
	return atomic_load_explicit(&s->interrupted, memory_order_relaxed);
}

#endif
