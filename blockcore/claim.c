/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * claim.c - rule 2: who changes the mapping of a guest range holds a claim on
 * it.
 *
 * Knows ranges and who waits for which.  Refuses to know what is done under a
 * claim.  Claims that are held never overlap, hence they are kept sorted and
 * found by bisection.  A waiter hangs on the claim that is in its way and looks
 * again when that one is dropped.
 */
#include "engine-int.h"

/* Lives on the waiter's stack; unlinked by who drops the claim. */
struct claim_waiter {
	struct claim_waiter *next;
	pthread_cond_t wake;
	bool queued;
};

void claims_init(struct claims *c)
{
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->opened, NULL);
	pthread_cond_init(&c->drained, NULL);
}

void claims_destroy(struct claims *c)
{
	BUG_ON(c->n);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->opened);
	pthread_cond_destroy(&c->drained);
	free(c->held);
}

/* The first held claim that ends behind @off: it overlaps [off, end) or begins
 * at or behind @end. */
static size_t first_behind(const struct claims *c, uint64_t off)
{
	size_t lo = 0, hi = c->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (c->held[mid]->end > off)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static void wait_for(struct claims *c, struct claim *other)
{
	struct claim_waiter w = { .next = other->waiters, .queued = true };

	pthread_cond_init(&w.wake, NULL);
	other->waiters = &w;
	while (w.queued)
		pthread_cond_wait(&w.wake, &c->lock);
	pthread_cond_destroy(&w.wake);
}

static int make_room(struct claims *c)
{
	size_t room = c->room ? 2 * c->room : 16;
	struct claim **grown;

	if (c->n < c->room)
		return 0;
	grown = realloc(c->held, room * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	c->held = grown;
	c->room = room;
	return 0;
}

static int claim_insert(struct claims *c, struct claim *claim)
{
	size_t i;

	for (;;) {
		i = first_behind(c, claim->off);
		if (c->closed)
			pthread_cond_wait(&c->opened, &c->lock);
		else if (i == c->n || c->held[i]->off >= claim->end)
			break;
		else
			wait_for(c, c->held[i]);
	}
	if (make_room(c))
		return -ENOMEM;
	memmove(c->held + i + 1, c->held + i, (c->n - i) * sizeof(*c->held));
	c->held[i] = claim;
	c->n++;
	return 0;
}

int claim_take(struct engine *e, struct claim *claim, uint64_t off,
	       uint64_t end)
{
	with_lock(&e->claims.lock);

	claim->off = off;
	claim->end = end;
	claim->waiters = NULL;
	return knobs.no_claims ? 0 : claim_insert(&e->claims, claim);
}

void claim_drop(struct engine *e, struct claim *claim)
{
	struct claims *c = &e->claims;
	size_t i;
	with_lock(&c->lock);

	if (knobs.no_claims)
		return;
	i = first_behind(c, claim->off);
	BUG_ON(i >= c->n || c->held[i] != claim);
	c->n--;
	memmove(c->held + i, c->held + i + 1, (c->n - i) * sizeof(*c->held));
	for (struct claim_waiter *w = claim->waiters, *next; w; w = next) {
		next = w->next;
		w->queued = false;
		pthread_cond_signal(&w->wake);
	}
	if (c->closed && !c->n)
		pthread_cond_signal(&c->drained);
}

void claims_close(struct engine *e)
{
	struct claims *c = &e->claims;
	with_lock(&c->lock);

	while (c->closed)
		pthread_cond_wait(&c->opened, &c->lock);
	c->closed = true;
	while (c->n)
		pthread_cond_wait(&c->drained, &c->lock);
}

void claims_open(struct engine *e)
{
	struct claims *c = &e->claims;
	with_lock(&c->lock);

	c->closed = false;
	pthread_cond_broadcast(&c->opened);
}
