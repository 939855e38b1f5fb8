/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * create.c - `imgctl create`: a new, empty image.
 *
 * Reads the command line; blockcore/create.c does the work.
 */
#include "tools.h"
#include "create.h"

static const struct cmd_option create_cmd_options[] = {
	{ 'f', "format", "FMT", "format of the new image (default: raw)",
	  OPT_LONG_10 },
	{ 'o', "options", "OPTS", "options of the format, key=value,...;"
	  " \"help\" lists them", OPT_LONG_10 },
	{ 'b', "backing", "FILE", "backing file: what is not written is read"
	  " from it; relative to the new image's folder", OPT_LONG_10 },
	{ 'F', "backing-format", "FMT", "format of the backing file",
	  OPT_LONG_10 },
	{ 'u', "backing-unsafe", NULL, "do not open the backing file",
	  OPT_LONG_10 },
	{ 'q', "quiet", NULL, "do not print the Formatting line",
	  OPT_LONG_10 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct create {
	struct create_request req;
	const char **lists;
	bool quiet, help;
};

static void print_formatting(void *data, const char *text)
{
	const struct create *c = data;

	if (c->quiet)
		return;
	puts(text);
	fflush(stdout);
}

static void target_opened(void *data, const char *path, const struct stat *st,
			  bool created)
{
	(void)data;
	if (created)
		guard_arm(path, st);
}

static int help(const struct create *c, const char *target)
{
	const char *format = c->req.format ? c->req.format : "raw";
	autostrbuf out = STRBUF_INIT;
	autoerr err = ERR_INIT;

	if (create_help(format, target, NULL, &out, &err)) {
		say_err(&err);
		return 1;
	}
	fputs(out.text, stdout);
	return 0;
}

static int create(struct create *c)
{
	autoerr err = ERR_INIT;
	int ret = create_run(&c->req, &err);

	guard_disarm();
	if (ret)
		say_err(&err);
	return ret ? 1 : 0;
}

static int take_operands(struct create *c, struct cmdline *cl)
{
	if (c->help)
		return help(c, cl->nr_operands ? cl->operands[0] : NULL);
	if (!cl->nr_operands)
		return usage_error(cl, "Expecting image file name");
	if (cl->nr_operands > 1 &&
	    !tool_size("image size", cl->operands[1], 0, INT64_MAX,
		       &c->req.size))
		return 1;
	if (cl->nr_operands > 2)
		return usage_error(cl, "Unexpected argument: %s",
				   cl->operands[2]);
	c->req.has_size = cl->nr_operands > 1;
	c->req.target = cl->operands[0];
	return create(c);
}

static int take_option(struct create *c, int id, const char *arg, int *rc)
{
	switch (id) {
	case 'f':
		c->req.format = arg;
		return 0;
	case 'o':
		if (!tool_option_list(arg))
			return *rc = 1;
		c->help |= options_wants_help(arg);
		c->lists[c->req.nr_lists++] = arg;
		return 0;
	case 'b':
		c->req.backing = arg;
		return 0;
	case 'F':
		c->req.backing_fmt = arg;
		return 0;
	case 'u':
		c->req.trust_backing = true;
		return 0;
	case 'q':
		c->quiet = true;
		return 0;
	default:
		return object_add(arg, rc) ? 0 : 1;
	}
}

static int create_cmd_run(struct cmdline *cl)
{
	autofree const char **lists = calloc((size_t)cl->argc + 1,
					     sizeof(*lists));
	struct create c = {
		.req.formatting = print_formatting,
		.req.opened = target_opened,
		.req.lists = lists,
		.lists = lists,
	};
	const char *arg;
	int id, rc = 1;

	stdout_outlive();
	if (!lists)
		BUG("out of memory");
	c.req.data = &c;
	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return cl->rc;
		if (take_option(&c, id, arg, &rc))
			return rc;
	}
	return take_operands(&c, cl);
}

const struct command cmd_create = {
	.name = "create",
	.operands = "FILE [SIZE]",
	.help = "Creates a new disk image. SIZE is that of the guest's disk;"
		" without it the backing file's size is taken. The backing"
		" file is never changed by the new image, except by commit.",
	.options = create_cmd_options,
	.run = create_cmd_run,
};
