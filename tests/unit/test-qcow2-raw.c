/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-qcow2-raw.c - of a raw data file: the image's disk fails while an entry
 * becomes data, with a second writer on its way to the same cluster.  Nobody
 * may write to the data file below an entry that on the disk is zeroes: what
 * the guest reads after the power failure is what the data file holds.
 */
#include "config.h"

#include "blockcore.h"
#include "engine.h"
#include "../lib/testfile.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define UNIT (64 * KiB)
#define GUEST (16 * UNIT)

static char folder[] = "/tmp/imgfs-test-raw.XXXXXX";
static struct file *data_disk;
static sem_t waits, goes_on;
static _Atomic bool armed;

static struct file *data_child(const char *name)
{
	(void)name;
	return file_ref(data_disk);
}

/* The first who stands between map() and its bytes waits. */
static void stop_one(const char *name)
{
	if (strcmp(name, "write:mapped") || !atomic_exchange(&armed, false))
		return;
	sem_post(&waits);
	sem_wait(&goes_on);
}

static struct file *load(const char *name)
{
	struct power_args args = { .size = 0 };
	struct file *from, *disk = power_new(&args);
	autofree char *buf = malloc(4 * MiB);
	autoerr err = ERR_INIT;
	char path[128];
	uint64_t size;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(file_open_path(path, 0, NULL, &from, &err), 0);
	assert_int_equal(file_size(from, &size), 0);
	assert_int_equal(file_read(from, buf, size, 0), 0);
	assert_int_equal(file_write(disk, buf, size, 0), 0);
	assert_int_equal(file_sync(disk), 0);
	file_unref(from);
	return disk;
}

static struct image *open_on(struct file *f, unsigned flags)
{
	struct image_args args = { .flags = flags | IMAGE_NO_LOCK };
	autoerr err = ERR_INIT;
	struct image *img;

	if (image_open_file(f, &args, &img, &err))
		fail_msg("%s", err_text(&err));
	return img;
}

static void *write_two(void *img)
{
	static char buf[2 * UNIT];

	memset(buf, 7, sizeof(buf));
	(void)image_write(&((struct image *)img)->live, buf, sizeof(buf), 0);
	return NULL;
}

/* What the power failure leaves: nothing of what the image's disk was not
 * told to keep, all of the data's. */
static void assert_same_after(struct file *disk)
{
	struct file *after = power_after(disk, 0);
	struct file *data = power_after(data_disk, 1);
	unsigned char *guest = malloc(GUEST), *raw = malloc(GUEST);
	struct image *img;

	file_unref(data_disk);
	data_disk = data;
	img = open_on(after, 0);
	assert_int_equal(image_read(&img->live, guest, GUEST, 0), 0);
	assert_int_equal(file_read(data, raw, GUEST, 0), 0);
	assert_memory_equal(guest, raw, GUEST);
	assert_int_equal(raw[0], 7);    /* in place: it got there */
	image_close(img);
	file_unref(after);
	free(guest);
	free(raw);
}

static void second_writer(void **state)
{
	struct file *disk = load("image"), *trap;
	struct trap_rule rule = { .op = TEST_SYNC, .error = -EIO };
	char byte = 1;
	struct image *img;
	pthread_t thread;

	(void)state;
	data_disk = load("data");
	knobs.child = data_child;
	trap = trap_file_take(file_ref(disk));
	img = open_on(trap, IMAGE_RDWR);
	/* The mark that it is in use, and all that a first change brings. */
	assert_int_equal(image_write(&img->live, &byte, 1, 9 * UNIT), 0);
	assert_int_equal(image_flush(img), 0);
	pause_set(stop_one);
	atomic_store(&armed, true);
	assert_int_equal(pthread_create(&thread, NULL, write_two, img), 0);
	sem_wait(&waits);
	trap_add(trap, &rule);
	assert_true(image_write(&img->live, &byte, 1, UNIT) < 0);
	sem_post(&goes_on);
	pthread_join(thread, NULL);
	pause_set(NULL);
	(void)image_close(img);
	power_crash(disk);
	power_crash(data_disk);
	assert_same_after(disk);
	file_unref(trap);
	file_unref(disk);
	file_unref(data_disk);
	knobs.child = NULL;
}

static int setup(void **state)
{
	char command[512];

	(void)state;
	sem_init(&waits, 0, 0);
	sem_init(&goes_on, 0, 0);
	if (!mkdtemp(folder))
		return -1;
	snprintf(command, sizeof(command), "cd %s && qemu-img create -q -f"
		 " qcow2 -o data_file=data,data_file_raw=on image 1M &&"
		 " qemu-io -c 'write -z 64k 64k' image >/dev/null", folder);
	return system(command);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(second_writer),
	};

	if (system("qemu-io --version >/dev/null 2>&1"))
		return 77;
	return cmocka_run_group_tests(tests, setup, teardown);
}
