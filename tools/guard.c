/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guard.c - an interrupted command removes the target that it created, and
 * only that: the name must still lead to the very inode.
 *
 * The signal handler does it itself with the few calls that are safe there.
 */
#include "tools.h"

#include <signal.h>

static struct {
	volatile sig_atomic_t armed;
	char *path;
	dev_t dev;
	ino_t ino;
} guard;

static const int guard_signals[] = { SIGINT, SIGTERM, SIGHUP };

static void remove_target(void)
{
	struct stat st;

	if (!guard.armed)
		return;
	guard.armed = 0;
	if (!lstat(guard.path, &st) && st.st_dev == guard.dev &&
	    st.st_ino == guard.ino)
		unlink(guard.path);
}

static void on_signal(int sig)
{
	remove_target();
	signal(sig, SIG_DFL);
	raise(sig);
}

/* file_lend(): somebody who heeds no lock has cut off what we read. */
static void on_bus_error(int sig)
{
	static const char text[] =
		": a source became shorter while it was read\n";
	ssize_t n;

	n = write(STDERR_FILENO, prog_name(), strlen(prog_name()));
	n = write(STDERR_FILENO, text, sizeof(text) - 1);
	(void)n;
	(void)sig;
	remove_target();
	_exit(1);
}

/* One that was ignored (nohup) stays ignored. */
static void catch_signal(int sig, void (*handler)(int))
{
	struct sigaction sa;

	if (sigaction(sig, NULL, &sa) || sa.sa_handler == SIG_IGN)
		return;
	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = handler;
	sigaction(sig, &sa, NULL);
}

void guard_reads(void)
{
	catch_signal(SIGBUS, on_bus_error);
}

void guard_arm(const char *path, const struct stat *st)
{
	guard_disarm();
	guard.path = strdup(path);
	if (!guard.path)
		return;
	guard.dev = st->st_dev;
	guard.ino = st->st_ino;
	guard.armed = 1;
	for (size_t i = 0; i < ARRAY_SIZE(guard_signals); i++)
		catch_signal(guard_signals[i], on_signal);
}

void guard_disarm(void)
{
	guard.armed = 0;
	for (size_t i = 0; i < ARRAY_SIZE(guard_signals); i++)
		catch_signal(guard_signals[i], SIG_DFL);
	free(guard.path);
	guard.path = NULL;
}

void guard_remove(void)
{
	remove_target();
	guard_disarm();
}
