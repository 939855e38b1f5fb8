/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bits.c - the bits of a dirty bitmap: set by many threads without a lock, kept
 * in chunks that exist only where something was set (bitmap.h).
 *
 * Refuses to know what a bit stands for.
 *
 * Rule 13: all bitmaps of the process share one bound.  Beyond it, or without
 * memory, a chunk that is missing becomes "all set": that takes no memory and
 * cannot fail, and says more than what happened, never less.
 */
#include "bitmap.h"
#include "engine-int.h"

#define CHUNK_WORDS 512u
#define CHUNK_BITS (CHUNK_WORDS * 64u)

struct chunk {
	_Atomic uint64_t word[CHUNK_WORDS];
};

struct bits {
	uint64_t n;
	uint64_t nr_chunks;
	struct chunk *_Atomic chunk[];  /* NULL: nothing is set; &full */
};

static struct chunk full;               /* its address is all that counts */
static _Atomic uint64_t used;           /* bytes, of all bitmaps */

/* ---- memory --------------------------------------------------------------- */

static bool account(uint64_t bytes)
{
	if (atomic_fetch_add(&used, bytes) + bytes <= cache_bound())
		return true;
	atomic_fetch_sub(&used, bytes);
	return false;
}

static uint64_t bits_bytes(uint64_t chunks)
{
	return sizeof(struct bits) + chunks * sizeof(struct chunk *);
}

struct bits *bits_new(uint64_t n)
{
	uint64_t chunks = div_up(n, CHUNK_BITS), bytes = bits_bytes(chunks);
	struct bits *b;

	if (!account(bytes))
		return NULL;
	b = calloc(1, bytes);
	if (!b) {
		atomic_fetch_sub(&used, bytes);
		return NULL;
	}
	b->n = n;
	b->nr_chunks = chunks;
	return b;
}

void bits_free(struct bits *b)
{
	if (!b)
		return;
	for (uint64_t i = 0; i < b->nr_chunks; i++) {
		struct chunk *c = atomic_load(&b->chunk[i]);

		if (!c || c == &full)
			continue;
		free(c);
		atomic_fetch_sub(&used, sizeof(*c));
	}
	atomic_fetch_sub(&used, bits_bytes(b->nr_chunks));
	free(b);
}

uint64_t bits_number(const struct bits *b)
{
	return b->n;
}

/* The chunk @i, made if need be. */
static struct chunk *chunk_get(struct bits *b, uint64_t i)
{
	struct chunk *c = atomic_load_explicit(&b->chunk[i],
					       memory_order_acquire);
	struct chunk *made = NULL;

	if (c)
		return c;
	if (account(sizeof(*made))) {
		made = calloc(1, sizeof(*made));
		if (!made)
			atomic_fetch_sub(&used, sizeof(*made));
	}
	if (atomic_compare_exchange_strong(&b->chunk[i], &c,
					   made ? made : &full))
		return made ? made : &full;
	if (made) {
		free(made);
		atomic_fetch_sub(&used, sizeof(*made));
	}
	return c;
}

/* ---- setting -------------------------------------------------------------- */

static void word_set(struct chunk *c, unsigned i, uint64_t mask)
{
	uint64_t old = atomic_load_explicit(&c->word[i], memory_order_relaxed);

	/* Most writes go where others went: nothing to write then. */
	if ((old & mask) != mask)
		atomic_fetch_or(&c->word[i], mask);
}

/* Bits [@first, @end) of a chunk. */
static void chunk_set(struct chunk *c, unsigned first, unsigned end)
{
	while (first < end) {
		unsigned in = first % 64, n = 64 - in;
		uint64_t mask;

		if (n > end - first)
			n = end - first;
		mask = n == 64 ? UINT64_MAX : ((UINT64_C(1) << n) - 1) << in;
		word_set(c, first / 64, mask);
		first += n;
	}
}

/* Without making it if all of it is meant. */
static bool chunk_fill(struct bits *b, uint64_t i)
{
	struct chunk *none = NULL;

	return atomic_compare_exchange_strong(&b->chunk[i], &none, &full) ||
	       none == &full;
}

void bits_set(struct bits *b, uint64_t first, uint64_t n)
{
	uint64_t end = first < b->n ? first + min_u64(n, b->n - first) : first;

	while (first < end) {
		uint64_t i = first / CHUNK_BITS, base = i * CHUNK_BITS;
		uint64_t stop = min_u64(end, base + CHUNK_BITS);
		struct chunk *c;

		if (first > base || stop < min_u64(base + CHUNK_BITS, b->n) ||
		    !chunk_fill(b, i)) {
			c = chunk_get(b, i);
			if (c != &full)
				chunk_set(c, (unsigned)(first - base),
					  (unsigned)(stop - base));
		}
		first = stop;
	}
}

/* ---- looking -------------------------------------------------------------- */

/* 64 bits from @first on (a multiple of 64), what is behind the end as 0. */
static uint64_t word_at(const struct bits *b, uint64_t first)
{
	const struct chunk *c;
	uint64_t w;

	if (first >= b->n)
		return 0;
	c = atomic_load_explicit(&b->chunk[first / CHUNK_BITS],
				 memory_order_acquire);
	if (!c)
		return 0;
	w = c == &full ? UINT64_MAX :
	    atomic_load(&c->word[first % CHUNK_BITS / 64]);
	return b->n - first < 64 ? w & ((UINT64_C(1) << (b->n - first)) - 1) :
				   w;
}

/* Is the chunk of @i all one or the other? */
static bool chunk_plain(const struct bits *b, uint64_t i, bool *set)
{
	const struct chunk *c = atomic_load_explicit(&b->chunk[i],
						     memory_order_acquire);

	*set = c == &full;
	return !c || c == &full;
}

/* How many of the bits of @w from bit @in on are as bit @in. */
static unsigned alike(uint64_t w, unsigned in)
{
	uint64_t rest = w >> in;
	uint64_t other = rest & 1 ? ~rest : rest;
	unsigned n = other ? (unsigned)__builtin_ctzll(other) : 64;

	return n < 64 - in ? n : 64 - in;
}

uint64_t bits_next(const struct bits *b, uint64_t first, uint64_t max,
		   bool *set)
{
	uint64_t i = first, end = first + min_u64(max, b->n - first);
	bool want = word_at(b, round_down(first, 64)) >> first % 64 & 1, plain;

	while (i < end) {
		uint64_t w, n;

		if (chunk_plain(b, i / CHUNK_BITS, &plain)) {
			if (plain != want)
				break;
			i = (i / CHUNK_BITS + 1) * CHUNK_BITS;
			continue;
		}
		w = word_at(b, round_down(i, 64));
		if ((w >> i % 64 & 1) != want)
			break;
		n = alike(w, i % 64);
		i += n;
		if (i % 64)
			break;
	}
	*set = want;
	return min_u64(i, end) - first;
}

uint64_t bits_count(const struct bits *b)
{
	uint64_t n = 0, len;

	for (uint64_t i = 0; i < b->n; i += len) {
		bool set;

		len = bits_next(b, i, UINT64_MAX, &set);
		n += set ? len : 0;
	}
	return n;
}

/* ---- bytes ---------------------------------------------------------------- */

void bits_store(const struct bits *b, uint64_t first, unsigned char *bytes,
		size_t len)
{
	for (size_t at = 0; at < len; at += 8) {
		unsigned char word[8];

		le64_put(word, word_at(b, first + 8 * at));
		memcpy(bytes + at, word, min_u64(8, len - at));
	}
}

void bits_load(struct bits *b, uint64_t first, const unsigned char *bytes,
	       size_t len)
{
	for (size_t at = 0; at < len && first + 8 * at < b->n; at += 8) {
		uint64_t bit = first + 8 * at, w;
		unsigned char word[8] = { 0 };
		struct chunk *c;

		memcpy(word, bytes + at, min_u64(8, len - at));
		w = le64_at(word);
		if (!w)
			continue;
		c = chunk_get(b, bit / CHUNK_BITS);
		if (c != &full)
			word_set(c, bit % CHUNK_BITS / 64, w);
	}
}

/* ---- merging -------------------------------------------------------------- */

/* A run of source bits as bytes of the disk; the last bit may stick out of what
 * 64 bits can say. */
static void merge_run(struct bits *to, unsigned to_shift, uint64_t first,
		      uint64_t n, unsigned from_shift)
{
	uint64_t off = first << from_shift, end;
	uint64_t bit = off >> to_shift;

	if (mul_overflows(first + n, UINT64_C(1) << from_shift, &end))
		end = UINT64_MAX;
	bits_set(to, bit, ((end - 1) >> to_shift) + 1 - bit);
}

void bits_merge(struct bits *to, unsigned to_shift, const struct bits *from,
		unsigned from_shift)
{
	uint64_t n;

	for (uint64_t i = 0; i < from->n; i += n) {
		bool set;

		n = bits_next(from, i, UINT64_MAX, &set);
		if (set)
			merge_run(to, to_shift, i, n, from_shift);
	}
}
