/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sketch.c - unfolds the fuzzers' inputs (sketch.h), and changes them where it
 * matters: bytes and numbers inside of records, seldom the frame around them.
 */
#include "sketch.h"

#include <unistd.h>

enum { RECORD = 6 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
			       unsigned int seed);

/* ---- unfolding ----------------------------------------------------------- */

struct record {
	uint32_t offset;
	size_t at, n;           /* its bytes in the sketch */
};

/* The record at @pos; false: none.  *next: where the following one is. */
static bool record_at(const uint8_t *data, size_t size, size_t pos,
		      struct record *r, size_t *next)
{
	if (pos + RECORD >= size)
		return false;
	r->offset = le32_at(data + pos);
	r->at = pos + RECORD;
	r->n = min_u64(le16_at(data + pos + 4), size - r->at);
	*next = r->at + r->n;
	return true;
}

static void put(int fd, const uint8_t *bytes, size_t n, uint64_t at,
		uint64_t size)
{
	if (at < size && pwrite(fd, bytes, min_u64(n, size - at),
				(off_t)at) < 0)
		abort();
}

void sketch_unfold(const uint8_t *data, size_t size, int fd, int second,
		   bool *has_second)
{
	uint64_t len[2] = { 0, 0 };
	size_t pos = SKETCH_HEAD;
	struct record r;

	*has_second = false;
	if (size < SKETCH_HEAD)
		return;
	for (int i = 0; i < 2; i++)
		len[i] = min_u64(le32_at(data + 4 + 4 * i), SKETCH_MAX);
	*has_second = len[1] > 0;
	if (ftruncate(fd, (off_t)len[0]) || ftruncate(second, (off_t)len[1]))
		abort();
	while (record_at(data, size, pos, &r, &pos)) {
		bool other = r.offset & SKETCH_SECOND;

		put(other ? second : fd, data + r.at, r.n,
		    r.offset & ~SKETCH_SECOND, len[other]);
	}
}

/* ---- changing ------------------------------------------------------------ */

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

/* Any record, the later ones as likely as the first. */
static bool pick_record(const uint8_t *data, size_t size, uint32_t *rnd,
			struct record *r)
{
	size_t pos = SKETCH_HEAD, n = 0;
	struct record one;

	while (record_at(data, size, pos, &one, &pos))
		if (next_random(rnd) % ++n == 0)
			*r = one;
	return n > 0;
}

/* Numbers at which programs turn. */
static uint64_t turning_number(const uint8_t *data, uint32_t *rnd)
{
	static const uint64_t some[] = {
		0, 1, 2, 3, 4, 7, 8, 63, 64, 127, 128, 255, 256, 511, 512, 513,
		4095, 4096, 65535, 65536, 0x7fffffff, 0x80000000, 0xfffffffe,
		0xffffffff, 0x100000000, 0x7fffffffffffffff,
		0x8000000000000000, 0xffffffffffffffff,
	};
	uint64_t size = le32_at(data + 4);

	switch (next_random(rnd) % 6) {
	case 0: return size;
	case 1: return size / 512 + next_random(rnd) % 3 - 1;
	case 2: return next_random(rnd) % (size + 1);
	case 3: return UINT64_C(1) << next_random(rnd) % 64;
	default: return some[next_random(rnd) % ARRAY_SIZE(some)];
	}
}

static void put_number(uint8_t *p, uint64_t n, unsigned width, bool big)
{
	for (unsigned i = 0; i < width; i++)
		p[big ? width - 1 - i : i] = (uint8_t)(n >> 8 * i);
}

/* Is the highest byte the first one?  Now and then it is the other way round. */
static bool pick_order(uint32_t *rnd)
{
	static const char *const big[] = {
		"qcow", "qcow2", "vpc", "cloop", "dmg",
	};
	const char *format = getenv("FUZZ_FORMAT");
	bool other = next_random(rnd) % 8 == 0;

	for (size_t i = 0; format && i < ARRAY_SIZE(big); i++)
		if (!strcmp(format, big[i]))
			return !other;
	return other;
}

/* An aligned number of the record becomes another one, or nearly what it is. */
static void change_number(uint8_t *data, const struct record *r, uint32_t *rnd)
{
	unsigned width = 1u << next_random(rnd) % 4;
	bool big = pick_order(rnd);
	uint8_t *p = NULL;

	if (r->n < width)
		return;
	/* Most of an image is zero; what is not says something. */
	for (unsigned i = 0; i < 8 && (!p || !(*p | p[width - 1])); i++)
		p = data + r->at + next_random(rnd) % (r->n / width) * width;
	if (next_random(rnd) % 3 == 0)
		put_number(p, 0, width, big);
	else if (next_random(rnd) % 2)
		put_number(p, turning_number(data, rnd), width, big);
	else
		p[big ? width - 1 : 0] = (uint8_t)(p[big ? width - 1 : 0] +
					 next_random(rnd) % 5 - 2);
}

/* One byte over and over: a word without an end, a table of nothing. */
static void fill(uint8_t *data, const struct record *r, uint32_t *rnd)
{
	static const uint8_t bytes[] = { 0, 0xff, 1, 'a', '9', ' ', '"', '\n' };
	size_t at, n;

	if (!r->n)
		return;
	at = next_random(rnd) % r->n;
	n = min_u64(1u << next_random(rnd) % 9, r->n - at);
	memset(data + r->at + at, bytes[next_random(rnd) % sizeof(bytes)], n);
}

static void change_bytes(uint8_t *data, const struct record *r)
{
	uint8_t *p = data + r->at;

	if (r->n)
		LLVMFuzzerMutate(p, r->n, r->n);
}

/* Two places that only one may have. */
static void copy_within(uint8_t *data, size_t size, const struct record *to,
			uint32_t *rnd)
{
	struct record from = *to;
	size_t n = 4u << next_random(rnd) % 3;

	pick_record(data, size, rnd, &from);
	n = min_u64(n, min_u64(from.n, to->n));
	if (n)
		memmove(data + to->at + next_random(rnd) % (to->n / n) * n,
			data + from.at + next_random(rnd) % (from.n / n) * n,
			n);
}

static void change_frame(uint8_t *data, const struct record *r, uint32_t *rnd)
{
	uint64_t size = le32_at(data + 4);

	switch (next_random(rnd) % 4) {
	case 0: data[0] ^= (uint8_t)(SKETCH_MEND << next_random(rnd) % 2); break;
	case 1: data[1] = (uint8_t)next_random(rnd); break;
	case 2:
		le32_put(data + 4, (uint32_t)(next_random(rnd) & 1 ? size - 512 :
					      next_random(rnd) % (size + 4096)));
		break;
	default:
		le32_put(data + r->at - RECORD, (r->offset & SKETCH_SECOND) |
			 (uint32_t)(next_random(rnd) % (size + 1)));
	}
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
			       unsigned int seed)
{
	uint32_t rnd = seed;
	unsigned times = 1 + next_random(&rnd) % 4;
	struct record r;

	if (size < SKETCH_HEAD || data[0] & SKETCH_CREATE ||
	    next_random(&rnd) % 20 == 0)
		return LLVMFuzzerMutate(data, size, max_size);
	while (times-- && pick_record(data, size, &rnd, &r)) {
		unsigned how = next_random(&rnd) % 16;

		if (how < 8)
			change_number(data, &r, &rnd);
		else if (how < 12)
			change_bytes(data, &r);
		else if (how < 13)
			fill(data, &r, &rnd);
		else if (how < 15)
			copy_within(data, size, &r, &rnd);
		else
			change_frame(data, &r, &rnd);
	}
	return size;
}
