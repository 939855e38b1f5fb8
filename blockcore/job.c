/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* job.c - what all jobs do at their safe points; see job.h. */
#include "job.h"

#include <time.h>

enum { NAP_NS = 20 * 1000 * 1000 };     /* how soon a waiting job obeys */

static void nap(uint64_t ns)
{
	struct timespec t = { .tv_nsec = (long)min_u64(ns, NAP_NS) };

	nanosleep(&t, NULL);
}

/* Nanoseconds that the job is ahead of its rate. */
static uint64_t ahead(struct progress *p, uint64_t bytes)
{
	uint64_t rate = atomic_load(&p->rate), now, due;

	if (!rate && !p->rate_was)
		return 0;
	now = now_ns();
	if (rate != p->rate_was) {
		p->rate_was = rate;
		p->since = now;
		p->paid = 0;
	}
	p->paid += bytes;
	if (!rate)
		return 0;
	due = p->since + (uint64_t)((double)p->paid / (double)rate * 1e9);
	return due > now ? due - now : 0;
}

int progress_pace(struct progress *p, uint64_t bytes)
{
	uint64_t ns;

	if (!p)
		return 0;
	ns = ahead(p, bytes);
	while ((ns || atomic_load(&p->pause)) && !atomic_load(&p->cancel)) {
		nap(ns ? ns : NAP_NS);
		ns = ahead(p, 0);
	}
	return atomic_load(&p->cancel) ? -ECANCELED : 0;
}

int progress_step(struct progress *p, uint64_t bytes)
{
	if (!p)
		return 0;
	atomic_fetch_add(&p->done, bytes);
	if (p->tick)
		p->tick(p);
	return progress_pace(p, bytes);
}
