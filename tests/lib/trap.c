/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * trap.c - a file around a file that fails, holds up or logs requests; see
 * testfile.h.  Knows nothing about what the bytes mean.
 */
#include "testfile.h"

#include <time.h>

struct trap {
	struct trap_file *file;
	struct trap_rule rule;
	struct trap *next;
	unsigned seen, hits;
	unsigned waiting;
	bool released;
};

struct trap_file {
	struct file file;
	struct file *below;
	pthread_mutex_t lock;   /* guards all that follows, and the traps */
	pthread_cond_t change;
	struct trap *traps, **last;
	uint64_t count[NR_TEST_OPS];
	bool logging;
	struct trap_entry *log;
	size_t nr_log, cap_log;
};

static struct trap_file *to_trap(struct file *f)
{
	return container_of(f, struct trap_file, file);
}

const char *test_op_name(enum test_op op)
{
	static const char *const names[] = {
		"read", "write", "sync", "zero", "discard", "allocate",
		"truncate", "any",
	};

	return names[op];
}

/* ---- what happens to a request ------------------------------------------- */

struct request {
	enum test_op op;
	uint64_t off, len;
};

static bool touches(const struct trap_rule *r, const struct request *q)
{
	if (r->op != TEST_ANY && r->op != q->op)
		return false;
	if (!r->len)
		return true;
	return q->off < r->off + r->len && r->off < q->off + q->len;
}

/* Under the lock: the rule that acts on this request, counting it in all. */
static struct trap *choose(struct trap_file *tf, const struct request *q)
{
	struct trap *t, *chosen = NULL;

	for (t = tf->traps; t; t = t->next) {
		unsigned nth = t->rule.nth ? t->rule.nth : 1;

		if (!touches(&t->rule, q))
			continue;
		t->seen++;
		if (chosen || t->seen < nth ||
		    (t->rule.times && t->seen >= nth + t->rule.times))
			continue;
		if (t->released && !t->rule.error)
			continue;
		chosen = t;
		t->hits++;
	}
	return chosen;
}

/* Under the lock. */
static int act(struct trap_file *tf, struct trap *t)
{
	if (t->rule.block && !t->released) {
		t->waiting++;
		pthread_cond_broadcast(&tf->change);
		while (!t->released)
			pthread_cond_wait(&tf->change, &tf->lock);
		t->waiting--;
	}
	return t->rule.error;
}

static int begin(struct trap_file *tf, const struct request *q, struct trap **t)
{
	with_lock(&tf->lock);
	tf->count[q->op]++;
	*t = choose(tf, q);
	return *t && !(*t)->rule.after ? act(tf, *t) : 0;
}

static void note(struct trap_file *tf, const struct request *q, int result)
{
	if (!tf->logging)
		return;
	if (tf->nr_log == tf->cap_log) {
		tf->cap_log = tf->cap_log ? tf->cap_log * 2 : 256;
		tf->log = realloc(tf->log, tf->cap_log * sizeof(*tf->log));
		BUG_ON(!tf->log);
	}
	tf->log[tf->nr_log++] = (struct trap_entry) {
		q->op, q->off, q->len, result,
	};
}

static ssize_t finish(struct trap_file *tf, const struct request *q,
		      struct trap *t, ssize_t result)
{
	int error = 0;

	with_lock(&tf->lock);
	if (t && t->rule.after)
		error = act(tf, t);
	note(tf, q, error ? error : (int)result);
	return error ? error : result;
}

/* @call is the driver below, evaluated unless a rule fails the request. */
#define PASS(tf, q, call) ({ \
	struct trap *t_; \
	ssize_t r_ = begin(tf, q, &t_); \
	if (!r_) \
		r_ = (call); \
	finish(tf, q, t_, r_); \
})

static uint64_t iov_sum(const struct iovec *v, int n)
{
	uint64_t sum = 0;

	while (n--)
		sum += v++->iov_len;
	return sum;
}

static ssize_t trap_preadv(struct file *f, const struct iovec *v, int n,
			   uint64_t off)
{
	struct trap_file *tf = to_trap(f);
	const struct request q = { TEST_READ, off, iov_sum(v, n) };

	return PASS(tf, &q, tf->below->ops->preadv(tf->below, v, n, off));
}

static ssize_t trap_pwritev(struct file *f, const struct iovec *v, int n,
			    uint64_t off)
{
	struct trap_file *tf = to_trap(f);
	const struct request q = { TEST_WRITE, off, iov_sum(v, n) };

	return PASS(tf, &q, tf->below->ops->pwritev(tf->below, v, n, off));
}

static int trap_sync(struct file *f)
{
	struct trap_file *tf = to_trap(f);
	const struct request q = { TEST_SYNC, 0, 0 };

	return (int)PASS(tf, &q, tf->below->ops->sync(tf->below));
}

static int trap_zero(struct file *f, uint64_t off, uint64_t len, unsigned how)
{
	struct trap_file *tf = to_trap(f);
	const struct request q = { TEST_ZERO, off, len };

	return (int)PASS(tf, &q, tf->below->ops->zero ?
		tf->below->ops->zero(tf->below, off, len, how) : -EOPNOTSUPP);
}

static int trap_discard(struct file *f, uint64_t off, uint64_t len)
{
	struct trap_file *tf = to_trap(f);
	const struct request q = { TEST_DISCARD, off, len };

	return (int)PASS(tf, &q, tf->below->ops->discard ?
		tf->below->ops->discard(tf->below, off, len) : -EOPNOTSUPP);
}

static int trap_allocate(struct file *f, uint64_t off, uint64_t len)
{
	struct trap_file *tf = to_trap(f);
	const struct request q = { TEST_ALLOCATE, off, len };

	return (int)PASS(tf, &q, tf->below->ops->allocate ?
		tf->below->ops->allocate(tf->below, off, len) : -EOPNOTSUPP);
}

static int trap_truncate(struct file *f, uint64_t size)
{
	struct trap_file *tf = to_trap(f);
	const struct request q = { TEST_TRUNCATE, size, 1 };

	return (int)PASS(tf, &q, tf->below->ops->truncate(tf->below, size));
}

/* ---- what passes unseen -------------------------------------------------- */

static int trap_size(struct file *f, uint64_t *size)
{
	struct file *below = to_trap(f)->below;

	return below->ops->size(below, size);
}

static int trap_extent(struct file *f, uint64_t off, uint64_t len,
		       enum file_kind *kind, uint64_t *run)
{
	return file_extent(to_trap(f)->below, off, len, kind, run);
}

static int trap_stat(struct file *f, struct stat *st)
{
	return file_stat(to_trap(f)->below, st);
}

static int trap_lock(struct file *f, unsigned used, unsigned unshared,
		     struct err *err)
{
	return file_lock(to_trap(f)->below, used, unshared, err);
}

static void trap_close(struct file *f)
{
	struct trap_file *tf = to_trap(f);
	struct trap *t, *next;

	for (t = tf->traps; t; t = next) {
		next = t->next;
		free(t);
	}
	file_unref(tf->below);
	pthread_mutex_destroy(&tf->lock);
	pthread_cond_destroy(&tf->change);
	free(tf->log);
	free(tf);
}

static const struct file_ops trap_ops = {
	.name = "trap",
	.preadv = trap_preadv,
	.pwritev = trap_pwritev,
	.sync = trap_sync,
	.zero = trap_zero,
	.discard = trap_discard,
	.allocate = trap_allocate,
	.truncate = trap_truncate,
	.size = trap_size,
	.extent = trap_extent,
	.stat = trap_stat,
	.lock = trap_lock,
	.close = trap_close,
};

struct file *trap_file_take(struct file *below)
{
	struct trap_file *tf = calloc(1, sizeof(*tf));

	BUG_ON(!tf);
	file_init(&tf->file, &trap_ops, below->name);
	tf->file.traits = below->traits;
	tf->below = below;
	tf->last = &tf->traps;
	pthread_mutex_init(&tf->lock, NULL);
	pthread_cond_init(&tf->change, NULL);
	return &tf->file;
}

/* ---- what tests call ----------------------------------------------------- */

struct trap *trap_add(struct file *f, const struct trap_rule *rule)
{
	struct trap_file *tf = to_trap(f);
	struct trap *t = calloc(1, sizeof(*t));

	BUG_ON(!t);
	t->file = tf;
	t->rule = *rule;
	with_lock(&tf->lock);
	*tf->last = t;
	tf->last = &t->next;
	return t;
}

bool trap_wait(struct trap *t, unsigned n)
{
	struct timespec end;
	int ret = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 20;
	with_lock(&t->file->lock);
	while (t->waiting < n && !ret)
		ret = pthread_cond_timedwait(&t->file->change, &t->file->lock,
					     &end);
	return t->waiting >= n;
}

void trap_release(struct trap *t)
{
	with_lock(&t->file->lock);
	t->released = true;
	pthread_cond_broadcast(&t->file->change);
}

unsigned trap_hits(struct trap *t)
{
	with_lock(&t->file->lock);
	return t->hits;
}

void trap_clear(struct file *f)
{
	struct trap_file *tf = to_trap(f);
	struct trap *t;

	with_lock(&tf->lock);
	for (t = tf->traps; t; t = t->next) {
		t->released = true;
		t->rule.error = 0;
	}
	pthread_cond_broadcast(&tf->change);
}

uint64_t trap_count(struct file *f, enum test_op op)
{
	struct trap_file *tf = to_trap(f);
	uint64_t sum = 0;
	unsigned i;

	with_lock(&tf->lock);
	for (i = 0; i < NR_TEST_OPS; i++)
		if (op == TEST_ANY || op == i)
			sum += tf->count[i];
	return sum;
}

void trap_log(struct file *f, bool on)
{
	struct trap_file *tf = to_trap(f);

	with_lock(&tf->lock);
	tf->logging = on;
}

size_t trap_log_take(struct file *f, struct trap_entry **log)
{
	struct trap_file *tf = to_trap(f);
	size_t n;

	with_lock(&tf->lock);
	n = tf->nr_log;
	*log = tf->log;
	tf->log = NULL;
	tf->nr_log = tf->cap_log = 0;
	return n;
}
