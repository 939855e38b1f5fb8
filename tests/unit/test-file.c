/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-file.c - the wrapper around drivers, against a driver that is as mean as
 * the contract allows; its states; the pool.
 */
#include "config.h"

#include "../lib/testfile.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- a mean driver: short counts, EINTR, nothing but legal requests ------- */

enum { ROOM = 1 << 20 };

struct mean {
	struct file file;
	unsigned char bytes[ROOM];
	uint64_t size;
	unsigned calls;
	size_t most;            /* bytes per call */
	pthread_mutex_t lock;
};

static struct mean *to_mean(struct file *f)
{
	return container_of(f, struct mean, file);
}

static size_t iov_sum(const struct iovec *v, int n)
{
	size_t sum = 0;

	while (n--)
		sum += v++->iov_len;
	return sum;
}

/* How much of the request this call does; 0 is EINTR. */
static size_t mean_step(struct mean *m, const struct iovec *v, int n,
			uint64_t off)
{
	size_t unit = m->file.traits.min_io, len = iov_sum(v, n);

	assert_true(len <= m->file.traits.max_io);
	assert_int_equal(off % unit, 0);
	assert_int_equal(len % unit, 0);
	assert_true(len > 0);
	if (++m->calls % 5 == 0)
		return 0;
	return len < m->most ? len : m->most;
}

static ssize_t mean_preadv(struct file *f, const struct iovec *v, int n,
			   uint64_t off)
{
	struct mean *m = to_mean(f);
	size_t left, did = 0;

	with_lock(&m->lock);
	left = mean_step(m, v, n, off);
	if (!left)
		return -EINTR;
	if (off >= m->size)
		return 0;
	left = (size_t)min_u64(left, m->size - off);
	for (; left; v++) {
		size_t part = (size_t)min_u64(left, v->iov_len);

		memcpy(v->iov_base, m->bytes + off + did, part);
		did += part;
		left -= part;
	}
	return (ssize_t)did;
}

static ssize_t mean_pwritev(struct file *f, const struct iovec *v, int n,
			    uint64_t off)
{
	struct mean *m = to_mean(f);
	size_t left, did = 0;

	with_lock(&m->lock);
	left = mean_step(m, v, n, off);
	if (!left)
		return -EINTR;
	for (; left; v++) {
		size_t part = (size_t)min_u64(left, v->iov_len);

		memcpy(m->bytes + off + did, v->iov_base, part);
		did += part;
		left -= part;
	}
	m->size = max_u64(m->size, off + did);
	return (ssize_t)did;
}

static int mean_sync(struct file *f)
{
	(void)f;
	return 0;
}

static int mean_size(struct file *f, uint64_t *size)
{
	struct mean *m = to_mean(f);

	with_lock(&m->lock);
	*size = m->size;
	return 0;
}

static int mean_truncate(struct file *f, uint64_t size)
{
	struct mean *m = to_mean(f);

	with_lock(&m->lock);
	if (size < m->size)
		memset(m->bytes + size, 0, m->size - size);
	m->size = size;
	return 0;
}

static void mean_close(struct file *f)
{
	free(to_mean(f));
}

static const struct file_ops mean_ops = {
	.name = "mean",
	.preadv = mean_preadv,
	.pwritev = mean_pwritev,
	.sync = mean_sync,
	.size = mean_size,
	.truncate = mean_truncate,
	.close = mean_close,
};

static struct mean *mean_new(uint32_t min_io, uint32_t max_io, size_t most)
{
	struct mean *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	file_init(&m->file, &mean_ops, "mean");
	pthread_mutex_init(&m->lock, NULL);
	m->file.traits.min_io = min_io;
	m->file.traits.max_io = max_io;
	m->most = most;
	return m;
}

/* ---- bytes ---------------------------------------------------------------- */

static void short_counts_are_completed(void **state)
{
	struct mean *m = mean_new(1, 4096, 1000);

	(void)state;
	hammer(&m->file, 800);
	file_unref(&m->file);
}

static void parts_of_blocks_are_padded(void **state)
{
	static const uint32_t units[] = { 512, 4096, 3072 };
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(units); i++) {
		struct mean *m = mean_new(units[i], units[i] * 3,
					  units[i] * 2);

		hammer(&m->file, 800);
		file_unref(&m->file);
	}
}

/* Each thread has one byte in eight. */
static void *write_own_bytes(void *arg)
{
	struct file *f = ((void **)arg)[0];
	unsigned me = *(unsigned *)((void **)arg)[1], i;
	unsigned char byte = (unsigned char)(me + 1);

	for (i = me; i < 4096; i += 8)
		if (file_write(f, &byte, 1, i))
			return arg;
	return NULL;
}

static void neighbours_in_a_block_lose_nothing(void **state)
{
	struct mean *m = mean_new(512, 4096, 4096);
	pthread_t threads[8];
	void *args[8][2], *failed;
	unsigned ids[8], i;

	(void)state;
	for (i = 0; i < 8; i++) {
		ids[i] = i;
		args[i][0] = &m->file;
		args[i][1] = &ids[i];
		assert_int_equal(pthread_create(&threads[i], NULL,
						write_own_bytes, args[i]), 0);
	}
	for (i = 0; i < 8; i++) {
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	for (i = 0; i < 4096; i++)
		assert_int_equal(m->bytes[i], i % 8 + 1);
	file_unref(&m->file);
}

/* ---- states -------------------------------------------------------------- */

static struct file *trapped(void)
{
	const struct power_args a = { .size = 1 * MiB };

	return trap_file_take(power_new(&a));
}

static void fail_next(struct file *f, enum test_op op, int error)
{
	const struct trap_rule r = { .op = op, .error = error, .times = 1 };

	trap_add(f, &r);
}

static void clean_files_are_not_synced(void **state)
{
	struct file *f = trapped();

	(void)state;
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(trap_count(f, TEST_SYNC), 0);
	assert_int_equal(file_write(f, "x", 1, 0), 0);
	assert_true(f->unsynced);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(trap_count(f, TEST_SYNC), 1);
	assert_false(f->unsynced);
	assert_int_equal(file_zero(f, 0, 512, 0), 0);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(trap_count(f, TEST_SYNC), 2);
	file_unref(f);
}

static void failed_sync_is_sticky(void **state)
{
	static const int errors[] = { -EIO, -ENOSPC, -ETIMEDOUT };
	char byte;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		struct file *f = trapped();

		assert_int_equal(file_write(f, "x", 1, 0), 0);
		fail_next(f, TEST_SYNC, errors[i]);
		assert_int_equal(file_sync(f), errors[i]);
		assert_int_equal(file_sync(f), errors[i]);
		assert_int_equal(file_write(f, "y", 1, 0), errors[i]);
		assert_int_equal(file_zero(f, 0, 1, 0), errors[i]);
		assert_int_equal(file_read(f, &byte, 1, 0), 0);
		assert_int_equal(trap_count(f, TEST_SYNC), 1);
		file_unref(f);
	}
}

static void unknown_fate_breaks_but_a_full_disk_does_not(void **state)
{
	static const struct {
		enum test_op op;
		int error;
		bool breaks;
	} cases[] = {
		{ TEST_WRITE, -ETIMEDOUT, true },
		{ TEST_WRITE, -ENOTCONN, true },
		{ TEST_WRITE, -ESHUTDOWN, true },
		{ TEST_ZERO, -ECONNRESET, true },
		{ TEST_DISCARD, -ETIMEDOUT, true },
		{ TEST_WRITE, -ENOSPC, false },
		{ TEST_WRITE, -EDQUOT, false },
		{ TEST_WRITE, -EIO, false },
		{ TEST_ZERO, -ENOSPC, false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct file *f = trapped();
		int want_later = cases[i].breaks ? cases[i].error : 0;

		fail_next(f, cases[i].op, cases[i].error);
		assert_int_equal(cases[i].op == TEST_WRITE ?
				 file_write(f, "x", 1, 0) :
				 cases[i].op == TEST_ZERO ?
				 file_zero(f, 0, 512, 0) :
				 file_discard(f, 0, 512), cases[i].error);
		assert_int_equal(file_write(f, "x", 1, 0), want_later);
		assert_int_equal(file_sync(f), want_later);
		file_unref(f);
	}
}

static void *sync_it(void *f)
{
	return (void *)(intptr_t)file_sync(f);
}

/* Who finds nothing unsynced has to wait for the sync that is running. */
static void second_sync_waits_for_the_first(void **state)
{
	const struct trap_rule r = { .op = TEST_SYNC, .block = true,
				     .error = -EIO };
	struct file *f = trapped();
	struct trap *t = trap_add(f, &r);
	pthread_t a, b;
	void *ra, *rb;

	(void)state;
	assert_int_equal(file_write(f, "x", 1, 0), 0);
	pthread_create(&a, NULL, sync_it, f);
	assert_true(trap_wait(t, 1));
	pthread_create(&b, NULL, sync_it, f);
	usleep(20000);
	trap_release(t);
	pthread_join(a, &ra);
	pthread_join(b, &rb);
	assert_int_equal((intptr_t)ra, -EIO);
	assert_int_equal((intptr_t)rb, -EIO);
	file_unref(f);
}

static void write_during_a_sync_is_not_forgotten(void **state)
{
	const struct trap_rule r = { .op = TEST_SYNC, .block = true,
				     .times = 1, .after = true };
	struct file *f = trapped();
	struct trap *t = trap_add(f, &r);
	pthread_t a;

	(void)state;
	assert_int_equal(file_write(f, "x", 1, 0), 0);
	pthread_create(&a, NULL, sync_it, f);
	assert_true(trap_wait(t, 1));
	assert_int_equal(file_write(f, "y", 1, 0), 0);
	trap_release(t);
	pthread_join(a, NULL);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(trap_count(f, TEST_SYNC), 2);
	file_unref(f);
}

static void zero_falls_back_unless_fast(void **state)
{
	const struct trap_rule r = { .op = TEST_ZERO, .error = -EOPNOTSUPP };
	struct file *f = trapped();
	char buf[4] = "abc";

	(void)state;
	trap_add(f, &r);
	assert_int_equal(file_write(f, buf, 4, 1000), 0);
	assert_int_equal(file_zero(f, 1001, 100000, ZERO_FAST), -EOPNOTSUPP);
	assert_int_equal(file_zero(f, 1001, 100000, ZERO_MAY_UNMAP), 0);
	assert_int_equal(file_read(f, buf, 3, 1000), 0);
	assert_memory_equal(buf, "a\0\0", 3);
	file_unref(f);
}

static void a_file_that_does_not_grow_is_full(void **state)
{
	const struct power_args a = { .size = 4096, .fixed = true };
	struct file *f = power_new(&a);
	char buf[8] = "abcdefg";

	(void)state;
	assert_int_equal(file_write(f, buf, 8, 4092), -ENOSPC);
	assert_int_equal(file_write(f, buf, 8, 4096), -ENOSPC);
	assert_int_equal(file_allocate(f, 4000, 200), -ENOSPC);
	assert_int_equal(f->broken, 0);
	memset(buf, 1, 8);
	assert_int_equal(file_read(f, buf, 8, 4092), 0);
	assert_memory_equal(buf, "abcd\0\0\0\0", 8);
	file_unref(f);
}

/* ---- the pool ------------------------------------------------------------ */

struct counted {
	struct file_req req;
	struct iovec v;
	char byte;
	_Atomic unsigned done;
};

static _Atomic unsigned all_done;

static void count_done(struct file_req *req)
{
	atomic_fetch_add(&((struct counted *)req->data)->done, 1);
	atomic_fetch_add(&all_done, 1);
}

static unsigned nr_threads(void)
{
	DIR *d = opendir("/proc/self/task");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void submit_byte(struct file *f, struct counted *c, unsigned i)
{
	c->byte = (char)i;
	c->v = (struct iovec) { &c->byte, 1 };
	c->req = (struct file_req) {
		.op = FILE_OP_WRITE, .iov = &c->v, .niov = 1, .off = i,
		.len = 1, .done = count_done, .data = c,
	};
	file_submit(f, &c->req);
}

static void wait_done(unsigned n)
{
	int tries = 20000;

	while (atomic_load(&all_done) < n && tries--)
		usleep(1000);
	assert_int_equal(atomic_load(&all_done), n);
}

static void pool_keeps_depth_and_ends(void **state)
{
	static struct counted reqs[300];
	const struct trap_rule r = { .op = TEST_WRITE, .block = true };
	struct file *f = trapped();
	unsigned before = nr_threads(), i;
	struct trap *t = trap_add(f, &r);
	char byte;

	(void)state;
	atomic_store(&all_done, 0);
	for (i = 0; i < 300; i++)
		submit_byte(f, &reqs[i], i);
	assert_true(trap_wait(t, f->traits.depth));
	usleep(20000);
	assert_int_equal(trap_hits(t), f->traits.depth);
	trap_release(t);
	wait_done(300);
	for (i = 0; i < 300; i++) {
		assert_int_equal(reqs[i].done, 1);
		assert_int_equal(reqs[i].req.result, 0);
		assert_int_equal(file_read(f, &byte, 1, i), 0);
		assert_int_equal(byte, (char)i);
	}
	file_unref(f);
	assert_int_equal(nr_threads(), before);
}

/* A file that is stuck holds up nobody else. */
static void pool_is_shared(void **state)
{
	static struct counted reqs[2][50];
	const struct trap_rule r = { .op = TEST_WRITE, .block = true };
	struct file *stuck = trapped(), *f = trapped();
	struct trap *t = trap_add(stuck, &r);
	unsigned i;

	(void)state;
	atomic_store(&all_done, 0);
	for (i = 0; i < 50; i++)
		submit_byte(stuck, &reqs[0][i], i);
	for (i = 0; i < 50; i++)
		submit_byte(f, &reqs[1][i], i);
	wait_done(50);
	trap_release(t);
	wait_done(100);
	file_unref(stuck);
	file_unref(f);
}

static void pool_tells_errors(void **state)
{
	static struct counted reqs[2];
	struct file *f = trapped();

	(void)state;
	atomic_store(&all_done, 0);
	fail_next(f, TEST_WRITE, -EIO);
	submit_byte(f, &reqs[0], 0);
	wait_done(1);
	assert_int_equal(reqs[0].req.result, -EIO);
	submit_byte(f, &reqs[1], 1);
	wait_done(2);
	assert_int_equal(reqs[1].req.result, 0);
	file_unref(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(short_counts_are_completed),
		cmocka_unit_test(parts_of_blocks_are_padded),
		cmocka_unit_test(neighbours_in_a_block_lose_nothing),
		cmocka_unit_test(clean_files_are_not_synced),
		cmocka_unit_test(failed_sync_is_sticky),
		cmocka_unit_test(unknown_fate_breaks_but_a_full_disk_does_not),
		cmocka_unit_test(second_sync_waits_for_the_first),
		cmocka_unit_test(write_during_a_sync_is_not_forgotten),
		cmocka_unit_test(zero_falls_back_unless_fast),
		cmocka_unit_test(a_file_that_does_not_grow_is_full),
		cmocka_unit_test(pool_keeps_depth_and_ends),
		cmocka_unit_test(pool_is_shared),
		cmocka_unit_test(pool_tells_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
