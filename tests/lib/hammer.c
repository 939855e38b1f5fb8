/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hammer.c - random requests at a file, compared with an array; see testfile.h.
 * Knows nothing about the file but that it is empty at the start, or zeroes that
 * do not grow.
 */
#include "testfile.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { ROOM = HAMMER_ROOM };

static unsigned char want[ROOM], got[ROOM];

const unsigned char *hammer_bytes(void)
{
	return want;
}

static uint32_t rnd(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x >> 16);
}

/* @buf in up to 90 ragged pieces. */
static int split(struct iovec *v, unsigned char *buf, size_t len)
{
	int n = 0;

	while (len) {
		size_t part = n < 89 ? rnd() % 700 : len;

		part = part > len ? len : part;
		v[n].iov_base = buf;
		v[n++].iov_len = part;
		buf += part;
		len -= part;
	}
	return n;
}

static void one_request(struct file *f, uint64_t *size)
{
	struct iovec v[90];
	size_t off = rnd() % (ROOM / 2), len = rnd() % 9000, i;
	int n = split(v, got, len);

	switch (rnd() % 4) {
	case 0:
		for (i = 0; i < len; i++)
			want[off + i] = got[i] = (unsigned char)rnd();
		assert_int_equal(file_writev(f, v, n, off), 0);
		break;
	case 1:
		memset(want + off, 0, len);
		assert_int_equal(file_zero(f, off, len, rnd() % 4), 0);
		break;
	default:
		memset(got, 0xaa, len);
		assert_int_equal(file_readv(f, v, n, off), 0);
		assert_memory_equal(got, want + off, len);
		return;
	}
	if (len)
		*size = max_u64(*size, off + len);
}

void hammer(struct file *f, unsigned rounds)
{
	uint64_t size, expected = 0;

	memset(want, 0, sizeof(want));
	while (rounds--) {
		one_request(f, &expected);
		assert_int_equal(file_size(f, &size), 0);
		if (f->traits.grows)
			assert_int_equal(size, expected);
	}
}
