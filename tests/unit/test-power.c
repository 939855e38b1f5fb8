/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-power.c - the judge's disk itself: what was synced is never lost, what
 * was not is sometimes lost and sometimes not, and never anything else.
 */
#include "config.h"

#include "../lib/testfile.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { SECTORS = 64 };

static void put(struct file *f, unsigned sector, char version)
{
	char buf[SECTOR_SIZE];

	memset(buf, version, sizeof(buf));
	assert_int_equal(file_write(f, buf, sizeof(buf),
				    sector * SECTOR_SIZE), 0);
}

static char get(struct file *f, unsigned sector)
{
	char buf[SECTOR_SIZE];
	unsigned i;

	assert_int_equal(file_read(f, buf, sizeof(buf),
				   sector * SECTOR_SIZE), 0);
	for (i = 1; i < SECTOR_SIZE; i++)
		assert_int_equal(buf[i], buf[0]);
	return buf[0];
}

static void synced_bytes_survive_others_may(void **state)
{
	const struct power_args a = { .size = 1 * TiB };
	unsigned seen[4] = { 0 }, seed, s;
	struct file *f = power_new(&a), *g;

	(void)state;
	for (s = 0; s < SECTORS; s++)
		put(f, s, 1);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(power_at_risk(f), 0);
	for (s = 0; s < SECTORS; s += 2)
		put(f, s, 2);
	for (s = 0; s < SECTORS; s += 4)
		put(f, s, 3);
	assert_int_equal(power_at_risk(f), SECTORS / 2);
	power_crash(f);
	assert_int_equal(file_write(f, "x", 1, 0), -EIO);
	for (seed = 0; seed < 40; seed++) {
		g = power_after(f, seed);
		for (s = 0; s < SECTORS; s++) {
			char v = get(g, s);

			assert_true(s % 2 ? v == 1 : v >= 1 && v <= 3);
			assert_false(v == 3 && s % 4);
			seen[(int)v]++;
			if (seed == 1)
				assert_int_equal(v, s % 4 ? s % 2 ? 1 : 2 : 3);
		}
		file_unref(g);
	}
	assert_true(seen[1] && seen[2] && seen[3]);
	file_unref(f);
}

static void length_survives_or_not(void **state)
{
	const struct power_args a = { .size = 4096 };
	unsigned seen[2] = { 0 }, seed;
	struct file *f = power_new(&a), *g;
	uint64_t size;

	(void)state;
	put(f, 20, 5);
	for (seed = 0; seed < 40; seed++) {
		g = power_after(f, seed);
		assert_int_equal(file_size(g, &size), 0);
		assert_true(size == 4096 || size == 21 * SECTOR_SIZE);
		seen[size != 4096]++;
		if (size == 4096)
			assert_int_equal(get(g, 20), 0);
		file_unref(g);
	}
	assert_true(seen[0] && seen[1]);
	file_unref(f);
}

static void crash_comes_when_it_was_ordered(void **state)
{
	const struct power_args a = { .size = 1 * MiB };
	struct file *f = power_new(&a);

	(void)state;
	put(f, 0, 1);
	power_crash_after(f, 2);
	put(f, 0, 2);
	assert_int_equal(file_sync(f), -EIO);
	assert_true(power_crashed(f));
	assert_true(power_at_risk(f));
	file_unref(f);
}

static void unknown_fate_is_not_made_durable(void **state)
{
	const struct power_args a = { .size = 1 * MiB };
	struct file *f = power_new(&a), *g;

	(void)state;
	put(f, 0, 1);
	put(f, 1, 1);
	assert_int_equal(file_sync(f), 0);
	power_unknown_fate(f, 2, -ETIMEDOUT);
	put(f, 0, 2);
	assert_int_equal(file_write(f, "zz", 2, 512), -ETIMEDOUT);
	assert_int_equal(file_sync(f), -ETIMEDOUT);
	/* The driver itself says that all is well. */
	assert_int_equal(f->ops->sync(f), 0);
	g = power_after(f, 0);
	assert_int_equal(get(g, 0), 2);
	assert_int_equal(get(g, 1), 1);
	file_unref(g);
	file_unref(f);
}

static void space_runs_out_and_comes_back(void **state)
{
	const struct power_args a = { .size = 1 * GiB, .space = 128 * KiB };
	struct file *f = power_new(&a);
	enum file_kind kind;
	uint64_t run;

	(void)state;
	put(f, 0, 1);
	put(f, 1000, 1);
	assert_int_equal(file_write(f, "x", 1, 100 * MiB), -ENOSPC);
	assert_int_equal(file_extent(f, 64 * KiB, 1 * GiB, &kind, &run), 0);
	assert_int_equal(kind, FILE_ZERO);
	assert_int_equal(run, 1000 * SECTOR_SIZE / (64 * KiB) * 64 * KiB -
			 64 * KiB);
	assert_int_equal(file_zero(f, 0, 64 * KiB, ZERO_MAY_UNMAP), 0);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(file_write(f, "x", 1, 100 * MiB), 0);
	file_unref(f);
}

static void cut_off_bytes_are_gone(void **state)
{
	const struct power_args a = { .size = 1 * MiB };
	struct file *f = power_new(&a), *g;
	unsigned seed;

	(void)state;
	put(f, 3, 7);
	put(f, 300, 7);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(file_truncate(f, 1024), 0);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(file_truncate(f, 1 * MiB), 0);
	assert_int_equal(get(f, 3), 0);
	for (seed = 0; seed < 10; seed++) {
		g = power_after(f, seed);
		assert_int_equal(get(g, 3), 0);
		assert_int_equal(get(g, 300), 0);
		file_unref(g);
	}
	file_unref(f);
}

static void traps_count_log_and_choose(void **state)
{
	const struct power_args a = { .size = 1 * MiB };
	const struct trap_rule r = { .op = TEST_WRITE, .off = 1024, .len = 512,
				     .nth = 2, .times = 1, .error = -EIO };
	struct file *f = trap_file_take(power_new(&a));
	struct trap *t = trap_add(f, &r);
	struct trap_entry *log;

	(void)state;
	trap_log(f, true);
	put(f, 2, 1);
	put(f, 3, 1);
	assert_int_equal(file_write(f, "xx", 2, 1023), -EIO);
	put(f, 2, 1);
	assert_int_equal(file_sync(f), 0);
	assert_int_equal(trap_hits(t), 1);
	assert_int_equal(trap_count(f, TEST_WRITE), 4);
	assert_int_equal(trap_count(f, TEST_ANY), 5);
	assert_int_equal(trap_log_take(f, &log), 5);
	assert_int_equal(log[2].off, 1023);
	assert_int_equal(log[2].result, -EIO);
	assert_int_equal(log[4].op, TEST_SYNC);
	free(log);
	file_unref(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(synced_bytes_survive_others_may),
		cmocka_unit_test(length_survives_or_not),
		cmocka_unit_test(crash_comes_when_it_was_ordered),
		cmocka_unit_test(unknown_fate_is_not_made_durable),
		cmocka_unit_test(space_runs_out_and_comes_back),
		cmocka_unit_test(cut_off_bytes_are_gone),
		cmocka_unit_test(traps_count_log_and_choose),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
