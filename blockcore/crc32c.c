/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* crc32c.c - a table for each of the eight bytes of a step. */
#include "crc32c.h"
#include "util.h"

#define POLY UINT32_C(0x82f63b78)

static uint32_t table[8][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c >> 1 ^ (c & 1 ? POLY : 0);
		table[0][i] = c;
	}
	for (unsigned k = 1; k < 8; k++)
		for (unsigned i = 0; i < 256; i++)
			table[k][i] = table[k - 1][i] >> 8 ^
				      table[0][table[k - 1][i] & 255];
}

static uint32_t step8(uint32_t crc, const unsigned char *p)
{
	uint64_t v = le64_at(p) ^ crc;

	crc = 0;
	for (unsigned k = 0; k < 8; k++)
		crc ^= table[7 - k][v >> 8 * k & 255];
	return crc;
}

uint32_t crc32c(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	pthread_once(&once, make);
	crc = ~crc;
	for (; len >= 8; len -= 8, p += 8)
		crc = step8(crc, p);
	while (len--)
		crc = crc >> 8 ^ table[0][(crc ^ *p++) & 255];
	return ~crc;
}
