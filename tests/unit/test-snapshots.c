/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-snapshots.c - the instant of a snapshot.  timeout: 300
 *
 * The power fails at each request of creating, deleting, applying and renaming:
 * what is found is the old state or the new one, sound but for leaks.  An
 * overwrite that is under way when a snapshot is made: the instant waits for it
 * (the third race).  Writers that go on: each snapshot is the disk after some
 * number of each one's writes, with none missing and none too many.  Snapshots
 * that are applied beside them stay what they are, and a bitmap has all that
 * became different.
 *
 * Images are made, and looked at in the end, by qemu-img.
 */
#include "config.h"

#include "bitmap.h"
#include "engine.h"
#include "snapshot.h"
#include "job.h"
#include "../lib/testfile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define GUEST (2 * MiB)
#define UNIT 4096u

static char folder[] = "/tmp/imgfs-test-snapshots.XXXXXX";
static unsigned char *template;
static size_t template_len;
static unsigned char *now, *old;        /* the disk, and in snapshot "old" */

/* ---- images ---------------------------------------------------------------- */

static struct file *disk_new(void)
{
	struct power_args a = { .size = template_len, .seed = 1 };
	struct file *f = power_new(&a);

	assert_non_null(f);
	assert_int_equal(file_write(f, template, template_len, 0), 0);
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

/* What the disk (@name NULL) or a snapshot holds; false: there is none. */
static bool get(struct image *img, const char *name, unsigned char *bytes)
{
	struct snapshot_key key = { .name = name };
	struct view v = img->live;
	int ret = name ? image_snapshot_view(img, &key, &v, NULL) : 0;

	if (ret == -ENOENT)
		return false;
	assert_int_equal(ret, 0);
	assert_int_equal(name ? v.size : image_size(img), GUEST);
	assert_int_equal(image_read(&v, bytes, GUEST, 0), 0);
	if (name)
		image_view_close(&v);
	return true;
}

static bool same(const unsigned char *a, const unsigned char *b)
{
	return !memcmp(a, b, GUEST);
}

/* ---- power ----------------------------------------------------------------- */

enum op { CREATE, DELETE, APPLY, RENAME };

static int run_op(struct file *f, enum op op)
{
	struct image *img = open_on(f, IMAGE_RDWR | IMAGE_DISCARD);
	struct snapshot_key key = { .any = "old" };
	int ret, closed;

	if (op == CREATE)
		ret = image_snapshot_create(img, "new", NULL, NULL, NULL);
	else if (op == DELETE)
		ret = image_snapshot_delete(img, &key, NULL, NULL);
	else if (op == APPLY)
		ret = image_snapshot_apply(img, &key, NULL, NULL);
	else
		ret = image_snapshot_rename(img, &key, "new", NULL);
	closed = image_close(img);
	return ret ? ret : closed;
}

/* Is it the state after @op?  Fails unless it is that or the one before. */
static bool is_after(struct image *img, enum op op)
{
	autofree unsigned char *disk = malloc(GUEST), *of_old = malloc(GUEST),
		*of_new = malloc(GUEST);
	bool has_old, has_new;

	assert_true(get(img, NULL, disk));
	has_old = get(img, "old", of_old);
	has_new = get(img, "new", of_new);
	if (has_old)
		assert_true(same(of_old, old));
	if (has_new)
		assert_true(same(of_new, op == RENAME ? old : now));
	if (op == APPLY && same(disk, old)) {
		assert_true(has_old && !has_new);
		return true;
	}
	assert_true(same(disk, now));
	switch (op) {
	case CREATE:
		assert_true(has_old);
		return has_new;
	case DELETE:
		assert_false(has_new);
		return !has_old;
	case RENAME:
		assert_true(has_old != has_new);
		return has_new;
	default:
		assert_true(has_old && !has_new);
		return false;
	}
}

/* Nothing is wrong with it but that space is taken. */
static void assert_usable(struct file *f, bool leaks)
{
	struct image *img = open_on(f, IMAGE_CHECK);
	struct check_result res = { 0 };

	assert_int_equal(img->fmt->admin->check(img, &res), 0);
	assert_int_equal(res.corruptions + res.check_errors, 0);
	if (!leaks)
		assert_int_equal(res.leaks, 0);
	image_close(img);
}

static void assert_qemu_agrees(struct file *f, bool leaks)
{
	char path[128], command[256];
	int rc;

	snprintf(path, sizeof(path), "%s/after", folder);
	snprintf(command, sizeof(command), "qemu-img check -q %s 2>/dev/null",
		 path);
	assert_int_equal(power_save(f, path), 0);
	rc = system(command);
	assert_true(!rc || (leaks && WEXITSTATUS(rc) == 3));
	unlink(path);
}

/* How many of the outcomes are the new state. */
static unsigned after_crash(struct file *f, enum op op)
{
	unsigned n = 0;

	for (uint64_t seed = 0; seed < 8; seed++) {
		struct file *g = power_after(f, seed);
		struct image *img;

		assert_non_null(g);
		assert_usable(g, true);
		img = open_on(g, 0);
		n += is_after(img, op);
		image_close(img);
		if (seed == 2)
			assert_qemu_agrees(g, true);
		file_unref(g);
	}
	return n;
}

static uint64_t whole(enum op op)
{
	struct file *f = disk_new();
	uint64_t ops = power_ops(f);
	struct image *img;

	assert_int_equal(run_op(f, op), 0);
	ops = power_ops(f) - ops;
	assert_usable(f, false);
	assert_qemu_agrees(f, false);
	img = open_on(f, 0);
	assert_true(is_after(img, op));
	image_close(img);
	file_unref(f);
	return ops;
}

static void crash_everywhere(enum op op)
{
	uint64_t ops = whole(op);
	unsigned done = 0;

	for (uint64_t i = 1; i <= ops; i++) {
		struct file *f = disk_new();

		power_crash_after(f, i);
		(void)run_op(f, op);
		assert_true(power_crashed(f));
		done += after_crash(f, op);
		file_unref(f);
	}
	print_message("%u requests, %u outcomes, %u of them the new state\n",
		      (unsigned)ops, (unsigned)ops * 8, done);
	assert_true(done > 0 && done < ops * 8);
}

static void power_create(void **state)
{
	(void)state;
	crash_everywhere(CREATE);
}

static void power_delete(void **state)
{
	(void)state;
	crash_everywhere(DELETE);
}

static void power_apply(void **state)
{
	(void)state;
	crash_everywhere(APPLY);
}

static void power_apply_beside(void **state)
{
	(void)state;
	knobs.no_apply_at_once = true;
	crash_everywhere(APPLY);
	knobs.no_apply_at_once = false;
}

static void power_rename(void **state)
{
	(void)state;
	crash_everywhere(RENAME);
}

/* Without stages the header may come before what it names. */
static void power_without_stages(void **state)
{
	unsigned bad = 0;

	(void)state;
	for (uint64_t i = 1; i <= whole(CREATE) && !bad; i++) {
		struct file *f = disk_new();

		knobs.no_stages = true;
		power_crash_after(f, i);
		(void)run_op(f, CREATE);
		knobs.no_stages = false;
		for (uint64_t seed = 0; seed < 8; seed++) {
			struct file *g = power_after(f, seed);
			struct image_args args = { .flags = IMAGE_CHECK |
						   IMAGE_NO_LOCK };
			struct check_result res = { 0 };
			struct image *img;

			if (image_open_file(g, &args, &img, NULL)) {
				bad++;
			} else {
				bad += img->fmt->admin->check(img, &res) ||
				       res.corruptions || res.check_errors;
				image_close(img);
			}
			file_unref(g);
		}
		file_unref(f);
	}
	assert_true(bad > 0);
}

/* Given up at the nth step: as if nothing had been. */
static void cancelled_everywhere(void **state)
{
	(void)state;
	for (enum op op = CREATE; op <= APPLY; op++) {
		struct file *f = disk_new();
		struct image *img = open_on(f, IMAGE_RDWR);
		struct progress p = { .cancel = true };
		struct snapshot_key key = { .any = "old" };
		int ret = op == CREATE ?
			image_snapshot_create(img, "new", NULL, &p, NULL) :
			op == DELETE ?
			image_snapshot_delete(img, &key, &p, NULL) :
			image_snapshot_apply(img, &key, &p, NULL);

		assert_int_equal(ret, -ECANCELED);
		assert_false(is_after(img, op));
		assert_int_equal(image_close(img), 0);
		assert_usable(f, false);
		file_unref(f);
	}
}

/* ---- the third race ---------------------------------------------------------- */

struct call {
	pthread_t thread;
	struct image *img;
	int ret;
	_Atomic bool ended;
};

static void *write_main(void *data)
{
	struct call *c = data;
	unsigned char buf[UNIT];

	memset(buf, 0xee, sizeof(buf));
	c->ret = image_write(&c->img->live, buf, UNIT, 0);
	atomic_store(&c->ended, true);
	return NULL;
}

static void *create_main(void *data)
{
	struct call *c = data;

	c->ret = image_snapshot_create(c->img, "new", NULL, NULL, NULL);
	atomic_store(&c->ended, true);
	return NULL;
}

static void start(struct call *c, struct image *img, void *(*fn)(void *))
{
	*c = (struct call) { .img = img };
	assert_int_equal(pthread_create(&c->thread, NULL, fn, c), 0);
}

/* An overwrite in place stands between map() and its bytes; a snapshot is made.
 * Does the late write change what the snapshot holds? */
static bool late_write_changes(bool epochs)
{
	struct file *f = trap_file_take(disk_new());
	struct image *img = open_on(f, IMAGE_RDWR);
	unsigned char *before = malloc(GUEST), *after = malloc(GUEST);
	struct trap_rule rule = { .op = TEST_WRITE, .times = 1, .block = true };
	struct call writer, maker;
	struct extent ext;
	struct trap *t;
	bool changed;

	/* The first unit's data is the disk's alone. */
	memset(before, 7, UNIT);
	assert_int_equal(image_write(&img->live, before, UNIT, 0), 0);
	assert_int_equal(image_flush(img), 0);
	assert_int_equal(image_map(&img->live, 0, UNIT, &ext), 0);
	assert_int_equal(ext.kind, EXT_DATA);
	assert_false(ext.flags & EXT_SHARED);
	rule.off = ext.host;
	rule.len = UNIT;
	t = trap_add(f, &rule);
	start(&writer, img, write_main);
	assert_true(trap_wait(t, 1));
	start(&maker, img, create_main);
	if (epochs) {
		usleep(100000);
		assert_false(atomic_load(&maker.ended));
		trap_release(t);
	}
	pthread_join(maker.thread, NULL);
	assert_int_equal(maker.ret, 0);
	assert_true(get(img, "new", before));
	trap_release(t);
	pthread_join(writer.thread, NULL);
	assert_int_equal(writer.ret, 0);
	assert_true(get(img, "new", after));
	changed = !same(before, after);
	assert_int_equal(image_close(img), 0);
	assert_usable(f, false);
	file_unref(f);
	free(before);
	free(after);
	return changed;
}

static void third_race(void **state)
{
	(void)state;
	assert_false(late_write_changes(true));
}

static void third_race_without_epochs(void **state)
{
	bool changed;

	(void)state;
	knobs.no_epochs = true;
	changed = late_write_changes(false);
	knobs.no_epochs = false;
	assert_true(changed);
}

/* ---- what a deletion gives back -------------------------------------------------- */

static void *delete_main(void *data)
{
	struct snapshot_key key = { .name = "old" };
	struct call *c = data;

	c->ret = image_snapshot_delete(c->img, &key, NULL, NULL);
	atomic_store(&c->ended, true);
	return NULL;
}

/* Until the deletion is durable the snapshot may be found again: what it shared
 * with the disk is not overwritten before. */
static void owned_when_durable(void **state)
{
	struct file *f = trap_file_take(disk_new());
	struct image *img = open_on(f, IMAGE_RDWR);
	struct trap_rule rule = { .op = TEST_WRITE, .len = SECTOR_SIZE,
				  .times = 1, .block = true };
	struct call deleter, writer;
	struct trap *header;

	(void)state;
	header = trap_add(f, &rule);
	start(&deleter, img, delete_main);
	assert_true(trap_wait(header, 1));
	start(&writer, img, write_main);
	usleep(100000);
	assert_false(atomic_load(&writer.ended));
	trap_release(header);
	pthread_join(deleter.thread, NULL);
	pthread_join(writer.thread, NULL);
	assert_int_equal(deleter.ret, 0);
	assert_int_equal(writer.ret, 0);
	assert_int_equal(image_close(img), 0);
	assert_usable(f, false);
	file_unref(f);
}

static void put_packed(struct image *img, uint64_t off, unsigned char byte)
{
	unsigned char bytes[UNIT], out[UNIT];
	size_t len = 0;

	memset(bytes, byte, sizeof(bytes));
	assert_int_equal(image_pack(img, bytes, out, &len), 0);
	assert_true(len > 0);
	assert_int_equal(image_write_packed(&img->live, out, len, off), 0);
}

/* A cluster of streams goes with the snapshot that was the last to hold one: no
 * stream follows there, where somebody else's data is soon. */
static void no_stream_into_freed(void **state)
{
	struct file *f = disk_new();
	struct image *img = open_on(f, IMAGE_RDWR);
	struct snapshot_key key = { .name = "p" };
	autofree unsigned char *bytes = malloc(GUEST / 2);
	autofree unsigned char *is = malloc(GUEST / 2);

	(void)state;
	memset(bytes, 9, GUEST / 2);
	assert_int_equal(image_unmap(&img->live, GUEST / 2, GUEST / 2,
				     UNMAP_HOLE), 0);
	put_packed(img, GUEST / 2, 1);
	assert_int_equal(image_snapshot_create(img, "p", NULL, NULL, NULL), 0);
	assert_int_equal(image_unmap(&img->live, GUEST / 2, UNIT, UNMAP_HOLE),
			 0);
	assert_int_equal(image_flush(img), 0);
	assert_int_equal(image_snapshot_delete(img, &key, NULL, NULL), 0);
	assert_int_equal(image_write(&img->live, bytes, GUEST / 2, 0), 0);
	for (uint64_t off = GUEST / 2; off < GUEST; off += UNIT)
		put_packed(img, off, 2);
	assert_int_equal(image_read(&img->live, is, GUEST / 2, 0), 0);
	assert_memory_equal(is, bytes, GUEST / 2);
	assert_int_equal(image_close(img), 0);
	assert_usable(f, false);
	file_unref(f);
}

/* Long after a turn the header changes as it always does: twice, of a longer L1
 * and the size. */
static void resized_after_a_turn(void **state)
{
	const struct resize_args a = { .prealloc = PREALLOC_OFF };
	struct file *f = disk_new();
	struct image *img = open_on(f, IMAGE_RDWR);

	(void)state;
	assert_int_equal(image_snapshot_create(img, "new", NULL, NULL, NULL),
			 0);
	assert_int_equal(image_resize(img, 64 * GUEST, &a, NULL), 0);
	assert_int_equal(image_write(&img->live, now, UNIT, 63 * GUEST), 0);
	assert_int_equal(image_close(img), 0);
	assert_usable(f, false);
	assert_qemu_agrees(f, false);
	file_unref(f);
}

/* ---- writers go on ------------------------------------------------------------- */

#define WRITERS 3
#define BLOCKS (GUEST / UNIT / WRITERS)
#define WRITES 6000u
#define SNAPSHOTS 12

/* One that owns every third block: the nth write puts n, or zeroes, there. */
struct writer {
	pthread_t thread;
	struct image *img;
	unsigned number;
	uint32_t block[WRITES + 1];     /* of write n */
	bool zero[WRITES + 1];
	_Atomic unsigned done;
	int ret;
};

static uint64_t place(const struct writer *w, uint32_t block)
{
	return ((uint64_t)block * WRITERS + w->number) * UNIT;
}

static uint64_t next(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void *writer_main(void *data)
{
	struct writer *w = data;
	uint64_t seed = 88172645463325252u + w->number;
	uint32_t buf[UNIT / 4];

	for (unsigned n = 1; n <= WRITES && !w->ret; n++) {
		uint32_t b = w->block[n] = (uint32_t)(next(&seed) % BLOCKS);

		w->zero[n] = next(&seed) % 8 == 0;
		for (size_t i = 0; i < UNIT / 4; i++)
			buf[i] = n;
		w->ret = w->zero[n] ?
			image_unmap(&w->img->live, place(w, b), UNIT,
				    UNMAP_ZERO) :
			image_write(&w->img->live, buf, UNIT, place(w, b));
		if (n % 500 == 0 && !w->ret)
			w->ret = image_flush(w->img);
		atomic_store(&w->done, n);
	}
	return NULL;
}

/* Number of write that left the block as it is in @bytes; 0: zeroes. */
static uint32_t version(const struct writer *w, const unsigned char *bytes,
			uint32_t block)
{
	const uint32_t *p = (const void *)(bytes + place(w, block));

	for (size_t i = 1; i < UNIT / 4; i++)
		assert_int_equal(p[i], p[0]);
	return p[0];
}

/* Is that what one writer's blocks were after some number of its writes?
 * Which; 0 is before the first. */
static int prefix_of(const struct writer *w, const unsigned char *bytes)
{
	autofree uint32_t *want = calloc(BLOCKS, sizeof(*want));
	unsigned wrong = 0, n = 0;

	for (uint32_t b = 0; b < BLOCKS; b++)
		wrong += version(w, bytes, b) != 0;
	while (wrong && n++ < WRITES) {
		uint32_t b = w->block[n], is = version(w, bytes, b);

		wrong -= want[b] != is;
		want[b] = w->zero[n] ? 0 : n;
		wrong += want[b] != is;
	}
	return wrong ? -1 : (int)n;
}

static void look_at(struct image *img, struct writer *w, const char *name)
{
	autofree unsigned char *bytes = malloc(GUEST);

	assert_true(get(img, name, bytes));
	for (unsigned i = 0; i < WRITERS; i++) {
		int n = prefix_of(&w[i], bytes);

		if (n < 0)
			fail_msg("snapshot %s is no moment of writer %u", name,
				 i);
	}
}

static void make_some(struct image *img, struct writer *w)
{
	for (unsigned i = 0; i < SNAPSHOTS; i++) {
		struct snapshot_key key;
		char name[16], gone[16];

		/* Some of its life lies between them. */
		while (atomic_load(&w->done) < i * (WRITES / SNAPSHOTS))
			usleep(200);
		snprintf(name, sizeof(name), "s%u", i);
		assert_int_equal(image_snapshot_create(img, name, NULL, NULL,
						       NULL), 0);
		if (i < 4 || i % 2)
			continue;
		snprintf(gone, sizeof(gone), "s%u", i - 3);
		key = (struct snapshot_key) { .name = gone };
		assert_int_equal(image_snapshot_delete(img, &key, NULL, NULL),
				 0);
	}
}

static void writers_go_on(void **state)
{
	struct writer *w = calloc(WRITERS, sizeof(*w));
	struct file *f = disk_new();
	struct image *img = open_on(f, IMAGE_RDWR | IMAGE_DISCARD);
	struct snapshot_list list;

	(void)state;
	assert_int_equal(image_unmap(&img->live, 0, GUEST, UNMAP_ZERO), 0);
	for (unsigned i = 0; i < WRITERS; i++) {
		w[i].img = img;
		w[i].number = i;
		pthread_create(&w[i].thread, NULL, writer_main, &w[i]);
	}
	make_some(img, w);
	for (unsigned i = 0; i < WRITERS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].ret, 0);
	}
	assert_int_equal(image_snapshots(img, &list, NULL), 0);
	assert_true(list.n > 4);
	for (size_t i = 0; i < list.n; i++)
		if (strcmp(list.items[i].name, "old"))
			look_at(img, w, list.items[i].name);
	snapshot_list_free(&list);
	look_at(img, w, NULL);
	assert_int_equal(image_close(img), 0);
	assert_usable(f, false);
	assert_qemu_agrees(f, false);
	file_unref(f);
	free(w);
}

/* ---- applied beside writers ----------------------------------------------------- */

#define APPLIES 8

/* After the last one the disk is the snapshot but for what was written since:
 * bitmap "b", made before, must hold all that differs from @was. */
static void assert_bitmap_holds(struct image *img, const unsigned char *was)
{
	autofree unsigned char *is = malloc(GUEST);
	uint64_t len;
	bool dirty;

	assert_true(get(img, NULL, is));
	for (uint64_t off = 0; off < GUEST; off += len) {
		assert_int_equal(bitmap_run(img, "b", off, &len, &dirty, NULL),
				 0);
		if (!dirty)
			assert_memory_equal(is + off, was + off, len);
	}
}

/* Two snapshots of a disk by turns, while three threads write; each is what it
 * was in the end, and a bitmap has all that the disk differs in. */
static void apply_beside_writers(bool at_once)
{
	struct writer *w = calloc(WRITERS, sizeof(*w));
	struct file *f = disk_new();
	struct image *img = open_on(f, IMAGE_RDWR | IMAGE_DISCARD);
	struct snapshot_key keys[] = { { .name = "old" }, { .name = "new" } };
	autofree unsigned char *is = malloc(GUEST);

	knobs.no_apply_at_once = !at_once;
	assert_int_equal(image_snapshot_create(img, "new", NULL, NULL, NULL),
			 0);
	assert_int_equal(bitmap_add(img, "b", UNIT, NULL), 0);
	for (unsigned i = 0; i < WRITERS; i++) {
		w[i].img = img;
		w[i].number = i;
		pthread_create(&w[i].thread, NULL, writer_main, &w[i]);
	}
	for (unsigned i = 0; i < APPLIES; i++) {
		while (atomic_load(&w->done) < i * (WRITES / APPLIES))
			usleep(200);
		assert_int_equal(image_snapshot_apply(img, &keys[i % 2], NULL,
						      NULL), 0);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].ret, 0);
	}
	assert_bitmap_holds(img, now);
	assert_true(get(img, "old", is) && same(is, old));
	assert_true(get(img, "new", is) && same(is, now));
	assert_int_equal(image_snapshot_apply(img, &keys[0], NULL, NULL), 0);
	assert_true(get(img, NULL, is) && same(is, old));
	assert_bitmap_holds(img, now);
	/* Nobody has written what differs now. */
	assert_int_equal(bitmap_clear(img, "b", NULL), 0);
	assert_int_equal(image_snapshot_apply(img, &keys[1], NULL, NULL), 0);
	assert_true(get(img, NULL, is) && same(is, now));
	assert_bitmap_holds(img, old);
	assert_int_equal(image_close(img), 0);
	assert_usable(f, false);
	assert_qemu_agrees(f, false);
	knobs.no_apply_at_once = false;
	file_unref(f);
	free(w);
}

static void applied_at_once(void **state)
{
	(void)state;
	apply_beside_writers(true);
}

static void applied_beside(void **state)
{
	(void)state;
	apply_beside_writers(false);
}

/* ---- the image --------------------------------------------------------------- */

static int load(void)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/template", folder);
	template = calloc(1, 4 * MiB);
	now = malloc(GUEST);
	old = malloc(GUEST);
	f = fopen(path, "r");
	if (!template || !now || !old || !f)
		return -1;
	template_len = fread(template, 1, 4 * MiB, f);
	fclose(f);
	return 0;
}

static int setup(void **state)
{
	char command[1024];
	struct image *img;
	struct file *f;

	(void)state;
	if (system("qemu-io -V >/dev/null 2>&1") || !mkdtemp(folder))
		return -1;
	snprintf(command, sizeof(command), "cd %s && qemu-img create -q -f"
		 " qcow2 -o cluster_size=4k template 2M && qemu-io -c 'write"
		 " -P 1 0 30k' -c 'write -P 2 100k 20k' -c 'write -c -P 3 64k"
		 " 4k' template >/dev/null && qemu-img snapshot -c old template"
		 " && qemu-io -c 'write -P 5 8k 8k' -c 'write -z 200k 8k' -c"
		 " 'write -P 4 1M 10k' -c 'write -c -P 6 68k 4k' template"
		 " >/dev/null", folder);
	if (system(command) || load())
		return -1;
	f = disk_new();
	img = open_on(f, 0);
	file_unref(f);
	if (!get(img, NULL, now) || !get(img, "old", old))
		return -1;
	return image_close(img);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	free(template);
	free(now);
	free(old);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(power_create),
		cmocka_unit_test(power_delete),
		cmocka_unit_test(power_apply),
		cmocka_unit_test(power_apply_beside),
		cmocka_unit_test(power_rename),
		cmocka_unit_test(power_without_stages),
		cmocka_unit_test(cancelled_everywhere),
		cmocka_unit_test(third_race),
		cmocka_unit_test(third_race_without_epochs),
		cmocka_unit_test(owned_when_durable),
		cmocka_unit_test(no_stream_into_freed),
		cmocka_unit_test(resized_after_a_turn),
		cmocka_unit_test(writers_go_on),
		cmocka_unit_test(applied_at_once),
		cmocka_unit_test(applied_beside),
	};

	if (system("qemu-img --version >/dev/null 2>&1"))
		return 77;
	return cmocka_run_group_tests(tests, setup, teardown);
}
