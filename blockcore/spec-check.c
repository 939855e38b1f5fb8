/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spec-check.c - which options a node may have and what their values may be
 * (options.md 6), in qemu-img's words and in the order in which it finds
 * faults.
 *
 * Knows names and types only: what an option does is its driver's business.
 * The options of files are file-node.c's.
 */
#include "spec.h"

#include "options.h"

#define NODE_NAME_MAX 31

/* ---- tables ------------------------------------------------------------------- */

#define END { NULL, OPTION_STRING, NULL, NULL }

static const struct option_spec flag_options[] = {
	{ "read-only", OPTION_BOOL, NULL, NULL },
	{ "auto-read-only", OPTION_BOOL, NULL, NULL },
	{ "force-share", OPTION_BOOL, NULL, NULL },
	{ "cache.direct", OPTION_BOOL, NULL, NULL },
	{ "cache.no-flush", OPTION_BOOL, NULL, NULL },
	END
};

static const struct option_spec value_options[] = {
	{ "driver", OPTION_STRING, NULL, NULL },
	{ "node-name", OPTION_STRING, NULL, NULL },
	{ "discard", OPTION_STRING, NULL, NULL },
	{ "detect-zeroes", OPTION_STRING, NULL, NULL },
	END
};

static const struct option_spec raw_options[] = {
	{ "offset", OPTION_SIZE, NULL, NULL },
	{ "size", OPTION_SIZE, NULL, NULL },
	END
};

static const struct option_spec qcow2_options[] = {
	{ "lazy-refcounts", OPTION_BOOL, NULL, NULL },
	{ "pass-discard-request", OPTION_BOOL, NULL, NULL },
	{ "pass-discard-snapshot", OPTION_BOOL, NULL, NULL },
	{ "pass-discard-other", OPTION_BOOL, NULL, NULL },
	{ "overlap-check", OPTION_STRING, NULL, NULL },
	{ "overlap-check.template", OPTION_STRING, NULL, NULL },
	{ "overlap-check.main-header", OPTION_BOOL, NULL, NULL },
	{ "overlap-check.active-l1", OPTION_BOOL, NULL, NULL },
	{ "overlap-check.active-l2", OPTION_BOOL, NULL, NULL },
	{ "overlap-check.refcount-table", OPTION_BOOL, NULL, NULL },
	{ "overlap-check.refcount-block", OPTION_BOOL, NULL, NULL },
	{ "overlap-check.snapshot-table", OPTION_BOOL, NULL, NULL },
	{ "overlap-check.inactive-l1", OPTION_BOOL, NULL, NULL },
	{ "overlap-check.inactive-l2", OPTION_BOOL, NULL, NULL },
	{ "overlap-check.bitmap-directory", OPTION_BOOL, NULL, NULL },
	{ "cache-size", OPTION_SIZE, NULL, NULL },
	{ "l2-cache-size", OPTION_SIZE, NULL, NULL },
	{ "l2-cache-entry-size", OPTION_SIZE, NULL, NULL },
	{ "refcount-cache-size", OPTION_SIZE, NULL, NULL },
	{ "cache-clean-interval", OPTION_NUMBER, NULL, NULL },
	{ "encrypt.format", OPTION_STRING, NULL, NULL },
	{ "encrypt.key-secret", OPTION_STRING, NULL, NULL },
	{ "data-file", OPTION_STRING, NULL, NULL },
	END
};

/* Since QEMU 8.1. */
static const struct option_spec qcow2_options_10[] = {
	{ "discard-no-unref", OPTION_BOOL, NULL, NULL },
	END
};

static const struct option_spec no_options[] = { END };

static const struct option_spec *driver_options(const char *driver)
{
	if (!strcmp(driver, "raw"))
		return raw_options;
	return !strcmp(driver, "qcow2") ? qcow2_options : no_options;
}

static const struct option_spec *newer_options(const char *driver)
{
	return !strcmp(driver, "qcow2") && qemu_compat() >= 100 ?
	       qcow2_options_10 : no_options;
}

static bool in_table(const struct option_spec *table, const char *key)
{
	for (; table->name; table++)
		if (!strcmp(table->name, key))
			return true;
	return false;
}

/* ---- values --------------------------------------------------------------------- */

/* What a typed value is as text; false: as good as not given. */
static bool value_text(const struct json *v, struct strbuf *text)
{
	switch (v ? v->type : JSON_NULL) {
	case JSON_STRING:
		strbuf_puts(text, v->s);
		return true;
	case JSON_BOOL:
		strbuf_puts(text, v->b ? "on" : "off");
		return true;
	case JSON_INT:
	case JSON_UINT:
	case JSON_DOUBLE:
		json_write(text, v, false, 0);
		return true;
	default:
		return false;
	}
}

/* All of @table's options that @node has, into @o. */
static int take_options(const struct json *node,
			const struct option_spec *table, struct options **out,
			struct err *err)
{
	struct options *o = options_new(table, NULL);
	int ret = 0;

	for (; table->name && !ret; table++) {
		autostrbuf text = STRBUF_INIT;

		if (value_text(json_get(node, table->name), &text))
			ret = options_set(o, table->name, text.text, err);
	}
	if (ret)
		options_free(o);
	else
		*out = o;
	return ret;
}

static int check_types(const struct json *node,
		       const struct option_spec *table, struct err *err)
{
	struct options *o;
	int ret = take_options(node, table, &o, err);

	if (!ret)
		options_free(o);
	return ret;
}

bool spec_bool(const struct json *node, const char *key, bool def)
{
	autostrbuf text = STRBUF_INIT;
	bool b = def;

	if (value_text(json_get(node, key), &text))
		bool_parse(text.text, &b);
	return b;
}

static bool is_one_of(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (!strcmp(text, *words))
			return true;
	return false;
}

static int check_enum(const struct json *node, const char *key,
		      const char *const *words, struct err *err)
{
	const char *text = json_get_str(node, key);

	if (!text || is_one_of(text, words))
		return 0;
	return err_set(err, -EINVAL, "invalid parameter value: %s", text);
}

static bool is_node_name(const char *name)
{
	if (!((*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z')))
		return false;
	return !name[strspn(name, "abcdefghijklmnopqrstuvwxyz"
			    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")];
}

static int check_node_name(const struct json *node, struct err *err)
{
	const char *name = json_get_str(node, "node-name");

	if (!name)
		return 0;
	if (!is_node_name(name))
		return err_set(err, -EINVAL, "Invalid node-name: '%s'", name);
	if (strlen(name) > NODE_NAME_MAX)
		return err_set(err, -EINVAL, "Node name too long");
	return 0;
}

static int check_values(const struct json *node, struct err *err)
{
	static const char *const modes[] = { "off", "on", "unmap", NULL };
	static const char *const discards[] = { "ignore", "off", "unmap", "on",
						NULL };
	const char *discard = json_get_str(node, "discard");
	const char *zeroes = json_get_str(node, "detect-zeroes");
	int ret = check_node_name(node, err);

	if (ret)
		return ret;
	if (discard && !is_one_of(discard, discards))
		return err_set(err, -EINVAL, "Invalid discard option");
	ret = check_enum(node, "detect-zeroes", modes, err);
	if (ret || !zeroes || strcmp(zeroes, "unmap"))
		return ret;
	if (!discard || (strcmp(discard, "unmap") && strcmp(discard, "on")))
		return err_set(err, -EINVAL, "setting detect-zeroes to unmap"
			       " is not allowed without setting discard"
			       " operation to unmap");
	return 0;
}

/* ---- qcow2 ------------------------------------------------------------------------- */

static int check_overlap(const struct json *node, const char *key,
			 struct err *err)
{
	static const char *const modes[] = { "none", "constant", "cached",
					     "all", NULL };
	const char *text = json_get_str(node, key);

	if (!text || is_one_of(text, modes))
		return 0;
	return err_set(err, -EINVAL, "Unsupported value '%s' for qcow2 option"
		       " 'overlap-check'. Allowed are any of the following:"
		       " none, constant, cached, all", text);
}

static int check_caches(const struct options *o, struct err *err)
{
	bool all = options_has(o, "cache-size");
	bool l2 = options_has(o, "l2-cache-size");
	bool refs = options_has(o, "refcount-cache-size");
	uint64_t size = options_num(o, "cache-size", 0);

	if (all && l2 && refs)
		return err_set(err, -EINVAL, "cache-size, l2-cache-size and"
			       " refcount-cache-size may not be set at the same"
			       " time");
	if (all && l2 && options_num(o, "l2-cache-size", 0) > size)
		return err_set(err, -EINVAL,
			       "l2-cache-size may not exceed cache-size");
	if (all && refs && options_num(o, "refcount-cache-size", 0) > size)
		return err_set(err, -EINVAL, "refcount-cache-size may not"
			       " exceed cache-size");
	if (options_num(o, "cache-clean-interval", 0) > UINT32_MAX)
		return err_set(err, -EINVAL, "Cache clean interval too big");
	return 0;
}

static int check_qcow2(const struct json *node, struct err *err)
{
	struct options *o;
	const char *crypt = json_get_str(node, "encrypt.format");
	int ret = take_options(node, qcow2_options, &o, err);

	if (ret)
		return ret;
	ret = check_caches(o, err);
	options_free(o);
	if (!ret)
		ret = check_types(node, newer_options("qcow2"), err);
	if (!ret)
		ret = check_overlap(node, "overlap-check", err);
	if (!ret)
		ret = check_overlap(node, "overlap-check.template", err);
	if (!ret && crypt)
		ret = err_set(err, -EINVAL, "No encryption in image header, but"
			      " options specified format '%s'", crypt);
	return ret;
}

static int check_driver(const struct json *node, const char *driver,
			struct err *err)
{
	if (!strcmp(driver, "qcow2"))
		return check_qcow2(node, err);
	return check_types(node, driver_options(driver), err);
}

/* ---- names -------------------------------------------------------------------------- */

/* "" and null: no backing file, asked for even where there is none to open. */
static bool is_no_backing(const struct json *v)
{
	return v->type == JSON_NULL || (v->type == JSON_STRING && !*v->s);
}

static bool is_known(const struct json *node, size_t i, const char *driver,
		     bool backing)
{
	const char *key = node->keys[i];

	if (in_table(flag_options, key) || in_table(value_options, key) ||
	    in_table(driver_options(driver), key) ||
	    in_table(newer_options(driver), key))
		return true;
	if (!strcmp(key, "file"))
		return true;
	if (!strcmp(key, "backing"))
		return backing || is_no_backing(node->items[i]);
	return false;
}

/* The key as the user wrote it: "backing.driver". */
static void full_key(const struct json *node, size_t i, struct strbuf *out)
{
	const struct json *v = node->items[i];

	strbuf_puts(out, node->keys[i]);
	if (v->type != JSON_OBJECT || !v->n)
		return;
	strbuf_putc(out, '.');
	full_key(v, 0, out);
}

static int check_unknown(const struct json *node, const char *driver,
			 bool backing, struct err *err)
{
	autostrbuf key = STRBUF_INIT;

	for (size_t i = 0; i < node->n; i++) {
		if (is_known(node, i, driver, backing))
			continue;
		full_key(node, i, &key);
		return err_set(err, -EINVAL, "Block format '%s' does not"
			       " support the option '%s'", driver, key.text);
	}
	return 0;
}

int spec_check(const struct json *node, enum spec_stage stage,
	       const char *driver, bool backing, struct err *err)
{
	if (!node)
		return 0;
	switch (stage) {
	case SPEC_FLAGS:
		return check_types(node, flag_options, err);
	case SPEC_VALUES:
		return check_values(node, err);
	case SPEC_DRIVER:
		return check_driver(node, driver, err);
	case SPEC_UNKNOWN:
		return check_unknown(node, driver, backing, err);
	}
	return 0;
}
