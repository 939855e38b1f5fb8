/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-format-power.c - VDI, VHD, VHDX and VMDK lose power: at each request of a
 * piece of work, with several outcomes each, and at each request of a check -r.
 * Nothing that was flushed is lost, check finds no more than the format allows
 * after a crash, and nothing after the next opening for writing.
 *
 * What is on its way to headers, log and table of a VHDX may come back as noise,
 * and the power may fail again while the image is put right.
 *
 * The same with one mechanism switched off must fail: so nothing here passes
 * because it looks at nothing.  All of it is the same in every run: one thread,
 * fixed seeds.  (judge-formats.sh does the like with threads, chance, and
 * qemu-img as the reader.)
 *
 * timeout: 400
 */
#include "config.h"

#include "engine.h"
#include "../lib/testfile.h"

#include "json.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { OUTCOMES = 12, MANY = 100, MAX_SLOTS = 160, END = 1 << 30 };

/* A change of the image: @len bytes, big-endian.  @at END + n: from the end. */
struct poke {
	uint64_t at;
	uint64_t value;
	unsigned len;
};

struct kind {
	const char *format, *options;
	uint64_t size, unit;
	uint64_t stride;        /* units between two slots */
	unsigned slots, rounds;
	/* What check may say right after a crash: true, it may. */
	bool (*allowed)(const char *line);
	struct poke poke;       /* what makes of a new image one of this kind */
	uint64_t torn, torn_len;        /* power_tears() */
};

/* A slot is SECTORS of the guest's disk at the start of some unit. */
enum { SECTORS = 6, SLOT = SECTORS * SECTOR_SIZE };

struct slot {
	unsigned char durable;          /* what was flushed */
	unsigned char newest;
	bool later[256];                /* ... and what was written since */
};

struct trial {
	const struct kind *k;
	struct file *disk;
	struct slot slot[MAX_SLOTS];
	unsigned version;
};

/* How many of so many outcomes of a crash are bad. */
typedef unsigned bad_fn(const struct trial *r, struct file *crashed,
			unsigned outcomes);

/* ---- what check may say ---------------------------------------------------- */

/* The count is ahead of the map: vdi.md, "Order of the two updates". */
static bool count_is_ahead(const char *line)
{
	uint64_t is, should;

	return sscanf(line, "ERROR: allocated blocks mismatch, is %" SCNu64
		      ", should be %" SCNu64, &is, &should) == 2 &&
	       is < should;
}

/* The file has grown; the footer in front is good. */
static bool end_has_no_footer(const char *line)
{
	return !strncmp(line, "ERROR: no footer at the end", 27);
}

/* Of two headers one was on its way. */
static bool one_header(const char *line)
{
	return !strncmp(line, "ERROR: VHDX header ", 19);
}

static bool nothing(const char *line)
{
	(void)line;
	return false;
}

static const struct kind vdi = {
	"vdi", "", 100 * MiB, MiB, 9, 11, 8, .allowed = count_is_ahead
};
static const struct kind vdi_static = {
	"vdi", "static=on", 100 * MiB, MiB, 9, 11, 8, .allowed = nothing
};
static const struct kind vpc = {
	"vpc", "force_size=on", 100 * MiB, 2 * MiB, 4, 11, 8,
	.allowed = end_has_no_footer
};
static const struct kind vhdx = {
	"vhdx", "block_size=1M", 100 * MiB, MiB, 9, 11, 8, .allowed = nothing
};
/* Headers, log and table begin at 64 KiB, 1 and 2 MiB.  What is on its way to
 * them when the power fails may come back as noise. */
enum { HEADERS = 64 * 1024, TABLE = 2 << 20, METADATA = 3 << 20 };

static const struct kind vhdx_torn = {
	"vhdx", "block_size=1M", 100 * MiB, MiB, 9, 11, 8,
	.allowed = one_header,
	.torn = HEADERS, .torn_len = METADATA - HEADERS
};
/* Each slot has a page of the table: what the log's last entry holds is not
 * what the one before it held. */
static const struct kind vhdx_pages = {
	"vhdx", "block_size=1M", 6000 * MiB, MiB, 512, 11, 8,
	.allowed = nothing,
	.torn = TABLE, .torn_len = METADATA - TABLE
};
/* The sector's size becomes 4096. */
static const struct kind vhdx_4k = {
	"vhdx", "block_size=1M", 100 * MiB, MiB, 9, 11, 8, .allowed = nothing,
	.poke = { METADATA + 0x10020, 0x00100000, 4 }
};
/* 137 pages of the table: more than one entry of the log can take. */
static const struct kind vhdx_small_log = {
	"vhdx", "block_size=1M", 70000 * MiB, MiB, 512, 136, 2,
	.allowed = one_header,
	.torn = HEADERS, .torn_len = METADATA - HEADERS
};

/* Slots in all four tables. */
static const struct kind vmdk = {
	"vmdk", "", 100 * MiB, 64 * KiB, 150, 11, 8, .allowed = nothing
};
static const struct kind vmdk_zeroes = {
	"vmdk", "zeroed_grain=on", 100 * MiB, 64 * KiB, 150, 11, 8,
	.allowed = nothing
};

/* ---- images ----------------------------------------------------------------- */

static struct image *open_on(const struct trial *r, struct file *f,
			     unsigned flags)
{
	struct image_args args = { .flags = flags | IMAGE_NO_LOCK };
	autojson *node = json_object();
	autoerr err = ERR_INIT;
	struct image *img;

	json_set_take(node, "driver", json_string(r->k->format));
	args.node = node;
	return image_open_file(f, &args, &img, &err) ? NULL : img;
}

static void damage(struct file *f, const struct poke *pokes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t size, at = pokes[i].at;
		unsigned char b[8];

		assert_int_equal(file_size(f, &size), 0);
		be64_put(b, pokes[i].value << (64 - 8 * pokes[i].len));
		assert_int_equal(file_write(f, b, pokes[i].len, at >= END ?
					    size - (at - END) : at), 0);
	}
	assert_int_equal(file_sync(f), 0);
}

static void create(struct trial *r)
{
	const struct format *fmt = format_find(r->k->format);
	struct options *o = options_new(fmt->admin->create_options,
					protocol_create_options);
	struct power_args a = { .seed = 1 };
	autoerr err = ERR_INIT;

	r->disk = power_new(&a);
	assert_non_null(r->disk);
	if (*r->k->options)
		assert_int_equal(options_parse(o, r->k->options, &err), 0);
	assert_int_equal(fmt->admin->create(r->disk, o, r->k->size, &err), 0);
	damage(r->disk, &r->k->poke, r->k->poke.len != 0);
	power_tears(r->disk, r->k->torn, r->k->torn_len);
	options_free(o);
}

/* ---- the work ---------------------------------------------------------------- */

static uint64_t place(const struct trial *r, unsigned i)
{
	return i * r->k->stride * r->k->unit;
}

static int put(struct trial *r, struct image *img, unsigned i)
{
	unsigned char buf[SLOT];
	struct slot *s = &r->slot[i];

	s->newest = (unsigned char)++r->version;
	s->later[s->newest] = true;
	memset(buf, s->newest, sizeof(buf));
	return image_write(&img->live, buf, sizeof(buf), place(r, i));
}

static int flush(struct trial *r, struct image *img)
{
	int ret = image_flush(img);

	for (unsigned i = 0; !ret && i < r->k->slots; i++) {
		r->slot[i].durable = r->slot[i].newest;
		memset(r->slot[i].later, 0, sizeof(r->slot[i].later));
	}
	return ret;
}

/* Every round has new units and an old one, in an order that is not theirs. */
static void work(struct trial *r)
{
	struct image *img = open_on(r, r->disk, IMAGE_RDWR);
	unsigned n = r->k->slots, per = n / r->k->rounds + 1;
	int ret = 0;

	for (unsigned round = 0; img && !ret && round < r->k->rounds;
	     round++) {
		for (unsigned i = 0; !ret && i < per; i++)
			ret = put(r, img, (round * per + i) * 7 % n);
		if (!ret)
			ret = put(r, img, 0);
		if (!ret)
			ret = flush(r, img);
	}
	if (img)
		(void)image_close(img);
}

/* How many requests the whole of it makes. */
static uint64_t requests(const struct kind *k)
{
	struct trial r = { .k = k };
	uint64_t n;

	create(&r);
	n = power_ops(r.disk);
	work(&r);
	n = power_ops(r.disk) - n;
	file_unref(r.disk);
	return n;
}

/* ---- verdicts ------------------------------------------------------------------ */

struct said {
	bool (*allowed)(const char *line);
	unsigned other;         /* lines that are not */
};

static void hear(void *data, const char *line)
{
	struct said *s = data;

	/* VMDK: of two tables one was written. */
	s->other += strncmp(line, "Leaked: redundant", 17) &&
		    !s->allowed(line);
}

static bool check_is_good(struct image *img, bool (*allowed)(const char *))
{
	struct said said = { allowed, 0 };
	struct check_result res = { .say = hear, .data = &said };

	return !img->fmt->admin->check(img, &res) && !said.other;
}

static bool sectors_are_good(const struct slot *s, const unsigned char *buf)
{
	for (unsigned i = 0; i < SECTORS; i++) {
		unsigned char c = buf[i * SECTOR_SIZE];

		if (c != s->durable && !s->later[c])
			return false;
		for (unsigned k = 1; k < SECTOR_SIZE; k++)
			if (buf[i * SECTOR_SIZE + k] != c)
				return false;
	}
	return true;
}

static bool content_is_good(const struct trial *r, struct image *img)
{
	unsigned char buf[SLOT];

	for (unsigned i = 0; i < r->k->slots; i++)
		if (image_read(&img->live, buf, sizeof(buf), place(r, i)) ||
		    !sectors_are_good(&r->slot[i], buf))
			return false;
	return true;
}

static bool reads_well(const struct trial *r, struct file *f,
		       bool (*allowed)(const char *))
{
	struct image *img = open_on(r, f, 0);
	bool good = img && check_is_good(img, allowed) &&
		    content_is_good(r, img);

	return (!img || !image_close(img)) && good;
}

/* Where slots never are: what is written there must not hurt them. */
static bool writes_well(const struct trial *r, struct file *f)
{
	struct image *img = open_on(r, f, IMAGE_RDWR);
	static const unsigned char buf[SECTOR_SIZE] = "new";

	bool good = img && !image_write(&img->live, buf, sizeof(buf),
					r->k->size - r->k->unit);

	return img && !image_close(img) && good;
}

/* Outcomes of one crash that are not as they should be. */
static unsigned bad_outcomes(const struct trial *r, struct file *crashed,
			     unsigned outcomes)
{
	unsigned bad = 0;

	for (uint64_t seed = 0; seed < outcomes; seed++) {
		struct file *f = power_after(crashed, seed);

		bad += !reads_well(r, f, r->k->allowed) ||
		       !writes_well(r, f) || !reads_well(r, f, nothing);
		file_unref(f);
	}
	return bad;
}

/* The same when the power fails again, at any request of the opening that puts
 * things right and of what follows. */
static unsigned bad_again(const struct trial *r, struct file *crashed,
			  unsigned outcomes)
{
	unsigned bad = 0;

	for (uint64_t seed = 0; seed < outcomes; seed++)
		for (uint64_t nth = 1, done = 0; !done; nth++) {
			struct file *f = power_after(crashed, seed + 7);

			power_crash_after(f, nth);
			(void)writes_well(r, f);
			done = !power_crashed(f);
			if (!done)
				bad += bad_outcomes(r, f, outcomes);
			file_unref(f);
		}
	return bad;
}

static unsigned crash_at(const struct kind *k, uint64_t nth, bad_fn fn,
			 unsigned outcomes)
{
	struct trial *r = calloc(1, sizeof(*r));
	unsigned bad;

	r->k = k;
	create(r);
	power_crash_after(r->disk, nth);
	work(r);
	bad = fn(r, r->disk, outcomes);
	file_unref(r->disk);
	free(r);
	return bad;
}

/* ... in all crashes. */
static void test_power(void **state)
{
	const struct kind *k = *state;
	uint64_t n = requests(k);
	unsigned bad = 0;

	assert_true(n > 10);
	for (uint64_t i = 1; i <= n; i++)
		bad += crash_at(k, i, bad_outcomes, OUTCOMES);
	print_message("%s %s: %u power failures, %u bad outcomes\n",
		      k->format, k->options, (unsigned)n * OUTCOMES, bad);
	assert_int_equal(bad, 0);
}

static void test_power_twice(void **state)
{
	const struct kind *k = *state;
	uint64_t n = requests(k);
	unsigned bad = 0;

	for (uint64_t i = 2; i <= n; i += 3)
		bad += crash_at(k, i, bad_again, 2);
	print_message("%s %s: %u bad outcomes of two power failures\n",
		      k->format, k->options, bad);
	assert_int_equal(bad, 0);
}

/* ---- mechanisms ------------------------------------------------------------------ */

/* Without it some outcome of some crash is bad. */
static void missed(const struct kind *k, bool *knob, bad_fn fn,
		   unsigned outcomes)
{
	unsigned bad = 0;
	uint64_t n, i;

	*knob = true;
	n = requests(k);
	for (i = n; !bad && i; i--)
		bad = crash_at(k, i, fn, outcomes);
	*knob = false;
	print_message("missed in request %u of %u\n", (unsigned)i + 1,
		      (unsigned)n);
	assert_true(bad > 0);
}

static void test_without_stages(void **state)
{
	missed(*state, &knobs.no_stages, bad_outcomes, MANY);
}

static void test_without_log_crc(void **state)
{
	missed(*state, &knobs.no_log_crc, bad_outcomes, MANY);
}

static void test_without_log_sync(void **state)
{
	missed(*state, &knobs.no_log_sync, bad_outcomes, MANY);
}

/* Two headers on their way at once, the log forgotten before what it said is
 * in its place. */
static void test_without_barriers(void **state)
{
	missed(*state, &knobs.no_barriers, bad_outcomes, MANY);
}

static void test_replay_without_barriers(void **state)
{
	missed(*state, &knobs.no_barriers, bad_again, 3);
}

/* The crash comes within the flush of what one batch does not hold. */
static void test_batches(void **state)
{
	const struct kind *k = *state;
	uint64_t n = requests(k);
	unsigned bad = 0;

	for (uint64_t i = n > 40 ? n - 40 : 1; i <= n; i++)
		bad += crash_at(k, i, bad_outcomes, 5);
	print_message("log smaller than a flush: %u power failures,"
		      " %u bad outcomes\n", 41 * 5, bad);
	assert_int_equal(bad, 0);
}

/* ---- repairs --------------------------------------------------------------------- */

static int repair(const struct trial *r, struct file *f)
{
	struct image *img = open_on(r, f, IMAGE_RDWR | IMAGE_CHECK |
					  IMAGE_REPAIR);
	struct check_result res = { 0 };
	int ret, closed;

	if (!img)
		return -EIO;
	ret = image_repair(img, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, &res);
	closed = image_close(img);
	if (!ret && res.corruptions)
		ret = -EUCLEAN;
	return ret ? ret : closed;
}

/* What the guest reads when a repair was not interrupted. */
static void learn(struct trial *r, struct file *f)
{
	struct image *img = open_on(r, f, 0);
	unsigned char buf[SLOT];

	assert_non_null(img);
	for (unsigned i = 0; i < r->k->slots; i++) {
		assert_int_equal(image_read(&img->live, buf, sizeof(buf),
					    place(r, i)), 0);
		r->slot[i].durable = *buf;
		memset(r->slot[i].later, 0, sizeof(r->slot[i].later));
	}
	assert_int_equal(image_close(img), 0);
}

/* All durable: a repair begins with it. */
static struct file *damaged(const struct trial *r, const struct poke *pokes,
			    size_t n)
{
	struct file *f = power_after(r->disk, 1);

	assert_non_null(f);
	damage(f, pokes, n);
	return f;
}

static void repair_everywhere(const struct kind *k, const struct poke *pokes,
			      size_t n)
{
	struct trial *r = calloc(1, sizeof(*r));
	struct file *f;
	uint64_t ops;

	r->k = k;
	create(r);
	work(r);
	f = damaged(r, pokes, n);
	ops = power_ops(f);
	assert_int_equal(repair(r, f), 0);
	ops = power_ops(f) - ops;
	learn(r, f);
	assert_true(reads_well(r, f, nothing));
	file_unref(f);
	for (uint64_t i = 1; i <= ops; i++) {
		f = damaged(r, pokes, n);
		power_crash_after(f, i);
		(void)repair(r, f);
		for (uint64_t seed = 0; seed < OUTCOMES; seed++) {
			struct file *g = power_after(f, seed);

			assert_int_equal(repair(r, g), 0);
			assert_true(reads_well(r, g, nothing));
			assert_true(writes_well(r, g));
			assert_true(reads_well(r, g, nothing));
			file_unref(g);
		}
		file_unref(f);
	}
	file_unref(r->disk);
	free(r);
}

#define REPAIR(kind, ...) do { \
		const struct poke p[] = { __VA_ARGS__ }; \
		repair_everywhere(&(kind), p, ARRAY_SIZE(p)); \
	} while (0)

/* The map is at 0x200, the count at 0x184; slots are in units 9 apart. */
static void test_repair_vdi(void **state)
{
	enum { COUNT = 0x184, MAP = 0x200, SLOT_1 = MAP + 4 * 9 };

	(void)state;
	REPAIR(vdi, { COUNT, 0x03000000, 4 });
	REPAIR(vdi, { COUNT, 0x20000000, 4 });
	REPAIR(vdi, { SLOT_1, 0xffffffff, 4 });
	REPAIR(vdi, { SLOT_1, 0xfeffffff, 4 }, { MAP, 0xffffffff, 4 });
	REPAIR(vdi, { SLOT_1, 0x00000000, 4 });
	REPAIR(vdi, { SLOT_1, 0x00000000, 4 }, { SLOT_1 + 36, 0, 4 });
	REPAIR(vdi, { SLOT_1, 0x40000000, 4 });
	REPAIR(vdi, { SLOT_1, 0x40000000, 4 }, { MAP, 0x01000000, 4 });
}

/* The table is at 1536. */
static void test_repair_vpc(void **state)
{
	enum { SUM = 512 + 36, SLOT_1 = 1536 + 4 * 4 };

	(void)state;
	REPAIR(vpc, { SUM, 0, 4 });
	REPAIR(vpc, { END + 512, 0, 8 });
	REPAIR(vpc, { SLOT_1, 4, 4 });
	REPAIR(vpc, { SLOT_1, 4, 4 }, { SLOT_1 + 16, 4, 4 });
	REPAIR(vpc, { SLOT_1, 1, 4 });
	REPAIR(vpc, { SLOT_1, 0x00ffffff, 4 });
	REPAIR(vpc, { SLOT_1, 4, 4 }, { END + 512, 0, 8 }, { SUM, 0, 4 });
}

/* The table is at 2 MiB, blocks begin at 8 MiB (0x80 in the entry's byte 2). */
static void test_repair_vhdx(void **state)
{
	enum { BAT = 2 << 20, SLOT_1 = BAT + 8 * 9 };
	static const uint64_t first = UINT64_C(0x0600800000000000);

	(void)state;
	REPAIR(vhdx, { 64 * KiB + 100, 0xff, 1 });
	REPAIR(vhdx, { 128 * KiB + 100, 0xff, 1 });
	REPAIR(vhdx, { 192 * KiB + 100, 0xff, 1 });
	REPAIR(vhdx, { 256 * KiB + 100, 0xff, 1 }, { SLOT_1, first, 8 });
	REPAIR(vhdx, { SLOT_1, first, 8 });
	REPAIR(vhdx, { SLOT_1, first, 8 }, { SLOT_1 + 72, first, 8 });
	REPAIR(vhdx, { SLOT_1, UINT64_C(0x0600000001000000), 8 });
	REPAIR(vhdx, { SLOT_1, UINT64_C(0x0400800000000000), 8 });
}

/* The second directory is at sector 21, the first at 38; tables follow. */
static void test_repair_vmdk(void **state)
{
	enum { RGD = 21 * 512, RGT = RGD + 512, GD = 38 * 512, GT = GD + 512,
	       SLOT_1 = 4 * 150, SLOT_2 = 2 * SLOT_1, TO_RGD = 48,
	       TO_GD = 56 };
	static const uint64_t nowhere = 0xffffff7f, first_table = 0x27000000,
			      first_grain = 0x80000000, text = 0x01000000;

	(void)state;
	REPAIR(vmdk, { GD, nowhere, 4 });
	REPAIR(vmdk, { GD + 4, nowhere, 4 }, { GT + SLOT_1, nowhere, 4 });
	REPAIR(vmdk, { RGD, nowhere, 4 });
	REPAIR(vmdk, { RGD, 0, 4 }, { RGD + 4, 0, 4 });
	REPAIR(vmdk, { GT + SLOT_1, nowhere, 4 });
	REPAIR(vmdk, { RGT + SLOT_1, 0, 4 });
	REPAIR(vmdk, { GT + SLOT_1, nowhere, 4 }, { RGT + SLOT_1, 0, 4 });
	REPAIR(vmdk, { GT + SLOT_1, first_grain, 4 },
	       { GT + SLOT_2, first_grain, 4 });
	REPAIR(vmdk, { GT + SLOT_1, first_grain, 4 },
	       { RGT + SLOT_1, first_grain, 4 },
	       { GT + SLOT_2, first_grain, 4 },
	       { RGT + SLOT_2, first_grain, 4 });
	REPAIR(vmdk, { GT + SLOT_1, first_table, 4 },
	       { RGT + SLOT_1, first_table, 4 });
	REPAIR(vmdk, { GD + 4, first_table, 4 });
	REPAIR(vmdk, { GD + 4, first_table, 4 }, { RGD + 4, nowhere, 4 });
	REPAIR(vmdk, { TO_RGD, nowhere, 4 });
	REPAIR(vmdk, { TO_RGD, text, 4 }, { GD + 4, first_table, 4 });
	REPAIR(vmdk, { TO_GD, text, 4 });
	REPAIR(vmdk, { TO_GD, text, 4 }, { TO_RGD, text, 4 });
}

/* ---- all ------------------------------------------------------------------------- */

static void hush(void *data, const char *line)
{
	(void)data;
	(void)line;
}

#define ON(fn, kind) { #fn " " #kind, fn, NULL, NULL, (void *)&(kind) }

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON(test_power, vdi),
		ON(test_power, vdi_static),
		ON(test_power, vpc),
		ON(test_power, vmdk),
		ON(test_power, vmdk_zeroes),
		ON(test_power, vhdx_torn),
		ON(test_power, vhdx_4k),
		ON(test_batches, vhdx_small_log),
		ON(test_power_twice, vdi),
		ON(test_power_twice, vpc),
		ON(test_power_twice, vhdx_pages),
		ON(test_power_twice, vmdk),
		ON(test_without_stages, vdi),
		ON(test_without_stages, vpc),
		ON(test_without_stages, vhdx),
		ON(test_without_stages, vmdk),
		ON(test_without_log_crc, vhdx),
		ON(test_without_log_sync, vhdx_pages),
		ON(test_without_barriers, vhdx_torn),
		ON(test_replay_without_barriers, vhdx_pages),
		cmocka_unit_test(test_repair_vdi),
		cmocka_unit_test(test_repair_vpc),
		cmocka_unit_test(test_repair_vhdx),
		cmocka_unit_test(test_repair_vmdk),
	};

	log_set(hush, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
