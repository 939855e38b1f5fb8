/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * map.c - `imgctl map`: where the bytes of the guest's disk are stored.
 *
 * Prints while it walks, so that memory does not grow with the extents; the
 * text is report-map.c's.
 */
#include "tools.h"

enum { FLUSH_AT = 64 * 1024 };
enum { OPT_SNAPSHOT = OPT_COMMAND + 1 };

/* Tables are walked once, in order: keeping more would serve nobody. */
#define CACHE_BOUND (24 * MiB)

static const struct cmd_option map_options[] = {
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 's', "start-offset", "OFFSET", "where to begin", 0 },
	{ 'l', "max-length", "LENGTH", "how far to go", 0 },
	{ OPT_SNAPSHOT, "snapshot", "SNAPSHOT", "of a snapshot in the image",
	  OPT_BEYOND },
	OPTION_SHARE,
	{ OPT_OUTPUT, "output", "human|json", "how to print", 0 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct map {
	struct open_how how;
	enum report_format output;
	uint64_t start, length;
	const char *snapshot;
};

static void put(struct strbuf *out)
{
	fwrite(out->text, 1, out->len, stdout);
	out->len = 0;
}

static int map_print(const struct map *m, struct image *img)
{
	autostrbuf out = STRBUF_INIT;
	autoerr err = ERR_INIT;
	struct map_cursor c;
	int ret;

	pause_point("command");
	map_cursor_init(&c, &img->live, m->output, m->start, m->length);
	do {
		ret = map_cursor_next(&c, &out, &err);
		if (out.len >= FLUSH_AT)
			put(&out);
	} while (ret == 1 && !ferror(stdout));
	put(&out);
	if (ret < 0)
		say_err(&err);
	return ret < 0 ? 1 : 0;
}

static int map_file(const struct map *m, const char *name)
{
	struct image *img = tool_open(name, &m->how);
	int rc;

	if (!img)
		return 1;
	rc = tool_load_snapshot(img, m->snapshot) ? map_print(m, img) : 1;
	image_close(img);
	return rc;
}

static int map_run(struct cmdline *cl)
{
	struct map m = { .length = UINT64_MAX };
	const char *arg, *output = "human";
	int id, rc;

	while ((id = cmdline_next(cl, &arg)) != CMD_END)
		switch (id) {
		case CMD_STOP:
			return cl->rc;
		case 'f':
			m.how.format = arg;
			break;
		case 'U':
			m.how.flags |= IMAGE_SHARE;
			break;
		case OPT_IMAGE_OPTS:
			m.how.image_opts = true;
			break;
		case OPT_OUTPUT:
			output = arg;
			break;
		case OPT_SNAPSHOT:
			m.snapshot = arg;
			break;
		case 's':
			if (!tool_size("start offset", arg, 0, INT64_MAX,
				       &m.start))
				return 1;
			break;
		case 'l':
			if (!tool_size("max length", arg, 0, INT64_MAX,
				       &m.length))
				return 1;
			break;
		case OPT_OBJECT:
			if (!object_add(arg, &rc))
				return rc;
			break;
		}
	if (cl->nr_operands != 1)
		return usage_error(cl, "Expecting one image file name");
	if (!tool_output(cl, output, &m.output) || tool_opts_conflict(&m.how))
		return 1;
	cache_set_bound(CACHE_BOUND);
	return map_file(&m, cl->operands[0]);
}

const struct command cmd_map = {
	.name = "map",
	.operands = "FILE",
	.help = "Lists which parts of the guest's disk are stored, in which"
		" file of the chain and where. The human form is not for"
		" programs (a file name may hold a newline), and it fails on"
		" compressed or encrypted data; the JSON form does not.",
	.options = map_options,
	.run = map_run,
};
