/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * slow.c - requests that wait on workers; see slow.h.
 *
 * Knows who owns a request at each moment: libfuse calls interrupted() under
 * the request's own lock, and fuse_req_interrupt_func() waits for that call, so
 * that after slow_end() nobody else touches it.  Refuses to know what the
 * request asks for.
 */
#include "fs/slow.h"

static void set_gone(fuse_req_t req, void *data)
{
	_Atomic bool *gone = data;

	(void)req;
	atomic_store(gone, true);
}

void caller_watch(fuse_req_t req, _Atomic bool *gone)
{
	fuse_req_interrupt_func(req, set_gone, gone);
}

void caller_unwatch(fuse_req_t req)
{
	fuse_req_interrupt_func(req, NULL, NULL);
}

static void set_flags(struct slow *s)
{
	for (int i = 0; i < 2; i++) {
		_Atomic bool *flag = atomic_load(&s->flag[i]);

		if (flag)
			atomic_store(flag, true);
	}
}

static void interrupted(fuse_req_t req, void *data)
{
	struct slow *s = data;

	atomic_store(&s->interrupted, true);
	atomic_store(&s->use.cancel, true);
	set_flags(s);
	if (!work_cancel(s->pool, &s->work))
		return;         /* it runs: it looks at the flag */
	reply_err(req, -EINTR);
	free(s);
}

static void run(struct work *w)
{
	struct slow *s = container_of(w, struct slow, work);

	s->run(s);
}

void slow_start(struct slow *s, fuse_req_t req, struct work_pool *pool,
		void (*fn)(struct slow *s))
{
	s->req = req;
	s->pool = pool;
	s->run = fn;
	s->work.run = run;
	reply_later(req);
	/* An interrupt before we are queued only sets the flag. */
	fuse_req_interrupt_func(req, interrupted, s);
	if (work_submit_unless(pool, &s->work, &s->interrupted))
		return;
	reply_err(slow_end(s), -EINTR);
	free(s);
}

/* libfuse calls interrupted() at once if there was one, and waits for a call
 * that runs: between the two settings nobody looks at the flags. */
void slow_watch(struct slow *s, _Atomic bool *a, _Atomic bool *b)
{
	fuse_req_interrupt_func(s->req, NULL, NULL);
	atomic_store(&s->flag[0], a);
	atomic_store(&s->flag[1], b);
	if (slow_interrupted(s))
		set_flags(s);
	fuse_req_interrupt_func(s->req, interrupted, s);
}

fuse_req_t slow_end(struct slow *s)
{
	fuse_req_interrupt_func(s->req, NULL, NULL);
	return s->req;
}
