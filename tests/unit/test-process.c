/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-process.c - pause points and the log.
 */
#include "config.h"

#include "blockcore.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

static char folder[] = "/tmp/imgfs-process.XXXXXX";

static int setup(void **state)
{
	char spec[200];

	(void)state;
	alarm(60);              /* what hangs fails */
	if (!mkdtemp(folder) || chdir(folder) || mkfifo("f1", 0600) ||
	    mkfifo("f2", 0600))
		return -1;
	snprintf(spec, sizeof(spec), "here:f1,there:%s/f2,nowhere:f3", folder);
	return setenv("IMGFS_PAUSE", spec, 1);
}

static int teardown(void **state)
{
	(void)state;
	unlink("f1");
	unlink("f2");
	return chdir("/") ? -1 : rmdir(folder);
}

struct passer {
	const char *point;
	_Atomic bool passed;
	pthread_t thread;
};

static void *pass(void *arg)
{
	struct passer *p = arg;

	pause_point(p->point);
	atomic_store(&p->passed, true);
	return NULL;
}

static void start(struct passer *p, const char *point)
{
	p->point = point;
	atomic_store(&p->passed, false);
	assert_int_equal(pthread_create(&p->thread, NULL, pass, p), 0);
}

static void first_waits_others_pass(void **state)
{
	struct passer first, second, other;
	int fd, fd2;

	(void)state;
	pause_point("unknown");
	start(&first, "here");
	fd = open("f1", O_WRONLY);      /* returns once it is there */
	assert_true(fd >= 0);
	start(&second, "here");
	pthread_join(second.thread, NULL);
	start(&other, "there");
	fd2 = open("f2", O_WRONLY);
	usleep(10000);
	assert_false(first.passed);
	assert_false(other.passed);
	assert_int_equal(write(fd, "\n", 1), 1);
	pthread_join(first.thread, NULL);
	assert_false(other.passed);
	close(fd2);                     /* lets go as well */
	pthread_join(other.thread, NULL);
	close(fd);
}

static unsigned calls;

static void count(const char *name)
{
	calls += !strcmp(name, "mine");
}

static void a_test_can_name_a_function(void **state)
{
	(void)state;
	pause_set(count);
	pause_point("mine");
	pause_point("other");
	pause_set(NULL);
	pause_point("mine");
	assert_int_equal(calls, 1);
}

static void keep(void *data, const char *line)
{
	snprintf(data, 100, "%s", line);
}

static void lines_go_where_they_should(void **state)
{
	char line[100] = "";

	(void)state;
	log_set(keep, line);
	log_line("%s is %d%% full", "disk", 99);
	log_set(NULL, NULL);
	assert_string_equal(line, "disk is 99% full");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_waits_others_pass),
		cmocka_unit_test(a_test_can_name_a_function),
		cmocka_unit_test(lines_go_where_they_should),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
