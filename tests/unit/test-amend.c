/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-amend.c - the power fails at any request of an amend: the image is
 * sound, reads the same, its snapshot too, and says the old options or the new.
 */
#include "config.h"

#include "../lib/crash.h"
#include "amend.h"
#include "snapshot.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int amend(struct image *img, const void *arg)
{
	const char *list = arg;

	return amend_run(img, &list, 1, NULL, NULL);
}

static uint32_t field(struct image *img, uint64_t at)
{
	unsigned char b[4];

	assert_int_equal(file_read(img->file, b, sizeof(b), at), 0);
	return be32_at(b);
}

/* The first byte of the snapshot's cluster: both tell whether it is whole. */
static void look_at_snapshot(struct image *img)
{
	const struct snapshot_key key = { .name = "s" };
	struct view v;
	unsigned char b[12288];

	if (!field(img, 60))
		return;
	assert_int_equal(image_snapshot_view(img, &key, &v, NULL), 0);
	assert_int_equal(image_read(&v, b, sizeof(b), 0), 0);
	for (size_t i = 0; i < sizeof(b); i++)
		assert_int_equal(b[i], i / 4096 == 1 ? 0 : 1);
	image_view_close(&v);
}

static bool is_new(struct image *img, const void *arg)
{
	const char *list = arg;

	look_at_snapshot(img);
	if (!strcmp(list, "compat=0.10"))
		return field(img, 4) == 2;
	if (!strcmp(list, "compat=1.1"))
		return field(img, 4) == 3;
	if (!strncmp(list, "refcount_bits=", 14))
		return 1u << field(img, 96) == (unsigned)atoi(list + 14);
	return field(img, 84) & 1;      /* lazy_refcounts=on */
}

static void try(const char *make, const char *list)
{
	const struct crash_case c = {
		.make = make, .change = amend, .arg = list, .is_new = is_new,
		.outcomes = 4,
	};

	crash_everywhere(&c);
}

#define WRITE " && qemu-io -c 'write -P 1 0 12k' -c 'write -z 4k 4k' -c" \
	" 'write -P 3 50k 20k' template >/dev/null"
#define SNAPSHOT " && qemu-img snapshot -c s template && qemu-io -c" \
	" 'write -P 4 6k 20k' -c 'write -z 60k 4k' template >/dev/null"
#define NEW(o) "qemu-img create -q -f qcow2 -o cluster_size=4k" o \
	" template 100k"

static void test_header(void **state)
{
	(void)state;
	try(NEW("") WRITE, "lazy_refcounts=on");
	try("qemu-img create -q -f qcow2 -o compat=0.10 template 100k",
	    "compat=1.1");
}

static void test_width(void **state)
{
	(void)state;
	try(NEW("") WRITE SNAPSHOT, "refcount_bits=64");
	try(NEW("") WRITE SNAPSHOT, "refcount_bits=2");
	try("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=8"
	    " template 1M && qemu-io -c 'write -P 1 0 12k' -c 'write -P 5 200k"
	    " 500k' template >/dev/null", "refcount_bits=64");
}

static void test_down(void **state)
{
	(void)state;
	try(NEW("") WRITE SNAPSHOT, "compat=0.10");
	try("head -c 100k /dev/zero | tr '\\0' b >base && qemu-img create -q -f"
	    " qcow2 -o cluster_size=4k -b $PWD/base -F raw template 100k" WRITE
	    SNAPSHOT, "compat=0.10");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_width),
		cmocka_unit_test(test_down),
	};

	if (system("qemu-img --version >/dev/null 2>&1"))
		return 77;
	return cmocka_run_group_tests(tests, crash_setup, crash_teardown);
}
