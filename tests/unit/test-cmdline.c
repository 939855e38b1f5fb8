/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The grammar of a subcommand's options, and both wordings of its errors. */
#include "tools/tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct cmd_option options[] = {
	{ 'f', "format", "FMT", "", OPT_LONG_10 },
	{ 'q', "quiet", NULL, "", OPT_LONG_10 },
	{ 'c', "new", NULL, "", OPT_ONLY_10 },
	{ OPT_OUTPUT, "output", "HOW", "", 0 },
	{ OPT_BITMAPS, "opaque", NULL, "", 0 },
	{ 0, NULL, NULL, NULL, 0 },
};

static const struct command cmd = {
	.name = "x", .operands = "FILE", .help = "", .options = options,
};

/* What this test program links instead of imgctl.c and its commands. */
const struct command *const commands[] = { &cmd, NULL };

static FILE *err_file;
static char said[4096];

static void stderr_begin(void)
{
	fflush(stderr);
	err_file = tmpfile();
	assert_non_null(err_file);
	dup2(fileno(err_file), STDERR_FILENO);
}

static const char *stderr_end(void)
{
	size_t n;

	fflush(stderr);
	rewind(err_file);
	n = fread(said, 1, sizeof(said) - 1, err_file);
	said[n] = '\0';
	fclose(err_file);
	return said;
}

/* Runs the parser; the walk is written as "f=raw q (a b)". */
static const char *walk(const char *compat, int argc, char **argv)
{
	static char text[1024];
	struct cmdline cl;
	const char *arg;
	size_t n = 0;
	int id;

	setenv("IMGCTL_QEMU_COMPAT", compat, 1);
	cmdline_init(&cl, &cmd, argc, argv);
	while ((id = cmdline_next(&cl, &arg)) >= 0)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%c%s%s ",
				      id < 256 ? id : 'L', arg ? "=" : "",
				      arg ? arg : "");
	if (id == CMD_STOP)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "stop %d",
				      cl.rc);
	for (int i = 0; id == CMD_END && i < cl.nr_operands; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s",
				      i ? " " : "", cl.operands[i]);
	text[n] = '\0';
	cmdline_free(&cl);
	return text;
}

#define WALK(compat, ...) \
	walk(compat, sizeof((char *[]){ "x", __VA_ARGS__ }) / sizeof(char *), \
	     (char *[]){ "x", __VA_ARGS__, NULL })

static void grammar(void **state)
{
	(void)state;
	assert_string_equal(WALK("10", "a", "-f", "raw", "b"), "f=raw a b");
	assert_string_equal(WALK("10", "-qfraw", "a"), "q f=raw a");
	assert_string_equal(WALK("10", "-qf", "raw"), "q f=raw ");
	assert_string_equal(WALK("10", "--format=raw"), "f=raw ");
	assert_string_equal(WALK("10", "--format", "raw"), "f=raw ");
	assert_string_equal(WALK("10", "--form", "raw"), "f=raw ");
	assert_string_equal(WALK("10", "--format="), "f= ");
	assert_string_equal(WALK("10", "-f", "--", "-q", "a"), "f=-- q a");
	assert_string_equal(WALK("10", "-q", "--", "-f", "a"), "q -f a");
	assert_string_equal(WALK("10", "a", "--", "-f", "-q"), "a -f -q");
	assert_string_equal(WALK("10", "-", "-q"), "q -");
	assert_string_equal(WALK("10", "-c", "--new"), "c c ");
	assert_string_equal(WALK("7.2", "--output", "a", "b"), "L=a b");
}

static void help_ends(void **state)
{
	(void)state;
	assert_string_equal(WALK("10", "-q", "-h", "-z"), "q stop 0");
	assert_string_equal(WALK("10", "--help"), "stop 0");
	assert_string_equal(WALK("7.2", "--he"), "stop 0");
}

static const char *complaint(const char *compat, char *a, char *b)
{
	const char *got;

	stderr_begin();
	got = b ? WALK(compat, a, b) : WALK(compat, a);
	stderr_end();
	assert_string_equal(got, "stop 1");
	return said;
}

#define TAIL10 "Try 'qemu-img x --help' for more info\n"
#define TAIL72 "Try 'qemu-img --help' for more information\n"

static void words_of_10(void **state)
{
	(void)state;
	assert_string_equal(complaint("10", "-z", NULL),
			    "qemu-img x: invalid option -- 'z'\n" TAIL10);
	assert_string_equal(complaint("10", "--foo=1", NULL), "qemu-img x: "
			    "unrecognized option '--foo=1'\n" TAIL10);
	assert_string_equal(complaint("10", "-f", NULL), "qemu-img x: option"
			    " requires an argument -- 'f'\n" TAIL10);
	assert_string_equal(complaint("10", "--format", NULL), "qemu-img x:"
			    " option '--format' requires an argument\n"
			    TAIL10);
	assert_string_equal(complaint("10", "--quiet=1", NULL), "qemu-img x:"
			    " option '--quiet' doesn't allow an argument\n"
			    TAIL10);
	assert_string_equal(complaint("10", "--o", NULL), "qemu-img x: option"
			    " '--o' is ambiguous; possibilities: '--output'"
			    " '--opaque'\n" TAIL10);
}

static void words_of_72(void **state)
{
	(void)state;
	assert_string_equal(complaint("7.2", "-z", NULL),
			    "qemu-img: unrecognized option '-z'\n" TAIL72);
	assert_string_equal(complaint("7.2", "--quiet", NULL),
			    "qemu-img: unrecognized option '--quiet'\n"
			    TAIL72);
	assert_string_equal(complaint("7.2", "-c", NULL),
			    "qemu-img: unrecognized option '-c'\n" TAIL72);
	assert_string_equal(complaint("7.2", "-f", NULL),
			    "qemu-img: missing argument for option '-f'\n"
			    TAIL72);
	assert_string_equal(complaint("7.2", "--output", NULL),
			    "qemu-img: missing argument for option"
			    " '--output'\n" TAIL72);
	/* 7.2 names the word before it: a bug that is not ours. */
	assert_string_equal(complaint("7.2", "x.raw", "-1M"),
			    "qemu-img: unrecognized option '-1M'\n" TAIL72);
}

static void safe_is_ours(void **state)
{
	(void)state;
	assert_string_equal(complaint("10", "--safe", NULL),
			    "qemu-img x: unrecognized option '--safe'\n"
			    TAIL10);
	prog_set_name("/usr/bin/imgctl");
	assert_string_equal(WALK("10", "--safe", "a"), "a");
	prog_set_name("qemu-img");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grammar),
		cmocka_unit_test(help_ends),
		cmocka_unit_test(words_of_10),
		cmocka_unit_test(words_of_72),
		cmocka_unit_test(safe_is_ours),
	};

	prog_set_name("qemu-img");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
