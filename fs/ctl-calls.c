/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-calls.c - the commands that run on images of a mount, and those that have
 * run as jobs: who waits for which, what is cancelled; see ctl.h.
 *
 * Knows beginnings and ends.  Refuses to know what is between them.
 */
#include "fs/ctl-int.h"

#include <time.h>

static struct ctl_calls *calls_of(const struct ctl_call *c)
{
	return c->m->mnt->calls;
}

/* ---- one call --------------------------------------------------------------------- */

struct ctl_call *ctl_call_new(struct mimage *m, struct words *w_take)
{
	struct ctl_call *c = calloc(1, sizeof(*c));
	char **argv = calloc((size_t)w_take->nr + 1, sizeof(*argv));

	if (!c || !argv) {
		free(c);
		free(argv);
		words_free(w_take);
		return NULL;
	}
	c->m = mimage_ref(m);
	c->words = *w_take;
	memset(w_take, 0, sizeof(*w_take));
	memcpy(argv, c->words.word, (size_t)c->words.nr * sizeof(*argv));
	c->argv = argv;
	c->argc = c->words.nr;
	c->at = 1;
	c->refs = 1;
	return c;
}

static void call_free(struct ctl_call *c)
{
	words_free(&c->words);
	strbuf_free(&c->out);
	free(c->argv);
	free(c->subject);
	free(c->sentence);
	mimage_unref(c->m);
	free(c);
}

/* Under the lock; the caller frees it outside. */
static bool unref(struct ctl_call *c)
{
	BUG_ON(!c->refs);
	return !--c->refs;
}

void ctl_call_unref(struct ctl_call *c)
{
	struct ctl_calls *l = calls_of(c);
	bool last;

	pthread_mutex_lock(&l->lock);
	last = unref(c);
	pthread_mutex_unlock(&l->lock);
	if (last)
		call_free(c);
}

void ctl_call_cancel(struct ctl_call *c)
{
	struct ctl_calls *l = calls_of(c);

	atomic_store(&c->progress.cancel, true);
	with_lock(&l->lock);
	pthread_cond_broadcast(&l->changed);
}

/* ---- the list ------------------------------------------------------------------------ */

static bool is_listed(const struct ctl_calls *l, const struct ctl_call *c)
{
	const struct ctl_call *o = l->list;

	while (o && o != c)
		o = o->next;
	return o;
}

/* At its end: jobs are read in the order in which they began.  Under the lock. */
static void list_call(struct ctl_calls *l, struct ctl_call *c)
{
	struct ctl_call **at = &l->list;

	if (is_listed(l, c))
		return;
	while (*at)
		at = &(*at)->next;
	c->next = NULL;
	*at = c;
	c->refs++;
	if (l->ending)
		atomic_store(&c->progress.cancel, true);
}

/* Under the lock; the reference is the caller's then.  False: it was not. */
static bool unlist(struct ctl_calls *l, struct ctl_call *c)
{
	struct ctl_call **at = &l->list;

	while (*at && *at != c)
		at = &(*at)->next;
	if (!*at)
		return false;
	*at = c->next;
	return true;
}

void ctl_call_list(struct ctl_call *c)
{
	struct ctl_calls *l = calls_of(c);

	with_lock(&l->lock);
	list_call(l, c);
}

/* A mkdir that went well is there to be seen; nobody waits for its job. */
static bool stays(const struct ctl_call *c)
{
	return c->job && !c->dismissed && (c->result || !c->subject);
}

/* Of the jobs of @c's image and kind that have ended, the one that did so first,
 * when more are listed than are kept; or NULL.  What mkdirs left behind does not
 * push out what somebody has started on purpose.  Under the lock. */
static struct ctl_call *surplus(const struct ctl_calls *l,
				const struct ctl_call *c)
{
	struct ctl_call *first = NULL;
	unsigned n = 0;

	for (struct ctl_call *o = l->list; o; o = o->next) {
		if (o->m != c->m || !o->job || o->state != CTL_DONE ||
		    o->in_order != c->in_order)
			continue;
		n++;
		if (!first || o->ended < first->ended)
			first = o;
	}
	return n > (c->in_order ? CTL_KEPT_IN_TURN : CTL_KEPT) ? first : NULL;
}

void ctl_call_done(struct ctl_call *c, int ret, const char *sentence)
{
	struct ctl_calls *l = calls_of(c);
	struct ctl_call *old;
	bool drop, last = false;

	pthread_mutex_lock(&l->lock);
	c->result = ret;
	c->sentence = sentence ? strdup(sentence) : NULL;
	c->state = CTL_DONE;
	c->ended = ++l->nr_ended;
	c->turns++;
	drop = !stays(c) && unlist(l, c);
	if (drop)
		last = unref(c);
	old = surplus(l, c);
	if (old && (!unlist(l, old) || !unref(old)))
		old = NULL;     /* its file is open: who closes it frees it */
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	BUG_ON(last || old == c);       /* the caller has one */
	if (old)
		call_free(old);
	jobs_wake(c);
}

bool ctl_call_dismiss(struct ctl_call *c)
{
	struct ctl_calls *l = calls_of(c);

	with_lock(&l->lock);
	if (c->state != CTL_DONE)
		return false;
	c->dismissed = true;
	if (unlist(l, c))
		BUG_ON(unref(c));       /* the caller has one */
	return true;
}

/* ---- in the background ------------------------------------------------------------------ */

static bool job_numbered(const struct ctl_calls *l, unsigned number)
{
	const struct ctl_call *c = l->list;

	while (c && c->job != number)
		c = c->next;
	return c;
}

static void make_job(struct ctl_calls *l, struct ctl_call *c)
{
	do
		l->last_job = l->last_job % (NODE_NUMBER_MAX - 1) + 1;
	while (job_numbered(l, l->last_job));
	c->job = l->last_job;
}

static void background(struct work *w)
{
	struct ctl_call *c = container_of(w, struct ctl_call, work);
	autoerr err = ERR_INIT;

	pause_point("fs:background");
	ctl_call_run(c, &err);
	ctl_call_unref(c);
}

/* Under the lock: who is listed first is first in the pool's queue as well, and
 * never waits there behind those that wait for it. */
static void start(struct ctl_calls *l, struct ctl_call *c)
{
	list_call(l, c);
	c->refs++;              /* background()'s */
	c->work.run = background;
	work_submit(c->m->mnt->commands, &c->work);
}

bool ctl_call_start(struct ctl_call *c)
{
	struct ctl_calls *l = calls_of(c);
	unsigned n = 0;
	with_lock(&l->lock);

	for (const struct ctl_call *o = l->list; o; o = o->next)
		n += o->m == c->m && o->job && !o->in_order &&
		     o->state != CTL_DONE;
	if (n >= CTL_JOBS)
		return false;
	make_job(l, c);
	start(l, c);
	return true;
}

bool ctl_call_start_in_turn(struct ctl_call *c)
{
	struct ctl_calls *l = calls_of(c);
	unsigned n = 0;
	with_lock(&l->lock);

	for (const struct ctl_call *o = l->list; o; o = o->next)
		n += o->m == c->m && o->in_order && o->state != CTL_DONE;
	if (n >= CTL_IN_TURN)
		return false;
	c->in_order = true;
	start(l, c);
	return true;
}

static void after(struct timespec *t, unsigned ms)
{
	clock_gettime(CLOCK_MONOTONIC, t);
	t->tv_sec += ms / 1000;
	t->tv_nsec += (long)(ms % 1000) * 1000000;
	if (t->tv_nsec >= 1000000000) {
		t->tv_nsec -= 1000000000;
		t->tv_sec++;
	}
}

bool ctl_call_wait(struct ctl_call *c, unsigned ms, int *ret)
{
	struct ctl_calls *l = calls_of(c);
	struct timespec t;
	int late = 0;

	after(&t, ms);
	with_lock(&l->lock);
	while (c->state != CTL_DONE && late != ETIMEDOUT)
		late = pthread_cond_timedwait(&l->changed, &l->lock, &t);
	if (c->state != CTL_DONE) {
		make_job(l, c);
		return false;
	}
	*ret = c->result;
	return true;
}

/* ---- a name that is being made --------------------------------------------------------------- */

/* Under the lock. */
static struct ctl_call *making(const struct ctl_calls *l,
			       const struct mimage *m, enum node_kind dir,
			       const char *name)
{
	for (struct ctl_call *c = l->list; c; c = c->next)
		if (c->m == m && c->dir == dir && c->subject &&
		    c->state != CTL_DONE && !strcmp(c->subject, name))
			return c;
	return NULL;
}

bool ctl_pending(struct mimage *m, enum node_kind dir, const char *name)
{
	struct ctl_calls *l = m->mnt->calls;

	with_lock(&l->lock);
	return making(l, m, dir, name);
}

size_t ctl_pending_names(struct mimage *m, enum node_kind dir,
			 char *names[CTL_IN_TURN])
{
	struct ctl_calls *l = m->mnt->calls;
	size_t n = 0;
	with_lock(&l->lock);

	for (struct ctl_call *c = l->list; c && n < CTL_IN_TURN; c = c->next) {
		if (c->m != m || c->dir != dir || !c->subject ||
		    c->state == CTL_DONE)
			continue;
		names[n] = strdup(c->subject);
		n += names[n] != NULL;
	}
	return n;
}

/* Waits in slices: who cancels does not wake us. */
static void wait_slice(struct ctl_calls *l)
{
	struct timespec t;

	after(&t, 100);
	pthread_cond_timedwait(&l->changed, &l->lock, &t);
}

int ctl_wait(struct mimage *m, enum node_kind dir, const char *name,
	     _Atomic bool *cancel)
{
	struct ctl_calls *l = m->mnt->calls;
	struct ctl_call *c;
	bool last = false;
	int ret = -ENOENT;

	pthread_mutex_lock(&l->lock);
	c = making(l, m, dir, name);
	if (c) {
		c->refs++;
		while (c->state != CTL_DONE && !(cancel && *cancel))
			wait_slice(l);
		ret = c->state == CTL_DONE ? c->result : -EINTR;
		last = unref(c);
	}
	pthread_mutex_unlock(&l->lock);
	if (last)
		call_free(c);
	return ret;
}

bool ctl_cancel(struct mimage *m, enum node_kind dir, const char *name)
{
	struct ctl_calls *l = m->mnt->calls;
	struct ctl_call *c;

	pthread_mutex_lock(&l->lock);
	c = making(l, m, dir, name);
	if (c) {
		atomic_store(&c->progress.cancel, true);
		c->dismissed = true;
		pthread_cond_broadcast(&l->changed);
	}
	pthread_mutex_unlock(&l->lock);
	return c && ctl_wait(m, dir, name, NULL) != -ENOENT;
}

void ctl_changed_wait(struct ctl_calls *l)
{
	wait_slice(l);
}

/* ---- with the mount ------------------------------------------------------------------------------ */

struct ctl_calls *ctl_calls_new(void)
{
	struct ctl_calls *l = calloc(1, sizeof(*l));
	pthread_condattr_t attr;

	BUG_ON(!l);
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->changed, &attr);
	pthread_condattr_destroy(&attr);
	return l;
}

void ctl_calls_stop(struct mount *mnt)
{
	struct ctl_calls *l = mnt->calls;

	with_lock(&l->lock);
	l->ending = true;
	for (struct ctl_call *c = l->list; c; c = c->next)
		atomic_store(&c->progress.cancel, true);
	pthread_cond_broadcast(&l->changed);
}

void ctl_calls_free(struct mount *mnt)
{
	struct ctl_calls *l = mnt->calls;
	struct ctl_call *c;

	while ((c = l->list)) {         /* jobs that nobody has dismissed */
		l->list = c->next;
		BUG_ON(c->refs != 1);
		call_free(c);
	}
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l);
	mnt->calls = NULL;
}
