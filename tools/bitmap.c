/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmap.c - `imgctl bitmap`: the persistent dirty bitmaps of an image.
 *
 * The actions run in the order in which they stand on the command line; when
 * one fails, those before it stay.
 */
#include "tools.h"
#include "bitmap.h"

enum {
	OPT_ADD = OPT_COMMAND + 1,
	OPT_REMOVE,
	OPT_CLEAR,
	OPT_ENABLE,
	OPT_DISABLE,
	OPT_MERGE,
};

static const struct cmd_option bitmap_options[] = {
	{ OPT_ADD, "add", NULL, "make it; it records what is written from then"
	  " on", 0 },
	{ OPT_REMOVE, "remove", NULL, "remove it", 0 },
	{ OPT_CLEAR, "clear", NULL, "forget what it has recorded", 0 },
	{ OPT_ENABLE, "enable", NULL, "let it record", 0 },
	{ OPT_DISABLE, "disable", NULL, "let it record nothing", 0 },
	{ OPT_MERGE, "merge", "BITMAP", "add what another bitmap has recorded",
	  0 },
	{ 'b', "source-file", "FILE", "image of the bitmap that is merged"
	  " (default: this one)", OPT_FILE },
	{ 'F', "source-format", "FMT", "its format (default: probe)", 0 },
	{ 'g', "granularity", "SIZE", "bytes of the disk that a bit of a new"
	  " bitmap stands for (default: a cluster, from 4k to 64k)", 0 },
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct action {
	int what;               /* OPT_ADD ... */
	const char *source;     /* OPT_MERGE: the bitmap */
};

struct bitmap_cmd {
	struct open_how how;
	const char *source, *source_format;     /* -b, -F */
	uint64_t granularity;                   /* 0: the default */
	bool add, merge;
	struct action *action;
	size_t nr_actions;
};

/* ---- running --------------------------------------------------------------- */

static const char *action_name(int what)
{
	static const char *const names[] = {
		"add", "remove", "clear", "enable", "disable", "merge",
	};

	return names[what - OPT_ADD];
}

static int action_run(const struct bitmap_cmd *c, const struct action *a,
		      struct image *img, struct image *source,
		      const char *name, struct err *err)
{
	switch (a->what) {
	case OPT_ADD:
		return bitmap_add(img, name, c->granularity, err);
	case OPT_REMOVE:
		return bitmap_remove(img, name, err);
	case OPT_CLEAR:
		return bitmap_clear(img, name, err);
	case OPT_MERGE:
		return bitmap_merge(img, name, source ? source : img,
				    a->source, err);
	default:
		return bitmap_enable(img, name, a->what == OPT_ENABLE, err);
	}
}

static int actions_run(const struct bitmap_cmd *c, struct image *img,
		       struct image *source, const char *name)
{
	int ret = 0;

	for (size_t i = 0; i < c->nr_actions && !ret; i++) {
		autoerr err = ERR_INIT;

		ret = action_run(c, &c->action[i], img, source, name, &err);
		if (!ret)
			continue;
		err_set(&err, ret, "%s", strerror(-ret));
		err_prefix(&err, "Operation %s on bitmap %s failed: ",
			   action_name(c->action[i].what), name);
		say_err(&err);
	}
	return ret ? 1 : 0;
}

static int bitmap_on(const struct bitmap_cmd *c, const char *file,
		     const char *name)
{
	struct open_how how = { .format = c->source_format,
				.flags = IMAGE_NO_BACKING };
	struct image *img = tool_open(file, &c->how), *source = NULL;
	int rc = 1, ret;

	if (img && c->source)
		source = tool_open(c->source, &how);
	if (img && (source || !c->source))
		rc = actions_run(c, img, source, name);
	image_close(source);
	ret = image_close(img);
	if (ret && !rc)
		say_error("Could not store the bitmaps of '%s': %s", file,
			  strerror(-ret));
	return rc || ret ? 1 : 0;
}

/* ---- the command line ------------------------------------------------------ */

static bool add_action(struct bitmap_cmd *c, int what, const char *source)
{
	struct action *grown = realloc(c->action, (c->nr_actions + 1) *
				       sizeof(*grown));

	if (!grown)
		return false;
	c->action = grown;
	c->action[c->nr_actions++] = (struct action) { what, source };
	c->add |= what == OPT_ADD;
	c->merge |= what == OPT_MERGE;
	return true;
}

/* False: an error was printed. */
static bool take_option(struct bitmap_cmd *c, int id, const char *arg)
{
	switch (id) {
	case 'b':
		c->source = arg;
		break;
	case 'F':
		c->source_format = arg;
		break;
	case 'f':
		c->how.format = arg;
		break;
	case 'g':
		return tool_size("granularity", arg, 0, INT64_MAX,
				 &c->granularity);
	case OPT_IMAGE_OPTS:
		c->how.image_opts = true;
		break;
	default:
		return add_action(c, id, arg);
	}
	return true;
}

/* What does not go together, in QEMU's order. */
static bool check(const struct cmdline *cl, const struct bitmap_cmd *c)
{
	const char *wrong = NULL;

	if (!c->nr_actions)
		wrong = "Need at least one of --add, --remove, --clear,"
			" --enable, --disable, or --merge";
	else if (c->granularity && !c->add)
		wrong = "granularity only supported with --add";
	else if (c->source_format && !c->source)
		wrong = "-F only supported with -b";
	else if (c->source && !c->merge)
		wrong = "Merge bitmap source file only supported with --merge";
	else if (cl->nr_operands != 2)
		wrong = "Expecting filename and bitmap name";
	if (wrong)
		say_error("%s", wrong);
	return !wrong;
}

static int bitmap_parse(struct cmdline *cl, struct bitmap_cmd *c)
{
	const char *arg;
	int id, rc;

	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return cl->rc;
		if (id == OPT_OBJECT && !object_add(arg, &rc))
			return rc;
		if (id != OPT_OBJECT && !take_option(c, id, arg))
			return 1;
	}
	if (tool_opts_conflict(&c->how) || !check(cl, c))
		return 1;
	if (!c->how.image_opts &&
	    mounted_run(cl, cl->operands[0], NULL, NULL, &rc))
		return rc;
	return bitmap_on(c, cl->operands[0], cl->operands[1]);
}

static int bitmap_run_command(struct cmdline *cl)
{
	struct bitmap_cmd c = {
		.how.flags = IMAGE_RDWR | IMAGE_NO_BACKING,
	};
	int rc = bitmap_parse(cl, &c);

	free(c.action);
	return rc;
}

const struct command cmd_bitmap = {
	.name = "bitmap",
	.operands = "FILE BITMAP",
	.help = "Changes a persistent dirty bitmap of an image, which records"
		" what is written to its disk. Actions run in the order given,"
		" each on the result of the one before; when one fails, those"
		" before it stay.",
	.options = bitmap_options,
	.run = bitmap_run_command,
};
