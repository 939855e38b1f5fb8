/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench.c - `imgctl bench`: how long an image takes for so many requests of one
 * size, so many of them at a time.
 *
 * Each request that may be in flight has a thread with a buffer; whoever is
 * ready takes the next request.  A flush is due whenever the number of requests
 * left is a multiple of its interval (qemu-img-cli.md, "bench").
 */
#include "tools.h"

#include <inttypes.h>
#include <sys/mman.h>

enum { OPT_DRAIN = OPT_COMMAND, OPT_INTERVAL, OPT_PATTERN };
enum { THREADS_MAX = 1024, THREAD_STACK = 256 << 10 };

static const struct cmd_option bench_options[] = {
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 't', "cache", "CACHE", "how to read and write (default: writeback)",
	  OPT_LONG_10 },
	{ 'c', "count", "N", "how many requests (default: 75000)",
	  OPT_LONG_10 },
	{ 'd', "depth", "N", "how many at a time (default: 64)", OPT_LONG_10 },
	{ 's', "buffer-size", "SIZE", "of a request (default: 4k)",
	  OPT_LONG_10 },
	{ 'o', "offset", "OFFSET", "of the first one (default: 0)",
	  OPT_LONG_10 },
	{ 'S', "step-size", "SIZE", "from one to the next (default: the"
	  " size of a request)", OPT_LONG_10 },
	{ 'w', "write", NULL, "write instead of reading: what is in the image"
	  " is lost", OPT_LONG_10 },
	{ OPT_PATTERN, "pattern", "BYTE", "what is written (default: 0)", 0 },
	{ OPT_INTERVAL, "flush-interval", "N", "flush after so many writes", 0 },
	{ OPT_DRAIN, "no-drain", NULL, "do not wait for requests in flight"
	  " before a flush", 0 },
	{ 'i', "aio", "AIO", "threads, native or io_uring: checked, without"
	  " effect", OPT_LONG_10 },
	{ 'n', "native", NULL, "the same as -i native", OPT_LONG_10 },
	{ 'q', "quiet", NULL, "accepted, without effect", OPT_LONG_10 },
	OPTION_SHARE,
	{ 0, NULL, NULL, NULL, 0 },
};

struct bench {
	struct open_how how;
	bool write, no_drain, native;
	uint64_t count, depth, interval, pattern;
	uint64_t request, step, offset;         /* bytes */

	struct image *img;
	uint64_t size;          /* of its disk */
	pthread_mutex_t lock;
	pthread_cond_t turn;    /* one has ended, or a flush has */
	uint64_t left, in_flight, flushed_at;
	uint64_t at;            /* where the next one goes */
	bool flushing;
	int error;              /* the first one: all stop */
};

/* ---- requests ------------------------------------------------------------- */

static bool flush_due(const struct bench *b)
{
	return b->interval && b->left != b->count &&
	       b->left % b->interval == 0 && b->flushed_at != b->left;
}

/* Under the lock, which others can take meanwhile. */
static void flush(struct bench *b)
{
	int ret;

	b->flushed_at = b->left;
	b->flushing = true;
	pthread_mutex_unlock(&b->lock);
	ret = image_flush(b->img);
	pthread_mutex_lock(&b->lock);
	b->flushing = false;
	if (ret && !b->error)
		b->error = ret;
	pthread_cond_broadcast(&b->turn);
}

/* Waits until the next request may begin; false: there is none. */
static bool wait_turn(struct bench *b)
{
	while (!b->error) {
		bool due = flush_due(b);

		if (!b->no_drain && ((due && b->in_flight) || b->flushing))
			pthread_cond_wait(&b->turn, &b->lock);
		else if (due)
			flush(b);
		else
			return b->left;
	}
	return false;
}

/* The position goes round; what does not fit before the end begins anew. */
static uint64_t next_position(const struct bench *b)
{
	uint64_t at = (b->at + b->step) % b->size;

	return range_within(at, b->request, b->size) ? at : 0;
}

static bool take(struct bench *b, uint64_t *off)
{
	bool any;

	pthread_mutex_lock(&b->lock);
	any = wait_turn(b);
	if (any) {
		*off = b->at;
		b->at = next_position(b);
		b->left--;
		b->in_flight++;
	}
	pthread_mutex_unlock(&b->lock);
	return any;
}

static void done(struct bench *b, int ret)
{
	pthread_mutex_lock(&b->lock);
	b->in_flight--;
	if (ret && !b->error)
		b->error = ret;
	if (b->interval || b->error)
		pthread_cond_broadcast(&b->turn);
	pthread_mutex_unlock(&b->lock);
}

static void *worker(void *data)
{
	struct bench *b = data;
	size_t len = max_u64(b->request, 1);
	unsigned char *buf = mmap(NULL, len, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t off;

	if (buf == MAP_FAILED) {
		pthread_mutex_lock(&b->lock);
		b->error = -ENOMEM;
		pthread_cond_broadcast(&b->turn);
		pthread_mutex_unlock(&b->lock);
		return NULL;
	}
	memset(buf, (int)b->pattern, len);
	while (take(b, &off))
		done(b, b->write ?
		     image_write(&b->img->live, buf, b->request, off) :
		     image_read(&b->img->live, buf, b->request, off));
	munmap(buf, len);
	return NULL;
}

static void run_workers(struct bench *b)
{
	uint64_t want = min_u64(min_u64(b->depth, b->count), THREADS_MAX);
	pthread_t *threads = calloc(want + 1, sizeof(*threads));
	pthread_attr_t attr;
	unsigned n = 0;

	if (!threads)
		BUG("out of memory");
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	while (n < want && !pthread_create(&threads[n], &attr, worker, b))
		n++;
	pthread_attr_destroy(&attr);
	if (want && !n)
		b->error = -EAGAIN;
	while (n)
		pthread_join(threads[--n], NULL);
	free(threads);
}

/* ---- running -------------------------------------------------------------- */

static void announce(const struct bench *b)
{
	printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %"
	       PRIu64 " in parallel (starting at offset %" PRIu64
	       ", step size %" PRIu64 ")\n", b->count,
	       b->write ? "write" : "read", b->request, b->depth, b->offset,
	       b->step);
	if (b->interval)
		printf("Sending flush every %" PRIu64 " requests\n",
		       b->interval);
	fflush(stdout);
}

/* 0, or a negative errno. */
static int measure(struct bench *b)
{
	uint64_t begin = now_ns();

	b->size = image_size(b->img);
	b->left = b->count;
	b->flushed_at = UINT64_MAX;
	b->at = b->offset;
	if (b->count && (!b->size ||
			 !range_within(b->at, b->request, b->size)))
		return -EIO;
	run_workers(b);
	/* The last one is due when nothing is left. */
	if (!b->error && flush_due(b))
		b->error = image_flush(b->img);
	if (b->error)
		return b->error;
	printf("Run completed in %3.3f seconds.\n",
	       (double)(now_ns() - begin) / 1e9);
	return 0;
}

static int run(struct bench *b, const char *name)
{
	int ret, closed;

	b->img = tool_open(name, &b->how);
	if (!b->img)
		return 1;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->turn, NULL);
	announce(b);
	ret = measure(b);
	closed = image_close(b->img);
	if (ret || closed)
		say_error("Failed request: %s", strerror(ret ? -ret : -closed));
	pthread_cond_destroy(&b->turn);
	pthread_mutex_destroy(&b->lock);
	return ret || closed ? 1 : 0;
}

/* ---- the command line ----------------------------------------------------- */

/* A whole number in C's notation. */
static bool take_number(const char *what, const char *text, uint64_t min,
			uint64_t max, uint64_t *out)
{
	char *end;
	long long n;
	bool syntax;

	errno = 0;
	n = strtoll(text, &end, 0);
	syntax = errno || end == text || *end;
	if (!syntax && n >= 0 && (uint64_t)n >= min && (uint64_t)n <= max) {
		*out = (uint64_t)n;
		return true;
	}
	if (qemu_compat() < 100)
		say_error("Invalid %s specified", what);
	else if (syntax)
		say_error("Invalid %s specified: '%s'.", what, text);
	else
		say_error("Invalid %s specified. Must be between %" PRIu64
			  " and %" PRIu64 ".", what, min, max);
	return false;
}

static bool take_aio(struct bench *b, const char *text)
{
	b->native = !strcmp(text, "native");
	if (b->native || !strcmp(text, "threads") || !strcmp(text, "io_uring"))
		return true;
	say_error("Invalid aio option: %s", text);
	return false;
}

static bool take_cache(struct bench *b, const char *text)
{
	if (cache_mode_parse(text, &b->how.cache))
		return true;
	say_error("Invalid cache mode");
	return false;
}

static bool take_value(struct bench *b, int id, const char *arg)
{
	switch (id) {
	case 'f':
		b->how.format = arg;
		return true;
	case 't':
		return take_cache(b, arg);
	case 'i':
		return take_aio(b, arg);
	case 'c':
		return take_number("request count", arg,
				   qemu_compat() < 100 ? 0 : 1, INT32_MAX,
				   &b->count);
	case 'd':
		return take_number("queue depth", arg, 1, INT32_MAX,
				   &b->depth);
	case 's':
		return tool_size("buffer size", arg, 0, INT32_MAX,
				 &b->request);
	case 'S':
		return tool_size("step_size", arg, 0, INT32_MAX, &b->step);
	case 'o':
		return tool_size("offset", arg, 0, INT64_MAX, &b->offset);
	case OPT_INTERVAL:
		return take_number("flush interval", arg, 0, INT32_MAX,
				   &b->interval);
	default:        /* --pattern */
		return take_number("pattern byte", arg, 0, 255, &b->pattern);
	}
}

static void take_flag(struct bench *b, int id)
{
	switch (id) {
	case 'w':
		b->write = true;
		b->how.flags |= IMAGE_RDWR;
		break;
	case 'n':
		b->native = true;
		break;
	case 'U':
		b->how.flags |= IMAGE_SHARE;
		break;
	case OPT_DRAIN:
		b->no_drain = true;
		break;
	case OPT_IMAGE_OPTS:
		b->how.image_opts = true;
		break;
	}
}

/* Options that exclude each other; false after an error. */
static bool agree(const struct bench *b, const char *name)
{
	bool direct = b->how.cache == CACHE_NONE ||
		      b->how.cache == CACHE_DIRECTSYNC;

	if (!b->write && b->interval)
		say_error("--flush-interval is only available in write tests");
	else if (b->interval && b->interval < b->depth)
		say_error("Flush interval can't be smaller than depth");
	else if (b->native && !direct)
		say_error("Could not open '%s': aio=native was specified, but"
			  " it requires cache.direct=on, which was not"
			  " specified.", name);
	else
		return !tool_opts_conflict(&b->how);
	return false;
}

static int bench_run(struct cmdline *cl)
{
	struct bench b = { .count = 75000, .depth = 64, .request = 4096 };
	const char *arg;
	int id;

	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return cl->rc;
		if (!arg)
			take_flag(&b, id);
		else if (!take_value(&b, id, arg))
			return 1;
	}
	if (cl->nr_operands != 1)
		return usage_error(cl, "Expecting one image file name");
	if (!agree(&b, cl->operands[0]))
		return 1;
	if (!b.step)
		b.step = b.request;
	return run(&b, cl->operands[0]);
}

const struct command cmd_bench = {
	.name = "bench",
	.operands = "FILE",
	.help = "Sends requests to an image, one step further each, and tells"
		" how long they took all together. With -w the image is"
		" overwritten.",
	.options = bench_options,
	.run = bench_run,
};
