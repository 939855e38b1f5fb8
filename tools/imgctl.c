/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * imgctl.c - finds the subcommand and runs it.
 *
 * Knows the table of commands and the options that stand before one.  Refuses
 * to know what a command does.
 */
#include "tools.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

const struct command *const commands[] = {
	&cmd_amend,
	&cmd_bench,
	&cmd_bitmap,
	&cmd_check,
	&cmd_commit,
	&cmd_compare,
	&cmd_convert,
	&cmd_create,
	&cmd_dd,
	&cmd_info,
	&cmd_map,
	&cmd_measure,
	&cmd_rebase,
	&cmd_resize,
	&cmd_snapshot,
	NULL,
};

static const struct cmd_option global_options[] = {
	{ 'V', "version", NULL, "print the version and exit", 0 },
	{ 'T', "trace", "EVENTS", "accepted, without effect", 0 },
	{ 0, NULL, NULL, NULL, 0 },
};

/* Messages of the engine are whole lines already. */
static void log_stderr(void *data, const char *line)
{
	(void)data;
	fprintf(stderr, "%s\n", line);
}

static void warn_stderr(const char *text)
{
	say_warning("%s", text);
}

static int command_run(const struct command *cmd, int argc, char **argv)
{
	struct cmdline cl;
	int rc;

	cmdline_init(&cl, cmd, argc, argv);
	rc = cmd->run(&cl);
	cmdline_free(&cl);
	return rc;
}

static int command_find(const struct cmdline *top)
{
	const char *name = top->operands[0];

	for (const struct command *const *c = commands; *c; c++)
		if (!strcmp((*c)->name, name))
			return command_run(*c, top->nr_operands,
					   top->operands);
	return usage_error(top, "Command not found: %s", name);
}

static int main_run(struct cmdline *top)
{
	const char *arg;
	int id;

	top->options = global_options;
	top->in_order = true;
	while ((id = cmdline_next(top, &arg)) != CMD_END) {
		if (id == CMD_STOP)
			return top->rc;
		if (id == 'V') {
			version_print();
			return 0;
		}
		if (id == 'T' && !strcmp(arg, "help"))
			return 0;
		if (id == 'T' && trace_option(arg))
			return 1;
	}
	if (!top->nr_operands)
		return usage_error(top, "Not enough arguments");
	return command_find(top);
}

/* A pipe or socket whose other end has been closed. */
static bool stdout_unread(void)
{
	struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && p.revents & (POLLERR | POLLHUP);
}

/* A full disk below stdout is a failure; that nobody reads any more is none:
 * it ends who has nothing else to do (see stdout_outlive()). */
static int stdout_close(int rc)
{
	bool unread = stdout_unread(), bad = ferror(stdout);
	int error = fclose(stdout) ? errno : 0;

	if (unread || (!error && !bad))
		return rc;
	if (error)
		say_error("Could not write the output: %s", strerror(error));
	else    /* an earlier write failed, of what is forgotten */
		say_error("Could not write the output");
	return rc ? rc : 1;
}

int main(int argc, char **argv)
{
	struct cmdline top;
	int rc;

	/* A limit of file sizes is an error of the write: EFBIG. */
	signal(SIGXFSZ, SIG_IGN);
	prog_set_name(argc > 0 ? argv[0] : "imgctl");
	log_names = false;
	probe_as_qemu = prog_is_qemu_img();
	log_set(log_stderr, NULL);
	warn_set(warn_stderr);
	cmdline_init(&top, NULL, argc, argv);
	rc = main_run(&top);
	cmdline_free(&top);
	return stdout_close(rc);
}
