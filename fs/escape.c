/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * escape.c - names of snapshots and bitmaps, which may be any bytes, as names of
 * files.
 *
 * What cannot be in one is %XX: '/', control characters, a leading '.' of "."
 * and "..", and a '%' that would read as such.  The empty name is "%".  One
 * that is longer than 255 bytes then is cut, at a character, and ends in %~ and
 * a checksum of all of it.
 */
#include "fs/escape.h"

#include "strbuf.h"

#include <limits.h>
#include <stdio.h>

#define TAIL_BYTES 18           /* %~ and 16 digits */

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Would a '%' here be read as the beginning of an escape? */
static bool reads_as_escape(const char *p)
{
	return p[0] == '%' && hex(p[1]) >= 0 && hex(p[2]) >= 0;
}

static bool needs_escape(const char *p)
{
	unsigned char c = (unsigned char)*p;

	return c == '/' || c < 0x20 || c == 0x7f || reads_as_escape(p);
}

static uint64_t checksum(const char *text)
{
	uint64_t h = UINT64_C(14695981039346656037);

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * UINT64_C(1099511628211);
	return h;
}

/* At most @max bytes of whole characters and escapes. */
static size_t cut_at(const char *text, size_t max)
{
	size_t n = max;

	while (n && ((unsigned char)text[n] & 0xc0) == 0x80)
		n--;
	for (size_t back = 1; back <= 2 && back <= n; back++)
		if (reads_as_escape(text + n - back))
			return n - back;
	return n;
}

char *name_shown(const char *exact)
{
	struct strbuf sb = STRBUF_INIT;
	bool dots = !strcmp(exact, ".") || !strcmp(exact, "..");

	for (const char *p = exact; *p; p++)
		if (needs_escape(p) || (dots && p == exact))
			strbuf_printf(&sb, "%%%02X", (unsigned char)*p);
		else
			strbuf_putc(&sb, *p);
	if (!sb.len)
		strbuf_puts(&sb, "%");
	if (sb.len > NAME_MAX) {
		sb.len = cut_at(sb.text, NAME_MAX - TAIL_BYTES);
		strbuf_printf(&sb, "%%~%016llx",
			      (unsigned long long)checksum(exact));
	}
	return strbuf_take(&sb);
}

int name_meant(const char *shown, char **exact)
{
	struct strbuf sb = STRBUF_INIT;
	autofree char *text = NULL, *again = NULL;

	for (const char *p = shown; *p; p++) {
		if (!reads_as_escape(p)) {
			strbuf_putc(&sb, *p);
			continue;
		}
		strbuf_putc(&sb, (char)(hex(p[1]) << 4 | hex(p[2])));
		p += 2;
	}
	text = strbuf_take(&sb);
	again = name_shown(strcmp(shown, "%") ? text : "");
	if (strcmp(again, shown))
		return -EINVAL;
	*exact = strdup(strcmp(shown, "%") ? text : "");
	return *exact ? 0 : -ENOMEM;
}
