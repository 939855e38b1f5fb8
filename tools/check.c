/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * check.c - `imgctl check`: is the metadata of an image sound?
 *
 * Findings go to stderr as they are found, the summary to stdout; exit codes
 * are 0 sound, 1 could not be checked, 2 corrupt, 3 only leaks, 63 the format
 * has no check.
 */
#include "tools.h"
#include "beyond.h"

enum { EXIT_NO_CHECK = 63 };

static const struct cmd_option check_options[] = {
	{ 'q', "quiet", NULL, "no summary on stdout", OPT_LONG_10 },
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 'T', "cache", "CACHE", "how to read (default: writeback)",
	  OPT_LONG_10 },
	{ 'r', "repair", "leaks|all", "", OPT_LONG_10 | OPT_ALIAS },
	OPTION_SHARE,
	{ OPT_OUTPUT, "output", "human|json", "how to print", 0 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct check {
	struct open_how how;
	enum report_format output;
	bool quiet;
};

/* The findings that qemu-img puts its name in front of. */
static bool is_named(const char *line)
{
	static const char *const begin[] = {
		"ERROR snapshot table offset", "ERROR snapshot table too",
		"ERROR failed to read",
	};

	for (size_t i = 0; i < ARRAY_SIZE(begin); i++)
		if (!strncmp(line, begin[i], strlen(begin[i])))
			return true;
	return false;
}

static void say_finding(void *data, const char *line)
{
	(void)data;
	if (is_named(line))
		say_error("%s", line);
	else
		fprintf(stderr, "%s\n", line);
}

static int no_check(const struct check *ck)
{
	(void)ck;
	say_error("This image format does not support checks");
	return EXIT_NO_CHECK;
}

static int check_image(const struct check *ck, struct image *img,
		       const char *name)
{
	const struct format_admin *admin = img->fmt->admin;
	struct check_result res = { .say = say_finding };
	autostrbuf out = STRBUF_INIT;
	int ret;

	if (!admin || !admin->check || beyond_qemu(BEYOND_CHECK, img->fmt->name))
		return no_check(ck);
	pause_point("command");
	ret = admin->check(img, &res);
	if (ret) {
		say_error("Check failed: %s", strerror(-ret));
		return 1;
	}
	if (!ck->quiet) {
		report_check(&out, &res, name, img->fmt->name, ck->output);
		fwrite(out.text, 1, out.len, stdout);
	}
	if (res.check_errors)
		say_error("Check failed");
	return report_check_code(&res);
}

static int check_file(const struct check *ck, const char *name)
{
	struct image *img = tool_open(name, &ck->how);
	int rc;

	if (!img)
		return 1;
	rc = check_image(ck, img, name);
	image_close(img);
	return rc;
}

static int bad_repair(struct cmdline *cl, const char *arg)
{
	if (!strcmp(arg, "leaks") || !strcmp(arg, "all")) {
		say_error("Repairing is not available in this version yet");
		return 1;
	}
	if (qemu_compat() < 100)
		return usage_error(cl, "Unknown option value for -r (expecting"
				   " 'leaks' or 'all'): %s", arg);
	return usage_error(cl, "--repair (-r) expects 'leaks' or 'all' not"
			   " '%s'", arg);
}

static int check_run(struct cmdline *cl)
{
	struct check ck = { .how.flags = IMAGE_CHECK };
	const char *arg, *output = "human", *cache = "writeback";
	int id, rc;

	while ((id = cmdline_next(cl, &arg)) != CMD_END)
		switch (id) {
		case CMD_STOP:
			return cl->rc;
		case 'q':
			ck.quiet = true;
			break;
		case 'f':
			ck.how.format = arg;
			break;
		case 'T':
			cache = arg;
			break;
		case 'r':
			return bad_repair(cl, arg);
		case 'U':
			ck.how.flags |= IMAGE_SHARE;
			break;
		case OPT_IMAGE_OPTS:
			ck.how.image_opts = true;
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
	if (!tool_output(cl, output, &ck.output) ||
	    !tool_cache(cache, "source cache", &ck.how.cache) ||
	    tool_opts_conflict(&ck.how))
		return 1;
	return check_file(&ck, cl->operands[0]);
}

const struct command cmd_check = {
	.name = "check",
	.operands = "FILE",
	.help = "Looks for leaked space and corruption in the metadata of an"
		" image, without changing it. Exit codes: 0 sound, 1 could not"
		" be checked, 2 corrupt, 3 leaked space only, 63 the format"
		" has nothing to check.",
	.options = check_options,
	.run = check_run,
};
