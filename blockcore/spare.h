/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spare.h - host space that was taken and is not needed after all, for formats
 * that take all space from one end of a file: what lies there is free again, and
 * of the rest a few pieces are remembered for whoever wants space next.
 *
 * Nothing has pointed there: no flush and no epoch has to be waited for.  But a
 * write may have failed half-way, so its bytes are not zeroes.
 *
 * Everything is called under the lock of the format's allocator, but for
 * spare_used().
 */
#ifndef BLOCKCORE_SPARE_H
#define BLOCKCORE_SPARE_H

#include "util.h"

#include <stdatomic.h>

#define SPARE_MAX 32u           /* more pieces than that are lost */

struct spare {
	struct {
		uint64_t host, len;
	} piece[SPARE_MAX];     /* none touches another */
	unsigned n;
	_Atomic uint64_t used_to;       /* nothing behind it was given back */
};

/* @len bytes, not needed.  Where space is taken from now on, which was @end. */
uint64_t spare_give(struct spare *s, uint64_t host, uint64_t len,
		    uint64_t end);
/* Is there a piece of @len bytes at a multiple of @align?  It is taken. */
bool spare_take(struct spare *s, uint64_t len, uint64_t align,
		uint64_t *host);

/* Space at @host that was just taken: may something have been there? */
static inline bool spare_used(const struct spare *s, uint64_t host)
{
	return host < atomic_load_explicit(&s->used_to, memory_order_relaxed);
}

#endif
