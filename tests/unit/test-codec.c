/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-codec.c - deflate and zstd units against the libraries themselves:
 * what others make we read, what we make others read, rubbish is refused.
 */
#include "config.h"

#include "codec.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>

enum { UNIT = 65536, CAP = 2 * UNIT };

static unsigned char unit[UNIT], packed[CAP], back[UNIT];

/* Text-like bytes: repeated words with far-away repetitions. */
static void fill_unit(unsigned seed)
{
	uint32_t x = seed * 2654435761u + 1;
	size_t i;

	for (i = 0; i < UNIT; i++) {
		x = x * 1664525u + 1013904223u;
		unit[i] = (unsigned char)("etaoin shrdlu\n"[(x >> 24) % 14]);
	}
	memcpy(unit + UNIT - 4096, unit, 4096);
}

static void fill_random(void)
{
	uint32_t x = 12345;
	size_t i;

	for (i = 0; i < UNIT; i++) {
		x = x * 1664525u + 1013904223u;
		unit[i] = (unsigned char)(x >> 24);
	}
}

static size_t deflate_with(int bits, int level)
{
	z_stream z = { 0 };

	assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, bits, 9,
				      Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = unit;
	z.avail_in = UNIT;
	z.next_out = packed;
	z.avail_out = CAP;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return CAP - z.avail_out;
}

/* Every level can be read back; raw streams with a window of 4 KiB. */
static void levels(void **state)
{
	static const struct codec *const codecs[] = {
		&codec_deflate, &codec_zlib, &codec_zstd,
	};
	size_t n = 0;

	(void)state;
	fill_unit(3);
	for (size_t i = 0; i < 3; i++)
		for (int level = 1; level <= codecs[i]->max_level; level++) {
			memset(back, 0, UNIT);
			assert_int_equal(codecs[i]->encode_at(
				level, unit, UNIT, packed, UNIT - 1, &n), 0);
			assert_true(n > 0 && n < UNIT);
			assert_int_equal(codecs[i]->decode(packed, n, back,
							   UNIT), 0);
			assert_memory_equal(unit, back, UNIT);
		}
	fill_random();
	assert_int_equal(codec_deflate.encode_at(1, unit, UNIT, packed,
						 UNIT - 1, &n), 0);
	assert_int_equal(n, 0);
}

static void small_window(const unsigned char *in, size_t n)
{
	z_stream z = { 0 };
	int ret = Z_OK;

	memset(back, 0, UNIT);
	assert_int_equal(inflateInit2(&z, -12), Z_OK);
	z.next_in = (unsigned char *)in;
	z.avail_in = (uInt)n;
	for (size_t i = 0; i < UNIT && ret == Z_OK; i++) {
		z.next_out = back + i;
		z.avail_out = 1;
		ret = inflate(&z, Z_SYNC_FLUSH);
	}
	inflateEnd(&z);
	assert_memory_equal(unit, back, UNIT);
}

static void fast_streams_keep_to_the_window(void **state)
{
	size_t n = 0;

	(void)state;
	for (unsigned seed = 0; seed < 8; seed++) {
		fill_unit(seed);
		assert_int_equal(codec_deflate.encode_at(
			1, unit, UNIT, packed, UNIT - 1, &n), 0);
		small_window(packed, n);
	}
}

static void deflate_others_read_ours(void **state)
{
	z_stream z = { 0 };
	size_t n = 0;

	(void)state;
	fill_unit(1);
	assert_int_equal(codec_deflate.encode(unit, UNIT, packed, UNIT - 1,
					      &n), 0);
	assert_true(n > 0 && n < UNIT);
	/* Nothing but a 4 KiB window: fed by the byte, no history in out. */
	assert_int_equal(inflateInit2(&z, -12), Z_OK);
	z.next_in = packed;
	z.avail_in = (uInt)n;
	z.next_out = back;
	while (z.next_out < back + UNIT) {
		z.avail_out = 64;
		assert_true(inflate(&z, Z_NO_FLUSH) >= 0);
	}
	inflateEnd(&z);
	assert_memory_equal(unit, back, UNIT);
}

static void deflate_encodes_as_zlib_does(void **state)
{
	static unsigned char ours[CAP];
	size_t n = 0, i;

	(void)state;
	for (i = 0; i < 3; i++) {       /* the context is used again */
		fill_unit((unsigned)i);
		assert_int_equal(codec_deflate.encode(unit, UNIT, ours,
						      UNIT - 1, &n), 0);
		assert_int_equal(n, deflate_with(-12, -1));
		assert_memory_equal(ours, packed, n);
	}
}

static void deflate_reads_large_windows(void **state)
{
	size_t n;

	(void)state;
	fill_unit(2);
	n = deflate_with(-15, 9);
	assert_int_equal(codec_deflate.decode(packed, n, back, UNIT), 0);
	assert_memory_equal(unit, back, UNIT);
}

static void deflate_ignores_what_follows(void **state)
{
	size_t n;

	(void)state;
	fill_unit(3);
	n = deflate_with(-12, 6);
	memset(packed + n, 0xa5, 700);
	assert_int_equal(codec_deflate.decode(packed, n + 700, back, UNIT), 0);
	assert_memory_equal(unit, back, UNIT);
	/* ... also of a stream that goes on behind what we want. */
	assert_int_equal(codec_deflate.decode(packed, n, back, 1000), 0);
	assert_memory_equal(unit, back, 1000);
}

/* With a header and a checksum, which counts. */
static void zlib_goes_both_ways(void **state)
{
	uLongf len = UNIT;
	size_t n;

	(void)state;
	fill_unit(3);
	assert_int_equal(codec_zlib.encode(unit, UNIT, packed, UNIT, &n), 0);
	assert_int_equal(uncompress(back, &len, packed, n), Z_OK);
	assert_int_equal(len, UNIT);
	assert_memory_equal(unit, back, UNIT);
	n = deflate_with(15, 9);
	memset(back, 0, UNIT);
	assert_int_equal(codec_zlib.decode(packed, n, back, UNIT), 0);
	assert_memory_equal(unit, back, UNIT);
	packed[n - 1] ^= 1;
	assert_int_equal(codec_zlib.decode(packed, n, back, UNIT), -EIO);
}

static void deflate_refuses_rubbish(void **state)
{
	size_t n;

	(void)state;
	fill_unit(4);
	n = deflate_with(-12, 6);
	assert_int_equal(codec_deflate.decode(packed, n / 2, back, UNIT), -EIO);
	assert_int_equal(codec_deflate.decode(packed, 0, back, UNIT), -EIO);
	memset(packed, 0xff, n);
	assert_int_equal(codec_deflate.decode(packed, n, back, UNIT), -EIO);
	n = deflate_with(12, 6);        /* a zlib header in front */
	assert_int_equal(codec_deflate.decode(packed, n, back, UNIT), -EIO);
}

static void what_does_not_shrink_says_so(void **state)
{
	size_t n = 77;

	(void)state;
	fill_random();
	assert_int_equal(codec_deflate.encode(unit, UNIT, packed, UNIT - 1,
					      &n), 0);
	assert_int_equal(n, 0);
	n = 77;
	assert_int_equal(codec_zstd.encode(unit, UNIT, packed, UNIT - 1, &n),
			 0);
	assert_int_equal(n, 0);
}

static void zstd_both_ways(void **state)
{
	size_t n = 0;

	(void)state;
	fill_unit(5);
	assert_int_equal(codec_zstd.encode(unit, UNIT, packed, UNIT - 1, &n),
			 0);
	assert_int_equal(ZSTD_decompress(back, UNIT, packed, n), UNIT);
	assert_memory_equal(unit, back, UNIT);
	memset(back, 0, UNIT);
	memset(packed + n, 0x5a, 500);
	assert_int_equal(codec_zstd.decode(packed, n + 500, back, UNIT), 0);
	assert_memory_equal(unit, back, UNIT);
}

/* The unit as frames of UNIT / @parts bytes. */
static size_t zstd_frames(ZSTD_CCtx *c, size_t parts, bool streamed)
{
	size_t i, n = 0, len = UNIT / parts;

	for (i = 0; i < parts; i++) {
		ZSTD_inBuffer in = { unit + i * len, len, 0 };
		ZSTD_outBuffer out = { packed, CAP, n };

		if (streamed) {         /* no content size in the header */
			ZSTD_compressStream2(c, &out, &in, ZSTD_e_continue);
			while (ZSTD_compressStream2(c, &out, &in, ZSTD_e_end))
				;
			n = out.pos;
		} else {
			n += ZSTD_compress2(c, packed + n, CAP - n, in.src,
					    len);
		}
	}
	return n;
}

static void zstd_reads_what_others_make(void **state)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	size_t n, parts;
	int streamed;

	(void)state;
	fill_unit(6);
	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
	for (parts = 1; parts <= 4; parts *= 2)
		for (streamed = 0; streamed < 2; streamed++) {
			n = zstd_frames(c, parts, streamed);
			memset(packed + n, 1, 511);
			memset(back, 0, UNIT);
			assert_int_equal(codec_zstd.decode(packed, n + 511,
							   back, UNIT), 0);
			assert_memory_equal(unit, back, UNIT);
		}
	ZSTD_freeCCtx(c);
}

/* A header that asks for 2 GiB of window costs nothing. */
static void zstd_huge_window_takes_no_memory(void **state)
{
	static const unsigned char frame[] = {
		0x28, 0xb5, 0x2f, 0xfd,         /* magic */
		0x00, 21 << 3,                  /* no size; window 2^31 */
		0x03, 0x00, 0x08,               /* last, RLE, 65536 ... */
		'x',
	};
	size_t i;

	(void)state;
	assert_int_equal(codec_zstd.decode(frame, sizeof(frame), back, UNIT),
			 0);
	for (i = 0; i < UNIT; i++)
		assert_int_equal(back[i], 'x');
}

static void zstd_refuses_rubbish(void **state)
{
	size_t n = 0, i;

	(void)state;
	fill_unit(7);
	assert_int_equal(codec_zstd.encode(unit, UNIT, packed, UNIT, &n), 0);
	for (i = 0; i < n; i += 97)
		assert_int_equal(codec_zstd.decode(packed, i, back, UNIT),
				 -EIO);
	assert_int_equal(codec_zstd.decode(packed, n, back, UNIT - 1), -EIO);
	packed[0] ^= 1;
	assert_int_equal(codec_zstd.decode(packed, n, back, UNIT), -EIO);
}

static uint32_t next(uint32_t *x)
{
	*x = *x * 1664525u + 1013904223u;
	return *x >> 16;
}

/* Noise of which a part was spoilt: bytes that come again, a few bits that never
 * come, or text. */
static void spoil(unsigned char *p, size_t len, uint32_t *x)
{
	size_t n = next(x) % 4 ? next(x) % 200 : next(x) % 6000;
	size_t from = next(x) % (len - n), to = next(x) % (len - n);

	switch (next(x) % 4) {
	case 0:
		memmove(p + to, p + from, n);
		break;
	case 1:
		for (size_t i = 0; i < n; i++)
			p[to + i] &= 0x7f;
		break;
	case 2:
		memset(p + to, 'x', n / 8);
		break;
	default:
		break;
	}
}

static void noise_is_what_deflate_cannot_shorten(void **state)
{
	enum { LEN = 65536 };
	unsigned char *in = malloc(LEN), *out = malloc(2 * LEN);
	unsigned noisy = 0, shorter = 0;
	uint32_t x = 1;

	(void)state;
	memset(in, 0, LEN);
	assert_false(is_noise(in, 100));
	for (unsigned round = 0; round < 300; round++) {
		uLongf len = 2 * LEN;

		for (size_t i = 0; i < LEN; i++)
			in[i] = (unsigned char)next(&x);
		spoil(in, LEN, &x);
		assert_int_equal(compress2(out, &len, in, LEN, 9), Z_OK);
		noisy += is_noise(in, LEN);
		shorter += len < LEN;
		assert_false(is_noise(in, LEN) && len < LEN);
	}
	assert_true(noisy > 60 && shorter > 60);
	memcpy(in + 3 * LEN / 4, in, LEN / 4);
	assert_false(is_noise(in, LEN));
	memset(in, 0, LEN);
	assert_false(is_noise(in, LEN));
	free(in);
	free(out);
}

static void zeroes_at_every_place(void **state)
{
	static unsigned char buf[1200];
	size_t off, len, i;

	(void)state;
	for (off = 0; off < 40; off++)
		for (len = 0; len < 1100; len += 1 + len / 9) {
			memset(buf, 0xff, sizeof(buf));
			memset(buf + off, 0, len);
			assert_true(is_zero(buf + off, len));
			for (i = 0; i < len; i += 1 + len / 50) {
				buf[off + i] = 0x80;
				assert_false(is_zero(buf + off, len));
				buf[off + i] = 0;
			}
		}
}

static void *use_contexts(void *arg)
{
	unsigned char *out = malloc(2 * UNIT);
	size_t n = 0;

	(void)arg;
	if (!out || codec_deflate.encode(unit, UNIT, out, UNIT, &n) ||
	    codec_deflate.decode(out, n, out + UNIT, UNIT) ||
	    codec_zstd.encode(unit, UNIT, out, UNIT, &n) ||
	    codec_zstd.decode(out, n, out + UNIT, UNIT))
		return "failed";
	free(out);
	return NULL;
}

/* The sanitizers see whether a thread's contexts go with it. */
static void threads_bring_their_contexts(void **state)
{
	pthread_t t[4];
	void *ret;
	int i, round;

	(void)state;
	fill_unit(8);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < 4; i++)
			assert_int_equal(pthread_create(&t[i], NULL,
							use_contexts, NULL),
					 0);
		for (i = 0; i < 4; i++) {
			pthread_join(t[i], &ret);
			assert_null(ret);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(levels),
		cmocka_unit_test(fast_streams_keep_to_the_window),
		cmocka_unit_test(deflate_others_read_ours),
		cmocka_unit_test(deflate_encodes_as_zlib_does),
		cmocka_unit_test(deflate_reads_large_windows),
		cmocka_unit_test(deflate_ignores_what_follows),
		cmocka_unit_test(zlib_goes_both_ways),
		cmocka_unit_test(deflate_refuses_rubbish),
		cmocka_unit_test(what_does_not_shrink_says_so),
		cmocka_unit_test(zstd_both_ways),
		cmocka_unit_test(zstd_reads_what_others_make),
		cmocka_unit_test(zstd_huge_window_takes_no_memory),
		cmocka_unit_test(zstd_refuses_rubbish),
		cmocka_unit_test(noise_is_what_deflate_cannot_shorten),
		cmocka_unit_test(zeroes_at_every_place),
		cmocka_unit_test(threads_bring_their_contexts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
