/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-qcow2-repair.c - the power fails in the middle of check -r: at each
 * request of a repair, with several outcomes.  What is left can be repaired,
 * and then everything is sound and the guest reads what it read before.  The
 * images are made, and at the end checked, by qemu-img: one of standard L2
 * entries, one with a snapshot, one with subclusters and one with an external
 * data file.
 */
#include "config.h"

#include "blockcore.h"
#include "../lib/testfile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define GUEST (2 * MiB)
#define PACKED "-c 'write -c -P 3 64k 16k'"
#define REPAIR (IMAGE_RDWR | IMAGE_CHECK | IMAGE_REPAIR | IMAGE_NO_LOCK)

static char folder[] = "/tmp/imgfs-test-repair.XXXXXX";
static unsigned char *template;
static size_t template_len;
static unsigned char *guest;    /* what it reads */
static uint64_t readable = GUEST;       /* bytes of it */
static uint64_t left;           /* errors that nobody can repair */

/* A change of the image: @len bytes. */
struct poke {
	uint64_t at;
	uint64_t value;
	unsigned len;
};

static void put(struct file *f, const struct poke *p)
{
	unsigned char b[8];

	be64_put(b, p->value << (64 - 8 * p->len));
	assert_int_equal(file_write(f, b, p->len, p->at), 0);
}

static struct file *disk_new(const struct poke *pokes, size_t n)
{
	struct power_args a = { .size = template_len, .seed = 1 };
	struct file *f = power_new(&a);

	assert_non_null(f);
	assert_int_equal(file_write(f, template, template_len, 0), 0);
	for (size_t i = 0; i < n; i++)
		put(f, &pokes[i]);
	assert_int_equal(file_sync(f), 0);
	return f;
}

static struct image *open_on(struct file *f, unsigned flags)
{
	struct image_args args = { .flags = flags };
	autoerr err = ERR_INIT;
	struct image *img;

	if (image_open_file(f, &args, &img, &err))
		fail_msg("%s", err_text(&err));
	return img;
}

static int repair(struct file *f, struct check_result *res)
{
	struct image *img = open_on(f, REPAIR);
	int ret = image_repair(img, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, res);
	int closed = image_close(img);

	return ret ? ret : closed;
}

static void assert_sound(struct file *f)
{
	struct image *img = open_on(f, IMAGE_CHECK | IMAGE_NO_LOCK);
	struct check_result res = { 0 };
	autofree unsigned char *now = malloc(GUEST);

	assert_int_equal(img->fmt->admin->check(img, &res), 0);
	assert_int_equal(res.corruptions, left);
	assert_int_equal(res.leaks + res.check_errors, 0);
	assert_int_equal(image_read(&img->live, now, readable, 0), 0);
	assert_memory_equal(now, guest, readable);
	image_close(img);
}

/* As qemu-img sees it. */
static void assert_qemu_agrees(struct file *f)
{
	char path[128], command[256];

	snprintf(path, sizeof(path), "%s/after", folder);
	snprintf(command, sizeof(command), "qemu-img check -q %s", path);
	assert_int_equal(power_save(f, path), 0);
	assert_int_equal(system(command), 0);
	unlink(path);
}

static void after_crash(struct file *f)
{
	for (uint64_t seed = 0; seed < 6; seed++) {
		struct file *g = power_after(f, seed);
		struct check_result res = { 0 };

		assert_non_null(g);
		assert_int_equal(repair(g, &res), 0);
		assert_int_equal(res.corruptions, left);
		assert_int_equal(res.check_errors, 0);
		assert_sound(g);
		if (seed == 2 && !left)
			assert_qemu_agrees(g);
		file_unref(g);
	}
}

/* How many requests a repair without a failure makes. */
static uint64_t whole(const struct poke *pokes, size_t n)
{
	struct file *f = disk_new(pokes, n);
	uint64_t ops = power_ops(f);
	struct check_result res = { 0 };

	assert_int_equal(repair(f, &res), 0);
	assert_true(res.leaks_fixed + res.corruptions_fixed > 0);
	assert_sound(f);
	ops = power_ops(f) - ops;
	file_unref(f);
	return ops;
}

static void crash_everywhere(const struct poke *pokes, size_t n)
{
	uint64_t ops = whole(pokes, n);

	assert_true(ops > 1);
	for (uint64_t i = 1; i <= ops; i++) {
		struct file *f = disk_new(pokes, n);
		struct check_result res = { 0 };

		power_crash_after(f, i);
		(void)repair(f, &res);
		assert_true(power_crashed(f));
		after_crash(f);
		file_unref(f);
	}
}

/* ---- damages -------------------------------------------------------------- */

static uint64_t word(uint64_t at)
{
	return be64_at(template + at);
}

static uint64_t block(void)
{
	return word(word(48));
}

static uint64_t l2(void)
{
	return word(word(40)) & UINT64_C(0xfffffffffffe00);
}

static void test_leaks(void **state)
{
	struct poke p[] = {
		{ block() + 2, 3, 2 }, { block() + 2 * 5, 9, 2 },
		{ block() + 2 * 7, 2, 2 },
	};

	(void)state;
	crash_everywhere(p, ARRAY_SIZE(p));
}

static void test_copied(void **state)
{
	/* Not the first: without that bit 0 is nowhere in a data file. */
	uint64_t entry = l2() + (word(72) & 16 ? 16 : 8);
	struct poke p[] = {
		{ entry, word(entry) & INT64_MAX, 8 },
		{ word(40), word(word(40)) & INT64_MAX, 8 },
		{ 72, word(72) | 3, 8 },
	};

	(void)state;
	crash_everywhere(p, ARRAY_SIZE(p));
}

static void test_counts_lost(void **state)
{
	struct poke p[] = { { block() + 2 * 4, 0, 2 }, { 72, word(72) | 2, 8 } };

	(void)state;
	crash_everywhere(p, ARRAY_SIZE(p));
}

static void test_block_lost(void **state)
{
	struct poke p[] = { { word(48), 0, 8 } };

	(void)state;
	crash_everywhere(p, ARRAY_SIZE(p));
}

static void test_block_elsewhere(void **state)
{
	struct poke p[] = { { word(48), block() + 512, 8 }, { 72, word(72) | 1, 8 } };

	(void)state;
	crash_everywhere(p, ARRAY_SIZE(p));
}

static void test_block_twice(void **state)
{
	struct poke p[] = { { word(48) + 8, block(), 8 } };

	(void)state;
	crash_everywhere(p, ARRAY_SIZE(p));
}

/* A cluster that was never written at a place where none can be, and what it
 * was referred to is lost. */
static void test_prealloc(void **state)
{
	uint64_t at = l2() + 16 * 20, was = word(at) & INT64_MAX;
	struct poke p[] = {
		{ at, was + 512, 8 }, { at + 8, 0, 8 }, { word(48), 0, 8 },
	};

	(void)state;
	assert_int_not_equal(was, 0);
	/* What it held reads as zeroes. */
	memset(guest + 20 * 16 * KiB, 0, 16 * KiB);
	crash_everywhere(p, 2);
	crash_everywhere(p, ARRAY_SIZE(p));
}

/* A table whose entries are too short, or one that is too long. */
static void test_entries(void **state)
{
	uint64_t at = word(64);
	struct poke p[] = {
		{ at + 36, 8, 4 }, { at + 48, word(at + 64), 8 },
		{ block() + 2, 3, 2 },
	};

	(void)state;
	assert_int_equal(word(60) >> 32, 1);
	crash_everywhere(p, 2);
	crash_everywhere(p, ARRAY_SIZE(p));
}

/* The same beside an entry that stays wrong, in the table of the live disk and
 * in that of the snapshot: it leads just behind the file, where nothing may be
 * put. */
static void test_entries_beside_error(void **state)
{
	uint64_t at = word(64), behind = round_up(template_len, 4096) + 4096;
	struct poke p[] = {
		{ at + 36, 8, 4 }, { at + 48, word(at + 64), 8 },
		{ l2() + 8 * (GUEST / 4096 - 1), behind, 8 },
		{ word(48), 0, 8 },
	};

	(void)state;
	left = 2;
	readable = GUEST - 4096;
	crash_everywhere(p, 3);
	crash_everywhere(p, ARRAY_SIZE(p));
	left = 0;
	readable = GUEST;
}

/* ---- the images ------------------------------------------------------------ */

/* How many bytes; 0: an error. */
static size_t read_file(const char *path, void *buf, size_t room)
{
	FILE *f = fopen(path, "r");
	size_t len = f ? fread(buf, 1, room, f) : 0;

	if (f)
		fclose(f);
	return len;
}

static int load(const char *name)
{
	char path[128];
	struct image *img;
	struct file *f;
	int ret;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	template_len = 0;
	free(template);
	template = calloc(1, 4 * MiB);
	if (!guest)
		guest = malloc(GUEST);
	if (template && guest)
		template_len = read_file(path, template, 4 * MiB);
	if (!template_len)
		return -1;
	f = disk_new(NULL, 0);
	img = open_on(f, IMAGE_NO_LOCK);
	file_unref(f);
	ret = image_read(&img->live, guest, GUEST, 0);
	return image_close(img) || ret ? -1 : 0;
}

static int make(const char *name, const char *options, const char *more)
{
	char command[1024];

	snprintf(command, sizeof(command), "cd %s && qemu-img create -q -f"
		 " qcow2 -o %s %s 2M && qemu-io -c 'write -P 1 0 30k'"
		 " -c 'write -P 2 100k 20k' -c 'write -z 200k 8k' -c"
		 " 'write -P 5 320k 16k' -c 'write -P 4 1M 10k' %s %s"
		 " >/dev/null", folder, options, name, more, name);
	return system(command);
}

static int setup(void **state)
{
	char command[256], data[160];

	(void)state;
	if (system("qemu-io -V >/dev/null 2>&1") || !mkdtemp(folder))
		return -1;
	snprintf(data, sizeof(data), "cluster_size=16k,extended_l2=on,"
		 "data_file=%s/data.raw,data_file_raw=on", folder);
	if (make("template", "cluster_size=4k", PACKED) ||
	    make("subs", "cluster_size=16k,extended_l2=on", PACKED) ||
	    make("data", data, ""))
		return -1;
	snprintf(command, sizeof(command), "cd %s && cp template snap &&"
		 " qemu-img snapshot -c s snap", folder);
	return system(command) || load("template");
}

static int with_snapshot(void **state)
{
	(void)state;
	return load("snap");
}

static int with_subclusters(void **state)
{
	(void)state;
	return load("subs");
}

static int with_data_file(void **state)
{
	(void)state;
	return load("data");
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	free(template);
	free(guest);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaks),
		cmocka_unit_test(test_copied),
		cmocka_unit_test(test_counts_lost),
		cmocka_unit_test(test_block_lost),
		cmocka_unit_test(test_block_elsewhere),
		cmocka_unit_test(test_block_twice),
		cmocka_unit_test_setup(test_entries, with_snapshot),
		cmocka_unit_test(test_entries_beside_error),
		cmocka_unit_test_setup(test_copied, with_subclusters),
		cmocka_unit_test(test_block_lost),
		cmocka_unit_test(test_prealloc),
		cmocka_unit_test_setup(test_copied, with_data_file),
		cmocka_unit_test(test_counts_lost),
		cmocka_unit_test(test_block_lost),
	};

	if (system("qemu-img --version >/dev/null 2>&1"))
		return 77;
	return cmocka_run_group_tests(tests, setup, teardown);
}
