/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-change-backing.c - another backing file in the header of an image: what
 * is left in the file is what `qemu-img rebase -u` leaves, byte for byte, and
 * when the power fails at any request, with several outcomes, the header says
 * the old name or the new one and nothing else has changed.
 */
#include "config.h"

#include "blockcore.h"
#include "../lib/testfile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define ROOM (4 * MiB)
#define LONG_A "a-name-that-is-long-enough-to-reach-into-other-sectors/"
#define LONG_B "another/" LONG_A LONG_A LONG_A LONG_A LONG_A LONG_A
#define LONG_C LONG_B "x/" LONG_B

static char folder[] = "/tmp/imgfs-test-backing.XXXXXX";

struct image_bytes {
	unsigned char *data;
	size_t len;
};

static int sh(const char *fmt, ...) printf_like(1, 2);

static int sh(const char *fmt, ...)
{
	char command[8192];
	int n = snprintf(command, sizeof(command), "cd %s && ", folder);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, ap);
	va_end(ap);
	return system(command);
}

static struct image_bytes load(const char *name)
{
	struct image_bytes b = { .data = calloc(1, ROOM) };
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(b.data);
	b.len = fread(b.data, 1, ROOM, f);
	fclose(f);
	return b;
}

static struct file *disk_new(const struct image_bytes *b)
{
	struct power_args a = { .size = b->len, .seed = 1 };
	struct file *f = power_new(&a);

	assert_non_null(f);
	assert_int_equal(file_write(f, b->data, b->len, 0), 0);
	assert_int_equal(file_sync(f), 0);
	return f;
}

static struct image *open_on(struct file *f, unsigned flags)
{
	struct image_args args = {
		.flags = flags | IMAGE_NO_LOCK | IMAGE_NO_BACKING,
	};
	autoerr err = ERR_INIT;
	struct image *img;

	if (image_open_file(f, &args, &img, &err))
		fail_msg("%s", err_text(&err));
	return img;
}

static bool same(const char *a, const char *b)
{
	return a ? b && !strcmp(a, b) : !b;
}

struct change {
	const char *old, *old_fmt, *name, *fmt;
};

static int change(struct file *f, const struct change *c)
{
	struct image *img = open_on(f, IMAGE_RDWR);
	autoerr err = ERR_INIT;
	int ret = image_change_backing(img, c->name, c->fmt, &err);
	int closed;

	if (!ret) {
		assert_true(same(img->backing_name, c->name));
		assert_true(same(img->backing_fmt, c->fmt));
	}
	closed = image_close(img);
	return ret ? ret : closed;
}

/* The old name, or the new one. */
static bool is_new(struct file *f, const struct change *c)
{
	struct image *img = open_on(f, 0);
	struct check_result res = { 0 };
	bool new = same(img->backing_name, c->name) &&
		   same(img->backing_fmt, c->fmt);

	if (!new && !(same(img->backing_name, c->old) &&
		      same(img->backing_fmt, c->old_fmt)))
		fail_msg("backing file '%s', format '%s'", img->backing_name,
			 img->backing_fmt);
	assert_int_equal(img->fmt->admin->check(img, &res), 0);
	assert_int_equal(res.corruptions + res.check_errors, 0);
	image_close(img);
	return new;
}

static void store(struct file *f, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(power_save(f, path), 0);
}

/* How many requests the change makes; the file is then QEMU's. */
static uint64_t whole(const struct image_bytes *b, const struct change *c)
{
	struct file *f = disk_new(b);
	uint64_t ops = power_ops(f);

	assert_int_equal(change(f, c), 0);
	assert_true(is_new(f, c));
	ops = power_ops(f) - ops;
	store(f, "ours");
	file_unref(f);
	assert_int_equal(sh("cp template theirs && qemu-img rebase -u -b '%s'"
			    " %s %s theirs", c->name ? c->name : "",
			    c->fmt ? "-F" : "", c->fmt ? c->fmt : ""), 0);
	assert_int_equal(sh("cmp theirs ours"), 0);
	return ops;
}

static void after_crash(struct file *f, const struct change *c,
			unsigned *seen, uint64_t ops)
{
	for (uint64_t seed = 0; seed < 8; seed++) {
		struct file *g = power_after(f, seed);

		assert_non_null(g);
		*seen |= is_new(g, c) ? 2 : 1;
		/* And it goes on from there. */
		if (seed < 3) {
			assert_int_equal(change(g, c), 0);
			assert_true(is_new(g, c));
		}
		if (!seed && ops % 3 == 1) {
			store(g, "after");
			assert_int_equal(sh("cmp after ours >/dev/null ||"
					    " qemu-img check -q -U after"), 0);
		}
		file_unref(g);
	}
}

static void crash_everywhere(const struct change *c)
{
	struct image_bytes b = load("template");
	uint64_t ops = whole(&b, c);
	unsigned seen = 0;

	for (uint64_t i = 1; i <= ops; i++) {
		struct file *f = disk_new(&b);

		power_crash_after(f, i);
		(void)change(f, c);
		after_crash(f, c, &seen, i);
		file_unref(f);
	}
	assert_int_equal(seen, 3);      /* both were there */
	free(b.data);
}

static void create(const char *how, const char *name, const char *fmt)
{
	assert_int_equal(sh("rm -f template; qemu-img create -q %s -u %s '%s'"
			    " %s %s template 1M && qemu-io -c 'write -P 1 0"
			    " 3k' template >/dev/null", how, name ? "-b" : "",
			    name ? name : "", fmt ? "-F" : "", fmt ? fmt : ""),
			 0);
}

/* qemu-io opens the chain: the names lead somewhere. */
static void names_make(void)
{
	assert_int_equal(sh("mkdir -p %s %s %s && truncate -s 1M base %sk %sg"
			    " %sh", LONG_A, LONG_B, LONG_C, LONG_A, LONG_B,
			    LONG_C), 0);
}

static void try_all(const char *how, bool tiny)
{
	const struct change c[] = {
		{ "base", "raw", LONG_A "k", "raw" },
		{ "base", "raw", NULL, NULL },
		{ "base", "raw", LONG_B "g", "raw" },
		{ LONG_B "g", "raw", "base", "raw" },
		{ LONG_B "g", "raw", LONG_C "h", "raw" },
		{ LONG_C "h", "raw", LONG_B "g", "raw" },
		{ LONG_C "h", "raw", NULL, NULL },
	};

	for (size_t i = 0; i < (tiny ? 2 : ARRAY_SIZE(c)); i++) {
		create(how, c[i].old, c[i].old_fmt);
		crash_everywhere(&c[i]);
	}
}

static void test_qcow2(void **state)
{
	(void)state;
	names_make();
	try_all("-f qcow2", false);
	try_all("-f qcow2 -o cluster_size=4k", false);
	try_all("-f qcow2 -o compat=0.10", false);
	try_all("-f qcow2 -o cluster_size=512", true);
	try_all("-f qcow2 -o cluster_size=1k", true);
}

static void test_qed(void **state)
{
	(void)state;
	names_make();
	try_all("-f qed", true);
}

/* An extension and fields that nobody knows stay. */
static void test_kept(void **state)
{
	const struct change c = { "base", "raw", LONG_B "g", "raw" };

	(void)state;
	names_make();
	create("-f qcow2", "base", "raw");
	assert_int_equal(sh("python3 - <<'END'\n"
			    "import struct\n"
			    "f = open('template', 'r+b')\n"
			    "h = bytearray(f.read(65536))\n"
			    "off, = struct.unpack('>Q', h[8:16])\n"
			    "name = h[off:off + 4]\n"
			    "x = struct.pack('>II', 0x12345678, 700)\n"
			    "h[off - 8:off - 8] = x + b'k' * 700 + bytes(4)\n"
			    "h[8:16] = struct.pack('>Q', off + 712)\n"
			    "h[100:104] = struct.pack('>I', 120)\n"
			    "h[112:112] = b'unknown!'\n"
			    "h[8:16] = struct.pack('>Q', off + 720)\n"
			    "h[80:88] = struct.pack('>Q', 1 << 40)\n"
			    "f.seek(0)\n"
			    "f.write(h[:65536])\n"
			    "END\n"), 0);
	crash_everywhere(&c);
}

static void test_refused(void **state)
{
	char name[1026];
	struct image_bytes b;
	struct file *f;
	struct change c = { "base", "raw", name, "raw" };

	(void)state;
	memset(name, 'n', sizeof(name));
	name[1024] = '\0';
	create("-f qcow2", "base", "raw");
	b = load("template");
	f = disk_new(&b);
	assert_int_equal(change(f, &c), -EINVAL);
	name[1023] = '\0';
	assert_int_equal(change(f, &c), 0);
	file_unref(f);
	free(b.data);
	create("-f qcow2 -o cluster_size=512", "base", "raw");
	b = load("template");
	f = disk_new(&b);
	assert_int_equal(change(f, &c), -ENOSPC);
	assert_false(is_new(f, &c));
	file_unref(f);
	free(b.data);
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return sh("rm -rf %s", folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_qcow2),
		cmocka_unit_test(test_qed),
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_refused),
	};

	if (system("qemu-img --version >/dev/null 2>&1"))
		return 77;
	return cmocka_run_group_tests(tests, setup, teardown);
}
