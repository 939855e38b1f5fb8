/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file-pool.c - requests in flight: file_submit() over blocking drivers.
 *
 * Knows one pool of threads for all files of the process.  A file has at most
 * traits.depth requests on it; threads are started when there is work for
 * them, and end with the last file that used the pool.  Refuses to know what
 * requests mean: each one is a call of the file_*() wrapper.
 *
 * Locks: pool.lock guards everything here; nothing is called under it.
 */
#include "file-internal.h"

#define POOL_THREADS 64

struct file_queue {
	struct file_req *first, **last;         /* waiting */
	unsigned running;
	bool listed;                            /* is in pool.ready */
	struct file_queue *next_ready;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work;            /* ready, or stop */
	pthread_cond_t quiet;           /* threads are gone */
	struct file_queue *ready, **last_ready; /* may run one more */
	unsigned queues;
	unsigned threads, idle;
	unsigned coming;                /* started or woken, and on the way
					 * to look at @ready */
	bool stop;
	pthread_t ids[POOL_THREADS];
} pool = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.work = PTHREAD_COND_INITIALIZER,
	.quiet = PTHREAD_COND_INITIALIZER,
	.last_ready = &pool.ready,
};

/* ---- the list of files with work, each at most once ---------------------- */

static void make_ready(struct file_queue *q, unsigned depth)
{
	if (q->listed || !q->first || q->running >= depth)
		return;
	q->listed = true;
	q->next_ready = NULL;
	*pool.last_ready = q;
	pool.last_ready = &q->next_ready;
}

static struct file_queue *take_ready(void)
{
	struct file_queue *q = pool.ready;

	pool.ready = q->next_ready;
	if (!pool.ready)
		pool.last_ready = &pool.ready;
	q->listed = false;
	return q;
}

static struct file_req *take_request(struct file_queue *q)
{
	struct file_req *req = q->first;

	q->first = req->next;
	if (!q->first)
		q->last = &q->first;
	q->running++;
	return req;
}

static unsigned depth_of(const struct file *f)
{
	return f->traits.depth ? f->traits.depth : 1;
}

/* ---- threads ------------------------------------------------------------- */

static int run(struct file *f, const struct file_req *req)
{
	switch (req->op) {
	case FILE_OP_READ:
		return file_readv(f, req->iov, req->niov, req->off);
	case FILE_OP_WRITE:
		return file_writev(f, req->iov, req->niov, req->off);
	case FILE_OP_SYNC:
		return file_sync(f);
	case FILE_OP_ZERO:
		return file_zero(f, req->off, req->len, req->how);
	case FILE_OP_DISCARD:
		return file_discard(f, req->off, req->len);
	}
	return -EINVAL;
}

static void *worker(void *arg);

/* Under pool.lock: somebody comes and looks at what is ready. */
static int wake_or_start(void)
{
	int ret = 0;

	if (pool.coming)
		return 0;
	if (pool.idle)
		pthread_cond_signal(&pool.work);
	else if (pool.threads < POOL_THREADS)
		ret = pthread_create(&pool.ids[pool.threads], NULL, worker,
				     NULL);
	else
		return 0;       /* all are busy, and look when they are not */
	if (ret)                /* with one thread at least, work only waits */
		return pool.threads ? 0 : -ret;
	pool.threads += !pool.idle;
	pool.coming++;
	return 0;
}

/* Under pool.lock, which is given up meanwhile.  The request is its owner's
 * again once done() is called: the file's own state is kept here. */
static void run_one(struct file_queue *q)
{
	struct file_req *req = take_request(q);
	struct file *f = req->file;
	unsigned depth = depth_of(f);

	make_ready(q, depth);
	if (pool.ready)
		wake_or_start();
	pthread_mutex_unlock(&pool.lock);
	req->result = run(f, req);
	/* Before done(): afterwards the file may be closed. */
	pthread_mutex_lock(&pool.lock);
	q->running--;
	make_ready(q, depth);
	pthread_mutex_unlock(&pool.lock);
	req->done(req);
	pthread_mutex_lock(&pool.lock);
}

static void *worker(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&pool.lock);
	if (pool.coming)
		pool.coming--;
	while (!pool.stop) {
		if (pool.ready) {
			run_one(take_ready());
			continue;
		}
		pool.idle++;
		pthread_cond_wait(&pool.work, &pool.lock);
		pool.idle--;
		if (pool.coming)
			pool.coming--;
	}
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

/* Under pool.lock: the last file has gone. */
static void end_threads(void)
{
	unsigned i, n = pool.threads;

	pool.stop = true;
	pthread_cond_broadcast(&pool.work);
	pthread_mutex_unlock(&pool.lock);
	for (i = 0; i < n; i++)
		pthread_join(pool.ids[i], NULL);
	pthread_mutex_lock(&pool.lock);
	pool.threads = pool.coming = 0;
	pool.stop = false;
	pthread_cond_broadcast(&pool.quiet);
}

/* ---- files --------------------------------------------------------------- */

/* Under pool.lock. */
static struct file_queue *queue_of(struct file *f)
{
	struct file_queue *q = atomic_load(&f->queue);

	while (pool.stop)
		pthread_cond_wait(&pool.quiet, &pool.lock);
	if (q)
		return q;
	q = calloc(1, sizeof(*q));
	if (!q)
		return NULL;
	q->last = &q->first;
	pool.queues++;
	atomic_store(&f->queue, q);
	return q;
}

void file_queue_free(struct file_queue *q)
{
	if (!q)
		return;
	with_lock(&pool.lock);
	BUG_ON(q->first || q->running);
	free(q);
	if (!--pool.queues && pool.threads)
		end_threads();
}

static int enqueue(struct file *f, struct file_req *req)
{
	struct file_queue *q;
	int ret;

	with_lock(&pool.lock);
	q = queue_of(f);
	if (!q)
		return -ENOMEM;
	ret = pool.threads ? 0 : wake_or_start();
	if (ret)
		return ret;
	*q->last = req;
	q->last = &req->next;
	make_ready(q, depth_of(f));
	if (q->listed)
		wake_or_start();
	return 0;
}

void file_submit(struct file *f, struct file_req *req)
{
	int ret;

	req->file = f;
	req->next = NULL;
	if (f->ops->submit && file_req_plain(f, req)) {
		ret = f->ops->submit(f, req);
		if (ret)
			file_req_done(req, ret);
		return;
	}
	ret = enqueue(f, req);
	if (ret) {
		req->result = ret;
		req->done(req);
	}
}
