/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-dmg.c - chunks of 64 MiB: many readers who meet in one decode it once;
 * random reads over several of them decode each once, with the cache as it is
 * without options; what is being decoded counts, and pages of metadata take
 * their share back.  The image is made by tests/mkdmg.py.
 */
#include "config.h"

#include "engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { READERS = 8, CHUNKS = 3 };

#define CHUNK (64 * MiB)

static char folder[] = "/tmp/imgfs-test-dmg.XXXXXX";
static struct image *img;
static _Atomic unsigned loads, ready;

/* Each 8 bytes of the disk hold their number. */
static void assert_reads(uint64_t off)
{
	unsigned char buf[4096];

	assert_int_equal(image_read(&img->live, buf, sizeof(buf), off), 0);
	for (unsigned i = 0; i < sizeof(buf); i += 8)
		assert_int_equal(le64_at(buf + i), (off + i) / 8 % 65536);
}

/* Whoever decodes waits until all readers are on their way. */
static void count_load(const char *name)
{
	if (strcmp(name, "unit:load"))
		return;
	atomic_fetch_add(&loads, 1);
	while (atomic_load(&ready) < READERS)
		sched_yield();
}

static void *reader(void *data)
{
	uint64_t off = (uintptr_t)data;

	atomic_fetch_add(&ready, 1);
	assert_reads(off);
	return NULL;
}

static void many_readers_decode_once(void **state)
{
	pthread_t t[READERS];

	(void)state;
	pause_set(count_load);
	for (uintptr_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader,
				 (void *)(i * 8 * MiB + 4096)), 0);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(t[i], NULL);
	pause_set(NULL);
	assert_int_equal(atomic_load(&loads), 1);
}

static void random_reads_decode_once(void **state)
{
	uint64_t x = 88172645463325252u;

	(void)state;
	atomic_store(&loads, 0);
	atomic_store(&ready, READERS);
	pause_set(count_load);
	for (unsigned i = 0; i < 3000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		assert_reads(x % (CHUNKS * CHUNK / 4096) * 4096);
	}
	pause_set(NULL);
	/* The first one is there already. */
	assert_int_equal(atomic_load(&loads), CHUNKS - 1);
}

/* ---- the bound ------------------------------------------------------------ */

static _Atomic uint64_t most;

static void note_most(const char *name)
{
	uint64_t used = cache_used(), was = atomic_load(&most);

	if (strcmp(name, "unit:load"))
		return;
	while (used > was && !atomic_compare_exchange_weak(&most, &was, used))
		;
	while (atomic_load(&ready) < CHUNKS)
		sched_yield();
}

/* As many readers as there are chunks, and what they have had at most. */
static uint64_t most_used(uint64_t bound)
{
	pthread_t t[CHUNKS];

	cache_set_bound(MiB);           /* no chunk is left */
	cache_set_bound(bound);
	atomic_store(&ready, 0);
	atomic_store(&most, 0);
	pause_set(note_most);
	for (uintptr_t i = 0; i < CHUNKS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader,
				 (void *)(i * CHUNK + 4096)), 0);
	for (unsigned i = 0; i < CHUNKS; i++)
		pthread_join(t[i], NULL);
	pause_set(NULL);
	return atomic_load(&most);
}

static void loads_keep_the_bound(void **state)
{
	(void)state;
	assert_true(most_used(100 * MiB) <= 100 * MiB);
	assert_true(most_used(MiB) <= 2 * CHUNK);
}

static void pages_take_their_share_back(void **state)
{
	struct mpage *pg;

	(void)state;
	cache_set_bound(100 * MiB);
	assert_reads(0);
	assert_reads(CHUNK);
	for (uint64_t at = 0; at < 40 * MiB; at += img->page) {
		assert_int_equal(meta_get_new(img, img->file, at, &pg), 0);
		meta_put(pg);
		assert_true(cache_used() <= 100 * MiB);
	}
	assert_reads(CHUNK);
}

static void nothing_is_kept_of_a_closed_image(void **state)
{
	(void)state;
	assert_true(cache_used() >= CHUNK);
	image_close(img);
	img = NULL;
	assert_int_equal(cache_used(), 0);
}

/* -------------------------------------------------------------------------- */

static int setup(void **state)
{
	const char *source = getenv("top_srcdir");
	autoerr err = ERR_INIT;
	char command[1024], path[128];

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/a.dmg", folder);
	snprintf(command, sizeof(command), "PYTHONPATH=%s/tests python3 -c '"
		 "import mkdmg, struct, zlib\n"
		 "d = b\"\".join(struct.pack(\"<Q\", i) for i in range(65536))\n"
		 "z = zlib.compress(d * 128, 1)\n"
		 "n = 131072\n"
		 "c = [(mkdmg.ZLIB, i * n, n, z) for i in range(%d)]\n"
		 "mkdmg.make(\"%s\", [(0, %d * n, c)], %d * n, crc=False)'",
		 source ? source : ".", CHUNKS, path, CHUNKS, CHUNKS);
	if (system(command))
		return -1;
	return image_open_name(path, false, "dmg", IMAGE_NO_LOCK,
			       CACHE_WRITEBACK, &img, &err);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	image_close(img);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_readers_decode_once),
		cmocka_unit_test(random_reads_decode_once),
		cmocka_unit_test(loads_keep_the_bound),
		cmocka_unit_test(pages_take_their_share_back),
		cmocka_unit_test(nothing_is_kept_of_a_closed_image),
	};

	if (system("python3 -c pass 2>/dev/null"))
		return 77;
	return cmocka_run_group_tests(tests, setup, teardown);
}
