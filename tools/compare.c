/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * compare.c - `imgctl compare`: do two images hold the same guest disk?
 *
 * Exit codes: 0 they do, 1 they differ, 2 one cannot be opened, 3 a map cannot
 * be read, 4 data cannot be read.
 */
#include "tools.h"
#include "job.h"
#include "progress.h"

#include <inttypes.h>

enum { OPT_SNAPSHOT = OPT_COMMAND + 1, OPT_B_SNAPSHOT };
enum { EXIT_SAME, EXIT_DIFFER, EXIT_OPEN, EXIT_STATUS, EXIT_READ };

#define CACHE_BOUND (24 * MiB)

static const struct cmd_option compare_options[] = {
	{ 'f', "a-format", "FMT", "format of the first image (default: probe)",
	  OPT_LONG_10 },
	{ 'F', "b-format", "FMT", "format of the second image (default:"
	  " probe)", OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 'T', "cache", "CACHE", "how to read (default: writeback)",
	  OPT_LONG_10 },
	{ 's', "strict", NULL, "sizes and allocation must be the same too",
	  OPT_LONG_10 },
	{ 'p', "progress", NULL, "print how far it is", OPT_LONG_10 },
	{ 'q', "quiet", NULL, "print nothing but errors", OPT_LONG_10 },
	{ OPT_SNAPSHOT, "a-snapshot", "SNAPSHOT", "a snapshot in the first"
	  " image", OPT_BEYOND },
	{ OPT_B_SNAPSHOT, "b-snapshot", "SNAPSHOT", "a snapshot in the second"
	  " image", OPT_BEYOND },
	OPTION_SHARE,
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct compare_cmd {
	struct open_how how;            /* of both but for the format */
	const char *format[2], *snapshot[2];
	const char *cache;
	char *const *names;
	bool strict, show, quiet;
};

static void warn_size(const struct compare_cmd *c,
		      const struct compare_result *res)
{
	if (res->size_differs && res->verdict != COMPARE_SIZE && !c->quiet)
		puts("Warning: Image size mismatch!");
}

static int read_failed(const struct compare_cmd *c,
		       const struct compare_result *res, int error)
{
	const char *name = c->names[res->bad == 2];

	warn_size(c, res);
	if (res->verdict == COMPARE_STATUS) {
		say_error("Sector allocation test failed for %s", name);
		return EXIT_STATUS;
	}
	say_error("Error while reading offset %" PRIu64 " of %s: %s", res->off,
		  name, strerror(-error));
	return EXIT_READ;
}

static int tell(const struct compare_cmd *c, const struct compare_result *res)
{
	bool same = res->verdict == COMPARE_SAME;

	if (c->quiet)
		return same ? EXIT_SAME : EXIT_DIFFER;
	warn_size(c, res);
	switch (res->verdict) {
	case COMPARE_SAME:
		puts("Images are identical.");
		break;
	case COMPARE_CONTENT:
		printf("Content mismatch at offset %" PRIu64 "!\n", res->off);
		break;
	case COMPARE_SIZE:
		puts("Strict mode: Image size mismatch!");
		break;
	case COMPARE_STATUS:
		printf("Strict mode: Offset %" PRIu64 " block status"
		       " mismatch!\n", res->off);
		break;
	}
	return same ? EXIT_SAME : EXIT_DIFFER;
}

static int compare_images(const struct compare_cmd *c, struct image *a,
			  struct image *b)
{
	struct progress p = { 0 };
	struct compare_args args = { .a = a, .b = b, .strict = c->strict,
				     .progress = &p };
	struct compare_result res;
	autoerr err = ERR_INIT;
	int ret, rc = EXIT_READ;

	progress_start(&p, c->show && !c->quiet);
	pause_point("command");
	ret = job_compare(&args, &res, &err);
	if (err.code)
		say_err(&err);
	else if (ret)
		rc = read_failed(c, &res, ret);
	else
		rc = tell(c, &res);
	progress_end(&p);
	return rc;
}

static struct image *open_one(const struct compare_cmd *c, int i)
{
	struct open_how how = c->how;
	struct image *img;

	how.format = c->format[i];
	img = tool_opts_conflict(&how) ? NULL : tool_open(c->names[i], &how);
	if (!img || tool_load_snapshot(img, c->snapshot[i]))
		return img;
	image_close(img);
	return NULL;
}

/* -p ends its line, as qemu-img's does, also where nothing began. */
static void no_progress(const struct compare_cmd *c)
{
	if (c->show && !c->quiet)
		putchar('\n');
}

static int compare_files(const struct compare_cmd *c)
{
	struct image *a, *b;
	int rc = EXIT_OPEN;

	a = open_one(c, 0);
	b = a ? open_one(c, 1) : NULL;
	if (b)
		rc = compare_images(c, a, b);
	else
		no_progress(c);
	image_close(b);
	image_close(a);
	return rc;
}

static void take_option(struct compare_cmd *c, int id, const char *arg)
{
	switch (id) {
	case 'f':
		c->format[0] = arg;
		break;
	case 'F':
		c->format[1] = arg;
		break;
	case OPT_SNAPSHOT:
		c->snapshot[0] = arg;
		break;
	case OPT_B_SNAPSHOT:
		c->snapshot[1] = arg;
		break;
	case 'T':
		c->cache = arg;
		break;
	case 's':
		c->strict = true;
		break;
	case 'p':
		c->show = true;
		break;
	case 'q':
		c->quiet = true;
		break;
	case 'U':
		c->how.flags |= IMAGE_SHARE;
		break;
	case OPT_IMAGE_OPTS:
		c->how.image_opts = true;
		break;
	}
}

static int compare_run(struct cmdline *cl)
{
	struct compare_cmd c = { .cache = "writeback" };
	const char *arg;
	int id, rc;

	while ((id = cmdline_next(cl, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return cl->rc;
		if (id != OPT_OBJECT)
			take_option(&c, id, arg);
		else if (!object_add(arg, &rc))
			return rc ? EXIT_OPEN : 0;
	}
	if (cl->nr_operands != 2)
		return usage_error(cl, "Expecting two image file names");
	if (!tool_cache(c.cache, "source cache", &c.how.cache)) {
		no_progress(&c);
		return EXIT_OPEN;
	}
	c.names = cl->operands;
	cache_set_bound(CACHE_BOUND);
	return compare_files(&c);
}

const struct command cmd_compare = {
	.name = "compare",
	.operands = "FILE1 FILE2",
	.help = "Says whether two images hold the same guest disk; the formats"
		" may differ. What lies behind the end of the shorter one must"
		" be zero. With -s sizes and allocation have to be the same"
		" too.",
	.options = compare_options,
	.run = compare_run,
};
