/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* strbuf.h - text that grows.  Always NUL-terminated once anything was added;
 * aborts when memory is out (cold paths only). */
#ifndef BLOCKCORE_STRBUF_H
#define BLOCKCORE_STRBUF_H

#include "util.h"

#include <stdarg.h>

struct strbuf {
	char *text;
	size_t len, cap;
};

#define STRBUF_INIT { NULL, 0, 0 }

void strbuf_add(struct strbuf *sb, const void *data, size_t n);
void strbuf_puts(struct strbuf *sb, const char *s);
void strbuf_putc(struct strbuf *sb, char c);
/* Decimal; faster than printf. */
void strbuf_uint(struct strbuf *sb, uint64_t n);
void strbuf_printf(struct strbuf *sb, const char *fmt, ...) printf_like(2, 3);
void strbuf_vprintf(struct strbuf *sb, const char *fmt, va_list ap);
/* Hands the text over (never NULL) and leaves @sb empty. */
char *strbuf_take(struct strbuf *sb);
void strbuf_free(struct strbuf *sb);
#define autostrbuf __attribute__((cleanup(strbuf_free))) struct strbuf

#endif
