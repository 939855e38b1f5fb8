/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dd.c - `imgctl dd`: copies a range of one image's guest disk to the beginning
 * of a new image.
 *
 * Only finds out which range the operands mean; target and copy are convert's.
 * qemu-img-cli.md: count= tells where the range ends in the source, whatever
 * skip= is; a range that begins behind that end is empty, with a warning.
 */
#include "convert.h"

/* Tables of a source of any size stay below this. */
#define CACHE_BOUND (24 * MiB)

static const struct cmd_option dd_options[] = {
	{ 'f', "format", "FMT", "format of the source (default: probe)",
	  OPT_LONG_10 },
	{ 'O', "target-format", "FMT", "format of the target (default: raw)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	OPTION_SHARE,
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct dd {
	struct convert_cmd c;           /* sources and target of it */
	char *in, *out;                 /* if=, of= */
	uint64_t block, count, skip;    /* bs=, count=, skip=: the last two in
					 * blocks */
	bool counted;                   /* count= was given */
};

/* ---- operands ------------------------------------------------------------- */

static bool take_operand(struct dd *d, char *text)
{
	size_t len = strcspn(text, "=");
	char *value = text[len] ? text + len + 1 : NULL;
	autofree char *name = strndup(text, len);

	if (!name)
		BUG("out of memory");
	if (value && !strcmp(name, "if"))
		return d->in = value, true;
	if (value && !strcmp(name, "of"))
		return d->out = value, true;
	if (value && !strcmp(name, "bs"))
		return tool_size("bs", value, 1, INT32_MAX, &d->block);
	if (value && !strcmp(name, "skip"))
		return tool_size("skip", value, 0, INT64_MAX, &d->skip);
	if (value && !strcmp(name, "count")) {
		d->counted = true;
		return tool_size("count", value, 0, INT64_MAX, &d->count);
	}
	say_error("unrecognized operand %s", name);
	return false;
}

/* At most INT64_MAX. */
static uint64_t blocks(const struct dd *d, uint64_t n)
{
	return n > INT64_MAX / d->block ? INT64_MAX : n * d->block;
}

/* The range [*@from, *@from + result) of a source of @size bytes. */
static uint64_t range(const struct dd *d, uint64_t size, uint64_t *from)
{
	uint64_t end = d->counted ? min_u64(blocks(d, d->count), size) : size;

	*from = blocks(d, d->skip);
	if (*from <= end)
		return end - *from;
	say_error("%s: cannot skip to specified offset", d->in);
	return 0;
}

/* ---- running -------------------------------------------------------------- */

static void report(void *data, const char *line)
{
	(void)data;
	say_error("%s", line);
}

static int copy(const struct dd *d, uint64_t from, uint64_t len)
{
	struct convert_args args = {
		.src = d->c.src,
		.nr_src = 1,
		.skip = from,
		.length = len,
		.dst = d->c.dst,
		.target_is_zero = target_zero(&d->c),
		.lend = true,
		.sparse = d->c.sparse,
		.report = report,
	};
	autoerr err = ERR_INIT;
	int ret = 0;

	pause_point("command");
	guard_reads();
	if (len)
		ret = job_convert(&args, &err);
	if (err.code)
		say_err(&err);
	return ret;
}

static int run(struct dd *d)
{
	struct convert_cmd *c = &d->c;
	struct image *src = tool_open(d->in, &c->from);
	uint64_t from, len;
	int ret = 1, closed;

	if (!src)
		return 1;
	c->src = &src;
	c->nr_sources = 1;
	len = range(d, image_size(src), &from);
	c->size = round_up(len, SECTOR_SIZE);
	if (target_prepare(c) && target_open(c))
		ret = copy(d, from, len);
	closed = image_close(c->dst);
	guard_disarm();
	image_close(src);
	options_free(c->options);
	if (!ret && closed)
		say_error("error while writing the target's metadata: %s",
			  strerror(-closed));
	return ret || closed ? 1 : 0;
}

/* "file" makes the same as raw. */
static const char *plain(const char *format)
{
	return strcmp(format, "file") ? format : "raw";
}

static int check(struct dd *d)
{
	if (!d->in || !d->out) {
		say_error("Must specify both input and output files");
		return 1;
	}
	if (tool_opts_conflict(&d->c.from))
		return 1;
	if (!format_find(plain(d->c.to.format))) {
		say_error("Unknown file format");
		return 1;
	}
	d->c.target = d->out;
	return run(d);
}

static bool take_option(struct dd *d, int id, const char *arg, int *rc)
{
	switch (id) {
	case 'f':
		d->c.from.format = arg;
		return true;
	case 'O':
		d->c.to.format = arg;
		return true;
	case 'U':
		d->c.from.flags |= IMAGE_SHARE;
		return true;
	case OPT_IMAGE_OPTS:
		return d->c.from.image_opts = true;
	default:
		return object_add(arg, rc);
	}
}

static int dd_run(struct cmdline *cl)
{
	struct dd d = {
		.c = {
			.target_cache = "writeback",
			.stage = "creating output image",
			.from.flags = IMAGE_STILL,
			.to.format = "raw",
			.sparse = 4096,
		},
		.block = SECTOR_SIZE,
	};
	const char *arg;
	int id, rc = 1;

	stdout_outlive();
	cache_set_bound(CACHE_BOUND);
	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return cl->rc;
		if (!take_option(&d, id, arg, &rc))
			return rc;
	}
	for (int i = 0; i < cl->nr_operands; i++)
		if (!take_operand(&d, cl->operands[i]))
			return 1;
	return check(&d);
}

const struct command cmd_dd = {
	.name = "dd",
	.operands = "[bs=SIZE] [count=N] [skip=N] if=SOURCE of=TARGET",
	.help = "Copies blocks of the guest's disk of SOURCE to a new image:"
		" of BS bytes each (default: 512), from block SKIP on, up to"
		" block COUNT of SOURCE. What reads as zeroes takes no space.",
	.options = dd_options,
	.run = dd_run,
};
