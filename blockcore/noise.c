/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * noise.c - would deflate find anything in these bytes?  Encrypted, compressed
 * and random data keep an encoder busy eight times as long as this look, for
 * nothing.
 *
 * Two things would help it: bytes of which some come more often, and strings
 * that come again.  Of the first the chi-squared test knows, piece by piece, as
 * deflate's codes may change with the place; of the second a table of places of
 * every sixteenth string of eight bytes, which meets each string of 23 bytes
 * that lies in the last 128 KiB.
 *
 * Errs to "no": who is not sure encodes.
 */
#include "codec.h"

enum {
	PIECE = 16384,
	STEP = 16,
	PLACE_BITS = 13,
};

/* With 255 degrees of freedom noise exceeds 400 once in 10^8.  Up to this a code
 * of its own (about 90 bytes) costs a piece more than it saves. */
static bool is_even(const unsigned char *p, size_t len)
{
	uint32_t count[4][256] = {0};
	uint64_t squares = 0;

	for (size_t i = 0; i + 4 <= len; i += 4)
		for (unsigned lane = 0; lane < 4; lane++)
			count[lane][p[i + lane]]++;
	for (unsigned b = 0; b < 256; b++) {
		uint64_t n = (uint64_t)count[0][b] + count[1][b] +
			     count[2][b] + count[3][b];

		squares += n * n;
	}
	return squares * 256 / len <= len + 400 + len / 200;
}

static uint64_t eight_bytes(const unsigned char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static bool repeats(const unsigned char *p, size_t len)
{
	uint32_t place[1 << PLACE_BITS] = {0};  /* + 1 */

	for (size_t i = 0; i + 8 <= len; i++) {
		uint64_t v = eight_bytes(p + i);
		uint32_t *at = &place[v * UINT64_C(0x9e3779b97f4a7c15) >>
				      (64 - PLACE_BITS)];

		if (*at && eight_bytes(p + *at - 1) == v)
			return true;
		if (i % STEP == 0)
			*at = (uint32_t)i + 1;
	}
	return false;
}

bool is_noise(const void *buf, size_t len)
{
	const unsigned char *p = buf;

	if (len < PIECE || len > UINT32_MAX / 2)
		return false;
	for (size_t at = 0; at + PIECE <= len; at += PIECE) {
		size_t left = len - at;

		if (!is_even(p + at, left < 2 * PIECE ? left : PIECE))
			return false;
	}
	return !repeats(p, len);
}
