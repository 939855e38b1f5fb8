/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * json.h - JSON values in memory: what info and check print, what json: names
 * and --image-opts turn into.  Objects keep the order of insertion, because
 * QEMU's output order is fixed per object (qemu-img-cli.md 5).
 *
 * The parser is strict RFC 8259 plus single-quoted strings; a duplicate key is
 * an error; depth at most 1024; integers are int64, then uint64, then double.
 */
#ifndef BLOCKCORE_JSON_H
#define BLOCKCORE_JSON_H

#include "err.h"
#include "strbuf.h"

enum json_type { JSON_NULL, JSON_BOOL, JSON_INT, JSON_UINT, JSON_DOUBLE,
		 JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
	enum json_type type;
	union {
		bool b;
		int64_t i;
		uint64_t u;
		double d;
		char *s;
	};
	size_t n;               /* ARRAY, OBJECT: members */
	char **keys;            /* OBJECT */
	struct json **items;    /* ARRAY, OBJECT */
};

/* Constructors abort when memory is out (values are small: cold paths only). */
struct json *json_object(void);
struct json *json_array(void);
struct json *json_string(const char *s);
struct json *json_int(int64_t i);
struct json *json_uint(uint64_t u);
struct json *json_bool(bool b);
struct json *json_null(void);
struct json *json_copy(const struct json *v);
void json_free(struct json *v);
static inline void json_free_fn(struct json **v)
{
	json_free(*v);
}
#define autojson __attribute__((cleanup(json_free_fn))) struct json

/* Take ownership of @v.  json_set_take replaces an existing key in place. */
void json_set_take(struct json *obj, const char *key, struct json *v);
void json_append_take(struct json *arr, struct json *v);
/* json_set_take() without looking for @key, which is known to be new. */
void json_add_take(struct json *obj, const char *key, struct json *v);
bool json_del(struct json *obj, const char *key);

/* NULL when missing or @obj is no object. */
struct json *json_get(const struct json *obj, const char *key);
/* The string at @key, or NULL. */
const char *json_get_str(const struct json *obj, const char *key);

/* Parses all of @text; the error is QEMU's text ("JSON parse error, ..."). */
struct json *json_parse(const char *text, size_t len, struct err *err);

/* QEMU's bytes: pretty = 4 spaces from @indent levels on, else "k": v, ...
 * on one line with ", " and ": ".  Non-ASCII as \uXXXX. */
void json_write(struct strbuf *out, const struct json *v, bool pretty,
		unsigned indent);
void json_write_string(struct strbuf *out, const char *s);

/*
 * One character of modified UTF-8 (C0 80 is U+0000) at *@p, not empty: the code
 * point, or -1 for what is none (overlong, surrogate, noncharacter, cut off);
 * @p moves behind it.
 */
int32_t utf8_next(const char **p, const char *end);

#endif
