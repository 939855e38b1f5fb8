/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * check.c - `imgctl check`: is the metadata of an image sound?
 *
 * -r repairs, then looks a second time.
 *
 * Findings go to stderr as they are found, the summary to stdout; exit codes
 * are 0 sound, 1 could not be checked, 2 corrupt, 3 only leaks, 63 the format
 * has no check.
 *
 * There may be half a million findings: stderr has a buffer while they come,
 * that is emptied before anything is said on stdout and five times a second.
 */
#include "tools.h"
#include "beyond.h"

#include <time.h>

enum { EXIT_NO_CHECK = 63 };

static const struct cmd_option check_options[] = {
	{ 'q', "quiet", NULL, "no summary on stdout", OPT_LONG_10 },
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_LONG_10 },
	OPTION_IMAGE_OPTS,
	{ 'T', "cache", "CACHE", "how to read (default: writeback)",
	  OPT_LONG_10 },
	{ 'r', "repair", "leaks|all", "put right what was found: leaked space"
	  " only, or errors too", OPT_LONG_10 },
	OPTION_SHARE,
	{ OPT_OUTPUT, "output", "human|json", "how to print", 0 },
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct check {
	struct open_how how;
	unsigned fix;           /* check_fix */
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

static void stderr_buffer(void)
{
	static char buf[64 * 1024];

	setvbuf(stderr, buf, isatty(STDERR_FILENO) ? _IOLBF : _IOFBF,
		sizeof(buf));
}

static uint64_t fifths_of_a_second(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 5 + (uint64_t)now.tv_nsec / 200000000;
}

/* @data: when stderr was flushed last. */
static void say_finding(void *data, const char *line)
{
	uint64_t *flushed = data, now = fifths_of_a_second();

	if (is_named(line))
		say_error("%s", line);
	else
		fprintf(stderr, "%s\n", line);
	if (now == *flushed)
		return;
	fflush(stderr);
	*flushed = now;
}

static bool can_check(const struct check *ck, const struct format *fmt)
{
	const struct format_admin *admin = fmt->admin;

	if (!admin || !admin->check || beyond_qemu(BEYOND_CHECK, fmt->name))
		return false;
	return !ck->fix || (admin->repair &&
			    !beyond_qemu(BEYOND_REPAIR, fmt->name));
}

static void print(const struct check *ck, const struct strbuf *out)
{
	fflush(stderr);
	if (!ck->quiet)
		fwrite(out->text, 1, out->len, stdout);
	fflush(stdout);
}

/* What was repaired is said, and the whole image looked at again: what is left
 * and the exit code are of that. */
static int check_twice(const struct check *ck, struct image *img,
		       struct check_result *res)
{
	struct check_result again = {
		.say = res->say,
		.data = res->data,
		.leaks_fixed = res->leaks_fixed,
		.corruptions_fixed = res->corruptions_fixed,
	};
	autostrbuf out = STRBUF_INIT;
	int ret;

	if (ck->output == REPORT_HUMAN) {
		report_check_fixed(&out, res);
		print(ck, &out);
	}
	ret = img->fmt->admin->check(img, &again);
	*res = again;
	return ret;
}

static int run(const struct check *ck, struct image *img,
	       struct check_result *res)
{
	int ret = ck->fix ? image_repair(img, ck->fix, res) :
		  img->fmt->admin->check(img, res);

	if (!ret && (res->leaks_fixed || res->corruptions_fixed))
		ret = check_twice(ck, img, res);
	return ret;
}

static int check_image(const struct check *ck, struct image *img,
		       const char *name)
{
	uint64_t flushed = 0;
	struct check_result res = { .say = say_finding, .data = &flushed };
	autostrbuf out = STRBUF_INIT;
	int ret;

	if (!can_check(ck, img->fmt)) {
		say_error("This image format does not support checks");
		return EXIT_NO_CHECK;
	}
	pause_point("command");
	stderr_buffer();
	ret = run(ck, img, &res);
	if (ret) {
		say_error("Check failed: %s", strerror(-ret));
		return 1;
	}
	report_check(&out, &res, name, img->fmt->name, ck->output);
	print(ck, &out);
	if (res.check_errors)
		say_error("Check failed");
	return report_check_code(&res);
}

static int check_file(const struct check *ck, const char *name)
{
	struct image *img = tool_open(name, &ck->how);
	int ret, rc;

	if (!img)
		return 1;
	rc = check_image(ck, img, name);
	ret = image_close(img);
	if (ret) {
		say_error("Could not close '%s': %s", name, strerror(-ret));
		rc = 1;
	}
	return rc;
}

/* -r: 0, or the exit code of a usage error. */
static int take_repair(struct cmdline *cl, struct check *ck, const char *arg)
{
	stdout_outlive();
	ck->how.flags |= IMAGE_RDWR | IMAGE_REPAIR;
	ck->fix = CHECK_FIX_LEAKS;
	if (prog_is_qemu_img())
		ck->fix |= CHECK_FIX_AS_QEMU;
	if (!strcmp(arg, "leaks"))
		return 0;
	ck->fix |= CHECK_FIX_ERRORS;
	if (!strcmp(arg, "all"))
		return 0;
	if (qemu_compat() < 100)
		return usage_error(cl, "Unknown option value for -r (expecting"
				   " 'leaks' or 'all'): %s", arg);
	return usage_error(cl, "--repair (-r) expects 'leaks' or 'all' not"
			   " '%s'", arg);
}

/* The exit code of what a mount has answered. */
static int mounted_code(int ret, const char *text)
{
	switch (ret) {
	case 0:
		return strstr(text, "leaked clusters were found") ||
		       strstr(text, "\"leaks\": ") ? 3 : 0;
	case -EUCLEAN:
		return 2;
	case -EOPNOTSUPP:
		return EXIT_NO_CHECK;
	}
	return 1;
}

/* False: no mount has the image, or it is not to be asked. */
static bool check_mounted(const struct check *ck, const struct cmdline *cl,
			  int *rc)
{
	char text[65536];
	int ret;

	if (ck->how.image_opts || ck->how.flags & IMAGE_SHARE ||
	    !mounted_ask(cl, cl->operands[0], NULL, text, sizeof(text), &ret))
		return false;
	if (!ret && !ck->quiet)
		fputs(text, stdout);
	*rc = mounted_code(ret, text);
	return true;
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
			rc = take_repair(cl, &ck, arg);
			if (rc)
				return rc;
			break;
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
	return check_mounted(&ck, cl, &rc) ? rc :
	       check_file(&ck, cl->operands[0]);
}

const struct command cmd_check = {
	.name = "check",
	.operands = "FILE",
	.help = "Looks for leaked space and corruption in the metadata of an"
		" image, and repairs it only where -r asks for that. Exit codes: 0 sound, 1 could not"
		" be checked, 2 corrupt, 3 leaked space only, 63 the format"
		" has nothing to check.",
	.options = check_options,
	.run = check_run,
};
