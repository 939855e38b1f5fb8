/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cmdline.c - the options of a subcommand; see cmdline.h.
 *
 * Knows the grammar and both wordings of its errors: 7.2 names the whole word,
 * 10.0 has getopt's sentences behind the name of the subcommand.  Refuses to
 * know what any option means.
 */
#include "tools.h"

void cmdline_init(struct cmdline *cl, const struct command *cmd, int argc,
		  char **argv)
{
	*cl = (struct cmdline) {
		.cmd = cmd,
		.options = cmd ? cmd->options : NULL,
		.argc = argc,
		.argv = argv,
		.at = 1,
		.operands = calloc((size_t)argc + 1, sizeof(char *)),
	};
	if (!cl->operands)
		BUG("out of memory");
}

void cmdline_free(struct cmdline *cl)
{
	free(cl->operands);
}

static bool exists(const struct cmd_option *o)
{
	if ((o->flags & OPT_BEYOND) && prog_is_qemu_img())
		return false;
	return qemu_compat() >= 100 || !(o->flags & OPT_ONLY_10);
}

static bool has_long(const struct cmd_option *o)
{
	return o->name && exists(o) &&
	       (qemu_compat() >= 100 || !(o->flags & OPT_LONG_10));
}

/* ---- errors ---------------------------------------------------------------- */

void usage_tail(const struct cmdline *cl)
{
	const char *cmd = cl->cmd ? cl->cmd->name : NULL;

	if (qemu_compat() < 100)
		fprintf(stderr, "Try '%s --help' for more information\n",
			prog_name());
	else
		fprintf(stderr, "Try '%s%s%s --help' for more info\n",
			prog_name(), cmd ? " " : "", cmd ? cmd : "");
}

int usage_error(const struct cmdline *cl, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", prog_name());
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	usage_tail(cl);
	return 1;
}

static int stop(struct cmdline *cl, int rc)
{
	cl->rc = rc;
	return CMD_STOP;
}

/* @old: 7.2's sentence, about the whole @word; @fmt: getopt's. */
static int bad_option(struct cmdline *cl, const char *old, const char *word,
		      const char *fmt, ...) printf_like(4, 5);
static int bad_option(struct cmdline *cl, const char *old, const char *word,
		      const char *fmt, ...)
{
	va_list ap;

	if (qemu_compat() < 100)
		return stop(cl, usage_error(cl, "%s '%s'", old, word));
	fprintf(stderr, "%s%s%s: ", prog_name(), cl->cmd ? " " : "",
		cl->cmd ? cl->cmd->name : "");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	usage_tail(cl);
	return stop(cl, 1);
}

#define UNRECOGNIZED "unrecognized option"
#define MISSING "missing argument for option"

static int ambiguous(struct cmdline *cl, const char *word, size_t n)
{
	autostrbuf list = STRBUF_INIT;

	for (const struct cmd_option *o = cl->options; o->id; o++)
		if (has_long(o) && !strncmp(o->name, word + 2, n))
			strbuf_printf(&list, " '--%s'", o->name);
	return bad_option(cl, UNRECOGNIZED, word,
			  "option '--%.*s' is ambiguous; possibilities:%s",
			  (int)n, word + 2, list.text);
}

/* ---- help on the way -------------------------------------------------------- */

static int help_stop(struct cmdline *cl)
{
	if (cl->cmd && qemu_compat() >= 100)
		help_command(cl->cmd);
	else
		help_all();
	return stop(cl, 0);
}

/* ---- long options ------------------------------------------------------------ */

/* The option that @word ("--name" or "--name=value") abbreviates; *many: more
 * than one does and none is exact. */
static const struct cmd_option *long_find(const struct cmdline *cl,
					  const char *name, size_t n,
					  bool *many)
{
	const struct cmd_option *found = NULL;

	*many = false;
	for (const struct cmd_option *o = cl->options; o->id; o++) {
		if (!has_long(o) || strncmp(o->name, name, n))
			continue;
		if (strlen(o->name) == n)
			return *many = false, o;
		if (found && found->id != o->id)
			*many = true;
		found = o;
	}
	return found;
}

static int long_option(struct cmdline *cl, const char **arg)
{
	const char *word = cl->argv[cl->at++];
	size_t n = strcspn(word + 2, "=");
	const struct cmd_option *o;
	const char *value = word[2 + n] ? word + 3 + n : NULL;
	bool many;

	o = long_find(cl, word + 2, n, &many);
	if (many)
		return ambiguous(cl, word, n);
	if (!o && n && !strncmp("help", word + 2, n) && !value)
		return help_stop(cl);
	if (!o && !strcmp(word, "--safe") && !prog_is_qemu_img()) {
		tool_set_safe();
		return cmdline_next(cl, arg);
	}
	if (!o)
		return bad_option(cl, UNRECOGNIZED, word,
				  "unrecognized option '%s'", word);
	if (!o->arg && value)
		return bad_option(cl, UNRECOGNIZED, word, "option '--%s'"
				  " doesn't allow an argument", o->name);
	if (o->arg && !value && cl->at >= cl->argc)
		return bad_option(cl, MISSING, word, "option '--%s' requires"
				  " an argument", o->name);
	*arg = !o->arg ? NULL : value ? value : cl->argv[cl->at++];
	return o->id;
}

/* ---- short options ------------------------------------------------------------ */

static const struct cmd_option *short_find(const struct cmdline *cl, int letter)
{
	for (const struct cmd_option *o = cl->options; o->id; o++)
		if (o->id == letter && exists(o))
			return o;
	return NULL;
}

/* One letter of the word at cl->at; cl->cluster stands on it. */
static int short_option(struct cmdline *cl, const char **arg)
{
	const char *word = cl->argv[cl->at];
	int letter = (unsigned char)*cl->cluster++;
	const struct cmd_option *o = short_find(cl, letter);
	bool last = !*cl->cluster;

	if (last)
		cl->at++;
	if (!o && letter == 'h')
		return help_stop(cl);
	if (!o)
		return bad_option(cl, UNRECOGNIZED, word,
				  "invalid option -- '%c'", letter);
	*arg = NULL;
	if (!o->arg) {
		cl->cluster = last ? NULL : cl->cluster;
		return o->id;
	}
	if (last && cl->at >= cl->argc)
		return bad_option(cl, MISSING, word, "option requires an"
				  " argument -- '%c'", letter);
	*arg = last ? cl->argv[cl->at] : cl->cluster;
	cl->at++;
	cl->cluster = NULL;
	return o->id;
}

/* ---- the walk ----------------------------------------------------------------- */

static void operands_rest(struct cmdline *cl)
{
	while (cl->at < cl->argc)
		cl->operands[cl->nr_operands++] = cl->argv[cl->at++];
}

int cmdline_next(struct cmdline *cl, const char **arg)
{
	while (!cl->cluster && cl->at < cl->argc) {
		char *word = cl->argv[cl->at];

		if (!strcmp(word, "--")) {
			cl->at++;
			break;
		}
		if (!strncmp(word, "--", 2))
			return long_option(cl, arg);
		if (word[0] == '-' && word[1]) {
			cl->cluster = word + 1;
			break;
		}
		if (cl->in_order)
			break;
		cl->operands[cl->nr_operands++] = word;
		cl->at++;
	}
	if (cl->cluster)
		return short_option(cl, arg);
	operands_rest(cl);
	return CMD_END;
}
