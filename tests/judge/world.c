/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * world.c - what every sector of the guest may hold, now and after a crash.
 */
#include "judge.h"

#include <inttypes.h>
#include <stdio.h>

#define STRIPE 8u               /* sectors that share a lock */

int world_init(struct world *w, uint64_t n)
{
	uint64_t stripes = n / STRIPE + 1;

	*w = (struct world) { .nr_sectors = n };
	pthread_mutex_init(&w->lock, NULL);
	w->handed = calloc(n, 1);
	w->acked = calloc(n, 1);
	w->durable = calloc(n, 1);
	w->zeroes = calloc(n, sizeof(*w->zeroes));
	w->stripes = calloc(stripes, sizeof(*w->stripes));
	if (!w->handed || !w->acked || !w->durable || !w->zeroes ||
	    !w->stripes)
		return -ENOMEM;
	for (uint64_t i = 0; i < stripes; i++)
		pthread_mutex_init(&w->stripes[i], NULL);
	for (uint64_t i = 0; i < n; i++)        /* version 0: never written */
		atomic_store(&w->zeroes[i], 1);
	return 0;
}

void world_free(struct world *w)
{
	free((void *)w->handed);
	free((void *)w->acked);
	free(w->durable);
	free((void *)w->zeroes);
	free(w->stripes);
}

void world_give(struct world *w, uint64_t first, uint64_t n)
{
	for (uint64_t s = first / STRIPE; s <= (first + n - 1) / STRIPE; s++)
		pthread_mutex_unlock(&w->stripes[s]);
}

bool world_take(struct world *w, uint64_t first, uint64_t n)
{
	for (uint64_t s = first / STRIPE; s <= (first + n - 1) / STRIPE; s++)
		pthread_mutex_lock(&w->stripes[s]);
	for (uint64_t s = first; s < first + n; s++)
		if (w->handed[s] >= VERSION_MAX) {
			world_give(w, first, n);
			return false;
		}
	return true;
}

static void tag(unsigned char *buf, uint64_t sector, unsigned version)
{
	for (unsigned i = 0; i < SECTOR_SIZE; i += 16) {
		le64_put(buf + i, sector + 1);
		le64_put(buf + i + 8, version);
	}
}

void world_initial(struct world *w, uint64_t first, uint64_t n,
		   unsigned char *buf)
{
	for (uint64_t s = first; s < first + n; s++) {
		tag(buf + (s - first) * SECTOR_SIZE, s, 0);
		atomic_store(&w->zeroes[s], 0);
	}
}

void world_next(struct world *w, uint64_t first, uint64_t n,
		unsigned char *buf)
{
	for (uint64_t s = first; s < first + n; s++) {
		unsigned version = w->handed[s] + 1u;

		if (buf)
			tag(buf + (s - first) * SECTOR_SIZE, s, version);
		else
			atomic_fetch_or(&w->zeroes[s],
					UINT64_C(1) << version);
		atomic_store(&w->handed[s], (unsigned char)version);
	}
}

void world_acked(struct world *w, uint64_t first, uint64_t n)
{
	for (uint64_t s = first; s < first + n; s++)
		atomic_store(&w->acked[s], atomic_load(&w->handed[s]));
}

unsigned char *world_handed(struct world *w)
{
	unsigned char *copy = malloc(w->nr_sectors);

	for (uint64_t s = 0; copy && s < w->nr_sectors; s++)
		copy[s] = atomic_load(&w->handed[s]);
	return copy;
}

unsigned char *world_snapshot(struct world *w)
{
	unsigned char *copy = malloc(w->nr_sectors);

	for (uint64_t s = 0; copy && s < w->nr_sectors; s++)
		copy[s] = atomic_load(&w->acked[s]);
	return copy;
}

void world_durable(struct world *w, const unsigned char *snapshot)
{
	with_lock(&w->lock);

	for (uint64_t s = 0; s < w->nr_sectors; s++)
		if (snapshot[s] > w->durable[s])
			w->durable[s] = snapshot[s];
}

/* ---- judging --------------------------------------------------------------- */

static bool all_zero(const unsigned char *buf)
{
	return !buf[0] && !memcmp(buf, buf + 1, SECTOR_SIZE - 1);
}

static bool is_tag(const unsigned char *buf, uint64_t sector,
		   uint64_t version)
{
	unsigned char want[SECTOR_SIZE];

	tag(want, sector, (unsigned)version);
	return version <= VERSION_MAX && !memcmp(buf, want, SECTOR_SIZE);
}

static bool complain(const struct world *w, uint64_t s,
		     const unsigned char *buf)
{
	fprintf(stderr, "sector %" PRIu64 ": holds (%" PRIu64 ", %" PRIu64
		"), durable %u, acknowledged %u, written %u, zeroes %#" PRIx64
		"\n", s, le64_at(buf), le64_at(buf + 8), w->durable[s],
		(unsigned)w->acked[s], (unsigned)w->handed[s],
		(uint64_t)w->zeroes[s]);
	return false;
}

bool world_current(const struct world *w, uint64_t first, uint64_t n,
		   const unsigned char *buf)
{
	for (uint64_t s = first; s < first + n; s++, buf += SECTOR_SIZE) {
		unsigned version = w->handed[s];
		bool zero = w->zeroes[s] >> version & 1;

		if (zero ? !all_zero(buf) : !is_tag(buf, s, version))
			return complain(w, s, buf);
	}
	return true;
}

bool world_between(const struct world *w, uint64_t s,
		   const unsigned char *buf, unsigned lo, unsigned hi)
{
	uint64_t version = le64_at(buf + 8);
	uint64_t possible = ~((UINT64_C(1) << lo) - 1) &
			    ((UINT64_C(2) << hi) - 1);

	if (all_zero(buf))
		return w->zeroes[s] & possible ? true : complain(w, s, buf);
	if (is_tag(buf, s, version) && possible >> version & 1 &&
	    !(w->zeroes[s] >> version & 1))
		return true;
	return complain(w, s, buf);
}

bool world_after_crash(const struct world *w, uint64_t s,
		       const unsigned char *buf)
{
	return world_between(w, s, buf, w->durable[s], w->handed[s]);
}

bool world_is_initial(const struct world *w, uint64_t s,
		      const unsigned char *buf)
{
	bool zero = w->zeroes[s] & 1;

	return (zero ? all_zero(buf) : is_tag(buf, s, 0)) ||
	       complain(w, s, buf);
}
