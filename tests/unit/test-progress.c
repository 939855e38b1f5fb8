/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes that -p prints, and the line that SIGUSR1 asks for. */
#include "tools/progress.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static FILE *file;
static int saved, target;
static char text[4096];

static void capture(FILE *stream, int fd)
{
	fflush(stream);
	saved = dup(fd);
	target = fd;
	file = tmpfile();
	assert_non_null(file);
	dup2(fileno(file), fd);
}

static const char *captured(FILE *stream)
{
	size_t n;

	fflush(stream);
	dup2(saved, target);
	close(saved);
	rewind(file);
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = '\0';
	fclose(file);
	return text;
}

static void at(struct progress *p, uint64_t done)
{
	atomic_store(&p->done, done);
	if (p->tick)
		p->tick(p);
}

static void printed_every_two_percent(void **state)
{
	struct progress p = { .total = 1000 };

	(void)state;
	capture(stdout, STDOUT_FILENO);
	progress_start(&p, true);
	at(&p, 5);
	at(&p, 19);
	at(&p, 20);
	at(&p, 39);
	at(&p, 715);
	at(&p, 1000);
	at(&p, 1000);
	progress_complete(&p);
	progress_end(&p);
	assert_string_equal(captured(stdout),
			    "    (0.00/100%)\r    (2.00/100%)\r"
			    "    (71.50/100%)\r    (100.00/100%)\r"
			    "    (100.00/100%)\r\n");
}

static void nothing_to_do(void **state)
{
	struct progress p = { .total = 0 };

	(void)state;
	capture(stdout, STDOUT_FILENO);
	progress_start(&p, true);
	progress_complete(&p);
	progress_end(&p);
	assert_string_equal(captured(stdout),
			    "    (0.00/100%)\r    (100.00/100%)\r\n");
}

static void signal_prints_to_stderr(void **state)
{
	struct progress p = { .total = 1000 };

	(void)state;
	capture(stderr, STDERR_FILENO);
	progress_start(&p, false);
	raise(SIGUSR1);
	at(&p, 200);
	raise(SIGUSR1);
	at(&p, 71);
	raise(SIGUSR1);
	at(&p, 1000);
	raise(SIGUSR1);
	progress_end(&p);
	assert_string_equal(captured(stderr),
			    "    (0.00/100%)\n    (20.00/100%)\n"
			    "    (7.10/100%)\n    (100.00/100%)\n");
}

static void silent_without_p(void **state)
{
	struct progress p = { .total = 10 };

	(void)state;
	capture(stdout, STDOUT_FILENO);
	progress_start(&p, false);
	at(&p, 10);
	progress_complete(&p);
	progress_end(&p);
	assert_string_equal(captured(stdout), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(printed_every_two_percent),
		cmocka_unit_test(nothing_to_do),
		cmocka_unit_test(signal_prints_to_stderr),
		cmocka_unit_test(silent_without_p),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
