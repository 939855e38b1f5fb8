/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util.h - what C lacks: integers at byte offsets, checked sums and products
 * (rule 14), rounding that does not assume powers of two (rule 10), and scope
 * guards.
 */
#ifndef BLOCKCORE_UTIL_H
#define BLOCKCORE_UTIL_H

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KiB (UINT64_C(1) << 10)
#define MiB (UINT64_C(1) << 20)
#define GiB (UINT64_C(1) << 30)
#define TiB (UINT64_C(1) << 40)

#define SECTOR_SIZE 512u

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))

#define printf_like(f, a) __attribute__((format(printf, f, a)))

/* ---- integers in byte arrays: no alignment needed ----------------------- */

static inline uint16_t be16_at(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return be16toh(v);
}

static inline uint32_t be32_at(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline uint64_t be64_at(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static inline uint16_t le16_at(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static inline uint32_t le32_at(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static inline uint64_t le64_at(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

static inline void be16_put(void *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void be32_put(void *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void be64_put(void *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

static inline void le32_put(void *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void le64_put(void *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

/* ---- checked arithmetic ------------------------------------------------- */

static inline bool mul_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
	return __builtin_mul_overflow(a, b, out);
}

static inline bool add_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
	return __builtin_add_overflow(a, b, out);
}

/* Is [off, off + len) inside [0, limit)?  Never wraps. */
static inline bool range_within(uint64_t off, uint64_t len, uint64_t limit)
{
	return len <= limit && off <= limit - len;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t div_up(uint64_t n, uint64_t d)
{
	return n / d + (n % d != 0);
}

static inline uint64_t round_down(uint64_t n, uint64_t unit)
{
	return n - n % unit;
}

/* The caller knows that the result fits (sizes are below 2^63). */
static inline uint64_t round_up(uint64_t n, uint64_t unit)
{
	return div_up(n, unit) * unit;
}

static inline bool is_pow2(uint64_t n)
{
	return n && !(n & (n - 1));
}

static inline unsigned log2_u64(uint64_t n)
{
	return 63u - (unsigned)__builtin_clzll(n);
}

/* ---- scope guards ------------------------------------------------------- */

static inline void autofree_fn(void *p)
{
	free(*(void **)p);
}

/* Of a clock that nobody sets. */
static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void autoclose_fn(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void unlock_fn(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *lock_fn(pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	return m;
}

#define autofree __attribute__((cleanup(autofree_fn)))
#define autoclose __attribute__((cleanup(autoclose_fn)))

#define GUARD_NAME2(line) guard_##line
#define GUARD_NAME(line) GUARD_NAME2(line)

/* Hold @m until the end of the enclosing block. */
#define with_lock(m) \
	__attribute__((cleanup(unlock_fn), unused)) \
	pthread_mutex_t *GUARD_NAME(__LINE__) = lock_fn(m)

#endif
