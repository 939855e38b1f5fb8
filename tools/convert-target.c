/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert-target.c - the image that convert writes: its options, making it,
 * opening it.
 *
 * Everything that can be refused is refused before a file is touched; the order
 * of the checks is qemu-img's.
 */
#include "convert.h"
#include "beyond.h"
#include "codec.h"

#include <inttypes.h>

/* Not the image's but this command's: nothing in the image tells it. */
static const struct option_spec level_option[] = {
	{ "compression_level", OPTION_NUMBER, "How hard -c tries: 1 is fastest",
	  NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

/* ---- options ---------------------------------------------------------------- */

const struct option_spec *target_own_options(const struct format *fmt)
{
	return fmt && fmt->stores_packed &&
	       !beyond_qemu(BEYOND_LEVEL, fmt->name) ? level_option : NULL;
}

static int read_options(struct convert_cmd *c, struct err *err)
{
	char size[32];
	int ret = 0;

	if (target_own_options(c->fmt))
		options_add(c->options, target_own_options(c->fmt));
	for (size_t i = 0; i < c->nr_lists && !ret; i++)
		ret = options_parse(c->options, c->lists[i], err);
	/* A size among them has no say. */
	snprintf(size, sizeof(size), "%" PRIu64, c->size);
	return ret ? ret : options_set(c->options, "size", size, err);
}

static int read_backing(struct convert_cmd *c, struct err *err)
{
	struct options *o = c->options;

	if (c->backing && options_set(o, "backing_file", c->backing, NULL))
		return err_set(err, -ENOTSUP, "Backing file not supported for"
			       " file format '%s'", c->fmt->name);
	if (c->backing_fmt &&
	    options_set(o, "backing_fmt", c->backing_fmt, NULL))
		return err_set(err, -ENOTSUP, "Backing file format not"
			       " supported for file format '%s'", c->fmt->name);
	c->backing = options_str(o, "backing_file", NULL);
	c->backing_fmt = options_str(o, "backing_fmt", NULL);
	return 0;
}

static int check_backing(const struct convert_cmd *c, struct err *err)
{
	if (c->backing && c->nr_sources > 1)
		return err_set(err, -EINVAL, "Having a backing file for the"
			       " target makes no sense when concatenating"
			       " multiple input images");
	if (c->backing && !c->no_create && !c->backing_fmt)
		return err_set(err, -EINVAL, "Use of backing file requires"
			       " explicit backing format");
	return 0;
}

static int check_level(struct convert_cmd *c, struct err *err)
{
	const char *type = options_str(c->options, "compression_type", "zlib");
	const struct codec *codec = strcmp(type, "zstd") ? &codec_zlib :
				    &codec_zstd;
	uint64_t level = options_num(c->options, "compression_level", 0);

	if (!options_has(c->options, "compression_level"))
		return 0;
	if (!c->compress)
		return err_set(err, -EINVAL, "Parameter 'compression_level' has"
			       " no effect without -c");
	if (!level || level > (unsigned)codec->max_level)
		return err_set(err, -EINVAL, "Parameter 'compression_level'"
			       " expects a number between 1 and %d",
			       codec->max_level);
	c->level = (int)level;
	return 0;
}

static int check_compress(const struct convert_cmd *c, struct err *err)
{
	const char *mode;

	if (!c->compress)
		return 0;
	if (!c->fmt->stores_packed)
		return err_set(err, -ENOTSUP,
			       "Compression not supported for this file"
			       " format");
	mode = options_str(c->options, "preallocation", "off");
	if (strcmp(mode, "off"))
		return err_set(err, -EINVAL, "Compression and preallocation"
			       " not supported at the same time");
	return 0;
}

static int prepare_new(struct convert_cmd *c, struct err *err)
{
	int ret = create_options(c->to.format, c->target, &c->fmt, &c->options,
				 err);

	if (!ret)
		ret = read_options(c, err);
	if (!ret)
		ret = read_backing(c, err);
	if (!ret)
		ret = check_backing(c, err);
	if (!ret)
		ret = check_compress(c, err);
	return ret ? ret : check_level(c, err);
}

static int prepare_old(const struct convert_cmd *c, struct err *err)
{
	int ret = check_backing(c, err);

	if (ret || !c->target_is_zero || !c->backing)
		return ret;
	return err_set(err, -EINVAL, "Cannot use --target-is-zero when the"
		       " destination image has a backing file");
}

bool target_prepare(struct convert_cmd *c)
{
	autoerr err = ERR_INIT;
	int ret = c->no_create ? prepare_old(c, &err) : prepare_new(c, &err);

	if (ret)
		say_err(&err);
	return !ret && bitmaps_prepare(c) &&
	       tool_cache(c->target_cache, "cache", &c->to.cache);
}

/* ---- making and opening ------------------------------------------------------- */

static void target_opened(void *data, const char *path, const struct stat *st,
			  bool created)
{
	struct convert_cmd *c = data;

	c->created = created;
	c->regular = S_ISREG(st->st_mode);
	if (created)
		guard_arm(path, st);
}

static bool target_create(struct convert_cmd *c)
{
	struct image_create create = {
		.target = c->target,
		.fmt = c->fmt,
		.options = c->options,
		.size = c->size,
		.unsafe = c->to.cache == CACHE_UNSAFE,
		.src = c->src,
		.nr_src = c->nr_sources,
		.opened = target_opened,
		.data = c,
	};
	autoerr err = ERR_INIT;

	if (!image_create(&create, &err))
		return true;
	guard_disarm();
	if (c->stage)
		err_prefix(&err, "%s: error while %s: ", c->target, c->stage);
	else
		err_prefix(&err, "%s: error while converting %s: ", c->target,
			   c->to.format);
	say_err(&err);
	return false;
}

/* 7.2's words for what an existing target cannot take. */
static bool target_fits(const struct convert_cmd *c)
{
	if (c->compress && !c->dst->codec && !c->dst->fmt->stores_packed)
		say_error("Compression not supported for this file format");
	else if (image_size(c->dst) < c->size)
		say_error("output file is smaller than input file");
	else
		return true;
	return false;
}

bool target_open(struct convert_cmd *c)
{
	if (tool_opts_conflict(&c->to) ||
	    (!c->no_create && !target_create(c)))
		return false;
	if (!c->no_create && !strcmp(c->to.format, "file"))
		c->to.format = "raw";
	c->to.flags |= IMAGE_RDWR | IMAGE_DISCARD;
	c->dst = tool_open(c->target, &c->to);
	if (!c->dst || !target_fits(c))
		return false;
	c->dst->pack_level = c->level;
	return bitmaps_target_fits(c);
}

/*
 * A new regular file does; on a device only what has no fixed place there: a
 * format that knows which of its clusters were never written.
 */
bool target_zero(const struct convert_cmd *c)
{
	const char *mode;

	if (c->backing)
		return false;
	if (c->no_create)
		return c->target_is_zero;
	if (c->regular)
		return true;
	mode = options_str(c->options, "preallocation", "off");
	return !c->fmt->probed_guard && !strcmp(mode, "off");
}
