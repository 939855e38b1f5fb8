/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec-zstd.c - zstd frames as units are stored in (qcow2.md 5).
 *
 * Knows libzstd.  Knows no format and no file.  A frame is an attacker's (rule
 * 14): it may promise a window of 2 GiB; it is decoded straight into the
 * caller's buffer, so that no window is ever allocated for it.
 */
#include "config.h"

#include "codec.h"

/* For ZSTD_d_stableOutBuffer. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>

enum {
	LEVEL = 3,              /* QEMU's */
	LEVEL_MAX = 22,
	WINDOW_LOG_MAX = 31,    /* what `zstd --ultra --long=31` makes */
};

/* One per thread, made when first needed. */
struct zstd_ctx {
	ZSTD_CCtx *enc;
	ZSTD_DCtx *dec;
};

static pthread_key_t ctx_key;
static pthread_once_t ctx_once = PTHREAD_ONCE_INIT;
static int ctx_key_error;

static void ctx_free(void *p)
{
	struct zstd_ctx *c = p;

	ZSTD_freeCCtx(c->enc);
	ZSTD_freeDCtx(c->dec);
	free(c);
}

static void ctx_make_key(void)
{
	ctx_key_error = pthread_key_create(&ctx_key, ctx_free);
}

static struct zstd_ctx *ctx_get(void)
{
	struct zstd_ctx *c;

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

static ZSTD_DCtx *decoder_new(void)
{
	ZSTD_DCtx *dec = ZSTD_createDCtx();

	if (dec && (ZSTD_isError(ZSTD_DCtx_setParameter(
			dec, ZSTD_d_windowLogMax, WINDOW_LOG_MAX)) ||
		    ZSTD_isError(ZSTD_DCtx_setParameter(
			dec, ZSTD_d_stableOutBuffer, 1)))) {
		ZSTD_freeDCtx(dec);
		return NULL;
	}
	return dec;
}

/*
 * The unit may be several frames, and garbage follows the last one: a stream
 * that ends when the output is full takes both.
 */
static int decode_frames(ZSTD_DCtx *dec, ZSTD_inBuffer *in, ZSTD_outBuffer *out)
{
	size_t ret = 1;

	while (out->pos < out->size || ret) {
		size_t in_pos = in->pos, out_pos = out->pos;

		ret = ZSTD_decompressStream(dec, out, in);
		if (ZSTD_isError(ret))
			return -EIO;
		if (in->pos == in_pos && out->pos == out_pos && ret)
			return -EIO;
		if (in->pos == in->size && out->pos < out->size)
			return -EIO;
	}
	return 0;
}

static int zstd_decode(const void *in, size_t in_len, void *out,
		       size_t out_len)
{
	struct zstd_ctx *c = ctx_get();
	ZSTD_inBuffer src = { in, in_len, 0 };
	ZSTD_outBuffer dst = { out, out_len, 0 };

	if (!c)
		return -ENOMEM;
	if (!c->dec)
		c->dec = decoder_new();
	if (!c->dec)
		return -ENOMEM;
	ZSTD_DCtx_reset(c->dec, ZSTD_reset_session_only);
	return decode_frames(c->dec, &src, &dst);
}

static int zstd_encode_at(int level, const void *in, size_t in_len, void *out,
			  size_t out_cap, size_t *n)
{
	struct zstd_ctx *c = ctx_get();
	size_t ret;

	if (!c)
		return -ENOMEM;
	if (!c->enc)
		c->enc = ZSTD_createCCtx();
	if (!c->enc || ZSTD_isError(ZSTD_CCtx_setParameter(
			c->enc, ZSTD_c_compressionLevel, level)))
		return -ENOMEM;
	ret = ZSTD_compress2(c->enc, out, out_cap, in, in_len);
	if (!ZSTD_isError(ret)) {
		*n = ret;
		return 0;
	}
	if (ZSTD_getErrorCode(ret) != ZSTD_error_dstSize_tooSmall)
		return -EIO;
	*n = 0;
	return 0;
}

static int zstd_encode(const void *in, size_t in_len, void *out,
		       size_t out_cap, size_t *n)
{
	return zstd_encode_at(LEVEL, in, in_len, out, out_cap, n);
}

const struct codec codec_zstd = {
	.name = "zstd",
	.decode = zstd_decode,
	.encode = zstd_encode,
	.max_level = LEVEL_MAX,
	.encode_at = zstd_encode_at,
};
