/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec.h - encoded units: raw deflate and zstd as qcow2 stores them
 * (qcow2.md 5), zlib for grains and blocks.  Contexts are kept per thread.
 */
#ifndef BLOCKCORE_CODEC_H
#define BLOCKCORE_CODEC_H

#include "util.h"

struct codec {
	const char *name;
	/* Decodes until @out_len bytes are out; trailing input is ignored
	 * (rule 8: @in_len is an upper bound).  -EIO on bad input. */
	int (*decode)(const void *in, size_t in_len, void *out,
		      size_t out_len);
	/* Encodes into at most @out_cap bytes; *n = 0: does not fit. */
	int (*encode)(const void *in, size_t in_len, void *out,
		      size_t out_cap, size_t *n);
	/* The same at a level of 1 .. max_level; encode() has QEMU's.  0 and
	 * NULL: there are no levels. */
	int max_level;
	int (*encode_at)(int level, const void *in, size_t in_len, void *out,
			 size_t out_cap, size_t *n);
};

extern const struct codec codec_deflate;        /* raw, 4 KiB window */
extern const struct codec codec_zlib;           /* RFC 1950 */
extern const struct codec codec_zstd;
/* Decoders only; NULL: the library is not built in. */
extern const struct codec codec_adc;
extern const struct codec *const codec_bzip2, *const codec_lzma,
	*const codec_lzfse;

#ifdef HAVE_LIBISAL
/* codec-isal.c: level 1 of deflate, raw with a window of 4 KiB, or as zlib's
 * streams; as codec.encode(). */
int isal_encode(bool zlib, const void *in, size_t in_len, void *out,
		size_t out_cap, size_t *n);
#endif

/* Memory of the calling thread's contexts is freed when the thread ends. */

/* Are all @len bytes zero?  About memory speed. */
bool is_zero(const void *buf, size_t len);

/* Is deflate sure to make them no shorter?  About 1 GB/s; false: not known. */
bool is_noise(const void *buf, size_t len);

#endif
