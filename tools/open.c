/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * open.c - opens an image for a command and words the failure.
 *
 * Knows the safe mode (--safe, IMGCTL_SAFE=1): names found inside the image
 * lead only below the folder of the image itself.
 */
#include "tools.h"
#include "beyond.h"
#include "json.h"
#include "snapshot.h"
#include "spec.h"

static bool safe;

void tool_set_safe(void)
{
	safe = true;
}

static bool safe_wanted(void)
{
	const char *v = getenv("IMGCTL_SAFE");

	if (beyond_qemu(BEYOND_SAFE, NULL))
		return false;
	return safe || (v && *v && strcmp(v, "0"));
}

/* The file at the bottom of @node, or NULL. */
static const char *node_file(const struct json *node)
{
	const char *name = NULL;

	for (; node && !name; node = json_get(node, "file"))
		name = json_get_str(node, "filename");
	return name;
}

/* The rule of this process for names inside @node's image, made once: the
 * images of one command may refer to each other's folders. */
static int policy_for(const struct json *node, const struct policy **policy,
		      struct err *err)
{
	static struct policy *made;
	const char *file = node_file(node);
	const char *slash = file ? strrchr(file, '/') : NULL;
	autofree char *dir = NULL;

	if (!safe_wanted() || !file)
		return 0;
	dir = slash ? strndup(file, (size_t)(slash - file) + 1) : strdup(".");
	if (!made)
		made = policy_new();
	*policy = made;
	return policy_allow(made, dir, err);
}

static int open_it(const char *file, const struct open_how *how,
		   struct image **img, struct err *err)
{
	struct image_args args = { .flags = how->flags, .cache = how->cache };
	autojson *node = NULL;
	int ret;

	if (!safe_wanted())
		return image_open_name(file, how->image_opts, how->format,
				       how->flags, how->cache, img, err);
	ret = spec_parse(file, how->image_opts ? SPEC_IMAGE_OPTS : SPEC_NAME,
			 how->format, &node, err);
	if (!ret)
		ret = policy_for(node, &args.policy, err);
	args.node = node;
	return ret ? ret : image_open(&args, img, err);
}

struct image *tool_open(const char *file, const struct open_how *how)
{
	struct image *img = NULL;
	autoerr err = ERR_INIT;
	int ret = open_it(file, how, &img, &err);

	if (ret) {
		err_errno(&err, ret, "Could not open '%s'", file);
		err_prefix(&err, "Could not open '%s': ", file);
		say_err(&err);
		return NULL;
	}
	return img;
}

int tool_open_below(const struct image *img, const struct open_how *how,
		    struct image **below, struct err *err)
{
	struct image_args args = { .flags = how->flags, .cache = how->cache,
				   .policy = img->policy,
				   .self_policy = img->policy };
	autojson *node = NULL;
	int ret;

	ret = spec_parse_child(img->backing_name, img->name, img->backing_fmt,
			       &node, err);
	args.node = node;
	return ret ? ret : image_open(&args, below, err);
}

/* ---- -l -------------------------------------------------------------------- */

static bool key_parse(const char *text, struct snapshot_key *key,
		      struct options **keep)
{
	autoerr err = ERR_INIT;

	if (!snapshot_key_parse(text, key, keep, &err))
		return true;
	say_err(&err);
	say_error("Failed in parsing snapshot param '%s'", text);
	return false;
}

/* As qemu-img says it of a bare word, once. */
static void warn_bare(const char *text)
{
	char *key, *value;

	while (options_item(&text, &key, &value)) {
		if (!value && *key)
			warn("short-form boolean option '%s' deprecated\n"
			     "Please use %s=on instead", key, key);
		free(key);
		free(value);
	}
}

bool tool_snapshot_key(const char *text)
{
	struct snapshot_key key;
	struct options *keep;

	if (!strncmp(text, "snapshot.", strlen("snapshot.")))
		warn_bare(text);
	if (!key_parse(text, &key, &keep))
		return false;
	options_free(keep);
	return true;
}

bool tool_load_snapshot(struct image *img, const char *text)
{
	struct snapshot_key key;
	struct options *keep;
	autoerr err = ERR_INIT;
	int ret;

	if (!text)
		return true;
	if (!key_parse(text, &key, &keep))
		return false;
	ret = image_load_snapshot(img, &key, &err);
	options_free(keep);
	if (!ret)
		return true;
	if (ret == -EOPNOTSUPP)
		say_error("Failed to load snapshot: Block format '%s' used by"
			  " device '' does not support temporarily loading"
			  " internal snapshots", img->fmt->name);
	else
		say_error("Failed to load snapshot: %s", err.code ?
			  err_text(&err) : strerror(-ret));
	return false;
}
