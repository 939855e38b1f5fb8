/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job-compare.c - do two images hold the same guest disk?
 *
 * Walks both by the same runs as map and reads only what neither knows to be
 * zero.  Several threads read ahead of each other; stretches are handed out in
 * ascending order, and the lowest finding wins: the answer does not depend on
 * who was faster.
 *
 * The rules are those of qemu-img-cli.md 10, "compare, rules".
 */
#include "codec.h"
#include "job.h"

#include <sched.h>

enum {
	STRETCH = 2 << 20,      /* an error names where one begins */
	CHUNK = 256 << 10,      /* two of them stay in a core's cache */
	MAX_WORKERS = 8,
	PLAN_STEPS = 1024,
};

#define LOOK_AHEAD GiB

struct side {
	const struct image *img;
	uint64_t size;
	struct run run;         /* what is known around compare.at */
	uint64_t end;           /* where it ends */
};

struct stretch {
	uint64_t off, len;
	bool zero[2];           /* known without reading */
};

struct compare {
	const struct compare_args *a;
	uint64_t common, size;  /* of the shorter, of the longer image */
	pthread_mutex_t lock;   /* of all that follows */
	struct side side[2];
	uint64_t at;            /* handed out up to here */
	bool over;
	bool found;
	struct compare_result best;
	int error;              /* of @best, when reading failed */
};

/* ---- findings --------------------------------------------------------------- */

/* Called under the lock: keeps the lowest. */
static void keep(struct compare *c, enum compare_verdict verdict, uint64_t off,
		 int error, int bad)
{
	c->over = true;
	if (c->found && c->best.off <= off)
		return;
	c->found = true;
	c->best.verdict = verdict;
	c->best.off = off;
	c->best.bad = bad;
	c->error = error;
}

static void found(struct compare *c, enum compare_verdict verdict, uint64_t off,
		  int error, int bad)
{
	with_lock(&c->lock);
	keep(c, verdict, off, error, bad);
}

/* ---- planning: under the lock ------------------------------------------------ */

/* Behind its end an image reads as zeroes. */
static int side_look(const struct compare *c, struct side *s)
{
	uint64_t at = c->at, len;
	int ret;

	if (at < s->end)
		return 0;
	if (at >= s->size) {
		s->run = (struct run) { .off = at, .zero = true };
		s->end = c->size;
		return 0;
	}
	len = s->size - at;
	if (!c->a->strict)
		len = min_u64(len, LOOK_AHEAD);
	ret = walk_run(&s->img->live, at, len, 0, MAP_EXACT, &s->run);
	if (!ret)
		s->end = at + s->run.len;
	return ret;
}

/* qemu-img looks at one packed unit at a time. */
static bool reaches_end(const struct compare *c, const struct side *s)
{
	return s->end == s->size &&
	       !(s->run.compressed && s->end - c->at > s->img->unit);
}

/*
 * Which layer answers does not count, all else that map prints does.  As
 * qemu-img was seen to do it, so does whether a run reaches the end of the disk:
 * the rest in one piece is not the same as the rest in several.
 */
static bool same_status(const struct compare *c)
{
	const struct run *a = &c->side[0].run, *b = &c->side[1].run;

	return a->present == b->present && a->zero == b->zero &&
	       a->data == b->data && a->compressed == b->compressed &&
	       a->has_host == b->has_host && a->encrypted == b->encrypted &&
	       reaches_end(c, &c->side[0]) == reaches_end(c, &c->side[1]);
}

static bool look(struct compare *c)
{
	for (int i = 0; i < 2; i++) {
		int ret = side_look(c, &c->side[i]);

		if (ret) {
			keep(c, COMPARE_STATUS, c->at, ret, i + 1);
			return false;
		}
	}
	if (c->a->strict && !same_status(c)) {
		keep(c, COMPARE_STATUS, c->at, 0, 0);
		return false;
	}
	return true;
}

/* Finds the next stretch that takes reading, at most to where the shorter
 * image ends. */
static bool plan(struct compare *c, struct stretch *s)
{
	uint64_t end;

	for (unsigned i = 0; i < PLAN_STEPS; i++) {
		if (c->over || c->at >= c->size || !look(c))
			return false;
		end = min_u64(c->side[0].end, c->side[1].end);
		s->off = c->at;
		s->zero[0] = c->side[0].run.zero;
		s->zero[1] = c->side[1].run.zero;
		if (!s->zero[0] || !s->zero[1]) {
			s->len = min_u64(end - c->at, STRETCH);
			c->at += s->len;
			return true;
		}
		c->at = end;
	}
	s->off = c->at;
	s->len = 0;
	return true;
}

static void advance(struct compare *c)
{
	struct progress *p = c->a->progress;

	if (!p)
		return;
	atomic_store(&p->done, c->at);
	if (p->tick)
		p->tick(p);
	if (atomic_load(&p->cancel) && !c->over) {
		c->over = true;
		c->error = -ECANCELED;
	}
}

static bool next(struct compare *c, struct stretch *s)
{
	bool more;
	with_lock(&c->lock);

	more = plan(c, s);
	advance(c);
	return more;
}

/* ---- reading and comparing ---------------------------------------------------- */

struct worker {
	struct compare *c;
	unsigned char *buf[2];
	bool started;
	pthread_t thread;
};

/* The first of @len bytes at which both differ; @len: none. */
static size_t first_difference(const unsigned char *a, const unsigned char *b,
			       size_t len)
{
	size_t i = 0;

	for (; i < len; i += SECTOR_SIZE) {
		size_t n = min_u64(SECTOR_SIZE, len - i);

		if (b ? memcmp(a + i, b + i, n) != 0 : !is_zero(a + i, n))
			break;
	}
	return min_u64(i, len);
}

/* True: nothing was found. */
static bool chunk_same(struct worker *w, const struct stretch *s, uint64_t off,
		       size_t len)
{
	const unsigned char *one = s->zero[0] ? w->buf[1] : w->buf[0];
	const unsigned char *other = s->zero[0] || s->zero[1] ? NULL :
				     w->buf[1];
	int ret;

	for (int i = 0; i < 2; i++) {
		if (s->zero[i])
			continue;
		ret = image_read(&w->c->side[i].img->live, w->buf[i], len, off);
		if (ret) {
			found(w->c, COMPARE_CONTENT, s->off, ret, i + 1);
			return false;
		}
	}
	if (other ? !memcmp(one, other, len) : is_zero(one, len))
		return true;
	off += first_difference(one, other, len);
	found(w->c, COMPARE_CONTENT, round_down(off, SECTOR_SIZE), 0, 0);
	return false;
}

static void *work(void *data)
{
	struct worker *w = data;
	struct stretch s;

	while (next(w->c, &s))
		for (uint64_t pos = 0, n; pos < s.len; pos += n) {
			n = min_u64(s.len - pos, CHUNK);
			if (!chunk_same(w, &s, s.off + pos, n))
				return NULL;
		}
	return NULL;
}

static unsigned workers(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	return (unsigned)min_u64((unsigned)CPU_COUNT(&set), MAX_WORKERS);
}

static int run(struct compare *c)
{
	struct worker w[MAX_WORKERS] = { 0 };
	unsigned nr = workers();
	int ret = 0;

	for (unsigned i = 0; i < nr && !ret; i++) {
		w[i].c = c;
		w[i].buf[0] = aligned_alloc(4096, 2 * CHUNK);
		w[i].buf[1] = w[i].buf[0] ? w[i].buf[0] + CHUNK : NULL;
		if (!w[i].buf[0])
			ret = -ENOMEM;
		else if (i)
			w[i].started = !pthread_create(&w[i].thread, NULL,
						       work, &w[i]);
	}
	if (!ret)
		work(&w[0]);
	for (unsigned i = 0; i < nr; i++) {
		if (w[i].started)
			pthread_join(w[i].thread, NULL);
		free(w[i].buf[0]);
	}
	return ret;
}

/* ---- the whole ------------------------------------------------------------------ */

static int finish(const struct compare *c, struct compare_result *res)
{
	if (!c->found && c->error)
		return c->error;
	if (c->found)
		*res = c->best;
	/* A difference inside the common part says it all. */
	res->size_differs = c->common != c->size &&
			    (!c->found || res->off >= c->common);
	return c->found ? c->error : 0;
}

int job_compare(const struct compare_args *a, struct compare_result *res,
		struct err *err)
{
	struct compare c = {
		.a = a,
		.side[0] = { .img = a->a, .size = image_size(a->a) },
		.side[1] = { .img = a->b, .size = image_size(a->b) },
	};
	int ret;

	c.common = min_u64(c.side[0].size, c.side[1].size);
	c.size = max_u64(c.side[0].size, c.side[1].size);
	*res = (struct compare_result) { .verdict = COMPARE_SAME };
	if (a->strict && c.common != c.size) {
		res->verdict = COMPARE_SIZE;
		res->size_differs = true;
		return 0;
	}
	if (a->progress)
		atomic_store(&a->progress->total, c.size);
	pthread_mutex_init(&c.lock, NULL);
	ret = run(&c);
	pthread_mutex_destroy(&c.lock);
	if (ret)
		return err_errno(err, ret, "Could not compare");
	ret = finish(&c, res);
	return ret;
}
