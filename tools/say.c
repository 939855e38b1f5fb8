/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * say.c - the program's name and its messages, and the arguments that several
 * commands take: sizes, cache modes, output formats.
 */
#include "tools.h"

#include <inttypes.h>
#include <signal.h>

static const char *name = "imgctl";

void prog_set_name(const char *argv0)
{
	const char *slash = strrchr(argv0, '/');
	const char *base = slash ? slash + 1 : argv0;

	name = strcmp(base, "qemu-img") ? "imgctl" : "qemu-img";
}

const char *prog_name(void)
{
	return name;
}

bool prog_is_qemu_img(void)
{
	return !strcmp(name, "qemu-img");
}

void stdout_outlive(void)
{
	signal(SIGPIPE, SIG_IGN);
}

void say_error(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "%s: ", name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void say_err(const struct err *err)
{
	say_error("%s", err_text(err));
	if (err->hint)
		fputs(err->hint, stderr);
}

void say_warning(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "%s: warning: ", name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

bool tool_opts_conflict(const struct open_how *how)
{
	if (!how->image_opts || !how->format)
		return false;
	say_error("--image-opts and --format are mutually exclusive");
	return true;
}

bool tool_option_list(const char *text)
{
	if (options_list_valid(text))
		return true;
	say_error("Invalid option list: %s", text);
	return false;
}

bool tool_cache(const char *text, const char *what, enum cache_mode *mode)
{
	if (cache_mode_parse(text, mode))
		return true;
	say_error("Invalid %s option: %s", what, text);
	return false;
}

bool tool_output(struct cmdline *cl, const char *text, enum report_format *how)
{
	if (!strcmp(text, "json"))
		*how = REPORT_JSON;
	else if (!strcmp(text, "human"))
		*how = REPORT_HUMAN;
	else if (qemu_compat() < 100)
		return say_error("--output must be used with human or json as"
				 " argument."), false;
	else
		return usage_error(cl, "--output expects 'human' or 'json' not"
				   " '%s'", text), false;
	return true;
}

static bool size_syntax(const char *what, const char *text)
{
	if (qemu_compat() >= 100) {
		say_error("Invalid %s specified: '%s'.", what, text);
		return false;
	}
	say_error("Invalid %s specified. You may use k, M, G, T, P or E"
		  " suffixes for", what);
	say_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and"
		  " exabytes.");
	return false;
}

bool tool_size(const char *what, const char *text, uint64_t min, uint64_t max,
	       uint64_t *bytes)
{
	enum size_error bad = size_parse(text, bytes);

	if (bad == SIZE_SYNTAX)
		return size_syntax(what, text);
	if (bad == SIZE_OK && *bytes >= min && *bytes <= max)
		return true;
	say_error("Invalid %s specified. Must be between %" PRIu64 " and %"
		  PRIu64 ".", what, min, max);
	return false;
}
