/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuzz-image.c - the fuzzers' target: the input (sketch.h) is an image file.  It
 * is opened, described, mapped, read, checked, written, closed and opened again,
 * and repaired.  Any answer is right; crashes, hangs and unbounded memory are
 * not (rule 14), nor is what contradicts itself:
 *
 *	two reads of the same bytes differ
 *	what was written to an image that check finds sound is not read back
 *	such an image, written to and closed, cannot be opened again
 *	a repair says that all is well, and the next check says otherwise
 *
 * FUZZ_FORMAT names the driver; without it the image is probed.  The input lies
 * in memfds that are opened by their names in /proc.  No other file is ever
 * opened: the policy has no roots, and each second file is the input's.
 */
#include "bitmap.h"
#include "engine.h"
#include "json.h"
#include "sketch.h"
#include "snapshot.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RUNS_MAX = 300, READ_MAX = 65536, READS_MAX = 16 };

struct input {
	const char *format;
	int fd, second;
	unsigned flags, seed;
	bool sound;             /* check has found nothing */
};

/* ---- files ---------------------------------------------------------------- */

/* No sentence of a broken image is of interest here. */
static void swallow(void *data, const char *line)
{
	(void)data;
	(void)line;
}

/* A table of millions may be wrong everywhere: nobody reads on. */
#define LINES_MAX 20000

struct reader {
	unsigned lines;
	_Atomic bool enough;
};

static void read_line(void *data, const char *line)
{
	struct reader *r = data;

	(void)line;
	if (++r->lines == LINES_MAX)
		atomic_store(&r->enough, true);
}

static void name_of(int fd, char name[32])
{
	snprintf(name, 32, "/proc/self/fd/%d", fd);
}

static struct json *node_of(const struct input *in)
{
	struct json *file = json_object(), *node = json_object();
	char name[32];

	name_of(in->fd, name);
	json_set_take(file, "driver", json_string("file"));
	json_set_take(file, "filename", json_string(name));
	if (in->format)
		json_set_take(node, "driver", json_string(in->format));
	json_set_take(node, "file", file);
	return node;
}

static int second_fd;

static struct file *second_file(const char *ignored)
{
	struct file *f;
	char name[32];

	(void)ignored;
	name_of(second_fd, name);
	BUG_ON(file_open_path(name, FILE_RDWR | FILE_NO_LOCK, NULL, &f, NULL));
	return f;
}

static struct image *open_input(const struct input *in, unsigned flags)
{
	struct policy *policy = policy_new();
	autojson *node = node_of(in);
	struct image_args args = {
		.node = node, .policy = policy,
		.flags = flags | IMAGE_NO_LOCK |
			 (in->flags & SKETCH_CHAIN ? 0 : IMAGE_NO_BACKING),
	};
	autoerr err = ERR_INIT;
	struct image *img;

	if (image_open(&args, &img, &err))
		img = NULL;
	policy_free(policy);
	return img;
}

/* ---- looking -------------------------------------------------------------- */

/* A piece of it alone is what it was as a part of the whole. */
static void read_twice(const struct view *v, uint64_t off, uint64_t len)
{
	static unsigned char buf[READ_MAX], piece[1500];
	uint64_t at;

	len = min_u64(len, sizeof(buf));
	if (image_read(v, buf, len, off))
		return;
	at = len / 3;
	len = min_u64(len - at, sizeof(piece));
	if (!image_read(v, piece, len, off + at))
		BUG_ON(memcmp(piece, buf + at, len));
}

/* The first runs of the disk and, where they hold data, their bytes. */
static void walk_and_read(const struct view *v)
{
	uint64_t off = 0;
	unsigned reads = 0;
	struct run run;

	for (unsigned i = 0; i < RUNS_MAX && off < v->size; i++) {
		if (walk_step(v, off, v->size - off, 0, MAP_EXACT, &run))
			break;
		BUG_ON(run.off != off || !run.len ||
		       run.len > v->size - off);
		if (run.data && reads++ < READS_MAX)
			read_twice(v, off, run.len);
		off += run.len;
	}
	if (v->size)
		read_twice(v, v->size - min_u64(v->size, 512),
			   min_u64(v->size, 512));
}

/* True: check finds nothing. */
static bool describe(struct image *img)
{
	const struct format_admin *admin = img->fmt->admin;
	struct reader r = { .lines = 0 };
	struct check_result check = {
		.say = read_line, .data = &r, .cancel = &r.enough,
	};
	struct image_info info = { 0 };
	autoerr err = ERR_INIT;

	if (!admin)
		return true;
	if (admin->info)
		admin->info(img, &info, &err);
	image_info_free(&info);
	return !admin->check || (!admin->check(img, &check) &&
				 !check.corruptions && !check.leaks &&
				 !check.check_errors);
}

/* The first ones' first bits. */
static void look_at_bitmaps(struct image *img)
{
	struct bitmap_info *list;
	uint64_t len;
	size_t n;
	bool dirty;

	if (bitmap_list(img, &list, &n, NULL))
		return;
	for (size_t i = 0; i < n && i < 4; i++)
		if (image_size(img) && !bitmap_run(img, list[i].name, 0, &len,
						   &dirty, NULL))
			BUG_ON(!len || len > image_size(img));
	bitmap_list_free(list, n);
}

static void look_at_snapshots(struct image *img)
{
	struct snapshot_list list;

	if (image_snapshots(img, &list, NULL))
		return;
	for (size_t i = 0; i < list.n && i < 4; i++) {
		struct snapshot_key key = {
			.id = list.items[i].id, .name = list.items[i].name,
		};
		struct view v;

		if (image_snapshot_view(img, &key, &v, NULL))
			continue;
		walk_and_read(&v);
		image_view_close(&v);
	}
	snapshot_list_free(&list);
}

static void look(struct input *in, unsigned flags)
{
	struct image *img = open_input(in, flags);

	if (!img)
		return;
	in->sound = describe(img);
	look_at_bitmaps(img);
	look_at_snapshots(img);
	walk_and_read(&img->live);
	image_close(img);
}

/* ---- changing ------------------------------------------------------------- */

/* What one write put there, a read finds. */
static void write_and_read(struct image *img, uint64_t off, unsigned char byte,
			   bool sound)
{
	static unsigned char buf[3 * 4096], back[3 * 4096];
	uint64_t size = image_size(img), n;

	if (off >= size)
		return;
	n = min_u64(sizeof(buf), size - off);
	memset(buf, byte, n);
	if (image_write(&img->live, buf, n, off) ||
	    image_read(&img->live, back, n, off))
		return;
	BUG_ON(sound && memcmp(buf, back, n));
}

static void pack_one(struct image *img, uint64_t off)
{
	uint64_t unit = img->unit;
	autofree unsigned char *buf = NULL, *out = NULL;
	size_t n;

	if (!img->codec || unit > 2 * MiB || off % unit ||
	    off >= image_size(img))
		return;
	buf = calloc(1, unit);
	out = malloc(unit);
	memset(buf, 0x33, unit / 2);
	if (!image_pack(img, buf, out, &n) && n)
		image_write_packed(&img->live, out, n, off);
}

static void give_back(struct image *img, uint64_t off, uint64_t len,
		      enum unmap_how how)
{
	if (off < image_size(img))
		image_unmap(&img->live, off, min_u64(len, image_size(img) -
						     off), how);
}

/* Whatever the tables say, writing ends, and in order. */
static void change(struct image *img, const struct input *in)
{
	unsigned seed = in->seed;
	uint64_t size = image_size(img), unit = img->unit;
	const uint64_t offs[] = {
		0, unit - 512, 7 * unit, size / 2, size - 3 * 4096,
		size / 256 * seed,
	};

	for (size_t i = 0; i < ARRAY_SIZE(offs); i++)
		write_and_read(img, offs[i], (unsigned char)(0x55 + i),
			       in->sound);
	pack_one(img, 4 * unit);
	give_back(img, 0, 3 * unit, UNMAP_ZERO);
	give_back(img, size / 2, 4 * unit, UNMAP_ZERO_KEEP);
	give_back(img, 8 * unit, 2 * unit, seed & 1 ? UNMAP_HOLE : UNMAP_FREE);
	if (seed & 2)
		image_flush(img);
	if (unit <= 4 * MiB)
		image_allocate(&img->live, 0, min_u64(size, 2 * unit));
	write_and_read(img, 0, 0x77, in->sound);
	if (seed & 4 && img->fmt->resize && size < UINT64_C(1) << 40)
		image_grow(img, size + 5 * unit, NULL, NULL);
	walk_and_read(&img->live);
}

static void look_and_change(const struct input *in)
{
	struct image *img = open_input(in, IMAGE_RDWR | IMAGE_DISCARD);

	if (!img)
		return;
	change(img, in);
	if (image_close(img))
		return;
	img = open_input(in, 0);
	BUG_ON(!img && in->sound);
	if (!img)
		return;
	describe(img);
	image_close(img);
}

/* ---- repairing ------------------------------------------------------------ */

static void repair(const struct input *in)
{
	struct reader r = { .lines = 0 };
	struct check_result res = {
		.say = read_line, .data = &r, .cancel = &r.enough,
	}, again = { .say = swallow };
	struct image *img = open_input(in, IMAGE_RDWR | IMAGE_CHECK |
				       IMAGE_REPAIR);
	int ret;

	if (!img)
		return;
	ret = image_repair(img, in->seed & 1 ? CHECK_FIX_LEAKS :
			   CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, &res);
	if (image_close(img) || ret || res.corruptions || res.check_errors)
		return;
	img = open_input(in, IMAGE_CHECK);
	if (!img)               /* some parts only readers look at */
		return;
	if (img->fmt->admin->check && !img->fmt->admin->check(img, &again))
		BUG_ON(again.corruptions);
	walk_and_read(&img->live);
	image_close(img);
}

/* ---- creating ------------------------------------------------------------- */

/* Names would lead out of here. */
static bool names_a_file(const char *text)
{
	return strstr(text, "backing") || strstr(text, "data_file") ||
	       strstr(text, "subformat=twoGb") || strstr(text, "Flat");
}

static void create(struct input *in, uint64_t size, const char *text)
{
	const struct format *fmt = format_find(in->format ? in->format :
					       "qcow2");
	const struct format_admin *admin = fmt ? fmt->admin : NULL;
	autoerr err = ERR_INIT;
	struct options *o;
	struct file *f;
	char name[32];
	int ret;

	if (!admin || !admin->create || names_a_file(text))
		return;
	name_of(in->fd, name);
	BUG_ON(file_open_path(name, FILE_RDWR | FILE_NO_LOCK, NULL, &f, NULL));
	o = options_new(admin->create_options, NULL);
	ret = options_parse(o, text, &err);
	if (!ret && admin->create_check)
		ret = admin->create_check(o, size, &err);
	if (!ret)
		ret = admin->create(f, o, size, &err);
	options_free(o);
	file_unref(f);
	in->sound = true;
	if (!ret)
		look_and_change(in);
}

static void create_sketch(struct input *in, const uint8_t *data,
			  size_t size)
{
	autofree char *text = strndup((const char *)data + SKETCH_HEAD,
				      size - SKETCH_HEAD);

	create(in, le64_at(data + 4) % (UINT64_C(1) << 38) & ~UINT64_C(511),
	       text);
}

/* -------------------------------------------------------------------------- */

static void start(void)
{
	struct rlimit most = { .rlim_cur = 128 * MiB, .rlim_max = 128 * MiB };
	static bool started;

	if (started)
		return;
	started = true;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &most);
	log_set(swallow, NULL);
	cache_set_bound(16 * MiB);
}

/* The driver that this input is for. */
static const char *driver(unsigned flags)
{
	const char *format = getenv("FUZZ_FORMAT");
	static char bundle[64];

	if (!format || !(flags & SKETCH_BUNDLE))
		return format;
	snprintf(bundle, sizeof(bundle), "%s-bundle", format);
	return format_find(bundle) ? bundle : format;
}

static void input_fresh(struct input *in, const uint8_t *data, size_t size)
{
	bool two;

	BUG_ON(ftruncate(in->fd, 0) || ftruncate(in->second, 0));
	sketch_unfold(data, size, in->fd, in->second, &two);
	if (in->flags & SKETCH_MEND && in->format)
		sketch_mend(in->format, in->fd);
	second_fd = in->second;
	knobs.child = two ? second_file : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	autoclose int fd = memfd_create("image", MFD_CLOEXEC);
	autoclose int second = memfd_create("second", MFD_CLOEXEC);
	struct input in = {
		.fd = fd, .second = second,
	};

	start();
	BUG_ON(fd < 0 || second < 0);
	if (size < SKETCH_HEAD)
		return 0;
	in.flags = data[0];
	in.seed = data[1];
	in.format = driver(in.flags);
	if (in.flags & SKETCH_CREATE) {
		create_sketch(&in, data, size);
		return 0;
	}
	input_fresh(&in, data, size);
	look(&in, 0);
	look(&in, IMAGE_CHECK);
	look_and_change(&in);
	input_fresh(&in, data, size);
	repair(&in);
	return 0;
}
