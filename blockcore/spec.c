/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spec.c - turns names, --image-opts and json: into trees of nodes; see spec.h.
 *
 * Knows the three grammars (options.md 4, 5, 7).  All of them are first made
 * flat, as QEMU has them ("file.driver": "raw"), then nested, so that they can
 * be mixed.  Refuses to know which options a driver takes: spec-check.c does.
 */
#include "spec.h"

#include "blockcore.h"

#include <stdio.h>

#define DEPTH_MAX 32            /* nodes below nodes; deeper keys stay flat */

/* Keys whose values are nodes. */
static const char *const node_keys[] = { "file", "backing", "data-file" };

/* ---- names ---------------------------------------------------------------- */

bool spec_has_protocol(const char *name)
{
	return name[strcspn(name, ":/")] == ':';
}

bool spec_is_protocol(const char *driver)
{
	static const char *const names[] = { "file", "host_device",
					     "host_cdrom" };

	for (size_t i = 0; driver && i < ARRAY_SIZE(names); i++)
		if (!strcmp(driver, names[i]))
			return true;
	return false;
}

static bool is_json(const char *name)
{
	return !strncmp(name, "json:", 5);
}

const char *spec_file(const struct json *node)
{
	for (; node; node = json_get(node, "file"))
		if (json_get_str(node, "filename"))
			return json_get_str(node, "filename");
	return NULL;
}

static void set_str(struct json *obj, const char *key, const char *text)
{
	json_set_take(obj, key, json_string(text));
}

/* The file node of a plain name: "file:" and the like are taken off. */
static int file_node(const char *name, const char *driver, struct json **node,
		     struct err *err)
{
	size_t n = strcspn(name, ":");
	autofree char *proto = NULL, *path = NULL;
	struct json *obj;

	if (spec_has_protocol(name)) {
		proto = strndup(name, n);
		if (!spec_is_protocol(proto))
			return err_set(err, -EINVAL, "Unknown protocol '%s'",
				       proto);
		name += n + 1;
	}
	obj = json_object();
	if (driver || proto)
		set_str(obj, "driver", driver ? driver : proto);
	/* What is left shall not look like a protocol again. */
	if (asprintf(&path, "%s%s", proto && spec_has_protocol(name) ? "./" :
		     "", name) < 0)
		abort();
	set_str(obj, "filename", path);
	*node = obj;
	return 0;
}

static int parse_name(const char *name, const char *format,
		      struct json **node, struct err *err)
{
	struct json *file = NULL, *top;
	bool bare = spec_is_protocol(format);
	int ret = file_node(name, bare ? format : NULL, &file, err);

	if (ret || bare) {
		*node = ret ? *node : file;
		return ret;
	}
	top = json_object();
	if (format)
		set_str(top, "driver", format);
	json_set_take(top, "file", file);
	*node = top;
	return 0;
}

/* ---- flat and nested --------------------------------------------------------- */

static bool is_container(const struct json *v)
{
	return (v->type == JSON_OBJECT || v->type == JSON_ARRAY) && v->n;
}

/*
 * Adds the members of @v to @flat as "prefix.key".  Plain keys come first:
 * what a nested object says wins over a dotted key.
 */
static void flatten(struct json *flat, const struct json *v,
		    const char *prefix)
{
	for (int nested = 0; nested < 2; nested++)
		for (size_t i = 0; i < v->n; i++) {
			const struct json *item = v->items[i];
			autostrbuf key = STRBUF_INIT;

			if (is_container(item) != (nested == 1))
				continue;
			strbuf_puts(&key, prefix);
			if (v->type == JSON_OBJECT)
				strbuf_puts(&key, v->keys[i]);
			else
				strbuf_printf(&key, "%zu", i);
			if (!nested) {
				json_set_take(flat, key.text, json_copy(item));
				continue;
			}
			strbuf_putc(&key, '.');
			flatten(flat, item, key.text);
		}
}

/* The part of @key behind "NODE." when it belongs to a node below; @name is
 * that node's key. */
static const char *below(const char *key, const char **name)
{
	for (size_t i = 0; i < ARRAY_SIZE(node_keys); i++) {
		size_t n = strlen(node_keys[i]);

		if (strncmp(key, node_keys[i], n) || key[n] != '.')
			continue;
		*name = node_keys[i];
		return key + n + 1;
	}
	return NULL;
}

static struct json *nest(const struct json *flat, unsigned depth);

/* All of @flat's "@name." keys as a node. */
static struct json *nest_below(const struct json *flat, const char *name,
			       unsigned depth)
{
	autojson *part = json_object();
	const char *which, *rest;

	for (size_t i = 0; i < flat->n; i++) {
		rest = below(flat->keys[i], &which);
		if (rest && !strcmp(which, name))
			json_set_take(part, rest, json_copy(flat->items[i]));
	}
	return nest(part, depth + 1);
}

/* A key that names a node by reference cannot have options as well: both are
 * kept, opening says so. */
static bool is_reference(const struct json *flat, const char *name)
{
	return json_get_str(flat, name);
}

static struct json *nest(const struct json *flat, unsigned depth)
{
	struct json *node = json_object();
	const char *name;

	for (size_t i = 0; i < flat->n; i++) {
		const char *key = flat->keys[i];

		if (!below(key, &name) || is_reference(flat, name) ||
		    depth >= DEPTH_MAX)
			json_set_take(node, key, json_copy(flat->items[i]));
		else if (!json_get(node, name) ||
			 json_get(node, name)->type != JSON_OBJECT)
			json_set_take(node, name,
				      nest_below(flat, name, depth));
	}
	return node;
}

/* ---- json: --------------------------------------------------------------------- */

static int parse_json(const char *text, const char *format,
		      struct json **node, struct err *err)
{
	autojson *v = NULL, *flat = NULL;
	autoerr why = ERR_INIT;

	v = json_parse(text, strlen(text), &why);
	if (!v) {
		err_prefix(&why, "Could not parse the JSON options: ");
		err_move(err, &why);
		return -EINVAL;
	}
	if (v->type != JSON_OBJECT)
		return err_set(err, -EINVAL, "Invalid JSON object given");
	flat = json_object();
	flatten(flat, v, "");
	if (format)
		set_str(flat, "driver", format);
	*node = nest(flat, 0);
	return 0;
}

/* ---- --image-opts ----------------------------------------------------------------- */

/* A bare word is a boolean; only the first is a node to refer to. */
static void add_bare(struct json *flat, const char *word, bool first)
{
	bool off = !strncmp(word, "no", 2);
	const char *key = off ? word + 2 : word;

	if (first) {
		set_str(flat, "file", word);
		return;
	}
	warn("short-form boolean option '%s' deprecated\nPlease use %s=%s"
	     " instead", word, key, off ? "off" : "on");
	set_str(flat, key, off ? "off" : "on");
}

static int parse_image_opts(const char *text, struct json **node)
{
	autojson *flat = json_object();
	const char *p = text;
	char *key, *value;

	for (bool first = true; options_item(&p, &key, &value); first = false) {
		if (value)
			set_str(flat, key, value);
		else
			add_bare(flat, key, first);
		free(key);
		free(value);
	}
	*node = nest(flat, 0);
	return 0;
}

int spec_parse(const char *text, enum spec_how how, const char *format,
	       struct json **node, struct err *err)
{
	if (how == SPEC_IMAGE_OPTS)
		return parse_image_opts(text, node);
	if (is_json(text))
		return parse_json(text + 5, format, node, err);
	if (format && !spec_is_protocol(format) && !format_find(format))
		return err_set(err, -EINVAL, "Unknown driver '%s'", format);
	return parse_name(text, format, node, err);
}

int spec_parse_child(const char *text, const char *base, const char *format,
		     struct json **node, struct err *err)
{
	autofree char *full = spec_join(base, text);
	bool kept = !strcmp(full, text);
	struct json *file, *top;

	if (kept && (is_json(text) || spec_has_protocol(text)))
		return spec_parse(text, SPEC_NAME, format, node, err);
	/* A folder's name may hold a colon: this is a path, whatever it looks
	 * like. */
	file = json_object();
	if (spec_is_protocol(format))
		set_str(file, "driver", format);
	set_str(file, "filename", full);
	if (spec_is_protocol(format)) {
		*node = file;
		return 0;
	}
	top = json_object();
	if (format)
		set_str(top, "driver", format);
	json_set_take(top, "file", file);
	*node = top;
	return 0;
}
