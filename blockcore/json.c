/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * json.c - JSON values in memory; see json.h.  Knows how values own each other.
 * Refuses to know text: json-parse.c reads it, json-write.c prints it.
 */
#include "json.h"

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static struct json *new_value(enum json_type type)
{
	struct json *v = must(calloc(1, sizeof(*v)));

	v->type = type;
	return v;
}

struct json *json_object(void)
{
	return new_value(JSON_OBJECT);
}

struct json *json_array(void)
{
	return new_value(JSON_ARRAY);
}

struct json *json_string(const char *s)
{
	struct json *v = new_value(JSON_STRING);

	v->s = must(strdup(s));
	return v;
}

struct json *json_int(int64_t i)
{
	struct json *v = new_value(JSON_INT);

	v->i = i;
	return v;
}

/* What fits is an INT, so that equal numbers have one type. */
struct json *json_uint(uint64_t u)
{
	struct json *v = new_value(u > INT64_MAX ? JSON_UINT : JSON_INT);

	v->u = u;
	return v;
}

struct json *json_bool(bool b)
{
	struct json *v = new_value(JSON_BOOL);

	v->b = b;
	return v;
}

struct json *json_null(void)
{
	return new_value(JSON_NULL);
}

struct json *json_copy(const struct json *v)
{
	struct json *c;

	if (!v)
		return NULL;
	c = new_value(v->type);
	switch (v->type) {
	case JSON_STRING:
		c->s = must(strdup(v->s));
		break;
	case JSON_ARRAY:
		for (size_t i = 0; i < v->n; i++)
			json_append_take(c, json_copy(v->items[i]));
		break;
	case JSON_OBJECT:
		for (size_t i = 0; i < v->n; i++)
			json_add_take(c, v->keys[i], json_copy(v->items[i]));
		break;
	default:
		c->u = v->u;
	}
	return c;
}

void json_free(struct json *v)
{
	if (!v)
		return;
	for (size_t i = 0; i < v->n; i++) {
		if (v->keys)
			free(v->keys[i]);
		json_free(v->items[i]);
	}
	free(v->keys);
	free(v->items);
	if (v->type == JSON_STRING)
		free(v->s);
	free(v);
}

/* Room is kept at n + 1, rounded up to a power of two: no capacity to store,
 * and appending is linear over all. */
static void make_room(struct json *v)
{
	size_t cap = v->n ? 2 * v->n : 1;

	if (v->n & (v->n - 1))
		return;
	v->items = must(reallocarray(v->items, cap, sizeof(*v->items)));
	if (v->type == JSON_OBJECT)
		v->keys = must(reallocarray(v->keys, cap, sizeof(*v->keys)));
}

static size_t find_key(const struct json *obj, const char *key)
{
	size_t i;

	for (i = 0; i < obj->n; i++)
		if (!strcmp(obj->keys[i], key))
			break;
	return i;
}

void json_set_take(struct json *obj, const char *key, struct json *v)
{
	size_t i = find_key(obj, key);

	if (i < obj->n) {
		json_free(obj->items[i]);
		obj->items[i] = v;
		return;
	}
	json_add_take(obj, key, v);
}

void json_add_take(struct json *obj, const char *key, struct json *v)
{
	make_room(obj);
	obj->keys[obj->n] = must(strdup(key));
	obj->items[obj->n++] = v;
}

void json_append_take(struct json *arr, struct json *v)
{
	make_room(arr);
	arr->items[arr->n++] = v;
}

bool json_del(struct json *obj, const char *key)
{
	size_t i = find_key(obj, key), rest;

	if (i == obj->n)
		return false;
	free(obj->keys[i]);
	json_free(obj->items[i]);
	rest = --obj->n - i;
	memmove(&obj->keys[i], &obj->keys[i + 1], rest * sizeof(char *));
	memmove(&obj->items[i], &obj->items[i + 1], rest * sizeof(void *));
	return true;
}

struct json *json_get(const struct json *obj, const char *key)
{
	size_t i;

	if (!obj || obj->type != JSON_OBJECT)
		return NULL;
	i = find_key(obj, key);
	return i < obj->n ? obj->items[i] : NULL;
}

const char *json_get_str(const struct json *obj, const char *key)
{
	const struct json *v = json_get(obj, key);

	return v && v->type == JSON_STRING ? v->s : NULL;
}
