/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-image.c - the life of an image: chains and their loops, nodes in nodes,
 * from read-only to writable and back with the locks that go with it, the guard
 * of probed raw images, growing.  Images are made by qemu-img.
 */
#include "config.h"

#include "blockcore.h"
#include "json.h"
#include "spec.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static char folder[] = "/tmp/imgfs-test-image.XXXXXX";

static void run(const char *command)
{
	if (system(command))
		fail_msg("failed: %s", command);
}

static struct image *open_flags(const char *name, const char *format,
				unsigned flags)
{
	autoerr err = ERR_INIT;
	struct image *img = NULL;

	if (image_open_name(name, false, format, flags, CACHE_WRITEBACK, &img,
			    &err))
		fail_msg("%s: %s", name, err_text(&err));
	return img;
}

static void assert_refused(const char *name, const char *format,
			   unsigned flags, const char *want)
{
	autoerr err = ERR_INIT;
	struct image *img;

	assert_int_not_equal(image_open_name(name, false, format, flags,
					     CACHE_WRITEBACK, &img, &err), 0);
	assert_string_equal(err_text(&err), want);
}

/* The bytes 100.. and 200.. that somebody holds, as text. */
static const char *held(const char *path)
{
	static char text[64];
	int fd = open(path, O_RDWR);
	char *p = text;

	assert_true(fd >= 0);
	*p = '\0';
	for (int byte = 100; byte < 204; byte++) {
		struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
				    .l_start = byte, .l_len = 1 };

		assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
		if (fl.l_type != F_UNLCK)
			p += sprintf(p, "%d ", byte);
	}
	close(fd);
	return text;
}

#define READ_SET "100 201 203 "
#define WRITE_SET "100 101 103 201 203 "

static void test_chain(void **state)
{
	struct image *img;
	char byte;

	(void)state;
	run("qemu-img create -q -f raw base.raw 100k &&"
	    "qemu-io -f raw -c 'write -P 1 0 100k' base.raw >/dev/null &&"
	    "qemu-img create -q -f qcow2 -b base.raw -F raw mid.qcow2 1M &&"
	    "qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 64k");
	img = open_flags("top.qcow2", NULL, 0);
	assert_string_equal(img->fmt->name, "qcow2");
	assert_true(img->probed);
	assert_string_equal(img->backing->name, "mid.qcow2");
	assert_false(img->backing->probed);
	assert_string_equal(img->backing->backing->fmt->name, "raw");
	assert_null(img->backing->backing->backing);
	assert_int_equal(image_read(&img->live, &byte, 1, 65535), 0);
	assert_int_equal(byte, 1);
	assert_string_equal(held("top.qcow2"), READ_SET);
	assert_string_equal(held("mid.qcow2"), READ_SET);
	assert_string_equal(held("base.raw"), "100 ");
	assert_int_equal(image_close(img), 0);
	assert_string_equal(held("top.qcow2"), "");
	/* Behind the end of a shorter backing file: zeroes. */
	img = open_flags("mid.qcow2", "qcow2", 0);
	assert_int_equal(image_read(&img->live, &byte, 1, 102400), 0);
	assert_int_equal(byte, 0);
	assert_int_equal(image_close(img), 0);
}

static void test_lock_sets(void **state)
{
	static const struct { const char *name; unsigned flags;
			      const char *want; } cases[] = {
		{ "top.qcow2", 0, READ_SET },
		{ "top.qcow2", IMAGE_RDWR, WRITE_SET },
		{ "top.qcow2", IMAGE_RDWR_LATER, READ_SET },
		{ "top.qcow2", IMAGE_SHARE, "100 " },
		{ "top.qcow2", IMAGE_INFO, "201 203 " },
		{ "top.qcow2", IMAGE_INFO | IMAGE_SHARE, "" },
		{ "top.qcow2", IMAGE_NO_LOCK, "" },
		{ "base.raw", 0, "100 " },
		{ "base.raw", IMAGE_RDWR, "100 101 " },
		{ "base.raw", IMAGE_INFO, "" },
		{ "base.raw", IMAGE_ALONE, "100 201 " },
		{ "base.raw", IMAGE_ALONE | IMAGE_RDWR,
		  "100 101 201 " },
		{ "base.raw", IMAGE_RESIZE | IMAGE_RDWR,
		  "100 101 103 " },
		{ "json:{'driver':'qcow2','file':{'driver':'raw','file':"
		  "{'filename':'top.qcow2'}}}", 0, READ_SET },
		{ "json:{'driver':'raw','file':{'driver':'qcow2','file':"
		  "{'filename':'top.qcow2'}}}", 0, READ_SET },
		{ "json:{'driver':'raw','file':{'filename':'base.raw',"
		  "'locking':'off'}}", 0, "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool raw = strstr(cases[i].name, "base.raw");
		bool plain = !strncmp(cases[i].name, "base", 4);
		struct image *img = open_flags(cases[i].name,
					       plain ? "raw" : NULL,
					       cases[i].flags);

		assert_string_equal(held(raw ? "base.raw" : "top.qcow2"),
				    cases[i].want);
		assert_int_equal(image_close(img), 0);
	}
}

static void test_upgrade(void **state)
{
	struct image *img, *other;
	autoerr err = ERR_INIT;

	(void)state;
	img = open_flags("top.qcow2", NULL, IMAGE_RDWR_LATER);
	assert_false(img->writable);
	assert_int_equal(image_write(&img->live, "x", 1, 0), -EROFS);
	/* Somebody else reads: cannot be written. */
	other = open_flags("top.qcow2", NULL, 0);
	assert_int_equal(image_upgrade(img, &err), -ETXTBSY);
	assert_string_equal(err_text(&err), "Failed to get \"write\" lock");
	assert_string_equal(held("top.qcow2"), READ_SET);
	assert_int_equal(image_close(other), 0);
	assert_int_equal(image_upgrade(img, NULL), 0);
	assert_string_equal(held("top.qcow2"), WRITE_SET);
	assert_string_equal(held("mid.qcow2"), READ_SET);
	assert_int_equal(image_write(&img->live, "x", 1, 0), 0);
	assert_int_equal(image_downgrade(img, NULL), 0);
	assert_string_equal(held("top.qcow2"), READ_SET);
	assert_int_equal(image_write(&img->live, "y", 1, 0), -EROFS);
	run("qemu-img check -q top.qcow2 &&"
	    "qemu-io -r -c 'read -P 120 0 1' top.qcow2 | grep -q '1/1 bytes'");
	assert_int_equal(image_upgrade(img, NULL), 0);
	assert_int_equal(image_write(&img->live, "y", 1, 0), 0);
	assert_int_equal(image_close(img), 0);
	run("qemu-io -r -c 'read -P 121 0 1' top.qcow2 | grep -q '1/1 bytes'");
}

static void test_upgrade_refused(void **state)
{
	struct image *img;

	(void)state;
	img = open_flags("top.qcow2", NULL, 0);
	assert_int_equal(image_upgrade(img, NULL), -EROFS);
	assert_int_equal(image_close(img), 0);
	run("cp top.qcow2 corrupt.qcow2 && printf '\\002' |"
	    "dd of=corrupt.qcow2 bs=1 seek=79 conv=notrunc status=none");
	img = open_flags("corrupt.qcow2", NULL, IMAGE_RDWR_LATER);
	assert_int_equal(image_upgrade(img, NULL), -EUCLEAN);
	assert_string_equal(held("corrupt.qcow2"), READ_SET);
	assert_int_equal(image_close(img), 0);
}

static void test_upgrade_nested(void **state)
{
	static const char name[] = "json:{'driver':'raw','offset':65536,"
		"'file':{'driver':'qcow2','file':{'filename':'n.qcow2'}}}";
	struct image *img;

	(void)state;
	run("qemu-img create -q -f qcow2 n.qcow2 1M");
	img = open_flags(name, NULL, IMAGE_RDWR_LATER);
	assert_int_equal(image_size(img), MiB - 64 * KiB);
	assert_int_equal(image_upgrade(img, NULL), 0);
	assert_string_equal(held("n.qcow2"), WRITE_SET);
	assert_int_equal(image_write(&img->live, "z", 1, 1000), 0);
	assert_int_equal(image_downgrade(img, NULL), 0);
	assert_string_equal(held("n.qcow2"), READ_SET);
	assert_int_equal(image_close(img), 0);
	run("qemu-img check -q n.qcow2 && qemu-io -r -c"
	    " 'read -P 122 66536 1' n.qcow2 | grep -q '1/1 bytes'");
}

static void test_loops(void **state)
{
	(void)state;
	run("for i in l l1 l2; do qemu-img create -q -f qcow2 $i 1M; done &&"
	    "qemu-img rebase -u -b l -F qcow2 l &&"
	    "qemu-img rebase -u -b l2 -F qcow2 l1 &&"
	    "qemu-img rebase -u -b ./l1 -F qcow2 l2");
	assert_refused("l", NULL, 0,
		       "Backing file 'l' creates an infinite loop.");
	assert_refused("l1", NULL, IMAGE_SHARE,
		       "Backing file './l1' creates an infinite loop.");
	assert_int_equal(image_close(open_flags("l", NULL, IMAGE_NO_BACKING)),
			 0);
}

static void test_depth(void **state)
{
	(void)state;
	run("qemu-img create -q -f qcow2 d0 1M; cp d0 d; i=1;"
	    "qemu-img rebase -u -b d0000 -F qcow2 d;"
	    "off=$(grep -abo d0000 d | head -1 | cut -d: -f1);"
	    "while [ $i -le 260 ]; do n=$(printf %04d $i);"
	    "cp d d$n; printf %04d $((i - 1)) |"
	    "dd of=d$n bs=1 seek=$((off + 1)) conv=notrunc status=none;"
	    "i=$((i + 1)); done; mv d0 d0000");
	assert_int_equal(image_close(open_flags("d0250", NULL, 0)), 0);
	assert_refused("d0260", NULL, 0,
		       "Backing chain is deeper than 256 images");
	run("rm -f d0*");
}

static void test_guard(void **state)
{
	static char nothing[512];
	struct image *img;

	(void)state;
	run("truncate -s 1M g.raw");
	img = open_flags("g.raw", NULL, IMAGE_RDWR);
	assert_int_equal(image_write(&img->live, "QFI\xfb\0\0\0\3", 8, 0),
			 -EPERM);
	assert_int_equal(image_write(&img->live, "QFI\xfb", 4, 0), 0);
	assert_int_equal(image_write(&img->live, "\0\0\0\2", 4, 4), -EPERM);
	assert_int_equal(image_write(&img->live, nothing, 512, 0), 0);
	assert_int_equal(image_write(&img->live, "QFI\xfb\0\0\0\3", 8, 512),
			 0);
	assert_int_equal(image_close(img), 0);
	img = open_flags("g.raw", "raw", IMAGE_RDWR);
	assert_int_equal(image_write(&img->live, "QFI\xfb\0\0\0\3", 8, 0), 0);
	assert_int_equal(image_close(img), 0);
}

static void test_grow(void **state)
{
	struct image *img;
	autoerr err = ERR_INIT;
	char byte = 1;

	(void)state;
	run("truncate -s 1M r.raw");
	img = open_flags("r.raw", "raw", IMAGE_RDWR | IMAGE_RESIZE);
	assert_int_equal(image_grow(img, 2 * MiB, NULL, NULL), 0);
	assert_int_equal(image_size(img), 2 * MiB);
	assert_int_equal(image_read(&img->live, &byte, 1, 2 * MiB - 1), 0);
	assert_int_equal(byte, 0);
	assert_int_equal(image_grow(img, MiB, NULL, NULL), 0);
	assert_int_equal(image_size(img), 2 * MiB);
	assert_int_equal(image_close(img), 0);
	img = open_flags("json:{'driver':'raw','size':512,'file':{'filename':"
			 "'r.raw'}}", NULL, IMAGE_RDWR);
	assert_int_equal(image_grow(img, MiB, NULL, &err), -ENOTSUP);
	assert_string_equal(err_text(&err),
			    "Cannot resize fixed-size raw disks");
	assert_int_equal(image_close(img), 0);
	run("qemu-img create -q -f vdi n.vdi 1M");
	img = open_flags("n.vdi", NULL, IMAGE_RDWR);
	assert_int_equal(image_grow(img, 2 * MiB, NULL, NULL), -EOPNOTSUPP);
	assert_int_equal(image_close(img), 0);
}

static void test_on_file(void **state)
{
	struct image_args args = { .flags = 0 };
	struct image *img;
	struct file *f;

	(void)state;
	assert_int_equal(file_open_path("top.qcow2", 0, NULL, &f, NULL), 0);
	assert_int_equal(image_open_file(f, &args, &img, NULL), 0);
	file_unref(f);
	assert_string_equal(img->fmt->name, "qcow2");
	assert_string_equal(img->name, "top.qcow2");
	assert_non_null(img->backing);
	assert_string_equal(held("top.qcow2"), READ_SET);
	assert_int_equal(image_close(img), 0);
	assert_string_equal(held("top.qcow2"), "");
}

static void test_refusals(void **state)
{
	(void)state;
	assert_refused("top.qcow2", NULL, IMAGE_RDWR | IMAGE_SHARE,
		       "force-share=on can only be used with read-only"
		       " images");
	assert_refused("json:{'driver':'raw','read-only':true,'file':"
		       "{'filename':'r.raw'}}", NULL, IMAGE_RDWR,
		       "Block node is read-only");
	assert_refused("r.raw", "bogus", 0, "Unknown driver 'bogus'");
	assert_refused("nosuch", NULL, 0,
		       "Could not open 'nosuch': No such file or directory");
	assert_refused("json:{'driver':'qcow2','file.file.file.file.file.file."
		       "file.file.file.file.file.file.file.file.file.file.file"
		       ".file.file.filename':'a'}", NULL, 0,
		       "Must specify either driver or file");
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(folder) && !chdir(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_lock_sets),
		cmocka_unit_test(test_upgrade),
		cmocka_unit_test(test_upgrade_refused),
		cmocka_unit_test(test_upgrade_nested),
		cmocka_unit_test(test_loops),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_guard),
		cmocka_unit_test(test_grow),
		cmocka_unit_test(test_on_file),
		cmocka_unit_test(test_refusals),
	};

	if (system("qemu-img --version >/dev/null 2>&1 &&"
		   "qemu-io --version >/dev/null 2>&1")) {
		puts("skipped: qemu-img and qemu-io are not installed");
		return 77;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
