/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-convert.c - the order in which convert writes, and what it says when
 * something fails: a target that records its writes, a source whose requests
 * wait and fail when the test wants it.
 */
#include "job.h"
#include "json.h"

#include "../lib/testfile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

enum {
	REQUEST = 2 << 20,
	NR_REQUESTS = 14,
	SIZE = NR_REQUESTS * REQUEST,
	WORKERS = 8,
};

struct job {
	struct file *src_file, *dst_file;       /* traps; the images own them */
	struct image *src, *dst;
	struct convert_args args;
	struct progress progress;
	char said[1024];
	int result;
	pthread_t thread;
};

static void say(void *data, const char *line)
{
	struct job *j = data;

	strncat(j->said, line, sizeof(j->said) - strlen(j->said) - 2);
	strcat(j->said, "\n");
}

static struct file *disk(uint64_t size)
{
	struct power_args args = { .size = size };

	return trap_file_take(power_new(&args));
}

static struct image *image(struct file *f, unsigned flags)
{
	autojson *node = json_object();
	struct image_args args = { .node = node, .flags = flags };
	struct image *img = NULL;
	autoerr err = ERR_INIT;

	json_set_take(node, "driver", json_string("raw"));
	assert_int_equal(image_open_file(f, &args, &img, &err), 0);
	file_unref(f);
	return img;
}

static void fill(struct file *f, uint64_t off, uint64_t len)
{
	autofree uint64_t *buf = malloc(len);

	for (uint64_t i = 0; i < len / 8; i++)
		buf[i] = (off + i * 8) * 0x9e3779b97f4a7c15u + 1;
	assert_int_equal(file_write(f, buf, len, off), 0);
}

static int setup(void **state)
{
	struct job *j = calloc(1, sizeof(*j));

	j->src_file = disk(SIZE);
	j->dst_file = disk(SIZE);
	for (uint64_t off = 0; off < SIZE; off += REQUEST)
		fill(j->src_file, off, REQUEST);
	j->src = image(j->src_file, 0);
	j->dst = image(j->dst_file, IMAGE_RDWR);
	trap_log(j->dst_file, true);
	j->args = (struct convert_args) {
		.src = &j->src, .nr_src = 1, .dst = j->dst,
		.target_is_zero = true, .threads = WORKERS, .sparse = 4096,
		.progress = &j->progress, .report = say, .report_data = j,
	};
	*state = j;
	return 0;
}

static int teardown(void **state)
{
	struct job *j = *state;

	image_close(j->src);
	image_close(j->dst);
	free(j);
	return 0;
}

static void *run(void *data)
{
	struct job *j = data;

	j->result = job_convert(&j->args, NULL);
	return NULL;
}

static void start(struct job *j)
{
	assert_int_equal(pthread_create(&j->thread, NULL, run, j), 0);
}

static int result(struct job *j)
{
	pthread_join(j->thread, NULL);
	return j->result;
}

static void nap(void)
{
	struct timespec ts = { .tv_nsec = 1000000 };

	nanosleep(&ts, NULL);
}

/* Until the source has been asked @n times. */
static void wait_reads(struct job *j, uint64_t n)
{
	for (int i = 0; i < 20000; i++) {
		if (trap_count(j->src_file, TEST_READ) >= n)
			return;
		nap();
	}
	fail_msg("only %u reads", (unsigned)trap_count(j->src_file,
						       TEST_READ));
}

/* How often a write began before the end of the one before. */
static unsigned descents(struct job *j, unsigned *writes)
{
	struct trap_entry *log;
	size_t n = trap_log_take(j->dst_file, &log);
	uint64_t end = 0;
	unsigned down = 0;

	*writes = 0;
	for (size_t i = 0; i < n; i++) {
		if (log[i].op != TEST_WRITE)
			continue;
		++*writes;
		down += log[i].off < end;
		end = log[i].off + log[i].len;
	}
	free(log);
	return down;
}

static void assert_copied(struct job *j)
{
	autofree char *a = malloc(REQUEST), *b = malloc(REQUEST);

	for (uint64_t off = 0; off < SIZE; off += REQUEST) {
		assert_int_equal(image_read(&j->src->live, a, REQUEST, off),
				 0);
		assert_int_equal(image_read(&j->dst->live, b, REQUEST, off),
				 0);
		assert_memory_equal(a, b, REQUEST);
	}
}

/* ---- order ------------------------------------------------------------------- */

static const struct trap_rule first_waits = {
	.op = TEST_READ, .off = 0, .len = 1, .times = 1, .block = true,
};

/* The first request is the last to be read: all others wait in line. */
static void written_in_order(void **state)
{
	struct job *j = *state;
	struct trap *t = trap_add(j->src_file, &first_waits);
	unsigned writes;

	start(j);
	assert_true(trap_wait(t, 1));
	wait_reads(j, NR_REQUESTS);
	assert_int_equal(trap_count(j->dst_file, TEST_WRITE), 0);
	trap_release(t);
	assert_int_equal(result(j), 0);
	assert_int_equal(descents(j, &writes), 0);
	assert_int_equal(writes, NR_REQUESTS);
	assert_copied(j);
}

/* The proof that the one above would notice. */
static void written_in_any_order(void **state)
{
	struct job *j = *state;
	struct trap *t = trap_add(j->src_file, &first_waits);
	unsigned writes;

	j->args.out_of_order = true;
	start(j);
	assert_true(trap_wait(t, 1));
	for (int i = 0; i < 20000 && trap_count(j->dst_file, TEST_WRITE) <
	     NR_REQUESTS - 1; i++)
		nap();
	assert_int_equal(trap_count(j->dst_file, TEST_WRITE),
			 NR_REQUESTS - 1);
	trap_release(t);
	assert_int_equal(result(j), 0);
	assert_true(descents(j, &writes) > 0);
	assert_copied(j);
}

static void one_thread(void **state)
{
	struct job *j = *state;
	unsigned writes;

	j->args.threads = 1;
	start(j);
	assert_int_equal(result(j), 0);
	assert_int_equal(descents(j, &writes), 0);
	assert_copied(j);
	assert_int_equal(atomic_load(&j->progress.total), SIZE);
	assert_int_equal(atomic_load(&j->progress.done), SIZE);
}

/* ---- failures ---------------------------------------------------------------- */

/* A later request fails first; the message is about the earlier one. */
static void lowest_failure_is_told(void **state)
{
	static const struct trap_rule early = {
		.op = TEST_READ, .off = 3 * REQUEST + 4096, .len = 1,
		.times = 1, .error = -EIO, .block = true,
	}, late = {
		.op = TEST_READ, .off = 6 * REQUEST, .len = 1, .times = 1,
		.error = -ENOMEM,
	};
	struct job *j = *state;
	struct trap *t = trap_add(j->src_file, &early);
	struct trap *u = trap_add(j->src_file, &late);

	start(j);
	assert_true(trap_wait(t, 1));
	for (int i = 0; i < 20000 && !trap_hits(u); i++)
		nap();
	assert_int_equal(trap_hits(u), 1);
	trap_release(t);
	assert_int_equal(result(j), -EIO);
	assert_string_equal(j->said, "error while reading at byte 6291456:"
			    " Input/output error\n");
	/* What lies before was written. */
	assert_int_equal(trap_count(j->dst_file, TEST_WRITE), 3);
}

/* --salvage: the neighbours of what cannot be read are kept. */
static void bad_sectors_are_zeroes(void **state)
{
	enum { AT = 3 * REQUEST + 4096 };
	static const struct trap_rule bad = {
		.op = TEST_READ, .off = AT, .len = 1024, .error = -EIO,
	};
	struct job *j = *state;
	autofree char *a = malloc(REQUEST), *b = malloc(REQUEST);

	trap_add(j->src_file, &bad);
	j->args.salvage = true;
	j->args.warn = say;
	start(j);
	assert_int_equal(result(j), 0);
	assert_string_equal(j->said,
			    "error while reading offset 6295552:"
			    " Input/output error\n"
			    "error while reading offset 6296064:"
			    " Input/output error\n");
	trap_clear(j->src_file);
	assert_int_equal(image_read(&j->src->live, a, REQUEST, 3 * REQUEST), 0);
	assert_int_equal(image_read(&j->dst->live, b, REQUEST, 3 * REQUEST), 0);
	memset(a + 4096, 0, 1024);
	assert_memory_equal(a, b, REQUEST);
}

static void failed_write_is_told(void **state)
{
	static const struct trap_rule full = {
		.op = TEST_WRITE, .off = 5 * REQUEST + 512, .len = 1,
		.error = -ENOSPC,
	};
	struct job *j = *state;

	trap_add(j->dst_file, &full);
	start(j);
	assert_int_equal(result(j), -ENOSPC);
	assert_string_equal(j->said, "error while writing at byte 10485760:"
			    " No space left on device\n");
	assert_int_equal(trap_count(j->dst_file, TEST_WRITE), 6);
}

static void cancelled(void **state)
{
	static const struct trap_rule waits = {
		.op = TEST_WRITE, .off = 2 * REQUEST, .len = 1, .times = 1,
		.block = true,
	};
	struct job *j = *state;
	struct trap *t = trap_add(j->dst_file, &waits);

	start(j);
	assert_true(trap_wait(t, 1));
	atomic_store(&j->progress.cancel, true);
	trap_release(t);
	assert_int_equal(result(j), -ECANCELED);
	assert_string_equal(j->said, "");
	assert_int_equal(trap_count(j->dst_file, TEST_WRITE), 3);
}

/* ---- the rest ---------------------------------------------------------------- */

static void rate_is_kept(void **state)
{
	struct job *j = *state;
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	j->args.rate = 64 << 20;
	start(j);
	assert_int_equal(result(j), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	/* 28 MiB at 64 MiB/s */
	assert_true((double)(b.tv_sec - a.tv_sec) +
		    (double)(b.tv_nsec - a.tv_nsec) / 1e9 >= 0.4);
	assert_copied(j);
}

/* Stored zeroes and stale bytes: what is zero has to be said to an old target,
 * and nothing to one that reads as zeroes. */
static void zeroes_reach_an_old_target(void **state)
{
	struct job *j = *state;
	autofree char *buf = calloc(1, REQUEST);

	assert_int_equal(file_write(j->src_file, buf, REQUEST, REQUEST), 0);
	memset(buf, 7, REQUEST);
	for (uint64_t off = 0; off < SIZE; off += REQUEST)
		assert_int_equal(file_write(j->dst_file, buf, REQUEST, off),
				 0);
	j->args.target_is_zero = false;
	start(j);
	assert_int_equal(result(j), 0);
	assert_copied(j);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(written_in_order),
		CASE(written_in_any_order),
		CASE(one_thread),
		CASE(lowest_failure_is_told),
		CASE(bad_sectors_are_zeroes),
		CASE(failed_write_is_told),
		CASE(cancelled),
		CASE(rate_is_kept),
		CASE(zeroes_reach_an_old_target),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
