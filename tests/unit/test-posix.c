/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-posix.c - regular files on this machine's file system: every byte, with
 * and without the page cache; holes and space; what is refused, in qemu-img's
 * words and without hanging.
 */
#include "config.h"

#include "../lib/testfile.h"
#include "json.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

static char folder[] = "/tmp/imgfs-posix.XXXXXX";

static int enter_folder(void **state)
{
	(void)state;
	alarm(100);             /* what hangs fails */
	return mkdtemp(folder) ? chdir(folder) : -1;
}

static int leave_folder(void **state)
{
	char cmd[64];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", folder);
	return chdir("/") || system(cmd) ? -1 : 0;
}

static struct file *make(const char *name, unsigned flags)
{
	autoerr err = ERR_INIT;
	struct file *f = NULL;

	unlink(name);
	if (file_open_path(name, FILE_RDWR | FILE_CREATE | flags, NULL, &f,
			   &err)) {
		if (flags & FILE_DIRECT)
			return NULL;
		fail_msg("%s", err_text(&err));
	}
	return f;
}

/* What another program reads. */
static void expect_content(const char *name, uint64_t size)
{
	static unsigned char bytes[HAMMER_ROOM];
	autoclose int fd = open(name, O_RDONLY | O_CLOEXEC);

	assert_int_equal(pread(fd, bytes, sizeof(bytes), 0), size);
	assert_memory_equal(bytes, hammer_bytes(), size);
}

static void hammer_with(unsigned flags)
{
	struct file *f = make("f", flags);
	uint64_t size;

	if (!f)
		skip();         /* no O_DIRECT here */
	hammer(f, 1500);
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(file_sync(f), 0);
	file_unref(f);
	expect_content("f", size);
}

static void buffered_bytes(void **state)
{
	(void)state;
	hammer_with(0);
}

static void direct_bytes(void **state)
{
	(void)state;
	hammer_with(FILE_DIRECT);
}

static void direct_means_direct(void **state)
{
	struct file *f = make("f", FILE_DIRECT);
	char path[64];
	FILE *info;
	unsigned how = 0;
	int fd;

	(void)state;
	if (!f)
		skip();
	assert_true(f->traits.min_io >= 1);
	/* The descriptor opened last is the file's. */
	fd = dup(0) - 1;
	close(fd + 1);
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = fopen(path, "r");
	assert_non_null(info);
	assert_int_equal(fscanf(info, "pos: %*d flags: %o", &how), 1);
	fclose(info);
	assert_true(how & O_DIRECT);
	file_unref(f);
}

/* A loop device over the file "f"; false: none to be had. */
static bool attach(char *dev, size_t size)
{
	FILE *out = popen("losetup -f --show f 2>/dev/null", "r");
	bool ok = out && fgets(dev, (int)size, out);

	if (out && pclose(out))
		ok = false;
	if (ok)
		dev[strcspn(dev, "\n")] = 0;
	return ok;
}

static void hammer_device(const char *dev, unsigned flags)
{
	uint64_t size, run;
	enum file_kind kind;
	struct file *f;

	assert_int_equal(file_open_path(dev, FILE_RDWR | flags, NULL, &f,
					NULL), 0);
	assert_string_equal(f->ops->name, "host_device");
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(size, HAMMER_ROOM);
	assert_int_equal(file_zero(f, 0, size, ZERO_MAY_UNMAP), 0);
	hammer(f, 300);
	assert_int_equal(file_extent(f, 0, size, &kind, &run), 0);
	assert_int_equal(file_discard(f, 512 * KiB, 512 * KiB), 0);
	assert_int_equal(file_sync(f), 0);
	assert_true(file_write(f, "x", 1, size) < 0);
	assert_true(file_truncate(f, size + 1) < 0);
	assert_int_equal(file_truncate(f, size), 0);
	assert_int_equal(f->broken, 0);
	file_unref(f);
}

static void block_devices(void **state)
{
	struct file *f = make("f", 0);
	char dev[64], cmd[96];

	(void)state;
	assert_int_equal(file_truncate(f, HAMMER_ROOM), 0);
	file_unref(f);
	if (!attach(dev, sizeof(dev)))
		skip();
	hammer_device(dev, 0);
	hammer_device(dev, FILE_DIRECT);
	snprintf(cmd, sizeof(cmd), "losetup -d %s", dev);
	assert_int_equal(system(cmd), 0);
	expect_content("f", HAMMER_ROOM);
}

/* ---- space --------------------------------------------------------------- */

static uint64_t usage(struct file *f)
{
	uint64_t n;

	assert_int_equal(file_disk_usage(f, &n), 0);
	return n;
}

static enum file_kind kind_at(struct file *f, uint64_t off, uint64_t len,
			      uint64_t *run)
{
	enum file_kind kind;

	assert_int_equal(file_extent(f, off, len, &kind, run), 0);
	assert_true(*run > 0 && *run <= len);
	return kind;
}

static void holes_come_and_go(void **state)
{
	struct file *f = make("f", 0);
	static char block[1 << 20];
	uint64_t run, full;

	(void)state;
	memset(block, 1, sizeof(block));
	assert_int_equal(file_write(f, block, sizeof(block), 1 << 20), 0);
	assert_int_equal(file_sync(f), 0);
	if (kind_at(f, 0, 4 << 20, &run) == FILE_DATA)
		skip();         /* a file system that knows no holes */
	assert_int_equal(run, 1 << 20);
	assert_int_equal(kind_at(f, 1 << 20, 4 << 20, &run), FILE_DATA);
	assert_int_equal(run, 1 << 20);
	assert_int_equal(kind_at(f, 5 << 20, 100, &run), FILE_ZERO);
	assert_int_equal(run, 100);
	full = usage(f);
	assert_int_equal(file_zero(f, 1 << 20, 1 << 19, ZERO_MAY_UNMAP), 0);
	assert_int_equal(kind_at(f, 0, 4 << 20, &run), FILE_ZERO);
	assert_int_equal(run, 3 << 19);
	assert_true(usage(f) <= full - (1 << 19));
	assert_int_equal(file_discard(f, 3 << 19, 100 << 20), 0);
	assert_true(usage(f) <= full - (1 << 20));
	file_unref(f);
}

static void allocated_space_is_real(void **state)
{
	struct file *f = make("f", 0);
	char byte = 1;
	uint64_t size, full;

	(void)state;
	assert_int_equal(file_write(f, "abc", 3, 0), 0);
	assert_int_equal(file_allocate(f, 0, 1 << 20), 0);
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(size, 1 << 20);
	full = usage(f);
	assert_true(full >= 1 << 20);
	/* Zeroes that keep the space. */
	assert_int_equal(file_zero(f, 1, 1 << 20, ZERO_ALLOCATE), 0);
	assert_true(usage(f) >= full);
	assert_int_equal(file_read(f, &byte, 1, 0), 0);
	assert_int_equal(byte, 'a');
	assert_int_equal(file_read(f, &byte, 1, 1), 0);
	assert_int_equal(byte, 0);
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(size, (1 << 20) + 1);
	file_unref(f);
}

static void a_full_disk_breaks_nothing(void **state)
{
	struct file *full;

	(void)state;
	if (file_open_path("/dev/full", FILE_RDWR, NULL, &full, NULL))
		skip();
	assert_int_equal(file_write(full, "x", 1, 0), -ENOSPC);
	assert_int_equal(full->broken, 0);
	file_unref(full);
}

/* ---- opening ------------------------------------------------------------- */

static void refused(const char *name, unsigned flags, const char *text)
{
	autoerr err = ERR_INIT;
	struct file *f;

	assert_true(file_open_path(name, flags, NULL, &f, &err) < 0);
	assert_string_equal(err_text(&err), text);
}

static void make_socket(const char *name)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, name);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
}

static void no_plain_file_no_hang(void **state)
{
	(void)state;
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(mkdir("dir", 0700), 0);
	make_socket("sock");
	refused("fifo", 0, "'file' driver requires 'fifo' to be a regular"
		" file");
	refused("fifo", FILE_RDWR, "'file' driver requires 'fifo' to be a"
		" regular file");
	refused("fifo", FILE_RDWR | FILE_CREATE, "'file' driver requires"
		" 'fifo' to be a regular file");
	refused("dir", 0, "'file' driver requires 'dir' to be a regular file");
	refused("dir", FILE_RDWR, "Could not open 'dir': Is a directory");
	refused("sock", 0, "Could not open 'sock': No such device or address");
	refused("none", 0, "Could not open 'none': No such file or directory");
}

static void create_never_truncates(void **state)
{
	struct file *f = make("f", 0);
	autoerr err = ERR_INIT;
	uint64_t size;

	(void)state;
	assert_int_equal(file_write(f, "abc", 3, 0), 0);
	file_unref(f);
	assert_int_equal(file_open_path("f", FILE_RDWR | FILE_CREATE |
					FILE_EXCL, NULL, &f, &err), -EEXIST);
	assert_int_equal(file_open_path("f", FILE_RDWR | FILE_CREATE, NULL, &f,
					NULL), 0);
	assert_int_equal(file_size(f, &size), 0);
	assert_int_equal(size, 3);
	file_unref(f);
}

static void read_only_is_read_only(void **state)
{
	struct file *f = make("f", 0);

	(void)state;
	file_unref(f);
	assert_int_equal(file_open_path("f", 0, NULL, &f, NULL), 0);
	assert_true(f->traits.read_only);
	assert_int_equal(file_write(f, "x", 1, 0), -EROFS);
	assert_int_equal(file_zero(f, 0, 1, 0), -EROFS);
	assert_int_equal(file_truncate(f, 5), -EROFS);
	file_unref(f);
	assert_int_equal(file_open_path("f", FILE_RDWR_TRY, NULL, &f, NULL), 0);
	assert_false(f->traits.read_only);
	file_unref(f);
}

static void node(const char *json, const char *text)
{
	autojson *n = json_parse(json, strlen(json), NULL);
	autoerr err = ERR_INIT;
	struct file *f = NULL;
	int ret = file_open(n, 0, NULL, &f, &err);

	if (text)
		assert_string_equal(ret ? err_text(&err) : "", text);
	else if (ret)
		fail_msg("%s: %s", json, err_text(&err));
	file_unref(f);
}

static void options_are_checked(void **state)
{
	struct file *f = make("f", 0);

	(void)state;
	file_unref(f);
	node("{'driver': 'file', 'filename': 'f', 'locking': 'off',"
	     " 'aio': 'threads', 'cache': {'no-flush': true}}", NULL);
	node("{'filename': 'f', 'aio-max-batch': 3, 'drop-cache': 'off'}",
	     NULL);
	node("{'driver': 'file', 'filename': 'f', 'locking': 'maybe'}",
	     "invalid parameter value: maybe");
	node("{'driver': 'file', 'filename': 'f', 'aio': 'bogus'}",
	     "invalid parameter value: bogus");
	node("{'driver': 'file', 'filename': 'f', 'aio': 'native'}",
	     "aio=native was specified, but it requires cache.direct=on, which"
	     " was not specified.");
	node("{'driver': 'file', 'filename': 'f', 'cache': {'direct': 5}}",
	     "Parameter 'cache.direct' expects 'on' or 'off'");
	node("{'driver': 'file', 'filename': 'f', 'foo': 1}",
	     "Block protocol 'file' doesn't support the option 'foo'");
	node("{'driver': 'file', 'filename': 'f', 'cache': {'foo': 1}}",
	     "Block protocol 'file' doesn't support the option 'cache.foo'");
	node("{'driver': 'file'}",
	     "The 'file' block driver requires a file name");
	node("{'driver': 'host_device', 'filename': 'f'}", "'host_device'"
	     " driver requires 'f' to be either a character or block device");
	node("{'driver': 'file', 'filename': 'f', 'pr-manager': 'x'}",
	     "No persistent reservation manager with id 'x'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffered_bytes),
		cmocka_unit_test(direct_bytes),
		cmocka_unit_test(direct_means_direct),
		cmocka_unit_test(block_devices),
		cmocka_unit_test(holes_come_and_go),
		cmocka_unit_test(allocated_space_is_real),
		cmocka_unit_test(a_full_disk_breaks_nothing),
		cmocka_unit_test(no_plain_file_no_hang),
		cmocka_unit_test(create_never_truncates),
		cmocka_unit_test(read_only_is_read_only),
		cmocka_unit_test(options_are_checked),
	};

	return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
