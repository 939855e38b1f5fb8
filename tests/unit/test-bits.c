/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-bits.c - the bits of a dirty bitmap against an array of bytes; many
 * threads at once; and what happens when there is no memory left for them.
 */
#include "bitmap.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define N 100003u       /* bits: some chunks, and not a whole one */

static uint64_t rnd(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return *state >> 33;
}

static void expect(const struct bits *b, const unsigned char *model, size_t n)
{
	uint64_t len, count = 0;

	for (uint64_t i = 0; i < n; i += len) {
		bool set;

		len = bits_next(b, i, UINT64_MAX, &set);
		assert_true(len > 0 && i + len <= n);
		for (uint64_t k = i; k < i + len; k++)
			assert_int_equal(model[k], set);
		if (i + len < n)        /* runs are as long as they can be */
			assert_int_not_equal(model[i + len], set);
		count += set ? len : 0;
	}
	assert_int_equal(bits_count(b), count);
}

static void mark(struct bits *b, unsigned char *model, uint64_t first,
		 uint64_t n)
{
	bits_set(b, first, n);
	for (uint64_t i = first; i < first + n && i < N; i++)
		model[i] = 1;
}

static void like_an_array(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct bits *b = bits_new(N);
		unsigned char *model = calloc(1, N);
		uint64_t s = seed;

		assert_non_null(b);
		for (int i = 0; i < 30; i++) {
			uint64_t first = rnd(&s) % N;
			uint64_t max = rnd(&s) % 4 ? 200 : 2 * N;

			mark(b, model, first, 1 + rnd(&s) % max);
		}
		expect(b, model, N);
		bits_free(b);
		free(model);
	}
}

static void ends(void **state)
{
	struct bits *b = bits_new(N);
	unsigned char *model = calloc(1, N);

	(void)state;
	expect(b, model, N);
	mark(b, model, N - 1, 5);
	mark(b, model, 0, 1);
	mark(b, model, 32767, 2);       /* across a chunk's end */
	expect(b, model, N);
	bits_set(b, N, 1);              /* nothing is there */
	bits_set(b, UINT64_MAX - 1, UINT64_MAX);
	expect(b, model, N);
	mark(b, model, 0, N);
	expect(b, model, N);
	bits_free(b);
	free(model);
}

/* Out as bytes in pieces, in again: the same bits. */
static void through_bytes(void **state)
{
	unsigned char bytes[512], *model = calloc(1, N);
	struct bits *b = bits_new(N), *copy = bits_new(N);
	uint64_t s = 7;

	(void)state;
	for (int i = 0; i < 500; i++)
		mark(b, model, rnd(&s) % N, 1 + rnd(&s) % 90);
	mark(b, model, 32768, 32768);   /* a whole chunk */
	for (uint64_t at = 0; at < N; at += sizeof(bytes) * 8) {
		bits_store(b, at, bytes, sizeof(bytes));
		for (uint64_t k = at; k < at + sizeof(bytes) * 8; k++)
			assert_int_equal(bytes[(k - at) / 8] >> k % 8 & 1,
					 k < N ? model[k] : 0);
		bits_load(copy, at, bytes, sizeof(bytes));
	}
	expect(copy, model, N);
	/* What a file has behind the last bit does not count. */
	memset(bytes, 0xff, sizeof(bytes));
	bits_load(copy, round_down(N, 64), bytes, sizeof(bytes));
	for (uint64_t k = round_down(N, 64); k < N; k++)
		model[k] = 1;
	expect(copy, model, N);
	bits_free(b);
	bits_free(copy);
	free(model);
}

/* From fine to coarse and back: what was dirty stays so. */
static void merge(void **state)
{
	uint64_t size = UINT64_C(1000003) * 512, s = 3;
	struct bits *fine = bits_new(div_up(size, 512));
	struct bits *coarse = bits_new(div_up(size, 65536));
	struct bits *back = bits_new(div_up(size, 512));
	unsigned char *model = calloc(1, div_up(size, 65536));
	unsigned char *wide = calloc(1, div_up(size, 512));

	(void)state;
	for (int i = 0; i < 200; i++) {
		uint64_t at = rnd(&s) % (size / 512);

		bits_set(fine, at, 1);
		model[at / 128] = 1;
	}
	bits_merge(coarse, 16, fine, 9);
	expect(coarse, model, div_up(size, 65536));
	bits_merge(back, 9, coarse, 16);
	for (uint64_t i = 0; i < div_up(size, 512); i++)
		wide[i] = model[i / 128];
	expect(back, wide, div_up(size, 512));
	bits_free(fine);
	bits_free(coarse);
	bits_free(back);
	free(model);
	free(wide);
}

static struct bits *shared;

static void *hammer(void *arg)
{
	uint64_t id = (uint64_t)(uintptr_t)arg;

	/* Neighbours in one word belong to different threads. */
	for (uint64_t i = id; i < N; i += 4)
		if (i % 3)
			bits_set(shared, i, 1);
	return NULL;
}

static void threads(void **state)
{
	unsigned char *model = calloc(1, N);
	pthread_t t[4];

	(void)state;
	shared = bits_new(N);
	for (uint64_t i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, hammer, (void *)(uintptr_t)i);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	for (uint64_t i = 0; i < N; i++)
		model[i] = i % 3 != 0;
	expect(shared, model, N);
	bits_free(shared);
	free(model);
}

/* Rule 13: beyond the bound whole chunks count as set. */
static void bound(void **state)
{
	uint64_t n = UINT64_C(32768) * 1000, missing = 0;
	struct bits *b;

	(void)state;
	cache_set_bound(1 * MiB);
	b = bits_new(n);
	assert_non_null(b);
	for (uint64_t i = 0; i < 1000; i++)
		bits_set(b, i * 32768 + 5, 1);
	for (uint64_t i = 0; i < 1000; i++) {
		bool set;

		bits_next(b, i * 32768 + 5, 1, &set);
		assert_true(set);
		bits_next(b, i * 32768 + 6, 1, &set);
		missing += set;
	}
	assert_in_range(missing, 1000 - 256, 1000 - 200);
	assert_null(bits_new(UINT64_C(1) << 40));
	bits_free(b);
	cache_set_bound(256 * MiB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(like_an_array),
		cmocka_unit_test(ends),
		cmocka_unit_test(through_bytes),
		cmocka_unit_test(merge),
		cmocka_unit_test(threads),
		cmocka_unit_test(bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
