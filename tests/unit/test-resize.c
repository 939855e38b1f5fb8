/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-resize.c - the power fails at any request of a resize: the image has the
 * old size and content or the new one, and is sound.
 */
#include "config.h"

#include "../lib/crash.h"

#include "bitmap.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct to {
	uint64_t size;
	enum preallocation prealloc;
};

static int resize(struct image *img, const void *arg)
{
	const struct to *to = arg;
	const struct resize_args a = { .prealloc = to->prealloc };

	/* Again, of an image that has it already: nothing is left to do. */
	return image_resize(img, to->size, &a, NULL);
}

enum { OLD_SIZE = 100 * KiB };  /* of the images with bitmaps */

/* A write at the end of what has grown: of zeroes, so that the content is the
 * same.  A bitmap that says it is whole knows of it. */
static int resize_and_write(struct image *img, const void *arg)
{
	const struct to *to = arg;
	const unsigned char zeroes[SECTOR_SIZE] = { 0 };
	int ret = resize(img, arg);

	if (ret || to->size <= OLD_SIZE)
		return ret;
	return image_write(&img->live, zeroes, sizeof(zeroes),
			   to->size - SECTOR_SIZE);
}

/* After a power failure bitmaps may say that they were in use; like QEMU, nobody
 * changes the size before such ones are removed. */
static int resize_marked(struct image *img, const void *arg)
{
	struct bitmap_info *list;
	size_t n;
	int ret = resize_and_write(img, arg);

	if (ret != -EUCLEAN)
		return ret;
	assert_int_equal(bitmap_list(img, &list, &n, NULL), 0);
	for (size_t i = 0; i < n; i++)
		if (list[i].inconsistent)
			assert_int_equal(bitmap_remove(img, list[i].name, NULL),
					 0);
	bitmap_list_free(list, n);
	return resize_and_write(img, arg);
}

/* From the old end on: nothing but what was written. */
static void assert_grown(struct image *img, const struct bitmap_info *b)
{
	uint64_t len, size = image_size(img), last = size - SECTOR_SIZE;
	bool dirty;

	assert_int_equal(bitmap_run(img, b->name, OLD_SIZE, &len, &dirty,
				    NULL), 0);
	assert_false(dirty);
	last = round_down(last, b->granularity);
	assert_int_equal(len, (b->enabled ? last : size) - OLD_SIZE);
	if (!b->enabled)
		return;
	assert_int_equal(bitmap_run(img, b->name, last, &len, &dirty, NULL),
			 0);
	assert_true(dirty);
	assert_int_equal(len, size - last);
}

/* Bitmaps that can be trusted have as many bits as the disk has pieces. */
static bool is_resized(struct image *img, const void *arg)
{
	const struct to *to = arg;
	uint64_t len, size = image_size(img);
	struct bitmap_info *list;
	bool dirty;
	size_t n;

	assert_int_equal(bitmap_list(img, &list, &n, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		if (list[i].inconsistent)
			continue;
		for (uint64_t off = 0; off < size; off += len)
			assert_int_equal(bitmap_run(img, list[i].name, off,
						    &len, &dirty, NULL), 0);
		if (size > OLD_SIZE)
			assert_grown(img, &list[i]);
	}
	bitmap_list_free(list, n);
	return size == to->size;
}

static void try(const char *make, uint64_t size, enum preallocation prealloc)
{
	const struct to to = { size, prealloc };
	const struct crash_case c = {
		.make = make, .arg = &to, .is_new = is_resized,
		.change = strstr(make, "bitmap") ? resize_marked : resize,
	};

	crash_everywhere(&c);
}

#define SMALL "qemu-img create -q -f qcow2 -o cluster_size=4k template 100k" \
	" && qemu-io -c 'write -P 1 0 100k' template >/dev/null"

static void test_grow(void **state)
{
	(void)state;
	try(SMALL, 200 * KiB, PREALLOC_OFF);
	/* A longer L1. */
	try("qemu-img create -q -f qcow2 -o cluster_size=512 template 100k &&"
	    " qemu-io -c 'write -P 1 10k 90k' template >/dev/null",
	    5000 * KiB, PREALLOC_OFF);
	try(SMALL " && qemu-img snapshot -c s template", 300 * KiB,
	    PREALLOC_OFF);
}

static void test_space(void **state)
{
	(void)state;
	try(SMALL, 200 * KiB, PREALLOC_METADATA);
	try(SMALL, 200 * KiB, PREALLOC_FULL);
}

/* What was behind the end, of this image or of the one below it, is not seen
 * again. */
static void test_behind(void **state)
{
	(void)state;
	try("qemu-img create -q -f qcow2 -o cluster_size=4k template 100k &&"
	    " qemu-io -c 'write -P 1 0 100k' template >/dev/null &&"
	    " printf '\\0\\0\\0\\0\\0\\1\\10\\0' | dd of=template bs=1 seek=24"
	    " conv=notrunc status=none", 90 * KiB, PREALLOC_OFF);
	try("head -c 200000 /dev/zero | tr '\\0' x >base && truncate -s 300k"
	    " base && qemu-img create -q -f qcow2 -o cluster_size=4k -b"
	    " $PWD/base -F raw template 50k && qemu-io -c 'write -P 1 0 7k' -c"
	    " 'write -P 2 48k 2k' template >/dev/null", 400 * KiB,
	    PREALLOC_OFF);
}

static void test_shrink(void **state)
{
	(void)state;
	try(SMALL, 50 * KiB, PREALLOC_OFF);
	try(SMALL " && qemu-img snapshot -c s template", 49664, PREALLOC_OFF);
}

#define BITMAPS " && qemu-img bitmap --add -g 512 template a && qemu-img bitmap" \
	" --add -g 4096 template b && qemu-img bitmap --disable template b &&" \
	" qemu-io -c 'write -P 3 20k 20k' template >/dev/null"

/* Bitmaps are of the old size or the new one with the disk: QEMU takes none that
 * is of another, and calls the image corrupt. */
static void try_bitmaps(const char *make, uint64_t size)
{
	try(make, size, PREALLOC_OFF);
	/* QEMU reads both and has nothing against them. */
	assert_int_equal(crash_sh("qemu-img bitmap --add --merge a --merge b"
				  " ours c && qemu-img info ours >info &&"
				  " ! grep in-use info"), 0);
}

static void test_bitmaps(void **state)
{
	(void)state;
	try_bitmaps(SMALL BITMAPS, 300 * KiB);
	try_bitmaps(SMALL " && qemu-img snapshot -c s template" BITMAPS,
		    100 * MiB);
	try_bitmaps(SMALL " && qemu-img snapshot -c s template" BITMAPS,
		    30 * KiB);
}

static void test_qed(void **state)
{
	(void)state;
	try("qemu-img create -q -f qed -o cluster_size=4k template"
	    " 100k && qemu-io -c 'write -P 1 0 100k' template >/dev/null",
	    400 * KiB, PREALLOC_OFF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grow),
		cmocka_unit_test(test_space),
		cmocka_unit_test(test_behind),
		cmocka_unit_test(test_shrink),
		cmocka_unit_test(test_bitmaps),
		cmocka_unit_test(test_qed),
	};

	if (system("qemu-img --version >/dev/null 2>&1"))
		return 77;
	return cmocka_run_group_tests(tests, crash_setup, crash_teardown);
}
