/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * measure.c - `imgctl measure`: how much space a new image would take.
 *
 * Reads the command line; blockcore/measure.c and the formats do the work.
 */
#include "tools.h"
#include "beyond.h"
#include "create.h"
#include "measure.h"

enum { OPT_SIZE = OPT_COMMAND };

static const struct cmd_option measure_cmd_options[] = {
	{ 'O', "target-format", "FMT", "format of the new image (default:"
	  " raw)", OPT_LONG_10 },
	{ 'o', "options", "OPTS", "its options, key=value,...", OPT_LONG_10 },
	{ OPT_SIZE, "size", "SIZE", "of an empty disk, instead of a FILE", 0 },
	{ 'f', "format", "FMT", "format of FILE (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 'l', "snapshot", "SNAPSHOT", "measure this internal snapshot: ID,"
	  " name, or snapshot.id=,snapshot.name=", OPT_LONG_10 },
	OPTION_SHARE,
	{ OPT_OUTPUT, "output", "human|json", "how to print", 0 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct measure_cmd {
	struct open_how how;
	const char *target, *snapshot;
	const char **lists;
	size_t nr_lists;
	bool has_size;
	uint64_t size;
	enum report_format output;
};

static int options_make(const struct measure_cmd *mc,
			const struct format **fmt, struct options **o,
			struct err *err)
{
	const char *target = mc->target ? mc->target : "raw";
	int ret = measure_options(target, mc->lists, mc->nr_lists, fmt, o,
				  err);

	if (ret && *o)
		err_hint(err, "%s: Invalid options for file format '%s'\n",
			 prog_name(), target);
	if (!ret && beyond_qemu(BEYOND_MEASURE, target))
		ret = err_set(err, -ENOTSUP, "Block driver '%s' does not"
			      " support size measurement", target);
	return ret;
}

static int measure_image(const struct measure_cmd *mc, struct image *img)
{
	struct measure_source src = { .size = mc->size };
	const struct format *fmt;
	struct options *o = NULL;
	struct measure m;
	autostrbuf out = STRBUF_INIT;
	autoerr err = ERR_INIT;
	int ret = options_make(mc, &fmt, &o, &err);

	if (img) {
		src.view = &img->live;
		src.size = image_size(img);
	} else if (!ret && !mc->has_size) {
		src.size = options_num(o, "size", 0);
	}
	src.size = round_up(src.size, SECTOR_SIZE);
	if (!ret)
		ret = measure_run(fmt, o, &src, &m, &err);
	options_free(o);
	if (ret) {
		say_err(&err);
		return 1;
	}
	report_measure(&out, &m, mc->output);
	fputs(out.text, stdout);
	return 0;
}

/* A walk from end to end needs no page twice: few are taken again and again. */
#define CACHE (1 * MiB)

static int measure_file(const struct measure_cmd *mc, const char *name)
{
	struct image *img = tool_open(name, &mc->how);
	int rc;

	if (!img)
		return 1;
	cache_set_bound(CACHE);
	rc = tool_load_snapshot(img, mc->snapshot) ? measure_image(mc, img) :
						     1;
	image_close(img);
	return rc;
}

/* A mount that has the image open knows more than the file.  The files of a
 * mount are measured as what they are. */
static bool may_drive(const struct measure_cmd *mc, const char *file)
{
	return !mc->how.image_opts && !(mc->how.flags & IMAGE_SHARE) &&
	       !mounted_is_inside(file);
}

static int take_operands(struct measure_cmd *mc, struct cmdline *cl)
{
	int rc;

	if (cl->nr_operands > 1) {
		say_error("At most one filename argument is allowed.");
		return 1;
	}
	if (!cl->nr_operands && (mc->how.image_opts || mc->how.format ||
				 mc->snapshot)) {
		say_error("--image-opts, -f, and -l require a filename"
			  " argument.");
		return 1;
	}
	if (!cl->nr_operands && !mc->has_size) {
		say_error("Either --size N or one filename must be"
			  " specified.");
		return 1;
	}
	if (cl->nr_operands && mc->has_size) {
		say_error("--size N cannot be used together with a"
			  " filename.");
		return 1;
	}
	if (tool_opts_conflict(&mc->how))
		return 1;
	if (!cl->nr_operands)
		return measure_image(mc, NULL);
	if (may_drive(mc, cl->operands[0]) &&
	    mounted_run(cl, cl->operands[0], NULL, NULL, &rc))
		return rc;
	return measure_file(mc, cl->operands[0]);
}

/* 0, or *rc is the exit code. */
static int take_option(struct measure_cmd *mc, struct cmdline *cl, int id,
		       const char *arg, int *rc)
{
	*rc = 1;
	switch (id) {
	case 'O':
		mc->target = arg;
		return 0;
	case 'o':
		if (!tool_option_list(arg))
			return 1;
		mc->lists[mc->nr_lists++] = arg;
		return 0;
	case 'f':
		mc->how.format = arg;
		return 0;
	case 'l':
		mc->snapshot = arg;
		return tool_snapshot_key(arg) ? 0 : 1;
	case 'U':
		mc->how.flags |= IMAGE_SHARE;
		return 0;
	case OPT_IMAGE_OPTS:
		mc->how.image_opts = true;
		return 0;
	case OPT_SIZE:
		mc->has_size = true;
		return tool_size("image size", arg, 0, INT64_MAX, &mc->size) ?
		       0 : 1;
	case OPT_OUTPUT:
		return tool_output(cl, arg, &mc->output) ? 0 : 1;
	default:
		return object_add(arg, rc) ? 0 : 1;
	}
}

static int measure_cmd_run(struct cmdline *cl)
{
	autofree const char **lists = calloc((size_t)cl->argc + 1,
					     sizeof(*lists));
	struct measure_cmd mc = { .lists = lists };
	const char *arg;
	int id, rc;

	if (!lists)
		BUG("out of memory");
	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return cl->rc;
		if (take_option(&mc, cl, id, arg, &rc))
			return rc;
	}
	return take_operands(&mc, cl);
}

const struct command cmd_measure = {
	.name = "measure",
	.operands = "[FILE]",
	.help = "Tells how large a new image would be: now, with what FILE"
		" holds or with an empty disk of --size, and when the guest"
		" has written all of it. Internal snapshots of FILE are left"
		" out, and its bitmaps have a line of their own.",
	.options = measure_cmd_options,
	.run = measure_cmd_run,
};
