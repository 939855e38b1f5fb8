/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-file-image.c - an image as a file: bytes, length, durability, holes, and
 * that closing it closes everything below.
 */
#include "config.h"

#include "../lib/testfile.h"
#include "blockcore.h"
#include "json.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* A raw image on @below, as a file; a node option may be given. */
static struct file *stack(struct file *below, unsigned flags, const char *key,
			  uint64_t value)
{
	autojson *node = json_object();
	struct image_args a = { .node = node, .flags = flags };
	autoerr err = ERR_INIT;
	struct image *img;
	struct file *f;

	json_set_take(node, "driver", json_string("raw"));
	if (key)
		json_set_take(node, key, json_uint(value));
	if (image_open_file(below, &a, &img, &err))
		fail_msg("%s", err_text(&err));
	file_unref(below);
	assert_int_equal(file_from_image_take(img, &f, &err), 0);
	return f;
}

static void bytes_go_through_two_engines(void **state)
{
	const struct power_args a = { .size = 2 * MiB };
	struct file *disk = power_new(&a), *after, *f;
	static unsigned char back[HAMMER_ROOM / 2];
	uint64_t size;

	(void)state;
	f = stack(file_ref(disk), IMAGE_RDWR, NULL, 0);
	f = stack(f, IMAGE_RDWR, "offset", 1 * MiB);
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(size, 1 * MiB);
	hammer(f, 1000);
	assert_int_equal(file_sync(f), 0);
	after = power_after(disk, 0);   /* all of it was durable */
	assert_int_equal(file_read(after, back, sizeof(back), 1 * MiB), 0);
	assert_memory_equal(back, hammer_bytes(), sizeof(back));
	file_unref(after);
	file_unref(f);
	assert_int_equal(disk->refs, 1);
	file_unref(disk);
}

static void the_end_does_not_move(void **state)
{
	const struct power_args a = { .size = 4096 };
	struct file *f = stack(power_new(&a), IMAGE_RDWR, NULL, 0);
	char buf[8] = "abcdefg";

	(void)state;
	assert_int_equal(file_write(f, buf, 8, 4092), -ENOSPC);
	assert_int_equal(file_zero(f, 4092, 8, 0), -ENOSPC);
	assert_int_equal(file_allocate(f, 4092, 8), -ENOSPC);
	assert_int_equal(file_truncate(f, 512), -ENOTSUP);
	memset(buf, 1, 8);
	assert_int_equal(file_read(f, buf, 8, 4094), 0);
	assert_memory_equal(buf + 2, "\0\0\0\0\0", 6);
	file_unref(f);
}

static void holes_are_seen_through(void **state)
{
	const struct power_args a = { .size = 1 * MiB };
	struct file *f = stack(power_new(&a), IMAGE_RDWR, NULL, 0);
	enum file_kind kind;
	uint64_t run;

	(void)state;
	assert_int_equal(file_write(f, "x", 1, 512 * KiB), 0);
	assert_int_equal(file_extent(f, 0, 1 * MiB, &kind, &run), 0);
	assert_int_equal(kind, FILE_ZERO);
	assert_int_equal(run, 512 * KiB);
	assert_int_equal(file_extent(f, 512 * KiB, 512 * KiB, &kind, &run), 0);
	assert_int_equal(kind, FILE_DATA);
	assert_int_equal(run, 64 * KiB);
	file_unref(f);
}

static void read_only_stays_so(void **state)
{
	const struct power_args a = { .size = 4096 };
	struct file *f = stack(power_new(&a), 0, NULL, 0);

	(void)state;
	assert_true(f->traits.read_only);
	assert_int_equal(file_write(f, "x", 1, 0), -EROFS);
	assert_int_equal(file_zero(f, 0, 1, 0), -EROFS);
	file_unref(f);
}

static void a_failing_disk_is_heard_of(void **state)
{
	const struct power_args a = { .size = 4096 };
	const struct trap_rule rule = { .op = TEST_SYNC, .error = -EIO };
	struct file *trap = trap_file_take(power_new(&a));
	struct file *f = stack(trap, IMAGE_RDWR, NULL, 0);

	(void)state;
	assert_int_equal(file_write(f, "x", 1, 0), 0);
	trap_add(trap, &rule);
	assert_int_equal(file_sync(f), -EIO);
	assert_int_equal(file_sync(f), -EIO);
	assert_int_equal(file_write(f, "x", 1, 0), -EIO);
	file_unref(f);
}

static void quiet(void *data, const char *line)
{
	(void)data;
	(void)line;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_go_through_two_engines),
		cmocka_unit_test(the_end_does_not_move),
		cmocka_unit_test(holes_are_seen_through),
		cmocka_unit_test(read_only_stays_so),
		cmocka_unit_test(a_failing_disk_is_heard_of),
	};

	log_set(quiet, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
