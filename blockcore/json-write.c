/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * json-write.c - prints values byte for byte as QEMU does (qemu-img-cli.md 5).
 * Knows layout and escapes.  Refuses to know key order: objects are printed in
 * the order of insertion.
 */
#include "json.h"

#include <inttypes.h>

/* Bytes of the sequence that @c starts, by its leading ones; 0: starts none. */
static unsigned utf8_len(unsigned char c)
{
	if (c < 0x80)
		return 1;
	if (c < 0xc0 || c >= 0xfe)
		return 0;
	return c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf8 ? 4 : c < 0xfc ? 5 : 6;
}

static bool is_character(uint32_t cp, unsigned len)
{
	static const uint32_t min[] = { 0, 0, 0x80, 0x800, 0x10000 };

	if (cp > 0x10ffff || len > 4)
		return false;
	if (cp < min[len] && !(len == 2 && cp == 0))
		return false;
	if (cp >= 0xd800 && cp <= 0xdfff)
		return false;
	return !(cp >= 0xfdd0 && cp <= 0xfdef) && (cp & 0xfffe) != 0xfffe;
}

int32_t utf8_next(const char **p, const char *end)
{
	unsigned char c = (unsigned char)*(*p)++;
	unsigned len = utf8_len(c), i;
	uint32_t cp;

	if (len <= 1)
		return len ? c : -1;
	cp = c & (0x7fu >> len);
	for (i = 1; i < len && *p < end && (**p & 0xc0) == 0x80; i++)
		cp = cp << 6 | (*(*p)++ & 0x3f);
	return i == len && is_character(cp, len) ? (int32_t)cp : -1;
}

static void write_char(struct strbuf *out, uint32_t cp)
{
	static const char plain[] = "\b\f\n\r\t\"\\";
	static const char letter[] = "bfnrt\"\\";
	const char *at;

	if (cp && cp < 0x80 && (at = strchr(plain, (int)cp)))
		strbuf_printf(out, "\\%c", letter[at - plain]);
	else if (cp >= 0x20 && cp < 0x7f)
		strbuf_putc(out, (char)cp);
	else if (cp < 0x10000)
		strbuf_printf(out, "\\u%04X", cp);
	else
		strbuf_printf(out, "\\u%04X\\u%04X",
			      0xd800 + ((cp - 0x10000) >> 10),
			      0xdc00 + ((cp - 0x10000) & 0x3ff));
}

void json_write_string(struct strbuf *out, const char *s)
{
	const char *end = s + strlen(s);

	strbuf_putc(out, '"');
	while (s < end) {
		int32_t cp = utf8_next(&s, end);

		write_char(out, cp < 0 ? 0xfffd : (uint32_t)cp);
	}
	strbuf_putc(out, '"');
}

static void new_line(struct strbuf *out, bool pretty, unsigned indent)
{
	if (pretty)
		strbuf_printf(out, "\n%*s", (int)(4 * indent), "");
}

static void write_members(struct strbuf *out, const struct json *v, bool pretty,
			  unsigned indent)
{
	for (size_t i = 0; i < v->n; i++) {
		if (i)
			strbuf_puts(out, pretty ? "," : ", ");
		new_line(out, pretty, indent + 1);
		if (v->type == JSON_OBJECT) {
			json_write_string(out, v->keys[i]);
			strbuf_puts(out, ": ");
		}
		json_write(out, v->items[i], pretty, indent + 1);
	}
	new_line(out, pretty, indent);
}

void json_write(struct strbuf *out, const struct json *v, bool pretty,
		unsigned indent)
{
	switch (v->type) {
	case JSON_NULL:
		strbuf_puts(out, "null");
		break;
	case JSON_BOOL:
		strbuf_puts(out, v->b ? "true" : "false");
		break;
	case JSON_INT:
		strbuf_printf(out, "%" PRId64, v->i);
		break;
	case JSON_UINT:
		strbuf_printf(out, "%" PRIu64, v->u);
		break;
	case JSON_DOUBLE:
		strbuf_printf(out, "%.17g", v->d);
		break;
	case JSON_STRING:
		json_write_string(out, v->s);
		break;
	case JSON_ARRAY:
		strbuf_putc(out, '[');
		write_members(out, v, pretty, indent);
		strbuf_putc(out, ']');
		break;
	case JSON_OBJECT:
		strbuf_putc(out, '{');
		write_members(out, v, pretty, indent);
		strbuf_putc(out, '}');
		break;
	}
}
