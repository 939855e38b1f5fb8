/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * work.c - the pool of workers; see work.h.
 *
 * Knows threads and a queue.  Refuses to know requests, images or what the
 * work is: cancelling is the work's own business.
 */
#include "work.h"

#include <signal.h>

struct work_pool {
	pthread_mutex_t lock;           /* guards all below */
	pthread_cond_t more, fewer;     /* work came; a thread ended */
	struct work *head, **tail;
	unsigned queued, threads, idle, max;
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

/* The next piece of work, or NULL: the pool ends.  Under the lock. */
static struct work *take(struct work_pool *pool)
{
	struct work *w;

	pool->idle++;
	while (!pool->head && !pool->ending)
		pthread_cond_wait(&pool->more, &pool->lock);
	pool->idle--;
	w = pool->head;
	if (w) {
		pool->queued--;
		pool->head = w->next;
		if (!pool->head)
			pool->tail = &pool->head;
	}
	return w;
}

static void *worker(void *data)
{
	struct work_pool *pool = data;
	struct work *w;

	pthread_mutex_lock(&pool->lock);
	while ((w = take(pool))) {
		pthread_mutex_unlock(&pool->lock);
		w->run(w);
		pthread_mutex_lock(&pool->lock);
	}
	pool->threads--;
	pthread_cond_signal(&pool->fewer);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Signals are for the session's main thread (F27): ours block them all. */
static bool start_thread(struct work_pool *pool)
{
	sigset_t all, old;
	pthread_t t;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	ret = pthread_create(&t, NULL, worker, pool);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		return false;
	pthread_detach(t);
	pool->threads++;
	return true;
}

void work_submit(struct work_pool *pool, struct work *w)
{
	bool alone = false;

	w->next = NULL;
	pthread_mutex_lock(&pool->lock);
	*pool->tail = w;
	pool->tail = &w->next;
	if (++pool->queued <= pool->idle)
		pthread_cond_signal(&pool->more);
	else if (pool->threads < pool->max)
		alone = !start_thread(pool) && !pool->threads;
	if (alone)      /* no thread can be had: do it here, slowly */
		w = take(pool);
	pthread_mutex_unlock(&pool->lock);
	if (alone)
		w->run(w);
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
