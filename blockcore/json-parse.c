/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * json-parse.c - text to values.  Knows QEMU's dialect (RFC 8259 plus
 * single-quoted strings) and QEMU's sentences about what is wrong with a text.
 * Refuses to know what a value means.
 *
 * The text is an attacker's (json: names inside images): one pass finds where
 * the value ends and reports bytes that start no token, a second one builds
 * it; both are linear, recursion ends at DEPTH_MAX.
 */
#include "json.h"

#include <ctype.h>
#include <limits.h>

#define DEPTH_MAX 1024

enum token_type { T_END, T_STRAY, T_PUNCT, T_STRING, T_NUMBER, T_KEYWORD };

struct token {
	enum token_type type;
	const char *at;
	size_t len;
};

struct parser {
	const char *p, *end;
	struct token tok;       /* the one not yet consumed */
	struct err *err;
};

/* ---- tokens -------------------------------------------------------------- */

static bool is_digit(const char *p, const char *end)
{
	return p < end && *p >= '0' && *p <= '9';
}

static const char *skip_digits(const char *p, const char *end)
{
	while (is_digit(p, end))
		p++;
	return p;
}

/*
 * The end of the number at @p, or NULL with @bad behind the first byte that
 * cannot follow.
 */
static const char *number_end(const char *p, const char *end, const char **bad)
{
	if (*p == '-')
		p++;
	if (!is_digit(p, end))
		goto bad;
	if (*p == '0') {
		if (is_digit(++p, end))
			goto bad;
	} else {
		p = skip_digits(p, end);
	}
	if (p < end && *p == '.') {
		if (!is_digit(++p, end))
			goto bad;
		p = skip_digits(p, end);
	}
	if (p < end && (*p == 'e' || *p == 'E')) {
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		if (!is_digit(p, end))
			goto bad;
		p = skip_digits(p, end);
	}
	return p;
bad:
	*bad = p < end ? p + 1 : p;
	return NULL;
}

static const char *string_end(const char *p, const char *end, const char **bad)
{
	char quote = *p++;

	for (; p < end; p++) {
		unsigned char c = (unsigned char)*p;

		if (c == (unsigned char)quote)
			return p + 1;
		if (c == '\\' && ++p == end)
			break;
		c = (unsigned char)*p;
		if (c < 0x20 || c >= 0xfe) {
			p++;
			break;
		}
	}
	*bad = p;
	return NULL;
}

static void token_is(struct parser *ps, enum token_type type, const char *end,
		     const char *bad)
{
	ps->tok.type = end ? type : T_STRAY;
	ps->p = end ? end : bad;
	ps->tok.len = (size_t)(ps->p - ps->tok.at);
}

static void next_token(struct parser *ps)
{
	const char *bad = NULL, *p;

	while (ps->p < ps->end && *ps->p && strchr(" \t\r\n", *ps->p))
		ps->p++;
	p = ps->tok.at = ps->p;
	if (p == ps->end) {
		token_is(ps, T_END, p, NULL);
	} else if (*p && strchr("{}[]:,", *p)) {
		token_is(ps, T_PUNCT, p + 1, NULL);
	} else if (*p == '"' || *p == '\'') {
		token_is(ps, T_STRING, string_end(p, ps->end, &bad), bad);
	} else if (*p == '-' || is_digit(p, ps->end)) {
		token_is(ps, T_NUMBER, number_end(p, ps->end, &bad), bad);
	} else if (*p >= 'a' && *p <= 'z') {
		while (p < ps->end && *p >= 'a' && *p <= 'z')
			p++;
		token_is(ps, T_KEYWORD, p, NULL);
	} else {
		token_is(ps, T_STRAY, p + 1, NULL);
	}
}

static bool punct(const struct parser *ps, char c)
{
	return ps->tok.type == T_PUNCT && *ps->tok.at == c;
}

static int fail_token(struct parser *ps, const char *what)
{
	return err_set(ps->err, -EINVAL, "JSON parse error, %s '%.*s'", what,
		       (int)min_u64(ps->tok.len, INT_MAX), ps->tok.at);
}

static int fail(struct parser *ps, const char *what)
{
	if (ps->tok.type == T_END)
		what = "premature EOI";
	return err_set(ps->err, -EINVAL, "JSON parse error, %s", what);
}

/* ---- the first pass ------------------------------------------------------ */

static void count_depth(const struct parser *ps, int *braces, int *brackets)
{
	if (ps->tok.type != T_PUNCT)
		return;
	*braces += (*ps->tok.at == '{') - (*ps->tok.at == '}');
	*brackets += (*ps->tok.at == '[') - (*ps->tok.at == ']');
}

/* Ends behind the first value (or at a closing bracket too many). */
static int find_end(struct parser *ps)
{
	int braces = 0, brackets = 0;

	do {
		next_token(ps);
		if (ps->tok.type == T_STRAY)
			return fail_token(ps, "stray");
		if (ps->tok.type == T_END)
			return 0;
		count_depth(ps, &braces, &brackets);
		if (braces + brackets > DEPTH_MAX)
			return err_set(ps->err, -EINVAL,
				       "JSON nesting depth limit exceeded");
	} while (braces >= 0 && brackets >= 0 && (braces || brackets));
	return 0;
}

/* ---- strings ------------------------------------------------------------- */

static void add_utf8(struct strbuf *sb, uint32_t cp)
{
	if (cp && cp < 0x80) {
		strbuf_putc(sb, (char)cp);
	} else if (cp < 0x800) {        /* also U+0000: C0 80 */
		strbuf_putc(sb, (char)(0xc0 | cp >> 6));
		strbuf_putc(sb, (char)(0x80 | (cp & 0x3f)));
	} else if (cp < 0x10000) {
		strbuf_putc(sb, (char)(0xe0 | cp >> 12));
		strbuf_putc(sb, (char)(0x80 | (cp >> 6 & 0x3f)));
		strbuf_putc(sb, (char)(0x80 | (cp & 0x3f)));
	} else {
		strbuf_putc(sb, (char)(0xf0 | cp >> 18));
		strbuf_putc(sb, (char)(0x80 | (cp >> 12 & 0x3f)));
		strbuf_putc(sb, (char)(0x80 | (cp >> 6 & 0x3f)));
		strbuf_putc(sb, (char)(0x80 | (cp & 0x3f)));
	}
}

/* Four hex digits at @p; -1: not four. */
static int32_t hex4(const char *p, const char *end)
{
	int32_t v = 0;

	if (end - p < 4)
		return -1;
	for (unsigned i = 0; i < 4; i++) {
		unsigned char c = (unsigned char)p[i];

		if (!isxdigit(c))
			return -1;
		v = v * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return v;
}

static bool is_noncharacter(int32_t cp)
{
	return (cp >= 0xfdd0 && cp <= 0xfdef) || (cp & 0xfffe) == 0xfffe;
}

/* *@p is behind "\u"; a surrogate pair is one character. */
static int parse_unicode(struct parser *ps, const char **p, const char *end,
			 struct strbuf *sb)
{
	const char *at = *p;
	int32_t cp = hex4(at, end), low = -1;

	*p += 4;
	if (cp >= 0xd800 && cp <= 0xdbff && end - *p >= 6 &&
	    (*p)[0] == '\\' && (*p)[1] == 'u') {
		low = hex4(*p + 2, end);
		if (low >= 0xdc00 && low <= 0xdfff) {
			cp = 0x10000 + ((cp & 0x3ff) << 10) + (low & 0x3ff);
			*p += 6;
		}
	}
	if (cp < 0 || (cp >= 0xd800 && cp <= 0xdfff) || is_noncharacter(cp))
		return err_set(ps->err, -EINVAL, "JSON parse error, "
			       "\\u%.*s is not a valid Unicode character",
			       (int)min_u64(4, (uint64_t)(end - at) + 1), at);
	add_utf8(sb, (uint32_t)cp);
	return 0;
}

static int parse_escape(struct parser *ps, const char **p, const char *end,
			struct strbuf *sb)
{
	static const char letter[] = "bfnrt\"'\\/";
	static const char value[] = "\b\f\n\r\t\"'\\/";
	const char *at;
	char c = *(*p)++;

	if (c == 'u')
		return parse_unicode(ps, p, end, sb);
	at = strchr(letter, c);
	if (!c || !at)
		return fail(ps, "invalid escape sequence in string");
	strbuf_putc(sb, value[at - letter]);
	return 0;
}

/* The token is a complete string with its quotes. */
static int parse_string(struct parser *ps, struct strbuf *sb)
{
	const char *p = ps->tok.at + 1, *end = ps->tok.at + ps->tok.len - 1;
	int ret = 0;

	strbuf_puts(sb, "");
	while (p < end && !ret) {
		const char *at = p;

		if (*p == '\\') {
			p++;
			ret = parse_escape(ps, &p, end, sb);
		} else if (utf8_next(&p, end) < 0) {
			ret = fail(ps, "invalid UTF-8 sequence in string");
		} else {
			strbuf_add(sb, at, (size_t)(p - at));
		}
	}
	return ret;
}

/* ---- values -------------------------------------------------------------- */

static int parse_value(struct parser *ps, struct json **v);

static int parse_number(struct parser *ps, struct json **v)
{
	autofree char *text = strndup(ps->tok.at, ps->tok.len);
	uint64_t u;
	int64_t i;

	if (!text)
		abort();
	if (!strpbrk(text, ".eE")) {
		errno = 0;
		i = strtoll(text, NULL, 10);
		if (!errno) {
			*v = json_int(i);
			return 0;
		}
		errno = 0;
		u = strtoull(text, NULL, 10);
		if (!errno && *text != '-') {
			*v = json_uint(u);
			return 0;
		}
	}
	*v = json_null();
	(*v)->type = JSON_DOUBLE;
	(*v)->d = strtod(text, NULL);
	return 0;
}

static int parse_keyword(struct parser *ps, struct json **v)
{
	const struct token *t = &ps->tok;

	if (t->len == 4 && !memcmp(t->at, "true", 4))
		*v = json_bool(true);
	else if (t->len == 5 && !memcmp(t->at, "false", 5))
		*v = json_bool(false);
	else if (t->len == 4 && !memcmp(t->at, "null", 4))
		*v = json_null();
	else
		return fail_token(ps, "invalid keyword");
	return 0;
}

static int parse_array(struct parser *ps, struct json **v)
{
	autojson *arr = json_array();

	next_token(ps);
	while (!punct(ps, ']')) {
		struct json *item;
		int ret;

		if (arr->n) {
			if (!punct(ps, ','))
				return fail(ps, "expected separator in list");
			next_token(ps);
		}
		ret = parse_value(ps, &item);
		if (ret)
			return ret;
		json_append_take(arr, item);
	}
	*v = arr;
	arr = NULL;
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All at once: looking for each key as it comes would be quadratic. */
static bool has_duplicate_key(const struct json *obj)
{
	autofree char **keys = calloc(obj->n + 1, sizeof(*keys));

	if (!keys)
		abort();
	if (obj->n)
		memcpy(keys, obj->keys, obj->n * sizeof(*keys));
	qsort(keys, obj->n, sizeof(*keys), by_text);
	for (size_t i = 1; i < obj->n; i++)
		if (!strcmp(keys[i - 1], keys[i]))
			return true;
	return false;
}

static int parse_pair(struct parser *ps, struct json *obj)
{
	autojson *key = NULL;
	struct json *v;
	int ret;

	ret = parse_value(ps, &key);
	if (ret)
		return ret;
	if (key->type != JSON_STRING)
		return err_set(ps->err, -EINVAL, "JSON parse error, "
			       "key is not a string in object");
	if (!punct(ps, ':'))
		return fail(ps, "missing : in object pair");
	next_token(ps);
	ret = parse_value(ps, &v);
	if (!ret)
		json_add_take(obj, key->s, v);
	return ret;
}

static int parse_object(struct parser *ps, struct json **v)
{
	autojson *obj = json_object();

	next_token(ps);
	while (!punct(ps, '}')) {
		int ret;

		if (obj->n) {
			if (!punct(ps, ','))
				return fail(ps, "expected separator in dict");
			next_token(ps);
		}
		ret = parse_pair(ps, obj);
		if (ret)
			return ret;
	}
	if (has_duplicate_key(obj))
		return err_set(ps->err, -EINVAL,
			       "JSON parse error, duplicate key");
	*v = obj;
	obj = NULL;
	return 0;
}

/* Consumes the value that starts with the current token. */
static int parse_value(struct parser *ps, struct json **v)
{
	autostrbuf sb = STRBUF_INIT;
	int ret = -EINVAL;

	switch (ps->tok.type) {
	case T_STRING:
		ret = parse_string(ps, &sb);
		if (!ret)
			*v = json_string(sb.text);
		break;
	case T_NUMBER:
		ret = parse_number(ps, v);
		break;
	case T_KEYWORD:
		ret = parse_keyword(ps, v);
		break;
	default:
		if (punct(ps, '['))
			ret = parse_array(ps, v);
		else if (punct(ps, '{'))
			ret = parse_object(ps, v);
		else
			ret = fail(ps, "expecting value");
	}
	if (!ret)
		next_token(ps);
	return ret;
}

struct json *json_parse(const char *text, size_t len, struct err *err)
{
	struct parser ps = { text, text + len, { T_END, text, 0 }, err };
	struct json *v = NULL;
	const char *end;

	if (find_end(&ps))
		return NULL;
	end = ps.p;
	ps.p = text;
	ps.end = end;
	next_token(&ps);
	if (ps.tok.type == T_END) {
		err_set(err, -EINVAL, "Expecting a JSON value");
		return NULL;
	}
	if (parse_value(&ps, &v))
		return NULL;
	ps.p = end;
	ps.end = text + len;
	next_token(&ps);
	if (ps.tok.type == T_END)
		return v;
	json_free(v);
	err_set(err, -EINVAL, "Expecting at most one JSON value");
	return NULL;
}
