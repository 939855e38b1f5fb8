/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize.c - `imgctl resize`: another size for the guest's disk.
 *
 * The size is the last argument, whatever it looks like: "-1M" is no option.
 * blockcore/resize.c does the work.
 */
#include "tools.h"
#include "resize.h"

enum { OPT_SHRINK = OPT_COMMAND, OPT_PREALLOCATION };

static const struct cmd_option resize_options[] = {
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ OPT_SHRINK, "shrink", NULL, "allow a smaller size: what is behind the"
	  " new end is lost", 0 },
	{ OPT_PREALLOCATION, "preallocation", "MODE", "space for what is new:"
	  " off, metadata, falloc or full", 0 },
	{ 'q', "quiet", NULL, "no message", OPT_LONG_10 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct resize {
	struct open_how how;
	struct resize_request req;
	bool quiet;
};

static int resize_image(const struct resize *r, struct image *img)
{
	autoerr err = ERR_INIT;
	int ret = resize_run(img, &r->req, NULL, &err);

	if (ret) {
		say_err(&err);
		if (ret == -EPERM)
			say_warning("%s", RESIZE_WARNING);
		return 1;
	}
	if (!r->quiet)
		puts("Image resized.");
	return 0;
}

static int resize_file(struct resize *r, const char *name)
{
	struct image *img = tool_open(name, &r->how);
	int ret, rc;

	if (!img)
		return 1;
	pause_point("command");
	rc = resize_image(r, img);
	ret = image_close(img);
	if (!ret)
		return rc;
	say_error("Could not close '%s': %s", name, strerror(-ret));
	return 1;
}

static int take_mode(struct resize *r, const char *arg)
{
	if (!preallocation_parse(arg, &r->req.prealloc, NULL))
		return 0;
	say_error("Invalid preallocation mode '%s'", arg);
	return 1;
}

static int take_operands(struct resize *r, struct cmdline *cl,
			 const char *size)
{
	autoerr err = ERR_INIT;
	int rc;

	if (cl->nr_operands != 1)
		return usage_error(cl, "Expecting image file name and size");
	if (tool_opts_conflict(&r->how))
		return 1;
	if (resize_parse(size, &r->req, &err)) {
		say_err(&err);
		return 1;
	}
	if (!r->how.image_opts &&
	    mounted_run(cl, cl->operands[0], size,
			r->quiet ? NULL : "Image resized.", &rc))
		return rc;
	return resize_file(r, cl->operands[0]);
}

static int resize_cmd_run(struct cmdline *cl)
{
	struct resize r = {
		.how.flags = IMAGE_RDWR | IMAGE_RESIZE | IMAGE_DISCARD,
	};
	const char *arg, *size = NULL;
	int id, rc;

	stdout_outlive();
	if (qemu_compat() < 100 && cl->argc < 3)
		return usage_error(cl, "Not enough arguments");
	if (cl->argc > 2)
		size = cl->argv[--cl->argc];
	while ((id = cmdline_next(cl, &arg)) != CMD_END)
		switch (id) {
		case CMD_STOP:
			return cl->rc;
		case 'f':
			r.how.format = arg;
			break;
		case 'q':
			r.quiet = true;
			break;
		case OPT_IMAGE_OPTS:
			r.how.image_opts = true;
			break;
		case OPT_SHRINK:
			r.req.shrink = true;
			break;
		case OPT_PREALLOCATION:
			if (take_mode(&r, arg))
				return 1;
			break;
		case OPT_OBJECT:
			if (!object_add(arg, &rc))
				return rc;
			break;
		}
	if (!size)
		return usage_error(cl, "Expecting image file name and size");
	return take_operands(&r, cl, size);
}

const struct command cmd_resize = {
	.name = "resize",
	.operands = "FILE [+|-]SIZE",
	.help = "Changes the size of the guest's disk, or with + and - by that"
		" much. Before an image is made smaller, the file systems and"
		" partitions in it must be; what is behind the new end is"
		" lost. After it was made larger they have to be grown to use"
		" the new space. Interrupted at any moment the image has the"
		" old size or the new one.",
	.options = resize_options,
	.run = resize_cmd_run,
};
