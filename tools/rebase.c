/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rebase.c - `imgctl rebase`: another backing file below an image.
 *
 * Knows names, formats and qemu-img's words.  job-rebase.c does it.
 */
#include "tools.h"
#include "progress.h"

#include "job.h"
#include "json.h"
#include "spec.h"

static const struct cmd_option rebase_options[] = {
	{ 'q', "quiet", NULL, "accepted: nothing is said anyhow",
	  OPT_LONG_10 },
	{ 'p', "progress", NULL, "print how far it is", OPT_LONG_10 },
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 't', "cache", "CACHE", "how to write (default: writeback)",
	  OPT_LONG_10 },
	{ 'T', "source-cache", "CACHE", "how to read the backing files",
	  OPT_LONG_10 },
	{ 'b', "backing", "FILE", "the new backing file; \"\": none",
	  OPT_LONG_10 },
	{ 'F', "backing-format", "FMT", "its format", OPT_LONG_10 },
	{ 'u', "backing-unsafe", NULL, "only change the name: what is read"
	  " below may be something else then", OPT_LONG_10 },
	{ 'c', "compress", NULL, "compress what has to be stored",
	  OPT_ONLY_10 },
	OPTION_SHARE,
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct rebase_cmd {
	struct open_how how;
	const char *name, *base, *format;       /* base NULL: not given */
	const char *cache, *source_cache;
	enum cache_mode source_mode;
	bool unsafe, compress, share, show, quiet;
};

/* What the header is to say. */
static const char *new_name(const struct rebase_cmd *c)
{
	return c->base && *c->base ? c->base : NULL;
}

/* ---- the new backing file -------------------------------------------------------- */

/* Its name is as it will be in the image: relative to that. */
static int open_new(const struct rebase_cmd *c, const struct image *top,
		    struct image **new, struct err *err)
{
	struct image_args args = { .cache = c->source_mode,
				   .flags = c->share ? IMAGE_SHARE : 0,
				   .policy = top->policy,
				   .self_policy = top->policy };
	const char *from = spec_file(top->node);
	autojson *node = NULL;
	int ret;

	*new = NULL;
	if (!new_name(c))
		return 0;
	ret = spec_parse_child(c->base, from ? from : top->file->name,
			       c->format, &node, err);
	args.node = node;
	if (!ret)
		ret = image_open(&args, new, err);
	if (!ret)
		return 0;
	err_errno(err, ret, "Could not open '%s'", c->base);
	err_prefix(err, "Could not open new backing file '%s': ", c->base);
	return ret;
}

static int safe(const struct rebase_cmd *c, struct image *top, struct err *err)
{
	struct progress p = { 0 };
	struct rebase_args a = {
		.top = top,
		.name = new_name(c),
		.format = c->format,
		.compress = c->compress,
		.lend = true,
		.progress = &p,
	};
	int ret = open_new(c, top, &a.new, err);

	if (ret)
		return ret;
	progress_start(&p, c->show && !c->quiet);
	pause_point("command");
	guard_reads();
	ret = job_rebase(&a, err);
	if (!ret)
		progress_complete(&p);
	progress_end(&p);
	image_close(a.new);
	return ret;
}

static int unsafe(const struct rebase_cmd *c, struct image *top,
		  struct err *err)
{
	int ret = rebase_check(top, new_name(c), c->format, err);

	return ret ? ret : rebase_header(top, new_name(c), c->format, err);
}

/* ---- the command -------------------------------------------------------------------- */

static int rebase_image(const struct rebase_cmd *c, struct image *top)
{
	autoerr err = ERR_INIT;
	int ret;

	if (c->compress && !top->fmt->stores_packed) {
		say_error("Compression not supported for this file format");
		return 1;
	}
	ret = c->unsafe ? unsafe(c, top, &err) : safe(c, top, &err);
	if (!ret)
		return 0;
	err_errno(&err, ret, "Could not rebase '%s'", c->name);
	say_err(&err);
	return 1;
}

static int rebase_file(const struct rebase_cmd *c)
{
	struct image *top = tool_open(c->name, &c->how);
	int ret, rc;

	if (!top)
		return 1;
	if (c->format && !format_find(c->format)) {
		say_error("Invalid format name: '%s'", c->format);
		image_close(top);
		return 1;
	}
	rc = rebase_image(c, top);
	ret = image_close(top);
	if (ret && !rc) {
		say_error("Could not close '%s': %s", c->name, strerror(-ret));
		rc = 1;
	}
	return rc;
}

static void take_option(struct rebase_cmd *c, int id, const char *arg)
{
	switch (id) {
	case 'q':
		c->quiet = true;
		break;
	case 'p':
		c->show = true;
		break;
	case 'f':
		c->how.format = arg;
		break;
	case 't':
		c->cache = arg;
		break;
	case 'T':
		c->source_cache = arg;
		break;
	case 'b':
		c->base = arg;
		break;
	case 'F':
		c->format = arg;
		break;
	case 'u':
		c->unsafe = true;
		break;
	case 'c':
		c->compress = true;
		break;
	case 'U':
		c->share = true;
		break;
	case OPT_IMAGE_OPTS:
		c->how.image_opts = true;
		break;
	}
}

static int rebase_run(struct cmdline *cl)
{
	struct rebase_cmd c = {
		.how.flags = IMAGE_RDWR | IMAGE_DISCARD,
		.cache = "writeback",
		.source_cache = "writeback",
	};
	const char *arg;
	int id, rc;

	stdout_outlive();
	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return cl->rc;
		take_option(&c, id, arg);
		if (id == OPT_OBJECT && !object_add(arg, &rc))
			return rc;
	}
	if (cl->nr_operands != 1)
		return usage_error(cl, "Expecting one image file name");
	if (!c.unsafe && !c.base)
		return usage_error(cl, "Must specify backing file (-b) or use"
				   " unsafe mode (-u)");
	if (!tool_cache(c.cache, "cache", &c.how.cache) ||
	    !tool_cache(c.source_cache, "source cache", &c.source_mode) ||
	    tool_opts_conflict(&c.how))
		return 1;
	if (c.unsafe)
		c.how.flags |= IMAGE_NO_BACKING;
	c.name = cl->operands[0];
	if (!c.how.image_opts && mounted_run(cl, c.name, NULL, NULL, &rc))
		return rc;
	return rebase_file(&c);
}

const struct command cmd_rebase = {
	.name = "rebase",
	.operands = "FILE",
	.help = "Puts another backing file below an image, or none. What the"
		" image reads as stays the same: where the old and the new"
		" backing file differ it stores the old one's bytes. With -u"
		" only the name is changed. May be interrupted and run again.",
	.options = rebase_options,
	.run = rebase_run,
};
