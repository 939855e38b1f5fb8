/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * loop.c - the threads that take FUSE's requests (F4).
 *
 * Knows who reads the device.  Refuses to know what a request wants, but for
 * one thing: reads and writes are mostly short, all else may wait.
 *
 * To wake another thread costs more than a small request, and so does a buffer
 * that is cold.  So the thread that took a read or a write serves it while
 * nobody waits at the device, and comes back for the next.  Others join when
 *  - requests are found waiting again and again (more than one core has work);
 *  - the request is of another kind, which may take its time;
 *  - for one tick of the watch nothing moved: whoever serves is blocked.
 * They leave when nothing waits and another thread is at the device.  The one
 * that left last joins first: its buffer is the warmest.
 */
#include "fs/session.h"

#include "fs/loop.h"

#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
	TICK_US = 1000,
	IDLE_TICKS = 20,        /* then the watch sleeps */
	WAITING_LOW = 2,        /* in a row, while cores are free */
	WAITING_HIGH = 16,      /* ... when only blocked threads justify it */
	/* The largest write, or names and attributes. */
	LOOP_REQUEST_MAX = FS_MAX_WRITE_LIMIT + (64 << 10),
};

struct loop;

struct server {
	struct loop *loop;
	struct server *next_parked, *next;      /* loop->lock */
	bool parked;                            /* loop->lock */
	pthread_cond_t join;
	pthread_t thread;
	void *mem;              /* holds buf.mem */
	struct fuse_buf buf;
	unsigned waiting;       /* found at the device in a row */
	long blocked;           /* how often it had, when that began */
};

struct loop {
	struct fuse_session *se;
	struct pollfd device;
	int ended;              /* eventfd */
	unsigned max, cores;

	_Atomic unsigned reading;       /* threads at the device */
	_Atomic unsigned taken;         /* requests */
	_Atomic unsigned active;        /* threads that are not parked */
	_Atomic bool watch_sleeps;

	pthread_mutex_t lock;           /* guards: */
	struct server *all, *parked;
	unsigned nr;
	bool ending;
	int error;
	pthread_cond_t watch_wake;
	pthread_t watch;
};

/* ---- buffers --------------------------------------------------------------- */

/*
 * What a write brings, behind its two headers, begins on a page: the kernel
 * copies there in half the time.  libfuse offers the kernel its own idea of the
 * size, and the kernel never fills more than the largest request.
 */
static int buffer_init(struct server *s)
{
	const size_t headers = sizeof(struct fuse_in_header) +
			       sizeof(struct fuse_write_in);
	const size_t page = 4096;

	s->mem = aligned_alloc(page, page + LOOP_REQUEST_MAX);
	if (!s->mem)
		return -ENOMEM;
	s->buf.mem = (char *)s->mem + page - headers;
	return 0;
}

static void server_free(struct server *s)
{
	pthread_cond_destroy(&s->join);
	free(s->mem);
	free(s);
}

/* ---- joining and leaving --------------------------------------------------- */

static void *serve(void *data);

/* Under the lock. */
static int server_start(struct loop *l)
{
	struct server *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return -ENOMEM;
	s->loop = l;
	pthread_cond_init(&s->join, NULL);
	ret = buffer_init(s);
	if (!ret)
		ret = -pthread_create(&s->thread, NULL, serve, s);
	if (ret) {
		server_free(s);
		return ret;
	}
	s->next = l->all;
	l->all = s;
	l->nr++;
	atomic_fetch_add(&l->active, 1);
	return 0;
}

static void one_more(struct loop *l)
{
	with_lock(&l->lock);
	struct server *s = l->parked;

	if (l->ending)
		return;
	if (s) {
		l->parked = s->next_parked;
		s->parked = false;
		atomic_fetch_add(&l->active, 1);
		pthread_cond_signal(&s->join);
	} else if (l->nr < l->max) {
		server_start(l);        /* if not: a later one tries again */
	}
}

static void park(struct server *s)
{
	struct loop *l = s->loop;
	with_lock(&l->lock);

	if (l->ending)
		return;
	s->parked = true;
	s->next_parked = l->parked;
	l->parked = s;
	atomic_fetch_sub(&l->active, 1);
	while (s->parked && !l->ending)
		pthread_cond_wait(&s->join, &l->lock);
}

static void end(struct loop *l, int error)
{
	uint64_t one = 1;
	with_lock(&l->lock);

	if (error && !l->error)
		l->error = error;
	l->ending = true;
	for (struct server *s = l->all; s; s = s->next)
		pthread_cond_signal(&s->join);
	pthread_cond_signal(&l->watch_wake);
	if (write(l->ended, &one, sizeof(one)) < 0)
		BUG("the loop's end cannot be told");
}

/* ---- serving --------------------------------------------------------------- */

static bool requests_wait(const struct loop *l)
{
	struct pollfd p = l->device;

	return poll(&p, 1, 0) > 0;
}

static long times_blocked(void)
{
	struct rusage ru;

	return getrusage(RUSAGE_THREAD, &ru) ? 0 : ru.ru_nvcsw;
}

/* Requests wait again and again: would one more thread help? */
static bool help_needed(struct server *s)
{
	const struct loop *l = s->loop;
	bool help;

	if (!requests_wait(l)) {
		s->waiting = 0;
		return false;
	}
	s->waiting++;
	if (atomic_load(&l->active) < l->cores)
		return s->waiting >= WAITING_LOW;
	if (s->waiting == 1)
		s->blocked = times_blocked();
	if (s->waiting < WAITING_HIGH)
		return false;
	help = times_blocked() - s->blocked >= WAITING_HIGH / 2;
	s->waiting = 0;
	return help;
}

static bool mostly_short(const struct fuse_buf *buf)
{
	const struct fuse_in_header *in = buf->mem;

	return buf->size >= sizeof(*in) &&
		(in->opcode == FUSE_READ || in->opcode == FUSE_WRITE);
}

/* 1: there is a request in the buffer; 0: not yet; negative: it is over. */
static int take(struct server *s)
{
	struct loop *l = s->loop;
	int ret;

	atomic_fetch_add(&l->reading, 1);
	/* Where it waits, and only there, it may be told to end. */
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	ret = fuse_session_receive_buf(l->se, &s->buf);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	atomic_fetch_sub(&l->reading, 1);
	if (ret == -EINTR)
		return 0;
	if (ret <= 0) {
		end(l, ret);
		return -1;
	}
	atomic_fetch_add(&l->taken, 1);
	return 1;
}

static void call_help(struct server *s)
{
	struct loop *l = s->loop;

	if (atomic_load(&l->watch_sleeps)) {
		with_lock(&l->lock);
		atomic_store(&l->watch_sleeps, false);
		pthread_cond_signal(&l->watch_wake);
	}
	if (!mostly_short(&s->buf)) {
		if (!atomic_load(&l->reading))
			one_more(l);
	} else if (help_needed(s)) {
		one_more(l);
	}
}

static void *serve(void *data)
{
	struct server *s = data;
	struct loop *l = s->loop;
	int got;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	while (!fuse_session_exited(l->se)) {
		got = take(s);
		if (got < 0)
			break;
		if (!got)
			continue;
		call_help(s);
		fuse_session_process_buf(l->se, &s->buf);
		if (atomic_load(&l->reading) && !requests_wait(l))
			park(s);
	}
	return NULL;
}

/* ---- the watch --------------------------------------------------------------- */

/* Until somebody takes a request again.  Who took one counts it before he looks
 * whether the watch sleeps. */
static void watch_sleep(struct loop *l, unsigned seen)
{
	with_lock(&l->lock);

	atomic_store(&l->watch_sleeps, true);
	if (atomic_load(&l->taken) != seen)
		atomic_store(&l->watch_sleeps, false);
	while (atomic_load(&l->watch_sleeps) && !l->ending)
		pthread_cond_wait(&l->watch_wake, &l->lock);
}

static bool is_ending(struct loop *l)
{
	with_lock(&l->lock);
	return l->ending;
}

static void *watch(void *data)
{
	const struct timespec tick = { .tv_nsec = TICK_US * 1000L };
	struct loop *l = data;
	unsigned seen = 0, still = 0;

	while (!is_ending(l)) {
		unsigned taken = atomic_load(&l->taken);

		still = taken == seen ? still + 1 : 0;
		seen = taken;
		if (still && !atomic_load(&l->reading))
			one_more(l);
		else if (still > IDLE_TICKS)
			watch_sleep(l, seen);
		nanosleep(&tick, NULL);
	}
	return NULL;
}

/* ---- beginning and end -------------------------------------------------------- */

/* A signal ends it as well; it comes to this thread, and only in ppoll(). */
static void wait_for_end(struct loop *l, const sigset_t *signals)
{
	struct pollfd p = { .fd = l->ended, .events = POLLIN };

	while (!fuse_session_exited(l->se) && !is_ending(l))
		ppoll(&p, 1, NULL, signals);
}

/* What is being served is finished. */
static void stop(struct loop *l)
{
	struct server *s;

	end(l, 0);
	fuse_session_exit(l->se);
	pthread_join(l->watch, NULL);
	for (s = l->all; s; s = s->next)
		pthread_cancel(s->thread);
	while ((s = l->all)) {
		l->all = s->next;
		pthread_join(s->thread, NULL);
		server_free(s);
	}
}

static int start(struct loop *l)
{
	int ret = -pthread_create(&l->watch, NULL, watch, l);

	if (ret)
		return ret;
	pthread_mutex_lock(&l->lock);
	ret = server_start(l);
	pthread_mutex_unlock(&l->lock);
	if (ret)
		stop(l);
	return ret;
}

int loop_run(struct fuse_session *se, unsigned max)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	struct loop l = {
		.se = se,
		.device = { .fd = fuse_session_fd(se), .events = POLLIN },
		.ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.max = max,
		.cores = cores > 1 ? (unsigned)cores : 1,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.watch_wake = PTHREAD_COND_INITIALIZER,
	};
	sigset_t ours, before;
	int ret;

	if (l.ended < 0)
		return -errno;
	sigfillset(&ours);
	pthread_sigmask(SIG_BLOCK, &ours, &before);
	ret = start(&l);
	if (!ret) {
		wait_for_end(&l, &before);
		stop(&l);
		ret = l.error;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	close(l.ended);
	fuse_session_reset(se);
	return ret;
}
