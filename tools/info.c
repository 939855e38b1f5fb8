/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * info.c - `imgctl info`: what an image is, and its backing chain.
 *
 * Opens for metadata only, one image of the chain at a time; the text is
 * report.c's.
 */
#include "tools.h"
#include "json.h"
#include "spec.h"

enum { OPT_SNAPSHOT = OPT_COMMAND + 1 };

static const struct cmd_option info_options[] = {
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ OPT_BACKING_CHAIN, "backing-chain", NULL,
	  "the backing files as well, down the chain", 0 },
	{ 'b', NULL, NULL, "the same", OPT_ONLY_10 },
	{ OPT_SNAPSHOT, "snapshot", "SNAPSHOT", "of a snapshot in the image:"
	  " its size in place of the disk's", OPT_BEYOND },
	OPTION_SHARE,
	{ OPT_OUTPUT, "output", "human|json", "how to print", 0 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct info {
	struct open_how how;
	enum report_format output;
	bool chain;
	const char *snapshot;
	struct json *list;      /* what was found, top first */
};

/* ---- the chain -------------------------------------------------------------------- */

/* Was @name printed already, or is this no end ever? */
static bool chain_loops(const struct json *list, const char *name)
{
	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(json_get_str(list->items[i], "filename"), name))
			return true;
	return list->n >= CHAIN_MAX;
}

/* The image below @img; *next is NULL at the end of the chain. */
static int chain_next(const struct info *in, const struct image *img,
		      struct image **next)
{
	autofree char *full = NULL;
	autoerr err = ERR_INIT;

	*next = NULL;
	if (!in->chain || !img->backing_name)
		return 0;
	full = spec_join(img->name, img->backing_name);
	if (chain_loops(in->list, full)) {
		say_error("Backing file '%s' creates an infinite loop.", full);
		return 1;
	}
	if (!tool_open_below(img, &in->how, next, &err))
		return 0;
	err_prefix(&err, "Could not open '%s': ", full);
	say_err(&err);
	return 1;
}

static int add(struct info *in, struct image *img)
{
	autoerr err = ERR_INIT;
	struct json *obj;

	pause_point("command");
	if (report_info_json(img, &obj, &err)) {
		say_err(&err);
		return 1;
	}
	json_append_take(in->list, obj);
	return 0;
}

static int collect(struct info *in, const char *name)
{
	struct image *img = tool_open(name, &in->how);
	struct image *next;
	int rc = img && tool_load_snapshot(img, in->snapshot) ? 0 : 1;

	if (rc)
		image_close(img);
	while (img && !rc) {
		rc = add(in, img);
		next = NULL;
		if (!rc)
			rc = chain_next(in, img, &next);
		image_close(img);
		img = next;
	}
	return rc;
}

/* ---- printing ----------------------------------------------------------------------- */

static void print(const struct info *in)
{
	autostrbuf out = STRBUF_INIT;

	if (in->output == REPORT_JSON) {
		json_write(&out, in->chain ? in->list : in->list->items[0],
			   true, 0);
		strbuf_putc(&out, '\n');
	} else {
		for (size_t i = 0; i < in->list->n; i++) {
			if (i)
				strbuf_putc(&out, '\n');
			report_info_text(&out, in->list->items[i]);
		}
	}
	fwrite(out.text, 1, out.len, stdout);
}

static int info_run(struct cmdline *cl)
{
	struct info in = { .how.flags = IMAGE_INFO | IMAGE_NO_BACKING };
	const char *arg, *output = "human";
	int id, rc;

	while ((id = cmdline_next(cl, &arg)) != CMD_END)
		switch (id) {
		case CMD_STOP:
			return cl->rc;
		case 'f':
			in.how.format = arg;
			break;
		case 'U':
			in.how.flags |= IMAGE_SHARE;
			break;
		case OPT_SNAPSHOT:
			in.snapshot = arg;
			break;
		case 'b':
		case OPT_BACKING_CHAIN:
			in.chain = true;
			break;
		case OPT_IMAGE_OPTS:
			in.how.image_opts = true;
			break;
		case OPT_OUTPUT:
			output = arg;
			break;
		case OPT_OBJECT:
			if (!object_add(arg, &rc))
				return rc;
			break;
		}
	if (cl->nr_operands != 1)
		return usage_error(cl, "Expecting one image file name");
	if (!tool_output(cl, output, &in.output) ||
	    tool_opts_conflict(&in.how))
		return 1;
	in.list = json_array();
	rc = collect(&in, cl->operands[0]);
	if (!rc)
		print(&in);
	json_free(in.list);
	return rc;
}

const struct command cmd_info = {
	.name = "info",
	.operands = "FILE",
	.help = "Shows what is known about a disk image: its format, sizes,"
		" backing file, snapshots. \"disk size\" may be missing where"
		" the host cannot tell it.",
	.options = info_options,
	.run = info_run,
};
