/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reply.c - the only callers of fuse_reply_*: one answer per request, and only
 * errnos that the kernel takes (F24).  A request without an answer, or with an
 * errno beyond 511, would hang its caller for good.
 *
 * Knows which request this thread serves and which ones wait for others.
 * Refuses to know what they ask.
 */
#include "fs/fs.h"

#define ERRNO_MAX 511

/* The request that this thread was given by the session. */
static _Thread_local struct {
	fuse_req_t req;
	bool answered, later;
} here;

/* Requests that were put off. */
struct waiting {
	fuse_req_t req;
	struct waiting *next;
};

static struct {
	pthread_mutex_t lock;
	struct waiting *bucket[64];
} later = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct waiting **bucket_of(fuse_req_t req)
{
	return &later.bucket[((uintptr_t)req >> 6) % ARRAY_SIZE(later.bucket)];
}

static bool take_waiting(fuse_req_t req)
{
	struct waiting **p, *w = NULL;

	pthread_mutex_lock(&later.lock);
	for (p = bucket_of(req); *p; p = &(*p)->next)
		if ((*p)->req == req) {
			w = *p;
			*p = w->next;
			break;
		}
	pthread_mutex_unlock(&later.lock);
	free(w);
	return w != NULL;
}

/* This request gets its answer now. */
static void answer(fuse_req_t req)
{
	if (here.req == req && !here.later) {
		BUG_ON(here.answered);
		here.answered = true;
		return;
	}
	BUG_ON(!take_waiting(req));
}

void reply_begin(fuse_req_t req)
{
	here.req = req;
	here.answered = here.later = false;
}

void reply_end(fuse_req_t req)
{
	BUG_ON(here.req != req);
	BUG_ON(!here.answered && !here.later);
	here.req = NULL;
}

void reply_later(fuse_req_t req)
{
	struct waiting *w = malloc(sizeof(*w));
	struct waiting **head = bucket_of(req);

	BUG_ON(!w || here.req != req || here.answered || here.later);
	here.later = true;
	w->req = req;
	pthread_mutex_lock(&later.lock);
	w->next = *head;
	*head = w;
	pthread_mutex_unlock(&later.lock);
}

/* As the kernel takes it. */
static int wire_errno(int err)
{
	err = err < 0 ? -err : err;
	if (err == ENOSYS)      /* would switch the operation off (F13) */
		return EOPNOTSUPP;
	return err <= ERRNO_MAX ? err : EIO;
}

int reply_err(fuse_req_t req, int err)
{
	answer(req);
	return fuse_reply_err(req, wire_errno(err));
}

int reply_buf(fuse_req_t req, const void *buf, size_t len)
{
	answer(req);
	return fuse_reply_buf(req, buf, len);
}

int reply_write(fuse_req_t req, size_t n)
{
	answer(req);
	return fuse_reply_write(req, n);
}

int reply_lseek(fuse_req_t req, off_t off)
{
	answer(req);
	return fuse_reply_lseek(req, off);
}

int reply_entry(fuse_req_t req, const struct fuse_entry_param *e)
{
	answer(req);
	return fuse_reply_entry(req, e);
}

int reply_attr(fuse_req_t req, const struct stat *st, double timeout)
{
	answer(req);
	return fuse_reply_attr(req, st, timeout);
}

int reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
	answer(req);
	return fuse_reply_open(req, fi);
}

int reply_statfs(fuse_req_t req, const struct statvfs *st)
{
	answer(req);
	return fuse_reply_statfs(req, st);
}

int reply_ioctl(fuse_req_t req, int result, const void *buf, size_t len)
{
	answer(req);
	return fuse_reply_ioctl(req, result, buf, len);
}

int reply_poll(fuse_req_t req, unsigned revents)
{
	answer(req);
	return fuse_reply_poll(req, revents);
}
