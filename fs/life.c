/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * life.c - what happens to open images by itself: dirty ones are flushed after
 * five seconds (F11), the write lock is given back after the last writer, idle
 * ones are closed, shared ones read anew when their files change.
 *
 * One thread looks around while any image is open; the work itself, which may
 * wait for a slow disk, is done in a pool, one piece per image at a time.
 */
#include "fs/mimage.h"

#include <signal.h>
#include <time.h>

enum {
	TICK_MS = 250,
	FLUSH_AFTER_MS = 5000,
	RETRY_MS = 5000,        /* after a flush that failed */
};

struct life {
	struct mount *mnt;
	pthread_t thread;
	pthread_mutex_t lock;   /* guards what follows */
	pthread_cond_t kick;
	bool kicked, ending;
};

static int64_t ms_since(const struct timespec *then)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - then->tv_sec) * 1000 +
	       (now.tv_nsec - then->tv_nsec) / 1000000;
}

/* ---- what is due: under the image's lock ----------------------------------------- */

static bool may_idle(const struct mimage *m)
{
	return !m->mnt->single || m->mnt->opt->idle_given;
}

static bool close_is_due(const struct mimage *m)
{
	if (m->readers || m->writers || !m->image)
		return false;
	if (m->gone)
		return true;
	return may_idle(m) &&
	       ms_since(&m->idle_since) >= (int64_t)m->mnt->opt->idle * 1000;
}

static bool downgrade_is_due(const struct mimage *m)
{
	return m->image && m->writable && !m->writers;
}

/* Notes when it began to be dirty. */
static bool flush_is_due(struct mimage *m)
{
	if (!m->image || !m->writable || m->changes == m->flushed) {
		m->dirty = false;
		return false;
	}
	if (!m->dirty) {
		m->dirty = true;
		clock_gettime(CLOCK_MONOTONIC, &m->dirty_since);
	}
	return ms_since(&m->dirty_since) >= FLUSH_AFTER_MS;
}

static bool anything_due(struct mimage *m)
{
	with_lock(&m->lock);
	if (m->housekeeping || m->busy)
		return false;
	if (m->tried && ms_since(&m->last_try) < RETRY_MS)
		return false;
	m->housekeeping = close_is_due(m) || downgrade_is_due(m) ||
			  flush_is_due(m) || m->mnt->opt->share;
	return m->housekeeping;
}

/* ---- doing it: on a worker -------------------------------------------------------- */

static bool is_due(struct mimage *m, bool (*due)(const struct mimage *m))
{
	with_lock(&m->lock);
	return due(m);
}

static bool still_dirty(struct mimage *m)
{
	with_lock(&m->lock);
	return flush_is_due(m);
}

/* Keeps the image open, without the gate. */
static bool hold(struct mimage *m)
{
	if (!mimage_borrow(m))
		return false;
	mimage_leave(m);
	return true;
}

/* Not mimage_put(): the image stays as idle as it was. */
static void let_go(struct mimage *m)
{
	with_lock(&m->lock);
	m->readers--;
}

/* What failed is tried again, but not at once. */
static void note_try(struct mimage *m, bool failed)
{
	with_lock(&m->lock);
	m->tried = failed;
	clock_gettime(CLOCK_MONOTONIC, &m->last_try);
}

static void flush_dirty(struct mimage *m)
{
	if (!hold(m))
		return;
	note_try(m, mimage_flush(m) != 0);
	let_go(m);
}

static void shared_look(struct mimage *m)
{
	bool changed;

	if (!mimage_borrow(m))
		return;
	changed = mimage_files_changed(m);
	mimage_leave(m);
	let_go(m);
	if (changed)
		mimage_read_anew(m);
}

static void keep_house(struct work *w)
{
	struct mimage *m = container_of(w, struct mimage, work);
	int ret;

	if (still_dirty(m))
		flush_dirty(m);
	if (is_due(m, downgrade_is_due)) {
		mimage_downgrade(m);
		note_try(m, is_due(m, downgrade_is_due));
	}
	if (m->mnt->opt->share)
		shared_look(m);
	if (is_due(m, close_is_due))
		mimage_close(m, false, &ret);
	pthread_mutex_lock(&m->lock);
	m->housekeeping = false;
	pthread_mutex_unlock(&m->lock);
	mimage_unref(m);
}

/* ---- partitions --------------------------------------------------------------- */

static void forget_pages(const struct node *n, void *data)
{
	if (n->kind == NODE_PARTITION)
		notify_inode(data, n->ino, true);
}

/* What is written to the disk is soon seen in partitions that are open. */
static void tell_partitions(struct mimage *m)
{
	uint64_t changes = m->changes;

	if (m->told == changes)
		return;
	m->told = changes;
	node_each(m, forget_pages, m->mnt);
}

/* ---- the thread ---------------------------------------------------------------------- */

/* Returns whether any image is open. */
static bool look_around(struct mount *mnt)
{
	size_t n;
	autofree struct mimage **list = mount_images(mnt, true, &n);

	for (size_t i = 0; i < n; i++) {
		tell_partitions(list[i]);
		if (!anything_due(list[i])) {
			mimage_unref(list[i]);
			continue;
		}
		list[i]->work.run = keep_house; /* takes the reference */
		work_submit(mnt->housework, &list[i]->work);
	}
	return n > 0;
}

static void deadline(struct timespec *t)
{
	clock_gettime(CLOCK_MONOTONIC, t);
	t->tv_nsec += TICK_MS * 1000000L;
	if (t->tv_nsec >= 1000000000L) {
		t->tv_nsec -= 1000000000L;
		t->tv_sec++;
	}
}

/* Until the next tick or kick; without an open image only a kick matters. */
static bool wait_tick(struct life *l, bool open)
{
	struct timespec t;
	int ret = 0;

	deadline(&t);
	with_lock(&l->lock);
	while (!l->kicked && !l->ending && ret != ETIMEDOUT)
		ret = open ? pthread_cond_timedwait(&l->kick, &l->lock, &t) :
			     pthread_cond_wait(&l->kick, &l->lock);
	l->kicked = false;
	return !l->ending;
}

static void *life_run(void *data)
{
	struct life *l = data;
	bool open = true;

	while (wait_tick(l, open))
		open = look_around(l->mnt);
	return NULL;
}

int life_start(struct mount *mnt)
{
	struct life *l = calloc(1, sizeof(*l));
	pthread_condattr_t attr;
	sigset_t all, old;
	int ret;

	if (!l)
		return -ENOMEM;
	l->mnt = mnt;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->kick, &attr);
	pthread_condattr_destroy(&attr);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	ret = pthread_create(&l->thread, NULL, life_run, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret) {
		free(l);
		return -ret;
	}
	mnt->life = l;
	return 0;
}

void life_kick(struct mount *mnt)
{
	struct life *l = mnt->life;

	if (!l)
		return;
	with_lock(&l->lock);
	l->kicked = true;
	pthread_cond_signal(&l->kick);
}

/* Stays, with its lock, until the mount is freed. */
void life_stop(struct mount *mnt)
{
	struct life *l = mnt->life;

	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->ending = true;
	pthread_cond_signal(&l->kick);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
}

void life_free(struct mount *mnt)
{
	if (!mnt->life)
		return;
	pthread_cond_destroy(&mnt->life->kick);
	pthread_mutex_destroy(&mnt->life->lock);
	free(mnt->life);
	mnt->life = NULL;
}

/* ---- when descriptors run out ----------------------------------------------------------- */

static int64_t idle_ms(struct mimage *m)
{
	with_lock(&m->lock);
	if (m->readers || m->writers || !m->image || m->busy)
		return -1;
	return ms_since(&m->idle_since);
}

bool life_make_room(struct mount *mnt)
{
	size_t n;
	autofree struct mimage **list = mount_images(mnt, true, &n);
	struct mimage *oldest = NULL;
	int64_t most = -1, ms;
	bool made = false;
	int ret;

	for (size_t i = 0; i < n; i++) {
		ms = idle_ms(list[i]);
		if (ms > most) {
			most = ms;
			oldest = list[i];
		}
	}
	if (oldest)
		made = mimage_close(oldest, false, &ret);
	for (size_t i = 0; i < n; i++)
		mimage_unref(list[i]);
	return made;
}
