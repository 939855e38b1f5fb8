/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * background.c - imgfs goes to the background only once the mount answers, so
 * that its exit code tells whether there is a mount (F26).
 *
 * The child reports through a pipe: "+" means ready, "-" and a text failure,
 * the end of the pipe that it died.
 */
#include "fsmain.h"

#include "blockcore/blockcore.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

static int report = -1;         /* the child's end of the pipe */
static bool detached;           /* no terminal any more */

static bool write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t done = write(fd, p, n);

		if (done < 0 && errno != EINTR)
			return false;
		if (done > 0) {
			p += done;
			n -= (size_t)done;
		}
	}
	return true;
}

static char *read_all(int fd)
{
	struct strbuf sb = STRBUF_INIT;
	char buf[512];
	ssize_t n;

	strbuf_puts(&sb, "");
	while ((n = read(fd, buf, sizeof(buf))) != 0) {
		if (n < 0 && errno != EINTR)
			break;
		if (n > 0)
			strbuf_add(&sb, buf, (size_t)n);
		if (sb.text[0] == '+')
			break;
	}
	return strbuf_take(&sb);
}

static void print_death(pid_t child)
{
	int status = 0;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		fprintf(stderr, "imgfs: the daemon was killed by signal %d\n",
			WTERMSIG(status));
	else
		fputs("imgfs: the daemon ended before the mount answered\n",
		      stderr);
}

static _Noreturn void parent(int fd, pid_t child)
{
	autofree char *text = read_all(fd);

	if (text[0] == '+')
		_exit(0);
	if (text[0] == '-')
		fputs(text + 1, stderr);
	else
		print_death(child);
	_exit(1);
}

int background_fork(void)
{
	int ends[2];
	pid_t child;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	fflush(NULL);
	child = fork();
	if (child < 0) {
		int rc = -errno;

		close(ends[0]);
		close(ends[1]);
		return rc;
	}
	if (child) {
		close(ends[1]);
		parent(ends[0], child);
	}
	close(ends[0]);
	report = ends[1];
	setsid();
	return 0;
}

static void stdio_to_null(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

void background_ready(void)
{
	if (report < 0)
		return;
	fflush(NULL);
	stdio_to_null();
	write_all(report, "+", 1);
	close(report);
	report = -1;
	detached = true;
}

void background_failed(const struct err *err)
{
	autostrbuf sb = STRBUF_INIT;

	if (detached) {
		log_line("%s", err_text(err));
		return;
	}
	strbuf_printf(&sb, "-imgfs: %s\n%s", err_text(err),
		      err->hint ? err->hint : "");
	if (report >= 0 && write_all(report, sb.text, sb.len))
		return;
	fputs(sb.text + 1, stderr);
}
