/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec-isal.c - deflate at level 1 with ISA-L: ten times as fast as zlib's
 * default, and a tenth larger.
 *
 * Knows ISA-L; it is there only if configure found it.  codec.c knows when to
 * ask.
 */
#include "config.h"

#ifdef HAVE_LIBISAL

#include "codec.h"

#include <isa-l/igzip_lib.h>

enum {
	WINDOW_BITS = 12,       /* small-window readers exist (codec.c) */
	ISAL_LEVEL = 2,         /* as fast as its level 1, and smaller */
};

/* One per thread, made when first needed. */
struct isal_ctx {
	struct isal_zstream stream;
	uint8_t level_buf[ISAL_DEF_LVL2_DEFAULT];
};

static pthread_key_t ctx_key;
static pthread_once_t ctx_once = PTHREAD_ONCE_INIT;
static int ctx_key_error;

static void ctx_make_key(void)
{
	ctx_key_error = pthread_key_create(&ctx_key, free);
}

static struct isal_ctx *ctx_get(void)
{
	struct isal_ctx *c;

	pthread_once(&ctx_once, ctx_make_key);
	if (ctx_key_error)
		return NULL;
	c = pthread_getspecific(ctx_key);
	if (c)
		return c;
	c = malloc(sizeof(*c));
	if (c && pthread_setspecific(ctx_key, c)) {
		free(c);
		return NULL;
	}
	return c;
}

int isal_encode(bool zlib, const void *in, size_t in_len, void *out,
		size_t out_cap, size_t *n)
{
	struct isal_ctx *c = ctx_get();
	struct isal_zstream *z;

	if (!c)
		return -ENOMEM;
	if (in_len > UINT32_MAX || out_cap > UINT32_MAX)
		return -EINVAL;
	z = &c->stream;
	isal_deflate_init(z);
	z->level = ISAL_LEVEL;
	z->level_buf = c->level_buf;
	z->level_buf_size = sizeof(c->level_buf);
	z->gzip_flag = zlib ? IGZIP_ZLIB : IGZIP_DEFLATE;
	z->hist_bits = zlib ? 0 : WINDOW_BITS;
	z->end_of_stream = 1;
	z->flush = NO_FLUSH;
	z->next_in = (void *)in;
	z->avail_in = (uint32_t)in_len;
	z->next_out = out;
	z->avail_out = (uint32_t)out_cap;
	if (isal_deflate(z) != COMP_OK)
		return -EIO;
	*n = z->internal_state.state == ZSTATE_END ? out_cap - z->avail_out : 0;
	return 0;
}

#endif
