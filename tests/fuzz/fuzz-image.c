/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-image.c - libFuzzer's target: the input is an image file.  It is opened,
 * described, mapped, read, checked and written.  Any answer is right; crashes,
 * hangs and unbounded memory are not (rule 14).
 *
 * The input lies in a memfd that is opened by its name in /proc.  No other file
 * is ever opened: the policy has no roots.
 */
#include "blockcore.h"
#include "json.h"

#include <stdio.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RUNS_MAX = 300, READ_MAX = 65536, READS_MAX = 16 };

/* No sentence of a broken image is of interest here. */
static void swallow(void *data, const char *line)
{
	(void)data;
	(void)line;
}

static struct json *node_of(int fd)
{
	struct json *file = json_object(), *node = json_object();
	char name[32];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	json_set_take(file, "driver", json_string("file"));
	json_set_take(file, "filename", json_string(name));
	json_set_take(node, "file", file);
	return node;
}

/* The first runs of the disk and, where they hold data, their bytes. */
static void walk_and_read(const struct view *v)
{
	static unsigned char buf[READ_MAX];
	uint64_t off = 0;
	unsigned reads = 0;
	struct run run;

	for (unsigned i = 0; i < RUNS_MAX && off < v->size; i++) {
		if (walk_step(v, off, v->size - off, 0, MAP_EXACT, &run))
			return;
		BUG_ON(run.off != off || !run.len ||
		       run.len > v->size - off);
		if (run.data && reads++ < READS_MAX)
			image_read(v, buf, min_u64(run.len, sizeof(buf)), off);
		off += run.len;
	}
}

static void read_last_bytes(const struct view *v)
{
	unsigned char buf[512];
	uint64_t n = min_u64(v->size, sizeof(buf));

	if (n)
		image_read(v, buf, n, v->size - n);
}

static void describe(struct image *img)
{
	const struct format_admin *admin = img->fmt->admin;
	struct check_result check = { .say = swallow };
	struct image_info info = { 0 };
	autoerr err = ERR_INIT;

	if (!admin)
		return;
	if (admin->info)
		admin->info(img, &info, &err);
	image_info_free(&info);
	if (admin->check)
		admin->check(img, &check);
}

/* Whatever the tables say, writing ends, and in order. */
static void change(struct image *img)
{
	static unsigned char buf[3 * 4096];
	uint64_t size = image_size(img), unit = img->unit;
	const uint64_t offs[] = {
		0, unit - 512, 7 * unit, size / 2, size - sizeof(buf),
	};

	memset(buf, 0x55, sizeof(buf));
	for (size_t i = 0; i < ARRAY_SIZE(offs); i++)
		image_write(&img->live, buf, sizeof(buf), offs[i]);
	image_unmap(&img->live, 0, min_u64(size, 3 * unit), UNMAP_ZERO);
	image_unmap(&img->live, size / 2, min_u64(size / 2, 4 * unit),
		    UNMAP_ZERO_KEEP);
	image_flush(img);
	image_allocate(&img->live, 0, min_u64(size, 2 * unit));
	image_write(&img->live, buf, min_u64(size, 512), 0);
}

static void look_at(const struct json *node, struct policy *policy,
		    unsigned flags)
{
	struct image_args args = {
		.node = node, .policy = policy,
		.flags = flags | IMAGE_NO_BACKING | IMAGE_NO_LOCK,
	};
	autoerr err = ERR_INIT;
	struct image *img;

	if (image_open(&args, &img, &err))
		return;
	describe(img);
	walk_and_read(&img->live);
	read_last_bytes(&img->live);
	if (img->writable)
		change(img);
	image_close(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoclose int fd = memfd_create("image", MFD_CLOEXEC);
	struct policy *policy = policy_new();
	autojson *node = node_of(fd);

	log_set(swallow, NULL);
	cache_set_bound(16 * MiB);
	BUG_ON(fd < 0 || write(fd, data, size) != (ssize_t)size);
	look_at(node, policy, 0);
	look_at(node, policy, IMAGE_CHECK);
	look_at(node, policy, IMAGE_RDWR);
	policy_free(policy);
	return 0;
}
