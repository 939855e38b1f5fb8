/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-tables-repair.c - the power fails in the middle of check -r of QED, qcow
 * and Parallels: at each request of a repair, with several outcomes.  What is
 * left can be repaired, and then everything is sound and the guest reads what
 * it read before.  The images are made, and at the end checked, by qemu-img.
 *
 * timeout: 240
 */
#include "config.h"

#include "blockcore.h"
#include "../lib/testfile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define GUEST (2 * MiB)
#define MAX_FILE (8 * MiB)
#define REPAIR (IMAGE_RDWR | IMAGE_CHECK | IMAGE_REPAIR | IMAGE_NO_LOCK)
#define ALL (CHECK_FIX_LEAKS | CHECK_FIX_ERRORS)

/* An image as qemu-img has made it, and where its first table is. */
struct sample {
	const char *format, *options;
	bool little;
	unsigned width;         /* bytes of an entry */
	unsigned char *bytes;
	size_t len;
	uint64_t l1, l2;        /* parallels: the one table is "l2" */
};

static struct sample samples[] = {
	{ .format = "qed", .options = "-o cluster_size=4k,table_size=2",
	  .little = true, .width = 8 },
	{ .format = "qcow", .options = "", .width = 8 },
	{ .format = "parallels", .options = "-o cluster_size=4k",
	  .little = true, .width = 4, .l2 = 64 },
};

static char folder[] = "/tmp/imgfs-test-repair.XXXXXX";
static unsigned char *guest, *now;      /* what it reads */

static uint64_t entry(const struct sample *s, uint64_t at)
{
	const unsigned char *p = s->bytes + at;

	if (s->width == 4)
		return le32_at(p);
	return s->little ? le64_at(p) : be64_at(p);
}

/* ---- damages --------------------------------------------------------------- */

struct poke {
	uint64_t at, value;
};

struct damage {
	struct poke pokes[4];
	unsigned n;
	size_t tail;            /* bytes of rubbish behind the file */
};

static void damage_add(struct damage *d, uint64_t at, uint64_t value)
{
	d->pokes[d->n++] = (struct poke) { at, value };
}

static void put(struct file *f, const struct sample *s, const struct poke *p)
{
	unsigned char b[8];

	if (s->little)
		le64_put(b, p->value);
	else
		be64_put(b, p->value);
	assert_int_equal(file_write(f, b, s->width, p->at), 0);
}

static struct file *disk_new(const struct sample *s, const struct damage *d)
{
	struct power_args a = { .size = s->len, .seed = 1 };
	autofree unsigned char *tail = malloc(d->tail + 1);
	struct file *f = power_new(&a);

	assert_non_null(f);
	memset(tail, 'W', d->tail);
	assert_int_equal(file_write(f, s->bytes, s->len, 0), 0);
	for (unsigned i = 0; i < d->n; i++)
		put(f, s, &d->pokes[i]);
	if (d->tail)
		assert_int_equal(file_write(f, tail, d->tail, s->len), 0);
	assert_int_equal(file_sync(f), 0);
	return f;
}

/* ---- one repair ------------------------------------------------------------- */

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
	int ret = image_repair(img, ALL, res);
	int closed = image_close(img);

	return ret ? ret : closed;
}

static void read_guest(struct file *f, unsigned char *to)
{
	struct image *img = open_on(f, IMAGE_CHECK | IMAGE_NO_LOCK);

	assert_int_equal(image_read(&img->live, to, GUEST, 0), 0);
	image_close(img);
}

static void assert_sound(struct file *f)
{
	struct image *img = open_on(f, IMAGE_CHECK | IMAGE_NO_LOCK);
	struct check_result res = { 0 };

	assert_int_equal(img->fmt->admin->check(img, &res), 0);
	assert_int_equal(res.corruptions + res.leaks + res.check_errors, 0);
	image_close(img);
	read_guest(f, now);
	assert_memory_equal(now, guest, GUEST);
}

static void assert_qemu_agrees(const struct sample *s, struct file *f)
{
	char path[128], command[512];

	snprintf(path, sizeof(path), "%s/after", folder);
	if (strcmp(s->format, "qcow"))
		snprintf(command, sizeof(command), "qemu-img check -q -f %s %s",
			 s->format, path);
	else            /* that it cannot check: it reads all of it */
		snprintf(command, sizeof(command), "qemu-img compare -q -f qcow"
			 " -F qcow %s %s", path, path);
	assert_int_equal(power_save(f, path), 0);
	assert_int_equal(system(command), 0);
	unlink(path);
}

static void after_crash(const struct sample *s, struct file *f, bool ask_qemu)
{
	for (uint64_t seed = 0; seed < 4; seed++) {
		struct file *g = power_after(f, seed);
		struct check_result res = { 0 };

		assert_non_null(g);
		assert_int_equal(repair(g, &res), 0);
		assert_int_equal(res.corruptions + res.check_errors, 0);
		assert_sound(g);
		if (ask_qemu && seed == 2)
			assert_qemu_agrees(s, g);
		file_unref(g);
	}
}

/* How many requests a repair without a failure makes.  @kept: nothing that the
 * guest could read is lost; else what is left is what it shall read. */
static uint64_t whole(const struct sample *s, const struct damage *d,
		      bool kept)
{
	struct file *f = disk_new(s, d);
	uint64_t ops = power_ops(f);
	struct check_result res = { 0 };

	if (kept) {
		read_guest(f, guest);
		ops = power_ops(f);
	}
	assert_int_equal(repair(f, &res), 0);
	assert_true(res.leaks_fixed + res.corruptions_fixed > 0);
	ops = power_ops(f) - ops;
	if (!kept)
		read_guest(f, guest);
	assert_sound(f);
	file_unref(f);
	return ops;
}

static void crash_everywhere(const struct sample *s, const struct damage *d,
			     bool kept)
{
	uint64_t ops = whole(s, d, kept);

	assert_true(ops > 1);
	for (uint64_t i = 1; i <= ops; i++) {
		struct file *f = disk_new(s, d);
		struct check_result res = { 0 };

		power_crash_after(f, i);
		(void)repair(f, &res);
		assert_true(power_crashed(f));
		after_crash(s, f, i % 3 == 0 || i == ops);
		file_unref(f);
	}
}

/* ---- tests ------------------------------------------------------------------ */

/* Clusters that nobody uses any more, and rubbish at the end. */
static void test_leaks(void **state)
{
	const struct sample *s = *state;
	struct damage d = { .tail = 10000 };

	if (s->width == 8) {
		damage_add(&d, s->l2, 0);
		damage_add(&d, s->l2 + s->width * 3, 0);
	}
	crash_everywhere(s, &d, true);
}

static void test_nowhere(void **state)
{
	const struct sample *s = *state;
	struct damage d = { 0 };

	damage_add(&d, s->l2 + s->width, s->width == 4 ? 0x7ffffff0 :
		   UINT64_C(0x7fff0000));
	damage_add(&d, s->l2 + s->width * 2, s->width == 4 ? 0x7ffff :
		   s->little ? 4096 + 512 : 17);
	crash_everywhere(s, &d, false);
}

static void test_twice(void **state)
{
	const struct sample *s = *state;
	struct damage d = { 0 };

	damage_add(&d, s->l2 + s->width, entry(s, s->l2));
	damage_add(&d, s->l2 + s->width * 4, entry(s, s->l2));
	crash_everywhere(s, &d, true);
}

/* All data behind the first table is gone; only the gap before it is left. */
static void test_table_moves(void **state)
{
	const struct sample *s = *state;
	struct damage d = { 0 };

	if (s->width == 4)
		skip();
	damage_add(&d, s->l1, entry(s, s->l1 + 8));
	damage_add(&d, s->l1 + 8, 0);
	crash_everywhere(s, &d, true);
}

static void test_table_twice(void **state)
{
	const struct sample *s = *state;
	struct damage d = { 0 };

	if (s->width == 4)
		skip();
	damage_add(&d, s->l1 + 8, entry(s, s->l1));
	crash_everywhere(s, &d, true);
}

/* ---- the images -------------------------------------------------------------- */

static int load(struct sample *s)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, s->format);
	s->bytes = calloc(1, MAX_FILE);
	f = fopen(path, "r");
	if (!s->bytes || !f)
		return -1;
	s->len = fread(s->bytes, 1, MAX_FILE, f);
	fclose(f);
	if (s->width == 4)
		return 0;
	s->l1 = s->little ? le64_at(s->bytes + 40) : be64_at(s->bytes + 40);
	s->l2 = entry(s, s->l1);
	return 0;
}

static int make(struct sample *s)
{
	char command[1024];

	/* The second L2 table of qcow begins at 2 MiB, of QED at 4 MiB. */
	snprintf(command, sizeof(command), "cd %s && qemu-img create -q -f %s"
		 " %s %s 6M && qemu-io -f %s -c 'write -P 1 0 30k' -c 'write"
		 " -P 2 100k 20k' -c 'write -P 3 1M 10k' -c 'write -P 4 4200k"
		 " 10k' %s >/dev/null", folder, s->format, s->options,
		 s->format, s->format, s->format);
	return system(command) ? -1 : load(s);
}

static int setup(void **state)
{
	(void)state;
	guest = malloc(GUEST);
	now = malloc(GUEST);
	if (system("qemu-io -V >/dev/null 2>&1") || !mkdtemp(folder) ||
	    !guest || !now)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++)
		if (make(&samples[i]))
			return -1;
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++)
		free(samples[i].bytes);
	free(guest);
	free(now);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

#define FOR_ALL(test) \
	cmocka_unit_test_prestate(test, &samples[0]), \
	cmocka_unit_test_prestate(test, &samples[1]), \
	cmocka_unit_test_prestate(test, &samples[2])

int main(void)
{
	const struct CMUnitTest tests[] = {
		FOR_ALL(test_leaks),
		FOR_ALL(test_nowhere),
		FOR_ALL(test_twice),
		FOR_ALL(test_table_moves),
		FOR_ALL(test_table_twice),
	};

	if (system("qemu-img --version >/dev/null 2>&1"))
		return 77;
	return cmocka_run_group_tests(tests, setup, teardown);
}
