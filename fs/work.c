/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * work.c - the pool of workers; see work.h.
 *
 * Knows threads and a queue.  Refuses to know requests, images or what the
 * work is: stopping what runs is the work's own business.
 */
#include "work.h"

#include <signal.h>

/* What a thread does, for the others to see. */
struct running {
	const void *key;
	struct running *next;
};

struct work_pool {
	pthread_mutex_t lock;           /* guards all below */
	pthread_cond_t more, fewer;     /* work came; a thread ended */
	struct work *head, **tail;
	struct running *running;        /* those with a key */
	unsigned queued, bulky, threads, idle, max;
	bool ending;
};

struct work_pool *work_pool_new(unsigned max)
{
	struct work_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
	pthread_cond_init(&pool->fewer, NULL);
	pool->tail = &pool->head;
	pool->max = max;
	return pool;
}

static bool may_run(const struct work_pool *pool, const struct work *w)
{
	if (w->bulky && pool->bulky && pool->bulky >= pool->max / 2)
		return false;
	for (struct running *r = pool->running; r && w->key; r = r->next)
		if (r->key == w->key)
			return false;
	return true;
}

static void unlink_work(struct work_pool *pool, struct work **at)
{
	struct work *w = *at;

	*at = w->next;
	if (pool->tail == &w->next)
		pool->tail = at;
	pool->queued--;
}

/* The first piece that may run now, or NULL. */
static struct work *take(struct work_pool *pool)
{
	struct work *w;

	for (struct work **at = &pool->head; (w = *at); at = &w->next)
		if (may_run(pool, w)) {
			unlink_work(pool, at);
			return w;
		}
	return NULL;
}

/* Called and returns under the lock. */
static void run(struct work_pool *pool, struct work *w)
{
	struct running self = { .key = w->key, .next = pool->running };
	bool bulky = w->bulky, waited_for = w->key || bulky;
	struct running **at;

	if (self.key)
		pool->running = &self;
	pool->bulky += bulky;
	pthread_mutex_unlock(&pool->lock);
	w->run(w);      /* @w may be gone now */
	pthread_mutex_lock(&pool->lock);
	pool->bulky -= bulky;
	for (at = &pool->running; self.key && *at != &self;)
		at = &(*at)->next;
	if (self.key)
		*at = self.next;
	/* What had to wait for this one may now be for another thread. */
	if (waited_for && pool->queued && pool->idle)
		pthread_cond_signal(&pool->more);
}

static void *worker(void *data)
{
	struct work_pool *pool = data;
	struct work *w;

	pthread_mutex_lock(&pool->lock);
	while ((w = take(pool)) || !pool->ending || pool->queued) {
		if (w) {
			run(pool, w);
			continue;
		}
		pool->idle++;
		pthread_cond_wait(&pool->more, &pool->lock);
		pool->idle--;
	}
	pool->threads--;
	pthread_cond_broadcast(&pool->more);
	pthread_cond_signal(&pool->fewer);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Signals are for the session's main thread (F27): ours block them all. */
static void start_thread(struct work_pool *pool)
{
	sigset_t all, old;
	pthread_t t;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	ret = pthread_create(&t, NULL, worker, pool);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		return;
	pthread_detach(t);
	pool->threads++;
}

/* Under the lock. */
static void submit(struct work_pool *pool, struct work *w)
{
	w->next = NULL;
	*pool->tail = w;
	pool->tail = &w->next;
	pool->queued++;
	if (pool->idle)
		pthread_cond_signal(&pool->more);
	/* No thread can be had?  Then the next submit tries again. */
	if (pool->queued > pool->idle && pool->threads < pool->max)
		start_thread(pool);
}

void work_submit(struct work_pool *pool, struct work *w)
{
	with_lock(&pool->lock);

	submit(pool, w);
}

bool work_submit_unless(struct work_pool *pool, struct work *w,
			_Atomic bool *stopped)
{
	with_lock(&pool->lock);

	if (atomic_load(stopped))
		return false;
	submit(pool, w);
	return true;
}

bool work_cancel(struct work_pool *pool, struct work *w)
{
	with_lock(&pool->lock);
	struct work **at = &pool->head;

	while (*at && *at != w)
		at = &(*at)->next;
	if (!*at)
		return false;
	unlink_work(pool, at);
	if (pool->ending && !pool->queued)
		pthread_cond_broadcast(&pool->more);
	return true;
}

void work_pool_free(struct work_pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->ending = true;
	pthread_cond_broadcast(&pool->more);
	while (pool->threads)
		pthread_cond_wait(&pool->fewer, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	pthread_cond_destroy(&pool->more);
	pthread_cond_destroy(&pool->fewer);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}
