/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-lock.c - which bytes file_lock() holds, and who is in whose way: the
 * tables of locking.md, with a second open file description as the other side.
 */
#include "config.h"

#include "file.h"
#include "json.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static char name[] = "/tmp/imgfs-lock.XXXXXX";
static int other = -1;          /* the other program's descriptor */

static int setup(void **state)
{
	(void)state;
	other = mkstemp(name);
	return other < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	close(other);
	return unlink(name);
}

static struct file *open_it(unsigned flags)
{
	struct file *f;

	assert_int_equal(file_open_path(name, FILE_RDWR | flags, NULL, &f,
					NULL), 0);
	return f;
}

static int ofd(int cmd, short type, unsigned byte)
{
	struct flock fl = {
		.l_type = type, .l_start = (off_t)byte, .l_len = 1,
	};

	assert_int_equal(fcntl(other, cmd, &fl), 0);
	return fl.l_type;
}

static void expect_held(const char *want)
{
	char got[64] = "";
	unsigned b;

	for (b = 100; b < 204; b = b == 103 ? 200 : b + 1)
		if (ofd(F_OFD_GETLK, F_WRLCK, b) != F_UNLCK)
			snprintf(got + strlen(got), sizeof(got) - strlen(got),
				 " %u", b);
	assert_string_equal(got, want);
}

static void bytes_are_those_of_the_table(void **state)
{
	struct file *f = open_it(0);
	const unsigned wr = PERM_WRITE | PERM_RESIZE;

	(void)state;
	assert_int_equal(file_lock(f, PERM_READ, wr, NULL), 0);
	expect_held(" 100 201 203");
	assert_int_equal(file_lock(f, 0, wr, NULL), 0);
	expect_held(" 201 203");
	assert_int_equal(file_lock(f, PERM_READ | wr, wr, NULL), 0);
	expect_held(" 100 101 103 201 203");
	assert_int_equal(file_lock(f, wr, PERM_RESIZE, NULL), 0);
	expect_held(" 101 103 203");
	assert_int_equal(file_lock(f, PERM_READ, 0, NULL), 0);
	expect_held(" 100");
	assert_int_equal(file_lock(f, 0, 0, NULL), 0);
	expect_held("");
	assert_int_equal(file_lock(f, PERM_READ | wr, wr, NULL), 0);
	file_unref(f);
	expect_held("");
}

/* ---- one byte held by somebody else -------------------------------------- */

static const struct {
	const char *what;
	unsigned used, unshared;
	/* the permission named when 100.., 200.. is held; NULL: works */
	const char *by_used[4], *by_unshared[4];
} uses[] = {
	{ "info", 0, PERM_WRITE | PERM_RESIZE,
	  { NULL, "shared \"write\"", NULL, "shared \"resize\"" }, { NULL } },
	{ "read", PERM_READ, PERM_WRITE | PERM_RESIZE,
	  { NULL, "shared \"write\"", NULL, "shared \"resize\"" },
	  { "\"consistent read\"" } },
	{ "share", PERM_READ, 0, { NULL }, { "\"consistent read\"" } },
	{ "read-write", PERM_READ | PERM_WRITE | PERM_RESIZE,
	  PERM_WRITE | PERM_RESIZE,
	  { NULL, "shared \"write\"", NULL, "shared \"resize\"" },
	  { "\"consistent read\"", "\"write\"", NULL, "\"resize\"" } },
	{ "raw read-write", PERM_READ | PERM_WRITE, 0, { NULL },
	  { "\"consistent read\"", "\"write\"" } },
};

static void try_use(struct file *f, unsigned byte, size_t u,
		    const char *conflict)
{
	autoerr err = ERR_INIT;
	char text[80], hint[120];
	int ret = file_lock(f, uses[u].used, uses[u].unshared, &err);

	if (!conflict) {
		if (ret)
			fail_msg("%s, %u held: %s", uses[u].what, byte,
				 err_text(&err));
		return;
	}
	assert_int_equal(ret, -ETXTBSY);
	snprintf(text, sizeof(text), "Failed to get %s lock", conflict);
	snprintf(hint, sizeof(hint), "Is another process using the image"
		 " [%s]?\n", name);
	assert_string_equal(err_text(&err), text);
	assert_string_equal(err.hint, hint);
}

static void conflicts_are_those_of_the_table(void **state)
{
	unsigned i, set;
	size_t u;

	(void)state;
	for (u = 0; u < ARRAY_SIZE(uses); u++)
		for (i = 0; i < 8; i++) {
			struct file *f = open_it(0);

			set = i / 4;
			ofd(F_OFD_SETLK, F_RDLCK, 100 + 100 * set + i % 4);
			try_use(f, 100 + 100 * set + i % 4, u,
				set ? uses[u].by_unshared[i % 4] :
				uses[u].by_used[i % 4]);
			ofd(F_OFD_SETLK, F_UNLCK, 100 + 100 * set + i % 4);
			file_unref(f);
		}
}

static void a_failed_raise_keeps_the_old_set(void **state)
{
	struct file *f = open_it(0);
	const unsigned wr = PERM_WRITE | PERM_RESIZE;

	(void)state;
	assert_int_equal(file_lock(f, PERM_READ, wr, NULL), 0);
	ofd(F_OFD_SETLK, F_RDLCK, 201);
	assert_int_equal(file_lock(f, PERM_READ | wr, wr, NULL), -ETXTBSY);
	ofd(F_OFD_SETLK, F_UNLCK, 201);
	expect_held(" 100 201 203");
	assert_int_equal(file_lock(f, PERM_READ | wr, wr, NULL), 0);
	file_unref(f);
}

static void a_write_lock_is_told_by_its_byte(void **state)
{
	struct file *f = open_it(0);
	autoerr err = ERR_INIT;

	(void)state;
	ofd(F_OFD_SETLK, F_WRLCK, 101);
	assert_true(file_lock(f, PERM_READ | PERM_WRITE, 0, &err) < 0);
	assert_string_equal(err_text(&err), "Failed to lock byte 101");
	assert_null(err.hint);
	ofd(F_OFD_SETLK, F_UNLCK, 101);
	expect_held("");
	file_unref(f);
}

/* Two openings in one process are two programs, as for QEMU. */
static void a_second_opening_is_another(void **state)
{
	struct file *a = open_it(0), *b = open_it(0);
	const unsigned wr = PERM_WRITE | PERM_RESIZE;

	(void)state;
	assert_int_equal(file_lock(a, PERM_READ | wr, wr, NULL), 0);
	assert_int_equal(file_lock(b, PERM_READ, wr, NULL), -ETXTBSY);
	file_unref(a);
	assert_int_equal(file_lock(b, PERM_READ, wr, NULL), 0);
	file_unref(b);
}

static void off_takes_nothing(void **state)
{
	struct file *f = open_it(FILE_NO_LOCK);
	struct json *node;

	(void)state;
	ofd(F_OFD_SETLK, F_RDLCK, 201);
	assert_int_equal(file_lock(f, PERM_WRITE, PERM_WRITE, NULL), 0);
	ofd(F_OFD_SETLK, F_UNLCK, 201);
	expect_held("");
	file_unref(f);
	node = json_object();
	json_set_take(node, "driver", json_string("file"));
	json_set_take(node, "filename", json_string(name));
	json_set_take(node, "locking", json_string("off"));
	assert_int_equal(file_open(node, FILE_RDWR, NULL, &f, NULL), 0);
	assert_int_equal(file_lock(f, PERM_WRITE, PERM_WRITE, NULL), 0);
	expect_held("");
	file_unref(f);
	json_set_take(node, "locking", json_string("on"));
	assert_int_equal(file_open(node, FILE_RDWR, NULL, &f, NULL), 0);
	assert_int_equal(file_lock(f, PERM_WRITE, PERM_WRITE, NULL), 0);
	expect_held(" 101 201");
	file_unref(f);
	json_free(node);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_are_those_of_the_table),
		cmocka_unit_test(conflicts_are_those_of_the_table),
		cmocka_unit_test(a_failed_raise_keeps_the_old_set),
		cmocka_unit_test(a_write_lock_is_told_by_its_byte),
		cmocka_unit_test(a_second_opening_is_another),
		cmocka_unit_test(off_takes_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
