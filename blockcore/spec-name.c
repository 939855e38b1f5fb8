/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spec-name.c - names for trees of nodes, and relative names; see spec.h.
 *
 * Knows which options make a difference to the guest, so that a plain file
 * name cannot stand for them, and QEMU's order of keys (qemu-img-cli.md 5).
 */
#include "spec.h"

#include <stdio.h>

/*
 * Options that change what the guest sees, in the order in which they print.
 * Not among them are the backing file and the data file: info speaks of one
 * layer, and the image itself names those.
 */
static const char *const strong_keys[] = {
	"encrypt.key-secret", "encrypt.format", "offset", "driver",
	"filename", "size", "file", "key-secret",
};

/* Every node has these. */
static bool is_weak(const char *key)
{
	return !strcmp(key, "driver") || !strcmp(key, "filename") ||
	       !strcmp(key, "file");
}

static bool is_file_node(const struct json *node)
{
	return json_get_str(node, "filename") &&
	       !json_get(node, "file");
}

/* Does the name of its file say all about @node? */
static bool is_plain(const struct json *node)
{
	const struct json *file = json_get(node, "file");

	for (size_t i = 0; i < ARRAY_SIZE(strong_keys); i++)
		if (!is_weak(strong_keys[i]) && json_get(node, strong_keys[i]))
			return false;
	return is_file_node(node) || (file && is_file_node(file));
}

/* @node with nothing but what matters, in QEMU's order. */
static struct json *essence(const struct json *node)
{
	struct json *out = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(strong_keys); i++) {
		const char *key = strong_keys[i];
		const struct json *v = json_get(node, key);

		if (v)
			json_add_take(out, key, v->type == JSON_OBJECT && v->n ?
				      essence(v) : json_copy(v));
	}
	return out;
}

char *spec_name(const struct json *node)
{
	autostrbuf text = STRBUF_INIT;
	autojson *all = NULL;

	if (is_plain(node)) {
		strbuf_puts(&text, spec_file(node));
		return strbuf_take(&text);
	}
	all = essence(node);
	strbuf_puts(&text, "json:");
	json_write(&text, all, false, 0);
	return strbuf_take(&text);
}

/* The file name that @base stands for; *node is to be freed after use. */
static const char *base_file(const char *base, struct json **node)
{
	if (strncmp(base, "json:", 5))
		return base;
	if (spec_parse(base, SPEC_NAME, NULL, node, NULL))
		return NULL;
	return spec_file(*node);
}

char *spec_join(const char *base, const char *name)
{
	autojson *node = NULL;
	autostrbuf out = STRBUF_INIT;
	const char *file, *slash;

	if (base && *name != '/' && !spec_has_protocol(name)) {
		file = base_file(base, &node);
		slash = file ? strrchr(file, '/') : NULL;
		if (slash)
			strbuf_add(&out, file, (size_t)(slash - file) + 1);
	}
	strbuf_puts(&out, name);
	return strbuf_take(&out);
}
