/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-races.c - the engine's rules as sequences of events: a trap stops a
 * request between map() and its bytes, meanwhile the mapping changes.  Where a
 * rule has an off-switch the same sequence must go wrong without it.
 */
#include "../lib/testfile.h"
#include "../lib/testfmt.h"
#include "bitmap.h"
#include "engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define UNIT TESTFMT_UNIT
#define NR_UNITS 200u

struct disk {
	struct file *f;         /* traps around a disk in memory */
	struct image *img;
};

struct call {
	pthread_t thread;
	struct image *img;
	uint64_t off;
	size_t len;
	int pattern, ret;
	_Atomic bool ended;
	unsigned char buf[UNIT];
};

static int disk_setup(void **state)
{
	struct power_args args = { .size = 0 };
	struct disk *d = calloc(1, sizeof(*d));

	memset(&knobs, 0, sizeof(knobs));
	d->f = trap_file_take(power_new(&args));
	if (testfmt_create(d->f, (uint64_t)NR_UNITS * UNIT))
		return -1;
	d->img = testfmt_open(d->f);
	*state = d;
	return 0;
}

static int disk_teardown(void **state)
{
	struct disk *d = *state;

	memset(&knobs, 0, sizeof(knobs));
	trap_clear(d->f);
	(void)image_close(d->img);
	file_unref(d->f);
	free(d);
	return 0;
}

/* As after a restart: nothing is cached. */
static void reopen(struct disk *d)
{
	assert_int_equal(image_close(d->img), 0);
	d->img = testfmt_open(d->f);
}

static uint64_t host_of(struct disk *d, unsigned unit)
{
	struct extent ext;

	assert_int_equal(image_map(&d->img->live, (uint64_t)unit * UNIT, UNIT,
				   &ext), 0);
	assert_int_equal(ext.kind, EXT_DATA);
	return ext.host;
}

static void fill(struct disk *d, unsigned unit, int pattern)
{
	unsigned char buf[UNIT];

	memset(buf, pattern, sizeof(buf));
	assert_int_equal(image_write(&d->img->live, buf, UNIT,
				     (uint64_t)unit * UNIT), 0);
}

/* Is every byte of [off, off + len) in the unit @pattern? */
static bool holds(struct disk *d, unsigned unit, size_t off, size_t len,
		  int pattern)
{
	unsigned char buf[UNIT];

	assert_int_equal(image_read(&d->img->live, buf, UNIT,
				    (uint64_t)unit * UNIT), 0);
	for (size_t i = off; i < off + len; i++)
		if (buf[i] != pattern)
			return false;
	return true;
}

static void *write_main(void *data)
{
	struct call *c = data;

	memset(c->buf, c->pattern, sizeof(c->buf));
	c->ret = image_write(&c->img->live, c->buf, c->len, c->off);
	atomic_store(&c->ended, true);
	return NULL;
}

static void *read_main(void *data)
{
	struct call *c = data;

	c->ret = image_read(&c->img->live, c->buf, c->len, c->off);
	atomic_store(&c->ended, true);
	return NULL;
}

static void *flush_main(void *data)
{
	struct call *c = data;

	c->ret = image_flush(c->img);
	atomic_store(&c->ended, true);
	return NULL;
}

static void *wait_main(void *data)
{
	struct call *c = data;

	image_wait_epochs(c->img);
	atomic_store(&c->ended, true);
	return NULL;
}

static struct call *start(struct disk *d, void *(*main)(void *),
			  uint64_t off, size_t len, int pattern)
{
	struct call *c = calloc(1, sizeof(*c));

	c->img = d->img;
	c->off = off;
	c->len = len;
	c->pattern = pattern;
	assert_int_equal(pthread_create(&c->thread, NULL, main, c), 0);
	return c;
}

static int finish(struct call *c)
{
	int ret;

	pthread_join(c->thread, NULL);
	ret = c->ret;
	free(c);
	return ret;
}

static struct trap *block(struct disk *d, enum test_op op, uint64_t off,
			  uint64_t len)
{
	struct trap_rule rule = {
		.op = op, .off = off, .len = len, .times = 1, .block = true,
	};

	return trap_add(d->f, &rule);
}

static void stays_waiting(struct call *c)
{
	usleep(100000);
	assert_false(atomic_load(&c->ended));
}

/* ---- rule 1 ----------------------------------------------------------------- */

/* An overwrite stands between map() and its bytes; its unit is discarded and
 * another one allocated.  Does the late write hit the other's bytes? */
static bool late_write_hits(struct disk *d)
{
	struct trap *t;
	struct call *c;

	fill(d, 0, 1);
	assert_int_equal(image_flush(d->img), 0);
	t = block(d, TEST_WRITE, host_of(d, 0), UNIT);
	c = start(d, write_main, 0, UNIT, 2);
	assert_true(trap_wait(t, 1));
	assert_int_equal(image_unmap(&d->img->live, 0, UNIT, UNMAP_ZERO), 0);
	assert_int_equal(image_flush(d->img), 0);
	fill(d, 1, 3);
	trap_release(t);
	assert_int_equal(finish(c), 0);
	return !holds(d, 1, 0, UNIT, 3);
}

static void late_write(void **state)
{
	assert_false(late_write_hits(*state));
}

static void late_write_without_epochs(void **state)
{
	knobs.no_epochs = true;
	assert_true(late_write_hits(*state));
}

/* The same with a read: does it return the other's bytes? */
static bool late_read_sees(struct disk *d)
{
	struct trap *t;
	struct call *c;
	bool seen;

	fill(d, 0, 1);
	assert_int_equal(image_flush(d->img), 0);
	t = block(d, TEST_READ, host_of(d, 0), UNIT);
	c = start(d, read_main, 0, UNIT, 0);
	assert_true(trap_wait(t, 1));
	assert_int_equal(image_unmap(&d->img->live, 0, UNIT, UNMAP_ZERO), 0);
	assert_int_equal(image_flush(d->img), 0);
	fill(d, 1, 3);
	trap_release(t);
	pthread_join(c->thread, NULL);
	assert_int_equal(c->ret, 0);
	seen = c->buf[0] == 3 || c->buf[UNIT - 1] == 3;
	free(c);
	return seen;
}

static void late_read(void **state)
{
	assert_false(late_read_sees(*state));
}

static void late_read_without_epochs(void **state)
{
	knobs.no_epochs = true;
	assert_true(late_read_sees(*state));
}

/* Space that was dropped is handed out after the next flush, not before. */
static void reuse_waits_for_flush(void **state)
{
	struct disk *d = *state;
	uint64_t host;

	fill(d, 0, 1);
	assert_int_equal(image_flush(d->img), 0);
	host = host_of(d, 0);
	assert_int_equal(image_unmap(&d->img->live, 0, UNIT, UNMAP_ZERO), 0);
	fill(d, 1, 2);
	assert_int_not_equal(host_of(d, 1), host);
	assert_int_equal(image_flush(d->img), 0);
	fill(d, 2, 3);
	assert_int_equal(host_of(d, 2), host);
}

/* ---- rule 2 ----------------------------------------------------------------- */

/* Two writers of one unit that has no place: is the second one's half lost? */
static bool second_half_lost(struct disk *d, bool claims)
{
	struct trap *t = block(d, TEST_WRITE, UNIT, UINT64_MAX / 2);
	struct call *a = start(d, write_main, 0, UNIT / 2, 1), *b;

	assert_true(trap_wait(t, 1));
	b = start(d, write_main, UNIT / 2, UNIT / 2, 2);
	if (claims)
		stays_waiting(b);
	else
		assert_int_equal(finish(b), 0);
	trap_release(t);
	assert_int_equal(finish(a), 0);
	if (claims)
		assert_int_equal(finish(b), 0);
	return !holds(d, 0, UNIT / 2, UNIT / 2, 2) ||
	       !holds(d, 0, 0, UNIT / 2, 1);
}

static void two_writers(void **state)
{
	assert_false(second_half_lost(*state, true));
}

static void two_writers_without_claims(void **state)
{
	knobs.no_claims = true;
	assert_true(second_half_lost(*state, false));
}

/* ---- rule 15 ---------------------------------------------------------------- */

static void shared_waits_for_writers(void **state)
{
	struct disk *d = *state;
	struct call *late, *instant;
	struct trap *t;
	uint64_t host;

	fill(d, 0, 1);
	host = host_of(d, 0);
	t = block(d, TEST_WRITE, host, UNIT);
	late = start(d, write_main, 0, UNIT, 2);
	assert_true(trap_wait(t, 1));
	testfmt_set_shared(d->img, true);
	instant = start(d, wait_main, 0, 0, 0);
	stays_waiting(instant);
	/* Who comes now writes elsewhere, and nobody waits for him. */
	fill(d, 0, 3);
	assert_int_not_equal(host_of(d, 0), host);
	assert_false(atomic_load(&instant->ended));
	trap_release(t);
	assert_int_equal(finish(late), 0);
	assert_int_equal(finish(instant), 0);
	assert_true(holds(d, 0, 0, UNIT, 3));
}

/* ---- dirty bitmaps ---------------------------------------------------------- */

static void *add_main(void *data)
{
	struct call *c = data;

	c->ret = bitmap_add(c->img, "b", UNIT, NULL);
	atomic_store(&c->ended, true);
	return NULL;
}

static void *clear_main(void *data)
{
	struct call *c = data;

	c->ret = bitmap_clear(c->img, "b", NULL);
	atomic_store(&c->ended, true);
	return NULL;
}

static bool is_dirty(struct disk *d, unsigned unit)
{
	uint64_t len;
	bool dirty;

	assert_int_equal(bitmap_run(d->img, "b", (uint64_t)unit * UNIT, &len,
				    &dirty, NULL), 0);
	return dirty;
}

/* Whoever adds or clears a bitmap has it when each write that the bitmap does
 * not know of is over; others go on meanwhile, and are known. */
static void waits_for(struct disk *d, unsigned unit, void *(*main)(void *))
{
	uint64_t end = UINT64_C(1) << 30;
	struct trap *t = block(d, TEST_WRITE, host_of(d, 1), end);
	struct call *late = start(d, write_main, (uint64_t)unit * UNIT, UNIT,
				  2);
	struct call *admin;

	assert_true(trap_wait(t, 1));
	admin = start(d, main, 0, 0, 0);
	stays_waiting(admin);
	fill(d, 1, 3);          /* in place, beside both */
	assert_false(atomic_load(&admin->ended));
	trap_release(t);
	assert_int_equal(finish(late), 0);
	assert_int_equal(finish(admin), 0);
	assert_true(is_dirty(d, 1));
	assert_false(is_dirty(d, unit));
	fill(d, unit, 4);
	assert_true(is_dirty(d, unit));
}

static void bitmap_waits_for_overwrites(void **state)
{
	fill(*state, 1, 1);
	fill(*state, 2, 1);
	waits_for(*state, 2, add_main);
	waits_for(*state, 2, clear_main);
}

static void bitmap_waits_for_new_units(void **state)
{
	fill(*state, 1, 1);
	waits_for(*state, 5, add_main);
}

/* ... and is set before the bytes are written. */
static void bit_comes_first(void **state)
{
	struct disk *d = *state;
	struct trap *t;
	struct call *late;

	fill(d, 1, 1);
	assert_int_equal(bitmap_add(d->img, "b", UNIT, NULL), 0);
	for (unsigned unit = 1; unit <= 7; unit += 6) {
		t = block(d, TEST_WRITE, host_of(d, 1), UINT64_C(1) << 30);
		assert_false(is_dirty(d, unit));
		late = start(d, write_main, (uint64_t)unit * UNIT, UNIT, 2);
		assert_true(trap_wait(t, 1));
		assert_true(is_dirty(d, unit));
		trap_release(t);
		assert_int_equal(finish(late), 0);
	}
	assert_false(is_dirty(d, 3));
	assert_int_equal(image_unmap(&d->img->live, 3 * UNIT, UNIT,
				     UNMAP_ZERO), 0);
	assert_true(is_dirty(d, 3));
}

/* ---- rule 18 ---------------------------------------------------------------- */

static void others_pass(void **state)
{
	enum { FAR = 192 };     /* its entry is on a page of its own */
	struct disk *d = *state;
	struct trap *read, *write, *load;
	struct call *c[3];

	for (unsigned i = 0; i < 60; i++)
		fill(d, i, 1);
	fill(d, FAR, 1);
	reopen(d);
	read = block(d, TEST_READ, host_of(d, 0), UNIT);
	write = block(d, TEST_WRITE, host_of(d, 1), UNIT);
	load = block(d, TEST_READ, 4096 + FAR * 8, 8);
	c[0] = start(d, read_main, 0, UNIT, 0);
	c[1] = start(d, write_main, UNIT, UNIT, 2);
	c[2] = start(d, read_main, (uint64_t)FAR * UNIT, UNIT, 0);
	assert_true(trap_wait(read, 1) && trap_wait(write, 1) &&
		    trap_wait(load, 1));
	for (unsigned i = 2; i < 52; i++) {
		assert_true(holds(d, i, 0, UNIT, 1));
		fill(d, i, 4);
	}
	for (int i = 0; i < 3; i++)
		assert_false(atomic_load(&c[i]->ended));
	trap_clear(d->f);
	for (int i = 0; i < 3; i++)
		assert_int_equal(finish(c[i]), 0);
	assert_true(holds(d, FAR, 0, UNIT, 1));
	assert_true(holds(d, 1, 0, UNIT, 2));
}

/* ---- rule 4: how many syncs, and where ---------------------------------------- */

static char *sequence(struct disk *d)
{
	autostrbuf out = STRBUF_INIT;
	struct trap_entry *log;
	size_t n = trap_log_take(d->f, &log);

	for (size_t i = 0; i < n; i++)
		if (log[i].op == TEST_SYNC)
			strbuf_puts(&out, "sync ");
		else if (log[i].op == TEST_WRITE)
			strbuf_puts(&out, log[i].off < UNIT ? "table " :
				    "data ");
	free(log);
	return strbuf_take(&out);
}

static void order_of_writes(void **state)
{
	struct disk *d = *state;
	char *seen;

	trap_log(d->f, true);
	fill(d, 0, 1);
	assert_int_equal(image_flush(d->img), 0);
	seen = sequence(d);
	assert_string_equal(seen, "data sync table sync ");
	free(seen);
	fill(d, 0, 2);
	assert_int_equal(image_flush(d->img), 0);
	seen = sequence(d);
	assert_string_equal(seen, "data sync ");
	free(seen);
	assert_int_equal(image_flush(d->img), 0);
	seen = sequence(d);
	assert_string_equal(seen, "");
	free(seen);
}

/* ---- rule 6 ------------------------------------------------------------------ */

static void full_host_is_tried_again(void **state)
{
	struct disk *d = *state;
	struct trap_rule full = {
		.op = TEST_WRITE, .off = 0, .len = UNIT, .error = -ENOSPC,
	};

	fill(d, 0, 1);
	trap_add(d->f, &full);
	assert_int_equal(image_flush(d->img), -ENOSPC);
	fill(d, 1, 2);          /* the mount goes on */
	assert_int_equal(image_flush(d->img), -ENOSPC);
	trap_clear(d->f);
	assert_int_equal(image_flush(d->img), 0);
	reopen(d);
	assert_true(holds(d, 0, 0, UNIT, 1) && holds(d, 1, 0, UNIT, 2));
}

static void full_host_meets_the_writer(void **state)
{
	struct disk *d = *state;
	unsigned char buf[UNIT] = { 1 };
	struct trap_rule full = {
		.op = TEST_WRITE, .off = UNIT, .len = INT64_MAX,
		.error = -ENOSPC,
	};

	fill(d, 0, 1);
	trap_add(d->f, &full);
	assert_int_equal(image_write(&d->img->live, buf, UNIT, UNIT), -ENOSPC);
	trap_clear(d->f);
	assert_true(holds(d, 1, 0, UNIT, 0));
	fill(d, 1, 2);
	reopen(d);
	assert_true(holds(d, 0, 0, UNIT, 1) && holds(d, 1, 0, UNIT, 2));
}

static void failed_sync_is_final(void **state)
{
	struct disk *d = *state;
	unsigned char buf[512] = { 0 };
	struct trap_rule bad = { .op = TEST_SYNC, .times = 1, .error = -EIO };

	fill(d, 0, 1);
	trap_add(d->f, &bad);
	assert_int_equal(image_flush(d->img), -EIO);
	assert_int_equal(image_flush(d->img), -EIO);
	assert_int_equal(image_write(&d->img->live, buf, 512, 0), -EIO);
	assert_int_equal(image_close(d->img), -EIO);
	d->img = testfmt_open(d->f);
}

/* A flush that waits behind one that fails must fail as well. */
static void queued_flush_fails_too(void **state)
{
	struct disk *d = *state;
	struct trap_rule bad = {
		.op = TEST_SYNC, .times = 1, .error = -EIO, .block = true,
	};
	struct call *first, *second;
	struct trap *t;

	fill(d, 0, 1);
	t = trap_add(d->f, &bad);
	first = start(d, flush_main, 0, 0, 0);
	assert_true(trap_wait(t, 1));
	second = start(d, flush_main, 0, 0, 0);
	stays_waiting(second);
	trap_release(t);
	assert_int_equal(finish(first), -EIO);
	assert_int_equal(finish(second), -EIO);
	(void)image_close(d->img);
	d->img = testfmt_open(d->f);
}

/* ---- rule 17 ----------------------------------------------------------------- */

/* A dirty page of metadata whose space becomes data: is it written over it? */
static bool stale_page_written(struct disk *d)
{
	unsigned char buf[512];
	struct mpage *pg;
	uint64_t host;

	fill(d, 0, 7);
	host = host_of(d, 0);
	assert_int_equal(meta_get_new(d->img, d->f, host, &pg), 0);
	change_begin(d->img);
	meta_wrlock(pg);
	meta_dirty(pg, STAGE_SPACE);
	meta_unlock(pg);
	change_end(d->img);
	meta_put(pg);
	meta_forget(d->img, d->f, host, 512);
	assert_int_equal(image_flush(d->img), 0);
	assert_int_equal(file_read(d->f, buf, sizeof(buf), host), 0);
	return buf[0] != 7;
}

static void forgotten_page(void **state)
{
	assert_false(stale_page_written(*state));
}

static void forgotten_page_without_rule(void **state)
{
	knobs.no_forget = true;
	assert_true(stale_page_written(*state));
}

/* ---- rule 13 ----------------------------------------------------------------- */

static void cache_is_bounded(void **state)
{
	struct disk *d = *state;

	cache_set_bound(MiB);
	for (unsigned i = 0; i < NR_UNITS; i++)
		fill(d, i, (int)i);
	for (unsigned i = 0; i < NR_UNITS; i++)
		assert_true(holds(d, i, 0, UNIT, (int)i));
	assert_true(cache_used() <= MiB + 64 * KiB);
	cache_set_bound(256 * MiB);
}

/* ---- pages in a row ------------------------------------------------------------ */

static int get_run(struct disk *d, uint64_t host, unsigned n)
{
	struct mpage *pg;
	int ret = meta_get_run(d->img, d->f, host, host + n * 512, &pg);

	if (ret)
		return ret;
	ret = *(unsigned char *)meta_bytes(pg);
	meta_put(pg);
	return ret;
}

/* Asking for one reads four at once; a bad sector is the error of its own page
 * only, and is asked for again. */
static void pages_in_a_row(void **state)
{
	struct disk *d = *state;
	struct trap_rule bad = { .op = TEST_READ, .len = 512, .error = -EIO };
	uint64_t host, before;

	fill(d, 0, 7);
	assert_int_equal(image_flush(d->img), 0);
	host = host_of(d, 0);
	before = trap_count(d->f, TEST_READ);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(get_run(d, host + i * 512, 4 - i), 7);
	assert_int_equal(trap_count(d->f, TEST_READ), before + 1);
	meta_forget(d->img, d->f, host, 2048);
	bad.off = host + 1024;
	(void)trap_add(d->f, &bad);
	assert_int_equal(get_run(d, host, 4), 7);
	assert_int_equal(get_run(d, host + 512, 1), 7);
	assert_int_equal(get_run(d, host + 1024, 1), -EIO);
	assert_int_equal(get_run(d, host + 1536, 1), 7);
	trap_clear(d->f);
	assert_int_equal(get_run(d, host + 1024, 1), 7);
	meta_forget(d->img, d->f, host, 2048);
}

int main(void)
{
#define RACE(name) cmocka_unit_test_setup_teardown(name, disk_setup, \
						   disk_teardown)
	const struct CMUnitTest tests[] = {
		RACE(late_write),
		RACE(late_write_without_epochs),
		RACE(late_read),
		RACE(late_read_without_epochs),
		RACE(reuse_waits_for_flush),
		RACE(two_writers),
		RACE(two_writers_without_claims),
		RACE(shared_waits_for_writers),
		RACE(bitmap_waits_for_overwrites),
		RACE(bitmap_waits_for_new_units),
		RACE(bit_comes_first),
		RACE(others_pass),
		RACE(order_of_writes),
		RACE(full_host_is_tried_again),
		RACE(full_host_meets_the_writer),
		RACE(failed_sync_is_final),
		RACE(queued_flush_fails_too),
		RACE(forgotten_page),
		RACE(forgotten_page_without_rule),
		RACE(cache_is_bounded),
		RACE(pages_in_a_row),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
