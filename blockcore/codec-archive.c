/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec-archive.c - what only old images are packed with (dmg.md): bzip2, xz,
 * LZFSE, where the libraries are built in, and Apple's ADC.  Decoders only.
 */
#include "config.h"

#include "codec.h"

/* ---- ADC: runs of bytes, and copies of what is out already ----------------- */

/* Copies may overlap what they make. */
static int adc_copy(unsigned char *out, size_t at, size_t back, size_t n,
		    size_t out_len)
{
	if (back >= at || n > out_len - at)
		return -EIO;
	for (; n; n--, at++)
		out[at] = out[at - back - 1];
	return 0;
}

static int adc_decode(const void *in, size_t in_len, void *out, size_t out_len)
{
	const unsigned char *p = in, *end = p + in_len;
	unsigned char *o = out;
	size_t at = 0;

	while (at < out_len && p < end) {
		unsigned char b = *p++;
		size_t n, back;

		if (b & 0x80) {
			n = (b & 0x7fu) + 1;
			if (n > (size_t)(end - p) || n > out_len - at)
				return -EIO;
			memcpy(o + at, p, n);
			p += n;
			at += n;
			continue;
		}
		if (end - p < (b & 0x40 ? 2 : 1))
			return -EIO;
		n = b & 0x40 ? (b & 0x3fu) + 4 : (b >> 2 & 0xfu) + 3;
		back = b & 0x40 ? be16_at(p) : (b & 3u) << 8 | *p;
		p += b & 0x40 ? 2 : 1;
		if (adc_copy(o, at, back, n, out_len))
			return -EIO;
		at += n;
	}
	return at == out_len ? 0 : -EIO;
}

const struct codec codec_adc = {
	.name = "adc",
	.decode = adc_decode,
};

/* ---- bzip2 ----------------------------------------------------------------- */

#ifdef HAVE_BZIP2
#include <bzlib.h>

static int bzip2_decode(const void *in, size_t in_len, void *out,
			size_t out_len)
{
	unsigned n = (unsigned)out_len;
	int ret;

	if (in_len > UINT32_MAX || out_len > UINT32_MAX)
		return -EINVAL;
	ret = BZ2_bzBuffToBuffDecompress(out, &n, (char *)in,
					 (unsigned)in_len, 0, 0);
	if (ret == BZ_MEM_ERROR)
		return -ENOMEM;
	return (ret == BZ_OK || ret == BZ_OUTBUFF_FULL) && n == out_len ? 0 :
									  -EIO;
}

static const struct codec bzip2 = {
	.name = "bzip2",
	.decode = bzip2_decode,
};
const struct codec *const codec_bzip2 = &bzip2;
#else
const struct codec *const codec_bzip2 = NULL;
#endif

/* ---- xz -------------------------------------------------------------------- */

#ifdef HAVE_LZMA
#include <lzma.h>

#define LZMA_MEMORY (UINT64_C(256) << 20)

static int lzma_unpack(const void *in, size_t in_len, void *out,
		       size_t out_len)
{
	uint64_t memory = LZMA_MEMORY;
	size_t used = 0, n = 0;
	lzma_ret ret = lzma_stream_buffer_decode(&memory, 0, NULL, in, &used,
						 in_len, out, &n, out_len);

	if (ret == LZMA_MEM_ERROR || ret == LZMA_MEMLIMIT_ERROR)
		return -ENOMEM;
	return ret == LZMA_OK && n == out_len ? 0 : -EIO;
}

static const struct codec xz = {
	.name = "lzma",
	.decode = lzma_unpack,
};
const struct codec *const codec_lzma = &xz;
#else
const struct codec *const codec_lzma = NULL;
#endif

/* ---- LZFSE ----------------------------------------------------------------- */

#ifdef HAVE_LZFSE
#include <lzfse.h>

/* The library takes a block that ends too early for one of full length, and
 * leaves what was in the buffer in the rest of it.  Hence that is words which no
 * image has, each at its place. */
static uint64_t word_at(size_t i)
{
	uint64_t x = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);

	return (x ^ x >> 31) * UINT64_C(0xbf58476d1ce4e5b9);
}

static void fill_words(unsigned char *out, size_t len)
{
	uint64_t word;

	for (size_t i = 0; i < len; i += sizeof(word)) {
		word = word_at(i);
		memcpy(out + i, &word, min_u64(sizeof(word), len - i));
	}
}

static bool has_word(const unsigned char *out, size_t len)
{
	uint64_t word;

	for (size_t i = 0; i + sizeof(word) <= len; i += sizeof(word)) {
		memcpy(&word, out + i, sizeof(word));
		if (word == word_at(i))
			return true;
	}
	return false;
}

static int lzfse_unpack(const void *in, size_t in_len, void *out,
			size_t out_len)
{
	size_t n;

	fill_words(out, out_len);
	n = lzfse_decode_buffer(out, out_len, in, in_len, NULL);
	return n == out_len && !has_word(out, out_len) ? 0 : -EIO;
}

static const struct codec lzfse = {
	.name = "lzfse",
	.decode = lzfse_unpack,
};
const struct codec *const codec_lzfse = &lzfse;
#else
const struct codec *const codec_lzfse = NULL;
#endif
