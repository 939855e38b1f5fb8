/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * notify.c - invalidations for the kernel, from a thread of their own (F22).
 *
 * The kernel may make the caller of an invalidation wait for pages that a
 * request in flight will fill: a thread that serves requests, or holds anything
 * that one needs, would wait for itself, beyond the reach of SIGKILL.
 */
#include "fs/notify.h"

#include <signal.h>
#include <time.h>

struct note {
	fuse_ino_t ino;
	char *name;             /* an entry of @ino; NULL: the inode itself */
	bool data;
	struct note *next;
};

struct notifier {
	struct fuse_session *se;
	pthread_t thread;
	pthread_mutex_t lock;   /* guards what follows */
	pthread_cond_t more;
	struct note *head, **tail;
	uint64_t queued, sent;
	pthread_cond_t less;
	bool ending;
};

static void note_free(struct note *n)
{
	free(n->name);
	free(n);
}

/* An error only says that the kernel does not know the node (any more). */
static void send(struct notifier *nf, const struct note *n)
{
	if (n->name)
		fuse_lowlevel_notify_inval_entry(nf->se, n->ino, n->name,
						 strlen(n->name));
	else
		fuse_lowlevel_notify_inval_inode(nf->se, n->ino,
						 n->data ? 0 : -1, 0);
}

static struct note *take(struct notifier *nf)
{
	struct note *n;

	with_lock(&nf->lock);
	while (!nf->head && !nf->ending)
		pthread_cond_wait(&nf->more, &nf->lock);
	n = nf->ending ? NULL : nf->head;
	if (n) {
		nf->head = n->next;
		if (!nf->head)
			nf->tail = &nf->head;
	}
	return n;
}

static void *notifier_run(void *data)
{
	struct notifier *nf = data;
	struct note *n;

	while ((n = take(nf))) {
		send(nf, n);
		note_free(n);
		pthread_mutex_lock(&nf->lock);
		nf->sent++;
		pthread_cond_broadcast(&nf->less);
		pthread_mutex_unlock(&nf->lock);
	}
	return NULL;
}

struct notifier *notifier_start(struct fuse_session *se)
{
	struct notifier *nf = calloc(1, sizeof(*nf));
	sigset_t all, old;
	int ret;

	if (!nf)
		return NULL;
	nf->se = se;
	nf->tail = &nf->head;
	pthread_mutex_init(&nf->lock, NULL);
	pthread_cond_init(&nf->more, NULL);
	pthread_cond_init(&nf->less, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	ret = pthread_create(&nf->thread, NULL, notifier_run, nf);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret) {
		free(nf);
		return NULL;
	}
	return nf;
}

void notifier_stop(struct notifier *nf)
{
	if (!nf)
		return;
	with_lock(&nf->lock);
	nf->ending = true;
	pthread_cond_signal(&nf->more);
}

void notifier_free(struct notifier *nf)
{
	struct note *n;

	if (!nf)
		return;
	pthread_join(nf->thread, NULL);
	while ((n = nf->head)) {
		nf->head = n->next;
		note_free(n);
	}
	pthread_cond_destroy(&nf->more);
	pthread_cond_destroy(&nf->less);
	pthread_mutex_destroy(&nf->lock);
	free(nf);
}

/* Without memory a note is lost: what the kernel knows is old for a while. */
static void queue(struct notifier *nf, fuse_ino_t ino, const char *name,
		  bool data)
{
	struct note *n = nf ? calloc(1, sizeof(*n)) : NULL;

	if (!n)
		return;
	n->ino = ino;
	n->data = data;
	if (name && !(n->name = strdup(name))) {
		free(n);
		return;
	}
	with_lock(&nf->lock);
	*nf->tail = n;
	nf->tail = &n->next;
	nf->queued++;
	pthread_cond_signal(&nf->more);
}

void notify_settle(struct mount *mnt)
{
	struct notifier *nf = mnt->notifier;
	struct timespec until;
	uint64_t queued;
	int late = 0;

	if (!nf)
		return;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	with_lock(&nf->lock);
	queued = nf->queued;
	while (nf->sent < queued && !nf->ending && !late)
		late = pthread_cond_timedwait(&nf->less, &nf->lock, &until);
}

void notify_inode(struct mount *mnt, fuse_ino_t ino, bool data)
{
	queue(mnt->notifier, ino, NULL, data);
}

void notify_entry(struct mount *mnt, fuse_ino_t parent, const char *name)
{
	queue(mnt->notifier, parent, name, false);
}
