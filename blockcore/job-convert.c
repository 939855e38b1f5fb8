/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job-convert.c - copies the guest's disk of some images into another one.
 *
 * As many threads as cores do the same: take a batch, plan it, read and encode
 * it.  Who finishes one while nobody stores, stores all that are next in line:
 * reading, encoding and writing overlap, and yet the target is written in
 * ascending order, by one thread at a time.  With -W each stores its own at
 * once.
 *
 * Knows the order of batches.  Refuses to know what is in one.
 */
#include "job-convert.h"

#include <inttypes.h>
#include <stdio.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

enum { MAX_WORKERS = 16 };

/* ---- -r -------------------------------------------------------------------- */

bool convert_cancelled(const struct convert *c)
{
	struct progress *p = c->a->progress;

	return p && atomic_load(&p->cancel);
}

static uint64_t batch_data(const struct batch *b)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < b->nr; i++)
		if (b->piece[i].kind != PIECE_SKIP &&
		    b->piece[i].kind != PIECE_ZERO)
			n += b->piece[i].len;
	return n;
}

/* Sleeps until what was written so far is due. */
static void rate_wait(struct convert *c, uint64_t bytes)
{
	const uint64_t nap = 100000000;
	uint64_t due, now;

	if (!c->a->rate)
		return;
	c->paid += bytes;
	due = (uint64_t)((double)c->paid / (double)c->a->rate * 1e9);
	while (now = now_ns() - c->begin, now < due && !convert_cancelled(c)) {
		uint64_t ns = min_u64(due - now, nap);
		struct timespec ts = { .tv_nsec = (long)ns };

		nanosleep(&ts, NULL);
	}
}

/* ---- storing, in order ------------------------------------------------------ */

/* Called under c->order. */
static void fail(struct convert *c, int error, const char *what, uint64_t off)
{
	char line[160];

	if (c->error)
		return;
	c->error = error;
	pthread_cond_broadcast(&c->room);
	if (!what)
		return;
	snprintf(line, sizeof(line), "error while %s %" PRIu64 ": %s", what,
		 off, strerror(-error));
	if (c->a->report)
		c->a->report(c->a->report_data, line);
}

/* Called under c->order, but for -W never by two at once. */
static void advance(struct convert *c, const struct batch *b)
{
	struct progress *p = c->a->progress;

	if (!p || b->end <= atomic_load(&p->done))
		return;
	atomic_store(&p->done, b->end);
	if (p->tick)
		p->tick(p);
}

/* A stream that has something there already says so.  Under c->order. */
static void say_stored(const struct convert *c, uint64_t off)
{
	const struct image *dst = c->a->dst;
	struct extent ext;
	char line[160];

	if (c->error || !c->a->report || !dst->packed_only ||
	    image_map(&dst->live, off, 1, &ext) || ext.kind != EXT_PACKED)
		return;
	snprintf(line, sizeof(line), "Could not write to allocated cluster for"
		 " %s", dst->packed_only);
	c->a->report(c->a->report_data, line);
}

/* Stores @b with c->order given up meanwhile. */
static void store(struct convert *c, struct batch *b)
{
	uint64_t off = 0;
	int ret;

	pthread_mutex_unlock(&c->order);
	pause_point("convert-store");
	ret = convert_store(c, b, &off);
	convert_give_back(b);
	if (c->a->flushed_after)
		image_write_behind(c->a->dst, &c->behind, batch_data(b));
	rate_wait(c, batch_data(b));
	(void)progress_pace(c->a->progress, batch_data(b));
	pthread_mutex_lock(&c->order);
	if (ret == -EIO)
		say_stored(c, off);
	if (ret)
		fail(c, ret, "writing at byte", off);
	else if (b->error)
		fail(c, b->error, b->bad_map ? "reading block status at offset"
		     : "reading at byte", b->error_off);
	else
		advance(c, b);
	if (convert_cancelled(c))
		fail(c, -ECANCELED, NULL, 0);
}

static void recycle(struct convert *c, struct batch *b)
{
	b->next = c->free;
	c->free = b;
	pthread_cond_signal(&c->room);
}

/* Everything that is next in line. */
static void store_ready(struct convert *c)
{
	struct batch **next, *b;

	if (c->storing)
		return;
	c->storing = true;
	while (next = &c->line[c->stored % c->nr_batches], *next && !c->error) {
		b = *next;
		*next = NULL;
		store(c, b);
		c->stored++;
		recycle(c, b);
	}
	c->storing = false;
}

static void finish(struct convert *c, struct batch *b)
{
	with_lock(&c->order);
	if (!c->a->out_of_order) {
		c->line[b->seq % c->nr_batches] = b;
		store_ready(c);
	} else if (!c->error) {
		store(c, b);
		recycle(c, b);
	}
}

/* ---- the workers ------------------------------------------------------------- */

/* Waits until a batch is free; NULL when all is over. */
static struct batch *take_free(struct convert *c)
{
	struct batch *b;
	with_lock(&c->order);

	while (!c->free && !c->error)
		pthread_cond_wait(&c->room, &c->order);
	if (c->error)
		return NULL;
	b = c->free;
	c->free = b->next;
	return b;
}

static bool plan(struct convert *c, struct batch *b)
{
	with_lock(&c->plan);
	if (c->at >= c->size)
		return false;
	b->seq = c->planned++;
	convert_plan(c, b);
	return true;
}

static void *work(void *data)
{
	struct convert *c = data;
	struct batch *b;

	while (b = take_free(c), b && plan(c, b)) {
		convert_fill(c, b);
		finish(c, b);
	}
	if (b) {
		with_lock(&c->order);
		recycle(c, b);
	}
	return NULL;
}

static void run(struct convert *c)
{
	pthread_t threads[MAX_WORKERS];
	unsigned n = 0;

	/* With fewer threads than wanted it only takes longer. */
	while (n + 1 < c->nr_workers &&
	       !pthread_create(&threads[n], NULL, work, c))
		n++;
	work(c);
	while (n)
		pthread_join(threads[--n], NULL);
}

/* ---- setting up --------------------------------------------------------------- */

static unsigned workers(const struct convert_args *a)
{
	cpu_set_t set;
	int cores = 1;

	if (a->threads)
		return a->threads < MAX_WORKERS ? a->threads : MAX_WORKERS;
	if (!sched_getaffinity(0, sizeof(set), &set))
		cores = CPU_COUNT(&set);
	return cores < MAX_WORKERS ? (unsigned)cores : MAX_WORKERS;
}

static void *buffer(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int batch_init(const struct convert *c, struct batch *b)
{
	b->buf = buffer(c->batch_bytes);
	if (c->unit)
		b->packed = buffer(c->batch_bytes);
	/* A piece begins and ends inside a block. */
	b->zero = calloc((c->batch_bytes / SECTOR_SIZE +
			  2 * CONVERT_PIECES) / 64 + 1, sizeof(*b->zero));
	if (c->a->salvage)
		b->lost = calloc(c->batch_bytes / SECTOR_SIZE,
				 sizeof(*b->lost));
	return b->buf && b->zero && (b->packed || !c->unit) &&
	       (b->lost || !c->a->salvage) ? 0 : -ENOMEM;
}

static void batch_free(const struct convert *c, struct batch *b)
{
	convert_give_back(b);
	if (b->buf)
		munmap(b->buf, c->batch_bytes);
	if (b->packed)
		munmap(b->packed, c->batch_bytes);
	free(b->zero);
	free(b->lost);
}

static int batches_init(struct convert *c)
{
	int ret = 0;

	c->nr_workers = workers(c->a);
	/* One with each worker, one being stored, some in line. */
	c->nr_batches = c->nr_workers > 1 ? 2 * c->nr_workers + 1 : 1;
	c->batches = calloc(c->nr_batches, sizeof(*c->batches));
	c->line = calloc(c->nr_batches, sizeof(*c->line));
	if (!c->batches || !c->line)
		return -ENOMEM;
	for (unsigned i = 0; i < c->nr_batches && !ret; i++) {
		ret = batch_init(c, &c->batches[i]);
		recycle(c, &c->batches[i]);
	}
	return ret;
}

static void batches_free(struct convert *c)
{
	for (unsigned i = 0; c->batches && i < c->nr_batches; i++)
		batch_free(c, &c->batches[i]);
	free(c->batches);
	free(c->line);
}

static void convert_init(struct convert *c, const struct convert_args *a)
{
	*c = (struct convert) {
		.a = a,
		.find_zeroes = a->sparse && !a->copy_offload,
		.align = a->sparse ? UINT64_C(1) << log2_u64(a->sparse) : 1,
		.unit = (a->compress && a->dst->codec) || a->dst->packed_only ?
			a->dst->unit : 0,
		.batch_bytes = CONVERT_REQUEST,
		.begin = now_ns(),
	};
	for (unsigned i = 0; i < a->nr_src; i++)
		c->size += image_size(a->src[i]);
	c->size -= a->skip;
	if (a->length)
		c->size = min_u64(c->size, a->length);
	if (c->unit)
		c->batch_bytes = round_up(CONVERT_PACK, c->unit);
	if (a->progress)
		atomic_store(&a->progress->total, c->size);
	pthread_mutex_init(&c->plan, NULL);
	pthread_mutex_init(&c->order, NULL);
	pthread_cond_init(&c->room, NULL);
}

int job_convert(const struct convert_args *a, struct err *err)
{
	struct convert c;
	int ret;

	convert_init(&c, a);
	ret = batches_init(&c);
	if (!ret) {
		run(&c);
		ret = c.error;
	}
	batches_free(&c);
	pthread_mutex_destroy(&c.plan);
	pthread_mutex_destroy(&c.order);
	pthread_cond_destroy(&c.room);
	return ret == -ENOMEM ? err_errno(err, ret, "Could not convert") : ret;
}
