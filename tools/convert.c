/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert.c - `imgctl convert`: copies the guest's disk of one image, or of
 * several in a row, into a new or an existing one.
 *
 * Reads the command line; blockcore/job-convert.c moves the bytes.
 */
#include "convert.h"
#include "bitmap.h"
#include "progress.h"

/* Tables of a source of any size stay below this; the rest of the 100 MiB is
 * for batches (job-convert.h) and contexts of codecs. */
#define CACHE_BOUND (24 * MiB)

enum {
	SPARSE_DEFAULT = 4096,
	SPARSE_MAX = 16 << 20,
	MAX_THREADS = 16,
};

static const struct cmd_option convert_options[] = {
	{ 'f', "source-format", "FMT", "format of the sources (default:"
	  " probe)", OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 'T', "source-cache", "CACHE", "how to read (default: writeback)",
	  OPT_LONG_10 },
	OPTION_SHARE,
	{ 'O', "target-format", "FMT", "format of the target (default: raw)",
	  OPT_LONG_10 },
	{ 'o', "target-options", "OPTS", "options of the target's format,"
	  " key=value,...; \"help\" lists them", OPT_LONG_10 },
	{ 'n', "no-create", NULL, "write into an existing target",
	  OPT_LONG_10 },
	{ OPT_TARGET_IMAGE_OPTS, "target-image-opts", NULL,
	  "with -n: the target's name is an option string", 0 },
	{ OPT_TARGET_IS_ZERO, "target-is-zero", NULL,
	  "with -n: the target reads as zeroes", 0 },
	{ 't', "target-cache", "CACHE", "how to write (default: unsafe)",
	  OPT_LONG_10 },
	{ 'B', "backing", "FILE", "backing file of the target: only what the"
	  " source's top layer holds is stored", OPT_LONG_10 },
	{ 'F', "backing-format", "FMT", "format of the backing file",
	  OPT_LONG_10 },
	{ 'c', "compress", NULL, "store compressed", OPT_LONG_10 },
	{ 'S', "sparse-size", "SIZE", "zeroes of at least this length are not"
	  " stored (default: 4k; 0: all is)", OPT_LONG_10 },
	{ 'm', "parallel", "N", "how many threads (1..16; default: one for"
	  " each processor)", OPT_LONG_10 },
	{ 'W', "oob-writes", NULL, "write in any order", OPT_LONG_10 },
	{ 'r', "rate", "RATE", "write at most this many bytes a second",
	  OPT_LONG_10 },
	{ 'C', "copy-range-offloading", NULL, "let the file system copy, or"
	  " share, what it can", OPT_LONG_10 },
	{ OPT_SALVAGE, "salvage", NULL, "what cannot be read becomes zeroes",
	  0 },
	{ 'p', "progress", NULL, "print how far it is", OPT_LONG_10 },
	{ 'q', "quiet", NULL, "print nothing but errors", OPT_LONG_10 },
	{ OPT_BITMAPS, "bitmaps", NULL, "copy the dirty bitmaps of the source's"
	  " top layer too", 0 },
	{ OPT_SKIP_BROKEN, "skip-broken-bitmaps", NULL, "with --bitmaps: leave"
	  " out those that were in use when their image was left", 0 },
	{ 'l', "source-snapshot", "SNAPSHOT", "a snapshot in the source, by ID"
	  " or name, or snapshot.id=,snapshot.name=", OPT_LONG_10 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

/* ---- the command line -------------------------------------------------------- */

static bool take_sparse(struct convert_cmd *c, const char *arg)
{
	c->has_sparse = true;
	if (!tool_size("buffer size for sparse output", arg, 0, INT64_MAX,
		       &c->sparse))
		return false;
	if (c->sparse % SECTOR_SIZE == 0 && c->sparse <= SPARSE_MAX)
		return true;
	say_error("Invalid buffer size for sparse output specified. Valid sizes"
		  " are multiples of %u up to %u. Select 0 to disable sparse"
		  " detection (fully allocates output).", SECTOR_SIZE,
		  SPARSE_MAX);
	return false;
}

static bool take_threads(struct convert_cmd *c, const char *arg)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(arg, &end, 0);
	if (!errno && end != arg && !*end && n >= 1 && n <= MAX_THREADS) {
		c->threads = (unsigned)n;
		return true;
	}
	if (qemu_compat() < 100)
		say_error("Invalid number of coroutines. Allowed number of"
			  " coroutines is between 1 and %d", MAX_THREADS);
	else if (errno || end == arg || *end)
		say_error("Invalid number of coroutines specified: '%s'.", arg);
	else
		say_error("Invalid number of coroutines specified. Must be"
			  " between 1 and %d.", MAX_THREADS);
	return false;
}

static bool take_list(struct convert_cmd *c, const char *arg)
{
	if (!tool_option_list(arg))
		return false;
	c->help |= options_wants_help(arg);
	c->lists[c->nr_lists++] = arg;
	return true;
}

/* Options with an argument. */
static bool take_value(struct convert_cmd *c, int id, const char *arg, int *rc)
{
	switch (id) {
	case 'f':
		c->from.format = arg;
		return true;
	case 'O':
		c->to.format = arg;
		return true;
	case 'T':
		c->source_cache = arg;
		return true;
	case 't':
		c->target_cache = arg;
		return true;
	case 'B':
		c->backing = arg;
		return true;
	case 'F':
		c->backing_fmt = arg;
		return true;
	case 'o':
		return take_list(c, arg);
	case 'S':
		return take_sparse(c, arg);
	case 'm':
		return take_threads(c, arg);
	case 'r':
		return tool_size("rate limit", arg, 0, INT64_MAX, &c->rate);
	case 'l':
		c->snapshot = arg;
		return tool_snapshot_key(arg);
	default:
		return object_add(arg, rc);
	}
}

static bool take_flag(struct convert_cmd *c, int id)
{
	switch (id) {
	case 'c':
		return c->compress = true;
	case 'p':
		return c->show = true;
	case 'q':
		return c->quiet = true;
	case 'n':
		return c->no_create = true;
	case 'W':
		return c->out_of_order = true;
	case 'C':
		return c->copy_offload = true;
	case OPT_IMAGE_OPTS:
		return c->from.image_opts = true;
	case OPT_TARGET_IMAGE_OPTS:
		return c->target_opts = true;
	case OPT_TARGET_IS_ZERO:
		return c->target_is_zero = true;
	case OPT_SKIP_BROKEN:
		return c->skip_broken = true;
	case OPT_SALVAGE:
		return c->salvage = true;
	case OPT_BITMAPS:
		return c->bitmaps = true;
	default:        /* -U */
		c->from.flags |= IMAGE_SHARE;
		return true;
	}
}

/* Options that exclude each other; false after an error. */
static bool agree(const struct convert_cmd *c)
{
	if (c->skip_broken && !c->bitmaps)
		say_error("Use of --skip-broken-bitmaps requires --bitmaps");
	else if (c->target_opts && !c->no_create)
		say_error("--target-image-opts requires use of -n flag");
	else if (c->copy_offload && c->compress)
		say_error("Cannot enable copy offloading when -c is used");
	else if (c->copy_offload && c->has_sparse)
		say_error("Cannot enable copy offloading when -S is used");
	else if (c->copy_offload && c->salvage)
		say_error("Cannot use copy offloading in salvaging mode");
	else if (c->target_is_zero && !c->no_create)
		say_error("--target-is-zero requires use of -n flag");
	else
		return true;
	return false;
}

static int help(const struct convert_cmd *c, const struct cmdline *cl)
{
	const char *target = cl->nr_operands > 1 ?
			     cl->operands[cl->nr_operands - 1] : NULL;
	autostrbuf out = STRBUF_INIT;
	autoerr err = ERR_INIT;

	if (create_help(c->to.format, target,
			target_own_options(format_find(c->to.format)), &out,
			&err)) {
		say_err(&err);
		return 1;
	}
	fputs(out.text, stdout);
	return 0;
}

/* ---- the sources --------------------------------------------------------------- */

static bool sources_open(struct convert_cmd *c)
{
	if (tool_opts_conflict(&c->from))
		return false;
	c->src = calloc(c->nr_sources, sizeof(struct image *));
	if (!c->src)
		BUG("out of memory");
	for (unsigned i = 0; i < c->nr_sources; i++) {
		c->src[i] = tool_open(c->sources[i], &c->from);
		if (!c->src[i])
			return false;
		c->size += image_size(c->src[i]);
	}
	if (!c->snapshot)
		return true;
	if (c->nr_sources > 1) {
		say_error("No support for concatenating multiple snapshot");
		return false;
	}
	if (!tool_load_snapshot(c->src[0], c->snapshot))
		return false;
	c->size = image_size(c->src[0]);
	return true;
}

static void sources_close(struct convert_cmd *c)
{
	for (unsigned i = 0; c->src && i < c->nr_sources; i++)
		image_close(c->src[i]);
	free(c->src);
}

/* ---- running -------------------------------------------------------------------- */

static void report(void *data, const char *line)
{
	(void)data;
	say_error("%s", line);
}

static void report_lost(void *data, const char *line)
{
	(void)data;
	say_warning("%s", line);
}

static int move_bytes(struct convert_cmd *c, struct progress *p)
{
	struct convert_args args = {
		.src = c->src,
		.nr_src = c->nr_sources,
		.dst = c->dst,
		.compress = c->compress,
		.out_of_order = c->out_of_order,
		.target_is_zero = target_zero(c),
		.dst_has_backing = c->backing != NULL,
		.threads = c->threads,
		.lend = true,
		.sparse = c->sparse,
		.rate = c->rate,
		.quiet = c->quiet,
		.progress = p,
		.salvage = c->salvage,
		.copy_offload = c->copy_offload,
		.report = report,
		.warn = report_lost,
	};
	autoerr err = ERR_INIT;
	int ret;

	pause_point("command");
	guard_reads();
	ret = job_convert(&args, &err);
	if (err.code)
		say_err(&err);
	return ret;
}

/* The target is complete when it is closed. */
static int target_close(struct convert_cmd *c, int ret)
{
	int closed = image_close(c->dst);

	c->dst = NULL;
	if (!ret && closed)
		say_error("error while writing the target's metadata: %s",
			  strerror(-closed));
	return ret ? ret : closed;
}

static int convert(struct convert_cmd *c)
{
	struct progress p = { 0 };
	int ret;

	/* What fails early has a line of its own as well. */
	progress_start(&p, c->show && !c->quiet);
	ret = sources_open(c) && target_prepare(c) && target_open(c) ? 0 : 1;
	if (!ret)
		ret = move_bytes(c, &p);
	if (!ret)
		ret = bitmaps_copy(c);
	if (c->dst)
		ret = target_close(c, ret);
	guard_disarm();
	if (!ret)
		progress_complete(&p);
	progress_end(&p);
	return ret ? 1 : 0;
}

static int take_operands(struct convert_cmd *c, struct cmdline *cl)
{
	if (!agree(c))
		return 1;
	if (c->help)
		return help(c, cl);
	if (c->no_create && c->nr_lists) {
		say_error("-o has no effect when skipping image creation");
		return 1;
	}
	if (cl->nr_operands < 2) {
		say_error("Must specify image file name");
		return 1;
	}
	if (!tool_cache(c->source_cache, "source cache", &c->from.cache))
		return 1;
	c->sources = cl->operands;
	c->nr_sources = (unsigned)cl->nr_operands - 1;
	c->target = cl->operands[c->nr_sources];
	c->to.image_opts = c->target_opts;
	return convert(c);
}

static int take_options(struct convert_cmd *c, struct cmdline *cl)
{
	const char *arg;
	int id, rc;

	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		rc = 1;
		if (id == CMD_STOP)
			return cl->rc;
		if (arg ? !take_value(c, id, arg, &rc) : !take_flag(c, id))
			return rc;
	}
	if (!c->to.format && !c->target_opts)
		c->to.format = "raw";
	return take_operands(c, cl);
}

static int convert_run_cmd(struct cmdline *cl)
{
	struct convert_cmd c = {
		.source_cache = "writeback",
		.target_cache = "unsafe",
		.from.flags = IMAGE_STILL,
		.sparse = SPARSE_DEFAULT,
		.lists = calloc((size_t)cl->argc + 1, sizeof(char *)),
	};
	int rc;

	stdout_outlive();
	if (!c.lists)
		BUG("out of memory");
	cache_set_bound(CACHE_BOUND);
	rc = take_options(&c, cl);
	image_close(c.dst);
	sources_close(&c);
	options_free(c.options);
	bitmap_list_free(c.list, c.nr_list);
	free(c.lists);
	return rc;
}

const struct command cmd_convert = {
	.name = "convert",
	.operands = "SOURCE [SOURCE...] TARGET",
	.help = "Copies the guest's disk of a source, or of several in a row,"
		" into a new image. What reads as zeroes takes no space. An"
		" interrupted convert removes the target that it has made; one"
		" that failed leaves it.",
	.options = convert_options,
	.run = convert_run_cmd,
};
