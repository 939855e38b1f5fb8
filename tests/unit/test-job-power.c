/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-job-power.c - the power fails during a commit and during a rebase, at
 * each request of either disk: the guest's content is there through the chain
 * that the header names, the overlay is sound but for leaks, and the job run
 * again ends as if nothing had happened.  With the flush left out that comes
 * before the last step, some crash must show it.
 *
 * timeout: 300
 */
#include "config.h"

#include "engine.h"
#include "job.h"
#include "../lib/testfile.h"

#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SIZE (1 * MiB)
enum { OUTCOMES = 6 };

struct trial {
	bool rebase;
	struct file *top, *old, *new;   /* disks; @old is the base */
	unsigned char want[SIZE];
};

/* ---- making ---------------------------------------------------------------------- */

static struct image *open_on(struct file *f, const char *driver,
			     unsigned flags)
{
	struct image_args args = { .flags = flags | IMAGE_NO_LOCK |
					    IMAGE_NO_BACKING };
	autojson *node = json_object();
	autoerr err = ERR_INIT;
	struct image *img;

	json_set_take(node, "driver", json_string(driver));
	args.node = node;
	return image_open_file(f, &args, &img, &err) ? NULL : img;
}

static struct file *raw_disk(unsigned seed)
{
	struct power_args a = { .seed = 1, .size = SIZE };
	struct file *f = power_new(&a);
	unsigned char buf[4096];

	for (uint64_t off = 0; off < SIZE; off += sizeof(buf)) {
		memset(buf, off / 65536 % 3 ? (int)(off / 65536 + seed) : 0,
		       sizeof(buf));
		assert_int_equal(file_write(f, buf, sizeof(buf), off), 0);
	}
	assert_int_equal(file_sync(f), 0);
	return f;
}

static struct file *top_disk(void)
{
	const struct format *fmt = format_find("qcow2");
	struct options *o = options_new(fmt->admin->create_options,
					protocol_create_options);
	struct power_args a = { .seed = 1 };
	struct file *f = power_new(&a);

	assert_int_equal(options_parse(o, "cluster_size=4k,backing_file=old,"
				       "backing_fmt=raw", NULL), 0);
	assert_int_equal(fmt->admin->create(f, o, SIZE, NULL), 0);
	assert_int_equal(file_sync(f), 0);
	options_free(o);
	return f;
}

/* The image with the chain that its header names; writable or not. */
static struct image *open_chain(struct file *top, struct file *old,
				struct file *new, unsigned flags)
{
	struct image *img = open_on(top, "qcow2", flags);

	if (!img)
		return NULL;
	assert_non_null(img->backing_name);
	img->backing = open_on(strcmp(img->backing_name, "old") ? new : old,
			       "raw", flags);
	assert_non_null(img->backing);
	return img;
}

static void scribble(struct trial *t)
{
	struct image *img = open_chain(t->top, t->old, t->new, IMAGE_RDWR);
	unsigned char buf[12288];

	assert_non_null(img);
	for (unsigned i = 0; i < 9; i++) {
		memset(buf, (int)(100 + i), sizeof(buf));
		assert_int_equal(image_write(&img->live, buf, sizeof(buf),
					     i * 100000), 0);
	}
	assert_int_equal(image_unmap(&img->live, 300000, 100000, UNMAP_ZERO),
			 0);
	assert_int_equal(image_read(&img->live, t->want, SIZE, 0), 0);
	assert_int_equal(image_close(img), 0);
}

static void setup(struct trial *t, bool rebase)
{
	t->rebase = rebase;
	t->old = raw_disk(1);
	t->new = raw_disk(2);
	t->top = top_disk();
	scribble(t);
}

static void teardown(struct trial *t)
{
	file_unref(t->top);
	file_unref(t->old);
	file_unref(t->new);
}

/* ---- the jobs ---------------------------------------------------------------------- */

static int run_job(struct image *img, struct image *new)
{
	struct commit_args c = { .top = img, .base = img->backing,
				 .threads = 1 };
	struct rebase_args r = { .top = img, .new = new, .name = "new",
				 .format = "raw", .threads = 1 };

	return new ? job_rebase(&r, NULL) : job_commit(&c, NULL);
}

static int work(bool rebase, struct file *top, struct file *old,
		struct file *new)
{
	struct image *img = open_chain(top, old, new, IMAGE_RDWR);
	struct image *onto = rebase ? open_on(new, "raw", 0) : NULL;
	int ret = img && (onto || !rebase) ? run_job(img, onto) : -EIO;
	int closed = image_close(img);

	image_close(onto);
	return ret ? ret : closed;
}

/* ---- judging ------------------------------------------------------------------------- */

static bool reads_well(const struct trial *t, struct file *top,
		       struct file *old, struct file *new)
{
	struct image *img = open_chain(top, old, new, 0);
	struct check_result res = { 0 };
	unsigned char *buf = malloc(SIZE);
	bool good = img && !image_read(&img->live, buf, SIZE, 0) &&
		    !memcmp(buf, t->want, SIZE) &&
		    !img->fmt->admin->check(img, &res) && !res.corruptions &&
		    !res.check_errors;

	free(buf);
	image_close(img);
	return good;
}

/* As it is after a job that nothing has interrupted. */
static bool is_finished(const struct trial *t, struct file *top,
			struct file *old)
{
	struct image *img = open_on(top, "qcow2", 0);
	struct extent ext = { .len = 0 };
	unsigned char *buf = malloc(SIZE);
	uint64_t size = 0;
	bool good;

	if (t->rebase)
		good = !strcmp(img->backing_name, "new");
	else
		good = !image_map(&img->live, 0, SIZE, &ext) &&
		       ext.kind == EXT_HOLE && ext.len == SIZE &&
		       !file_size(top, &size) && size <= 5 * 4096 &&
		       !file_read(old, buf, SIZE, 0) &&
		       !memcmp(buf, t->want, SIZE);
	free(buf);
	image_close(img);
	return good;
}

static unsigned bad_outcomes(const struct trial *t)
{
	unsigned bad = 0;

	for (uint64_t s = 0; s < OUTCOMES; s++) {
		struct file *top = power_after(t->top, s);
		struct file *old = power_after(t->old, OUTCOMES - 1 - s);
		struct file *new = power_after(t->new, s);

		bad += !reads_well(t, top, old, new) ||
		       work(t->rebase, top, old, new) ||
		       !reads_well(t, top, old, new) ||
		       !is_finished(t, top, old);
		file_unref(top);
		file_unref(old);
		file_unref(new);
	}
	return bad;
}

/* The power fails in request @nth of the top or of the base; *@over: the job
 * was faster. */
static unsigned crash_at(bool rebase, bool in_base, uint64_t nth, bool *over)
{
	struct trial *t = calloc(1, sizeof(*t));
	unsigned bad;

	setup(t, rebase);
	power_crash_after(in_base ? t->old : t->top, nth);
	(void)work(rebase, t->top, t->old, t->new);
	*over = !power_crashed(in_base ? t->old : t->top);
	power_crash(t->top);
	power_crash(t->old);
	power_crash(t->new);
	bad = bad_outcomes(t);
	teardown(t);
	free(t);
	return bad;
}

static unsigned crash_everywhere(bool rebase, unsigned *crashes)
{
	unsigned bad = 0;

	*crashes = 0;
	for (int base = 0; base < (rebase ? 1 : 2); base++) {
		bool over = false;

		for (uint64_t i = 1; !over; i++, ++*crashes)
			bad += crash_at(rebase, base, i, &over);
	}
	return bad;
}

static void test_power(void **state)
{
	bool rebase = *state;
	unsigned crashes, bad = crash_everywhere(rebase, &crashes);

	print_message("%s: %u power failures, %u bad outcomes\n",
		      rebase ? "rebase" : "commit", crashes * OUTCOMES, bad);
	assert_true(crashes > 10);
	assert_int_equal(bad, 0);
}

static void test_without_flush(void **state)
{
	bool rebase = *state;
	unsigned crashes, bad;

	knobs.no_job_flush = true;
	bad = crash_everywhere(rebase, &crashes);
	knobs.no_job_flush = false;
	print_message("%s without the flush: %u bad outcomes\n",
		      rebase ? "rebase" : "commit", bad);
	assert_true(bad > 0);
}

int main(void)
{
	static bool yes = true;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_power, NULL),
		cmocka_unit_test_prestate(test_power, &yes),
		cmocka_unit_test_prestate(test_without_flush, NULL),
		cmocka_unit_test_prestate(test_without_flush, &yes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
