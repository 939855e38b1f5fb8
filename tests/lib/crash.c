/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* crash.c - see crash.h. */
#include "config.h"

#include "crash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define ROOM (8 * MiB)          /* files are at most so long */

char crash_folder[64] = "/tmp/imgfs-test-crash.XXXXXX";

struct bytes {
	unsigned char *data;
	size_t len;
};

int crash_sh(const char *fmt, ...)
{
	char command[8192];
	int n = snprintf(command, sizeof(command), "cd %s && ", crash_folder);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, ap);
	va_end(ap);
	return system(command);
}

int crash_setup(void **state)
{
	(void)state;
	return mkdtemp(crash_folder) && !chdir(crash_folder) ? 0 : -1;
}

int crash_teardown(void **state)
{
	(void)state;
	return crash_sh("cd / && rm -rf %s", crash_folder);
}

static struct bytes load(const char *name)
{
	struct bytes b = { .data = calloc(1, ROOM) };
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", crash_folder, name);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(b.data);
	b.len = fread(b.data, 1, ROOM, f);
	assert_true(b.len < ROOM);
	fclose(f);
	return b;
}

static struct file *disk_new(const struct bytes *b)
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
	struct image_args args = { .flags = flags | IMAGE_NO_LOCK };
	autoerr err = ERR_INIT;
	struct image *img;

	if (image_open_file(f, &args, &img, &err))
		fail_msg("%s", err_text(&err));
	return img;
}

static int change(struct file *f, const struct crash_case *c)
{
	struct image *img = open_on(f, IMAGE_RDWR | IMAGE_DISCARD);
	int ret = c->change(img, c->arg);
	int closed = image_close(img);

	return ret ? ret : closed;
}

static void say(void *data, const char *line)
{
	(void)data;
	fprintf(stderr, "%s\n", line);
}

static struct bytes content(struct image *img)
{
	struct bytes b = { .len = image_size(img) };

	b.data = malloc(b.len + 1);
	assert_non_null(b.data);
	assert_int_equal(image_read(&img->live, b.data, b.len, 0), 0);
	return b;
}

static bool same(const struct bytes *a, const struct bytes *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

static void assert_sound(struct image *img)
{
	struct check_result res = { .say = NULL };

	if (!img->fmt->admin || !img->fmt->admin->check)
		return;
	assert_int_equal(img->fmt->admin->check(img, &res), 0);
	if (!res.corruptions && !res.check_errors)
		return;
	res = (struct check_result) { .say = say };
	img->fmt->admin->check(img, &res);
	fail_msg("%u corruptions", (unsigned)res.corruptions);
}

struct contents {
	struct bytes old, new;
};

/* 1: the old one, 2: the new one, 3: nobody can tell. */
static unsigned judge(struct file *f, const struct crash_case *c,
		      const struct contents *t)
{
	struct image *img = open_on(f, 0);
	struct bytes now = content(img);
	unsigned seen = (same(&now, &t->old) ? 1 : 0) |
			(same(&now, &t->new) ? 2 : 0);

	if (!seen)
		fail_msg("%u bytes that are neither the old nor the new"
			 " content", (unsigned)now.len);
	if (c->is_new)
		seen &= c->is_new(img, c->arg) ? 2 : 1;
	if (!seen)
		fail_msg("content and description do not belong together");
	assert_sound(img);
	image_close(img);
	free(now.data);
	return seen;
}

static void store(struct file *f, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", crash_folder, name);
	assert_int_equal(power_save(f, path), 0);
}

/* How many requests the change makes. */
static uint64_t whole(const struct bytes *b, const struct crash_case *c,
		      struct contents *t)
{
	struct file *f = disk_new(b);
	struct image *img = open_on(f, 0);
	uint64_t ops;

	t->old = content(img);
	image_close(img);
	ops = power_ops(f);
	assert_int_equal(change(f, c), 0);
	ops = power_ops(f) - ops;
	img = open_on(f, 0);
	t->new = content(img);
	if (c->is_new)
		assert_true(c->is_new(img, c->arg));
	assert_sound(img);
	image_close(img);
	store(f, "ours");
	assert_int_equal(crash_sh("qemu-img check -q ours >check 2>&1; test $? = 0 -o $? ="
				  " 63"), 0);
	file_unref(f);
	return ops;
}

static void after_crash(struct file *f, const struct crash_case *c,
			const struct contents *t, unsigned *seen, bool store_it)
{
	for (unsigned i = 0; i < (c->outcomes ? c->outcomes : 6); i++) {
		struct file *g = power_after(f, i);

		assert_non_null(g);
		*seen |= judge(g, c, t);
		if (!i && store_it) {
			store(g, "after");
			assert_int_equal(crash_sh("qemu-img check -q -U after"
						  " >check 2>&1;"
						  " r=$?; test $r = 0 -o $r = 3"
						  " -o $r = 63"), 0);
		}
		/* And it goes on from there. */
		if (!i) {
			assert_int_equal(change(g, c), 0);
			assert_true(judge(g, c, t) & 2);
		}
		file_unref(g);
	}
}

void crash_everywhere(const struct crash_case *c)
{
	struct contents t;
	struct bytes b;
	unsigned seen = 0;
	uint64_t ops;

	if (c->make)
		assert_int_equal(crash_sh("rm -f template; %s", c->make), 0);
	b = load("template");
	ops = whole(&b, c, &t);
	for (uint64_t i = 1; i <= ops; i += c->every ? c->every : 1) {
		struct file *f = disk_new(&b);

		power_crash_after(f, i);
		(void)change(f, c);
		after_crash(f, c, &t, &seen, i % 5 == 1);
		file_unref(f);
	}
	assert_int_equal(seen, 3);      /* both were there */
	free(b.data);
	free(t.old.data);
	free(t.new.data);
}
