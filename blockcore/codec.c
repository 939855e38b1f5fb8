/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec.c - deflate, raw or with zlib's header and checksum (RFC 1950), and the
 * question whether bytes are all zero.
 *
 * Knows zlib and libdeflate, and that qcow2 wants raw streams that need no more
 * than 4 KiB of window (qcow2.md 5).  Knows no format, no file and no lock: a
 * codec gets bytes and gives bytes.  What it decodes is an attacker's (rule
 * 14): nothing is believed but the length that the caller asks for.
 */
#include "config.h"

#include "codec.h"

#include <zlib.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

/*
 * 12 bits of window: small-window readers exist.  With these four numbers a
 * stream is QEMU's bit for bit.  libdeflate cannot keep to such a window; where
 * 32 KiB are allowed (ZLIB) it is three times as fast, and as dense.  Inflating
 * in one call needs no window of its own (the output is the history), so streams
 * made with 32 KiB decode too.
 */
enum wrap { RAW, ZLIB, NR_WRAPS };

static const struct {
	int window_bits, mem_level;
} params[NR_WRAPS] = {
	[RAW] = {-12, 9},
	[ZLIB] = {15, 8},
};

/* One per thread, made when first needed. */
struct deflate_ctx {
	z_stream enc[NR_WRAPS], dec[NR_WRAPS];
	bool has_enc[NR_WRAPS], has_dec[NR_WRAPS];
	int level[NR_WRAPS];    /* of enc */
#ifdef HAVE_LIBDEFLATE
	struct libdeflate_decompressor *fast;
	struct libdeflate_compressor *fast_enc, *stored_enc;
#endif
};

enum { FAST_LEVEL = 5 };        /* of libdeflate: as dense as zlib's 6 */

static pthread_key_t ctx_key;
static pthread_once_t ctx_once = PTHREAD_ONCE_INIT;
static int ctx_key_error;

static void ctx_free(void *p)
{
	struct deflate_ctx *c = p;

	for (int w = 0; w < NR_WRAPS; w++) {
		if (c->has_enc[w])
			deflateEnd(&c->enc[w]);
		if (c->has_dec[w])
			inflateEnd(&c->dec[w]);
	}
#ifdef HAVE_LIBDEFLATE
	libdeflate_free_decompressor(c->fast);
	libdeflate_free_compressor(c->fast_enc);
	libdeflate_free_compressor(c->stored_enc);
#endif
	free(c);
}

static void ctx_make_key(void)
{
	ctx_key_error = pthread_key_create(&ctx_key, ctx_free);
}

/* The calling thread's contexts, or NULL when memory is out. */
static struct deflate_ctx *ctx_get(void)
{
	struct deflate_ctx *c;

	pthread_once(&ctx_once, ctx_make_key);
	if (ctx_key_error)
		return NULL;
	c = pthread_getspecific(ctx_key);
	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (c && pthread_setspecific(ctx_key, c)) {
		free(c);
		return NULL;
	}
	return c;
}

static z_stream *ctx_encoder(struct deflate_ctx *c, enum wrap w, int level)
{
	z_stream *z = &c->enc[w];

	if (c->has_enc[w] && c->level[w] == level)
		return deflateReset(z) == Z_OK ? z : NULL;
	if (c->has_enc[w])
		deflateEnd(z);
	c->level[w] = level;
	c->has_enc[w] = deflateInit2(z, level, Z_DEFLATED,
				     params[w].window_bits, params[w].mem_level,
				     Z_DEFAULT_STRATEGY) == Z_OK;
	return c->has_enc[w] ? z : NULL;
}

static z_stream *ctx_decoder(struct deflate_ctx *c, enum wrap w)
{
	z_stream *z = &c->dec[w];

	if (c->has_dec[w])
		return inflateReset(z) == Z_OK ? z : NULL;
	c->has_dec[w] = inflateInit2(z, params[w].window_bits) == Z_OK;
	return c->has_dec[w] ? z : NULL;
}

static bool fits_zlib(size_t in_len, size_t out_len)
{
	return in_len <= UINT32_MAX && out_len <= UINT32_MAX;
}

/* True when the whole output came out; false says nothing: zlib judges. */
static bool decode_fast(struct deflate_ctx *c, enum wrap w, const void *in,
			size_t in_len, void *out, size_t out_len)
{
#ifdef HAVE_LIBDEFLATE
	enum libdeflate_result res;
	size_t used, got = 0;

	if (!c->fast)
		c->fast = libdeflate_alloc_decompressor();
	if (!c->fast)
		return false;
	res = (w == RAW ? libdeflate_deflate_decompress_ex
			: libdeflate_zlib_decompress_ex)(
		c->fast, in, in_len, out, out_len, &used, &got);
	return res == LIBDEFLATE_SUCCESS && got == out_len;
#else
	(void)c;
	(void)w;
	(void)in;
	(void)in_len;
	(void)out;
	(void)out_len;
	return false;
#endif
}

static int decode(enum wrap w, const void *in, size_t in_len, void *out,
		  size_t out_len)
{
	struct deflate_ctx *c = ctx_get();
	z_stream *z;
	int ret;

	if (!fits_zlib(in_len, out_len))
		return -EINVAL;
	if (!c)
		return -ENOMEM;
	if (decode_fast(c, w, in, in_len, out, out_len))
		return 0;
	z = ctx_decoder(c, w);
	if (!z)
		return -ENOMEM;
	z->next_in = (void *)in;
	z->avail_in = (uInt)in_len;
	z->next_out = out;
	z->avail_out = (uInt)out_len;
	ret = inflate(z, Z_FINISH);
	/* BUF_ERROR with a full output: the stream goes on, we do not. */
	if ((ret == Z_STREAM_END || ret == Z_BUF_ERROR) && !z->avail_out)
		return 0;
	return ret == Z_MEM_ERROR ? -ENOMEM : -EIO;
}

static int encode(enum wrap w, int level, const void *in, size_t in_len,
		  void *out, size_t out_cap, size_t *n)
{
	struct deflate_ctx *c = ctx_get();
	z_stream *z;

	if (!fits_zlib(in_len, out_cap))
		return -EINVAL;
	z = c ? ctx_encoder(c, w, level) : NULL;
	if (!z)
		return -ENOMEM;
	z->next_in = (void *)in;
	z->avail_in = (uInt)in_len;
	z->next_out = out;
	z->avail_out = (uInt)out_cap;
	switch (deflate(z, Z_FINISH)) {
	case Z_STREAM_END:
		*n = out_cap - z->avail_out;
		return 0;
	case Z_OK:
	case Z_BUF_ERROR:
		*n = 0;
		return 0;
	default:
		return -EIO;
	}
}

static int deflate_decode(const void *in, size_t in_len, void *out,
			  size_t out_len)
{
	return decode(RAW, in, in_len, out, out_len);
}

static int deflate_encode(const void *in, size_t in_len, void *out,
			  size_t out_cap, size_t *n)
{
	*n = 0;
	if (out_cap < in_len && is_noise(in, in_len))
		return 0;
	return encode(RAW, Z_DEFAULT_COMPRESSION, in, in_len, out, out_cap, n);
}

static int deflate_encode_at(int level, const void *in, size_t in_len,
			     void *out, size_t out_cap, size_t *n)
{
#ifdef HAVE_LIBISAL
	if (level == 1)
		return isal_encode(false, in, in_len, out, out_cap, n);
#endif
	return encode(RAW, level, in, in_len, out, out_cap, n);
}

const struct codec codec_deflate = {
	.name = "deflate",
	.decode = deflate_decode,
	.encode = deflate_encode,
	.max_level = Z_BEST_COMPRESSION,
	.encode_at = deflate_encode_at,
};

static int zlib_decode(const void *in, size_t in_len, void *out, size_t out_len)
{
	return decode(ZLIB, in, in_len, out, out_len);
}

static int zlib_encode(const void *in, size_t in_len, void *out, size_t out_cap,
		       size_t *n)
{
#ifdef HAVE_LIBDEFLATE
	struct deflate_ctx *c = ctx_get();
	bool noise = is_noise(in, in_len);
	struct libdeflate_compressor **enc;

	if (!c)
		return -ENOMEM;
	enc = noise ? &c->stored_enc : &c->fast_enc;
	if (!*enc)
		*enc = libdeflate_alloc_compressor(noise ? 0 : FAST_LEVEL);
	if (!*enc)
		return -ENOMEM;
	*n = libdeflate_zlib_compress(*enc, in, in_len, out, out_cap);
	return 0;
#else
	return encode(ZLIB, Z_DEFAULT_COMPRESSION, in, in_len, out, out_cap, n);
#endif
}

static int zlib_encode_at(int level, const void *in, size_t in_len, void *out,
			  size_t out_cap, size_t *n)
{
#ifdef HAVE_LIBISAL
	if (level == 1)
		return isal_encode(true, in, in_len, out, out_cap, n);
#endif
	return encode(ZLIB, level, in, in_len, out, out_cap, n);
}

const struct codec codec_zlib = {
	.name = "zlib",
	.decode = zlib_decode,
	.encode = zlib_encode,
	.max_level = Z_BEST_COMPRESSION,
	.encode_at = zlib_encode_at,
};

/* ---- zeroes ---------------------------------------------------------------
 * Whole blocks are ORed before anything is asked: a branch a load would halve
 * the speed; a block that is not zero ends it, so data costs next to nothing.
 */
typedef uint64_t vec __attribute__((vector_size(32)));

enum { ZERO_BLOCK = 256 };

static bool block_is_zero(const unsigned char *p)
{
	vec v[ZERO_BLOCK / sizeof(vec)];
	vec sum;

	memcpy(v, p, sizeof(v));
	sum = (v[0] | v[1] | v[2] | v[3]) | (v[4] | v[5] | v[6] | v[7]);
	return !(sum[0] | sum[1] | sum[2] | sum[3]);
}

static bool tail_is_zero(const unsigned char *p, size_t len)
{
	unsigned char any = 0;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, sizeof(v));
		if (v)
			return false;
	}
	while (len--)
		any |= *p++;
	return !any;
}

bool is_zero(const void *buf, size_t len)
{
	const unsigned char *p = buf;

	/* Data shows mostly in its first or last bytes. */
	if (len >= 16 && (be64_at(p) | be64_at(p + len - 8)))
		return false;
	for (; len >= ZERO_BLOCK; p += ZERO_BLOCK, len -= ZERO_BLOCK)
		if (!block_is_zero(p))
			return false;
	return tail_is_zero(p, len);
}
