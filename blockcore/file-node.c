/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file-node.c - from a protocol node to an open file (options.md 6).
 *
 * Knows the options of the drivers "file", "host_device" and "host_cdrom", and
 * qemu-img's sentences for wrong ones.  Options that only steer how QEMU does
 * its I/O (aio, drop-cache ...) are checked and otherwise without effect.
 */
#include "file-internal.h"
#include "json.h"
#include "options.h"

static int choice(const struct json *v, const char *const *words, int *at,
		  struct err *err)
{
	int i;

	if (v->type == JSON_STRING) {
		for (i = 0; words[i]; i++)
			if (!strcmp(v->s, words[i])) {
				*at = i;
				return 0;
			}
		return err_set(err, -EINVAL, "invalid parameter value: %s",
			       v->s);
	}
	if (v->type == JSON_INT)
		return err_set(err, -EINVAL, "invalid parameter value: %lld",
			       (long long)v->i);
	return err_set(err, -EINVAL, "invalid parameter value: %s",
		       v->type == JSON_BOOL ? v->b ? "on" : "off" : "");
}

static int on_off(const struct json *v, const char *key, bool *on,
		  struct err *err)
{
	if (v->type == JSON_BOOL)
		*on = v->b;
	else if (v->type != JSON_STRING || !bool_parse(v->s, on))
		return err_set(err, -EINVAL, "Parameter '%s' expects 'on' or"
			       " 'off'", key);
	return 0;
}

static int number(const struct json *v, const char *key, struct err *err)
{
	char *end = NULL;

	if (v->type == JSON_INT || v->type == JSON_UINT)
		return 0;
	if (v->type == JSON_STRING && *v->s) {
		strtoll(v->s, &end, 0);
		if (!*end)
			return 0;
	}
	return err_set(err, -EINVAL, "Parameter '%s' expects a number", key);
}

enum key_kind { KEY_ANY, KEY_BOOL, KEY_NUMBER, KEY_LOCKING, KEY_AIO,
		KEY_PR };

static const struct {
	const char *key;
	enum key_kind kind;
	unsigned flag;          /* BOOL: what "on" means to us */
} keys[] = {
	{ "driver", KEY_ANY, 0 },
	{ "filename", KEY_ANY, 0 },
	/* what nodes of all drivers have: checked where images are opened */
	{ "node-name", KEY_ANY, 0 },
	{ "discard", KEY_ANY, 0 },
	{ "detect-zeroes", KEY_ANY, 0 },
	{ "read-only", KEY_BOOL, 0 },
	{ "auto-read-only", KEY_BOOL, 0 },
	{ "force-share", KEY_BOOL, 0 },
	{ "cache.direct", KEY_BOOL, FILE_DIRECT },
	{ "cache.no-flush", KEY_BOOL, FILE_NO_FLUSH },
	{ "locking", KEY_LOCKING, 0 },
	{ "aio", KEY_AIO, 0 },
	{ "aio-max-batch", KEY_NUMBER, 0 },
	{ "pr-manager", KEY_PR, 0 },
	{ "drop-cache", KEY_BOOL, 0 },
	{ "x-check-cache-dropped", KEY_BOOL, 0 },
};

enum { AIO_THREADS, AIO_NATIVE, AIO_IO_URING };
static const char *const aio_words[] = { "threads", "native", "io_uring",
					 NULL };
static const char *const lock_words[] = { "auto", "on", "off", NULL };

struct parsed {
	struct posix_args args;
	int aio;
};

static int take_key(struct parsed *p, size_t i, const struct json *v,
		    struct err *err)
{
	bool on = false;
	int ret, at = 0;

	switch (keys[i].kind) {
	case KEY_BOOL:
		ret = on_off(v, keys[i].key, &on, err);
		if (!ret && on)
			p->args.flags |= keys[i].flag;
		return ret;
	case KEY_NUMBER:
		return number(v, keys[i].key, err);
	case KEY_LOCKING:
		if (v->type == JSON_BOOL)       /* json: true is "on" */
			at = v->b ? LOCK_MODE_ON : LOCK_MODE_OFF;
		ret = v->type == JSON_BOOL ? 0 :
		      choice(v, lock_words, &at, err);
		p->args.lock = (enum lock_mode)at;
		return ret;
	case KEY_AIO:
		return choice(v, aio_words, &p->aio, err);
	case KEY_PR:
		return err_set(err, -ENOENT, "No persistent reservation manager"
			       " with id '%s'",
			       v->type == JSON_STRING ? v->s : "");
	case KEY_ANY:
		break;
	}
	return 0;
}

/* "cache.direct" is a key of the node or of its object "cache". */
static const struct json *find_key(const struct json *node, const char *key)
{
	const struct json *v = json_get(node, key);
	const char *sub = strncmp(key, "cache.", 6) ? NULL : key + 6;

	return v || !sub ? v : json_get(json_get(node, "cache"), sub);
}

static bool known_key(const char *prefix, const char *key)
{
	size_t i, n = strlen(prefix);

	for (i = 0; i < ARRAY_SIZE(keys); i++)
		if (!strncmp(keys[i].key, prefix, n) &&
		    !strcmp(keys[i].key + n, key))
			return true;
	return false;
}

static int check_keys(const struct json *node, const char *prefix,
		      const char *driver, struct err *err)
{
	size_t i;
	int ret;

	for (i = 0; i < node->n; i++) {
		const char *key = node->keys[i];
		const struct json *v = node->items[i];

		if (!*prefix && !strcmp(key, "cache") &&
		    node->items[i]->type == JSON_OBJECT) {
			ret = check_keys(node->items[i], "cache.", driver, err);
			if (ret)
				return ret;
		} else if (!known_key(prefix, key)) {
			bool deep = v->type == JSON_OBJECT && v->n;

			return err_set(err, -EINVAL, "Block protocol '%s'"
				       " doesn't support the option"
				       " '%s%s%s%s'", driver, prefix, key,
				       deep ? "." : "", deep ? v->keys[0] : "");
		}
	}
	return 0;
}

static int parse(const struct json *node, struct parsed *p, struct err *err)
{
	const struct json *v;
	size_t i;
	int ret;

	p->args.path = json_get_str(node, "filename");
	if (!p->args.path || !*p->args.path)
		return err_set(err, -EINVAL, "The '%s' block driver requires a"
			       " file name", p->args.driver);
	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		v = find_key(node, keys[i].key);
		if (!v || v->type == JSON_NULL)
			continue;
		ret = take_key(p, i, v, err);
		if (ret)
			return ret;
	}
	if (p->aio == AIO_NATIVE && !(p->args.flags & FILE_DIRECT))
		return err_set(err, -EINVAL, "aio=native was specified, but it"
			       " requires cache.direct=on, which was not"
			       " specified.");
	return 0;
}

/* Devices have a driver of their own; only a bare name may lead to one. */
static int check_kind(struct file *f, const struct json *node,
		      const struct parsed *p, struct err *err)
{
	const char *driver = json_get_str(node, "driver");
	struct stat st;

	if (!driver || strcmp(driver, "file") || file_stat(f, &st) ||
	    S_ISREG(st.st_mode))
		return 0;
	return err_set(err, -EINVAL, "'file' driver requires '%s' to be a"
		       " regular file", p->args.path);
}

int file_open(const struct json *node, unsigned flags,
	      const struct policy *policy, struct file **f, struct err *err)
{
	struct parsed p = { .args.driver = json_get_str(node, "driver"),
			    .args.flags = flags };
	struct file *made;
	int ret;

	if (!p.args.driver)
		p.args.driver = "file";
	if (strcmp(p.args.driver, "file") &&
	    strcmp(p.args.driver, "host_device") &&
	    strcmp(p.args.driver, "host_cdrom"))
		return err_set(err, -EINVAL, "Unknown driver '%s'",
			       p.args.driver);
	ret = parse(node, &p, err);
	if (!ret)
		ret = posix_open(&p.args, policy, &made, err);
	if (ret)
		return ret;
	/* QEMU finds out about what nobody took after opening. */
	ret = check_kind(made, node, &p, err);
	if (!ret)
		ret = check_keys(node, "", p.args.driver, err);
	if (ret)
		file_unref(made);
	else
		*f = made;
	return ret;
}

int file_open_path(const char *path, unsigned flags,
		   const struct policy *policy, struct file **f,
		   struct err *err)
{
	const struct posix_args a = { .driver = "file", .path = path,
				      .flags = flags };

	return posix_open(&a, policy, f, err);
}
