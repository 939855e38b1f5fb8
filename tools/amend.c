/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * amend.c - `imgctl amend`: other options for an image that is there.
 *
 * Reads the command line; the format does the work.
 */
#include "tools.h"
#include "amend.h"
#include "progress.h"

enum { OPT_FORCE = OPT_COMMAND };

static const struct cmd_option amend_cmd_options[] = {
	{ 'o', "options", "OPTS", "what shall be different, key=value,...;"
	  " \"help\" lists them", OPT_LONG_10 },
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 't', "cache", "CACHE", "how to write (default: writeback)",
	  OPT_LONG_10 },
	{ OPT_FORCE, "force", NULL, "accepted, without effect on the formats"
	  " here", 0 },
	{ 'p', "progress", NULL, "show the progress", OPT_LONG_10 },
	{ 'q', "quiet", NULL, "no progress", OPT_LONG_10 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct amend_cmd {
	struct open_how how;
	const char *cache;
	const char **lists;
	size_t nr_lists;
	bool help, show, quiet;
};

static int print_help(const char *format)
{
	autostrbuf out = STRBUF_INIT;
	autoerr err = ERR_INIT;

	if (amend_help(format, &out, &err)) {
		say_err(&err);
		return 1;
	}
	fputs(out.text, stdout);
	return 0;
}

static int amend_image(const struct amend_cmd *c, struct image *img)
{
	struct progress p = { .done = 0 };
	autoerr err = ERR_INIT;
	int ret;

	progress_start(&p, c->show && !c->quiet);
	ret = amend_run(img, c->lists, c->nr_lists, &p, &err);
	if (!ret)
		progress_complete(&p);
	progress_end(&p);
	if (ret)
		say_err(&err);
	return ret ? 1 : 0;
}

static int amend_file(const struct amend_cmd *c, const char *name)
{
	struct image *img = tool_open(name, &c->how);
	int ret, rc;

	if (!img)
		return 1;
	pause_point("command");
	rc = c->help ? print_help(img->fmt->name) : amend_image(c, img);
	ret = image_close(img);
	if (!ret)
		return rc;
	say_error("Could not close '%s': %s", name, strerror(-ret));
	return 1;
}

static int take_operands(struct amend_cmd *c, struct cmdline *cl)
{
	int rc;

	if (!c->nr_lists)
		return usage_error(cl, "Must specify options (-o)");
	if (c->how.format && c->help)
		return print_help(c->how.format);
	if (cl->nr_operands != 1) {
		say_error("Expecting one image file name");
		return 1;
	}
	if (!tool_cache(c->cache, "cache", &c->how.cache) ||
	    tool_opts_conflict(&c->how))
		return 1;
	if (!c->help && !c->how.image_opts &&
	    mounted_run(cl, cl->operands[0], NULL, NULL, &rc))
		return rc;
	return amend_file(c, cl->operands[0]);
}

static int take_option(struct amend_cmd *c, int id, const char *arg, int *rc)
{
	switch (id) {
	case 'o':
		if (!tool_option_list(arg))
			return *rc = 1;
		c->help |= options_wants_help(arg);
		c->lists[c->nr_lists++] = arg;
		return 0;
	case 'f':
		c->how.format = arg;
		return 0;
	case 't':
		c->cache = arg;
		return 0;
	case 'p':
		c->show = true;
		return 0;
	case 'q':
		c->quiet = true;
		return 0;
	case OPT_IMAGE_OPTS:
		c->how.image_opts = true;
		return 0;
	case OPT_OBJECT:
		return object_add(arg, rc) ? 0 : 1;
	}
	return 0;
}

static int amend_cmd_run(struct cmdline *cl)
{
	autofree const char **lists = calloc((size_t)cl->argc + 1,
					     sizeof(*lists));
	struct amend_cmd c = {
		.how.flags = IMAGE_RDWR | IMAGE_DISCARD,
		.cache = "writeback", .lists = lists,
	};
	const char *arg;
	int id, rc = 1;

	stdout_outlive();
	if (!lists)
		BUG("out of memory");
	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return cl->rc;
		if (take_option(&c, id, arg, &rc))
			return rc;
	}
	return take_operands(&c, cl);
}

const struct command cmd_amend = {
	.name = "amend",
	.operands = "FILE",
	.help = "Changes options of an image that is there: of qcow2 the"
		" version, the width of reference counts, the size and the"
		" name of the data file, among others. The backing file is"
		" changed by rebase. Interrupted, some of it may be done; the"
		" guest's disk reads the same.",
	.options = amend_cmd_options,
	.run = amend_cmd_run,
};
