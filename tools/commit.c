/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit.c - `imgctl commit`: what an overlay holds goes down into an image of
 * its chain.
 *
 * Knows which image that is and qemu-img's words.  job-commit.c does it.
 */
#include "tools.h"
#include "beyond.h"
#include "progress.h"

#include "job.h"

static const struct cmd_option commit_options[] = {
	{ 'q', "quiet", NULL, "say nothing but errors", OPT_LONG_10 },
	{ 'p', "progress", NULL, "print how far it is", OPT_LONG_10 },
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 't', "cache", "CACHE", "how to write (default: writeback)",
	  OPT_LONG_10 },
	{ 'd', "drop", NULL, "leave the image as it is, it will be dropped",
	  OPT_LONG_10 },
	{ 'b', "base", "BASE", "commit down to this image of the chain;"
	  " implies -d", OPT_LONG_10 },
	{ 'r', "rate", "RATE", "at most so many bytes per second",
	  OPT_LONG_10 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct commit_cmd {
	struct open_how how;
	const char *name, *base, *cache;
	bool drop, show, quiet;
	uint64_t bytes;                 /* per second */
};

/* ---- does it fit -------------------------------------------------------------- */

/* qemu-img-cli.md 11, G and H. */
static bool base_fits(const struct image *top, const struct image *base)
{
	const char *format = base->fmt->name;
	bool grows = image_size(top) > image_size(base);

	if (beyond_qemu(BEYOND_COMMIT, format) ||
	    (!base->fmt->reserve && !base->fmt->probed_guard)) {
		say_error("Block format '%s' used by node '#block001' does not"
			  " support reopening files", format);
		return false;
	}
	if (grows && beyond_qemu(BEYOND_GROW, format)) {
		say_error("Block job failed: %s", strerror(EOPNOTSUPP));
		return false;
	}
	return true;
}

/* ---- doing it -------------------------------------------------------------------- */

static int commit(const struct commit_cmd *c, struct image *top,
		  struct image *base, struct err *err)
{
	struct progress p = { 0 };
	struct commit_args a = {
		.top = top,
		.base = base,
		.drop = c->drop,
		.rate = c->bytes,
		.lend = true,
		.progress = &p,
	};
	int ret;

	progress_start(&p, c->show && !c->quiet);
	pause_point("command");
	guard_reads();
	ret = job_commit(&a, err);
	if (!ret)
		progress_complete(&p);
	progress_end(&p);
	return ret;
}

static int commit_image(const struct commit_cmd *c, struct image *top)
{
	struct image *base;
	autoerr err = ERR_INIT;
	int ret = commit_base(top, c->base, c->name, &base, &err);

	if (ret) {
		say_err(&err);
		return 1;
	}
	if (!base_fits(top, base))
		return 1;
	ret = image_upgrade_base(base, image_size(top) > image_size(base),
				 &err);
	if (!ret)
		ret = commit(c, top, base, &err);
	if (base->writable) {
		int down = image_downgrade_anyhow(base, &err);

		ret = ret ? ret : down;
	}
	if (!ret)
		return 0;
	err_errno(&err, ret, "Could not commit '%s'", c->name);
	say_err(&err);
	return 1;
}

static int commit_file(const struct commit_cmd *c)
{
	struct image *top = tool_open(c->name, &c->how);
	int ret, rc;

	if (!top)
		return 1;
	rc = commit_image(c, top);
	ret = image_close(top);
	if (ret && !rc) {
		say_error("Could not close '%s': %s", c->name, strerror(-ret));
		rc = 1;
	}
	if (!rc && !c->quiet)
		puts("Image committed.");
	return rc;
}

static void take_option(struct commit_cmd *c, int id, const char *arg)
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
	case 'b':
		c->base = arg;
		c->drop = true;
		break;
	case 'd':
		c->drop = true;
		break;
	case OPT_IMAGE_OPTS:
		c->how.image_opts = true;
		break;
	}
}

static int commit_run(struct cmdline *cl)
{
	struct commit_cmd c = {
		.how.flags = IMAGE_RDWR | IMAGE_DISCARD,
		.cache = "writeback",
	};
	const char *arg;
	int id, rc;

	stdout_outlive();
	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return cl->rc;
		take_option(&c, id, arg);
		if (id == 'r' && !tool_size("rate limit", arg, 0, INT64_MAX,
					    &c.bytes))
			return 1;
		if (id == OPT_OBJECT && !object_add(arg, &rc))
			return rc;
	}
	if (cl->nr_operands != 1)
		return usage_error(cl, "Expecting one image file name");
	if (!tool_cache(c.cache, "cache", &c.how.cache) ||
	    tool_opts_conflict(&c.how))
		return 1;
	c.name = cl->operands[0];
	if (!c.how.image_opts &&
	    mounted_run(cl, c.name, NULL, c.quiet ? NULL : "Image committed.",
			&rc))
		return rc;
	return commit_file(&c);
}

const struct command cmd_commit = {
	.name = "commit",
	.operands = "FILE",
	.help = "Writes what an overlay holds to its backing file, which grows"
		" where it is smaller and can, and empties the overlay. -b"
		" chooses an image further down. May be interrupted and run"
		" again. Other overlays of the same base are spoilt by it.",
	.options = commit_options,
	.run = commit_run,
};
