/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* strbuf.c - text that grows; see strbuf.h. */
#include "strbuf.h"

#include "err.h"

#include <stdio.h>

static void grow(struct strbuf *sb, size_t more)
{
	size_t want = sb->len + more + 1;

	if (want <= sb->cap)
		return;
	want = want < 64 ? 64 : want + want / 2;
	sb->text = realloc(sb->text, want);
	if (!sb->text)
		BUG("out of memory");
	sb->cap = want;
}

void strbuf_add(struct strbuf *sb, const void *data, size_t n)
{
	grow(sb, n);
	if (n)
		memcpy(sb->text + sb->len, data, n);
	sb->len += n;
	sb->text[sb->len] = '\0';
}

void strbuf_puts(struct strbuf *sb, const char *s)
{
	strbuf_add(sb, s, strlen(s));
}

void strbuf_putc(struct strbuf *sb, char c)
{
	strbuf_add(sb, &c, 1);
}

void strbuf_uint(struct strbuf *sb, uint64_t n)
{
	char digits[20];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + n % 10);
	while (n /= 10);
	strbuf_add(sb, digits + at, sizeof(digits) - at);
}

/* Mostly there is room already: one look at @fmt is enough. */
void strbuf_vprintf(struct strbuf *sb, const char *fmt, va_list ap)
{
	size_t room = sb->cap - sb->len;
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(room ? sb->text + sb->len : NULL, room, fmt, again);
	va_end(again);
	if (n < 0)
		BUG("bad format string");
	if ((size_t)n >= room) {
		grow(sb, (size_t)n);
		vsnprintf(sb->text + sb->len, (size_t)n + 1, fmt, ap);
	}
	sb->len += (size_t)n;
}

void strbuf_printf(struct strbuf *sb, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	strbuf_vprintf(sb, fmt, ap);
	va_end(ap);
}

char *strbuf_take(struct strbuf *sb)
{
	char *text;

	grow(sb, 0);
	sb->text[sb->len] = '\0';
	text = sb->text;
	*sb = (struct strbuf)STRBUF_INIT;
	return text;
}

void strbuf_free(struct strbuf *sb)
{
	free(sb->text);
	*sb = (struct strbuf)STRBUF_INIT;
}
