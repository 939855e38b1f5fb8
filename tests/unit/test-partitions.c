/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Partition tables made by fdisk, with sectors of 512 and 4096 bytes, and the
 * same ones damaged: the backup is used, checksums count, and whatever the
 * tables say the list is inside the disk and the work bounded.
 */
#include "fs/partitions.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <zlib.h>
#include <cmocka.h>

enum { DISK = 64 << 20 };

static unsigned char *disk;     /* the bytes of the guest's disk */
static unsigned reads;          /* calls of image_read() */
static char path[] = "/tmp/test-partitions.XXXXXX";
static struct image img;
static struct view view = { .img = &img };
static struct partition_table table;

/* The engine's place: partitions.c knows nothing else of an image. */
int image_read(const struct view *v, void *buf, size_t len, uint64_t off)
{
	assert_true(v == &view && range_within(off, len, image_size(&img)));
	memcpy(buf, disk + off, len);
	reads++;
	return 0;
}

/* ---- disks made by fdisk ------------------------------------------------- */

static void disk_make(unsigned sector, const char *commands)
{
	char command[600];
	int fd = open(path, O_RDWR | O_TRUNC | O_CREAT, 0600);

	if (system("command -v fdisk >/dev/null"))
		skip();
	assert_true(fd >= 0 && !ftruncate(fd, DISK));
	snprintf(command, sizeof(command), "printf '%s' | fdisk -w always"
		 " -b %u %s >/dev/null", commands, sector, path);
	assert_int_equal(system(command), 0);
	assert_int_equal(pread(fd, disk, DISK, 0), DISK);
	close(fd);
	unlink(path);
	atomic_store(&img.size, DISK);
}

static void table_read(void)
{
	partition_table_free(&table);
	reads = 0;
	assert_int_equal(partition_table_read(&view, &table), 0);
	for (unsigned i = 0; i < table.nr; i++) {
		const struct partition *p = &table.list[i];

		assert_true(p->size && range_within(p->start, p->size,
						    image_size(&img)));
		assert_true(!i || p->number > table.list[i - 1].number);
	}
}

static void check(unsigned i, unsigned number, uint64_t start, uint64_t size)
{
	assert_true(i < table.nr);
	assert_int_equal(table.list[i].number, number);
	assert_int_equal(table.list[i].start, start);
	assert_int_equal(table.list[i].size, size);
}

static void gpt_make(unsigned sector)
{
	char commands[200];
	uint64_t a = MiB / sector, b = 8 * MiB / sector;

	snprintf(commands, sizeof(commands), "g\\nn\\n1\\n%u\\n%u\\n"
		 "n\\n7\\n%u\\n%u\\nx\\nn\\n1\\nr\\303\\266\\303\\266t\\nr\\nw\\n",
		 (unsigned)a, (unsigned)(2 * a - 1), (unsigned)b,
		 (unsigned)(2 * b - 1));
	disk_make(sector, commands);
}

static void gpt_expect(unsigned sector, bool backup)
{
	table_read();
	assert_int_equal(table.scheme, PARTITION_GPT);
	assert_int_equal(table.sector, sector);
	assert_true(table.backup == backup);
	assert_int_equal(table.nr, 2);
	check(0, 1, MiB, MiB);
	check(1, 7, 8 * MiB, 8 * MiB);
	assert_string_equal(table.list[0].type,
			    "0fc63daf-8483-4772-8e79-3d69d8477de4");
	assert_string_equal(table.list[1].name, "");
}

static void gpt(unsigned sector)
{
	gpt_make(sector);
	gpt_expect(sector, false);
	assert_string_equal(table.list[0].name, "r\303\266\303\266t");
	memset(disk + sector, 0, 8);
	gpt_expect(sector, true);
	gpt_make(sector);
	disk[2 * sector + 60]++;                /* a name: the entries' CRC */
	gpt_expect(sector, true);
	disk[DISK - sector + 20]++;             /* the backup's header CRC */
	table_read();
	assert_int_equal(table.nr, 0);
}

static void gpt_of_512(void **state)
{
	(void)state;
	gpt(512);
}

static void gpt_of_4096(void **state)
{
	(void)state;
	gpt(4096);
}

/* Two primary ones, an extended one with two logical ones. */
static void mbr_make(unsigned sector)
{
	char commands[300];
	unsigned m = (unsigned)MiB / sector;

	snprintf(commands, sizeof(commands), "o\\nn\\np\\n1\\n%u\\n%u\\n"
		 "n\\np\\n3\\n%u\\n%u\\nn\\ne\\n2\\n%u\\n%u\\n"
		 "n\\nl\\n%u\\n%u\\nn\\nl\\n%u\\n%u\\na\\n3\\nt\\n6\\n82\\nw\\n",
		 m, 2 * m - 1, 4 * m, 6 * m - 1, 8 * m, 40 * m - 1,
		 9 * m, 10 * m - 1, 12 * m, 20 * m - 1);
	disk_make(sector, commands);
}

static void mbr(unsigned sector)
{
	mbr_make(sector);
	table_read();
	assert_int_equal(table.scheme, PARTITION_MBR);
	assert_int_equal(table.sector, sector);
	assert_int_equal(table.nr, 5);
	check(0, 1, MiB, MiB);
	check(1, 2, 8 * MiB, 32 * MiB);
	check(2, 3, 4 * MiB, 2 * MiB);
	check(3, 5, 9 * MiB, MiB);
	check(4, 6, 12 * MiB, 8 * MiB);
	assert_true(table.list[1].container && !table.list[3].container);
	assert_int_equal(table.list[2].attributes, 0x80);
	assert_string_equal(table.list[4].type, "0x82");
}

static void mbr_of_512(void **state)
{
	(void)state;
	mbr(512);
}

static void mbr_of_4096(void **state)
{
	(void)state;
	mbr(4096);
}

/* ---- hostile ones -------------------------------------------------------------- */

/* Puts the checksums of the primary header right again. */
static void gpt_seal(void)
{
	unsigned char *h = disk + 512;
	uint64_t n = (uint64_t)le32_at(h + 80) * le32_at(h + 84);
	uint64_t at = le64_at(h + 72) * 512;

	if (range_within(at, n, DISK))
		le32_put(h + 88, (uint32_t)crc32(0, disk + at, (uInt)n));
	le32_put(h + 16, 0);
	le32_put(h + 16, (uint32_t)crc32(0, h, 92));
}

static void gpt_entry(unsigned i, uint64_t first, uint64_t last)
{
	unsigned char *e = disk + 1024 + (size_t)i * 128;

	memset(e, 0x11, 32);
	le64_put(e + 32, first);
	le64_put(e + 40, last);
}

static void gpt_entries_outside_and_empty(void **state)
{
	const uint64_t end = DISK / 512;

	(void)state;
	gpt_make(512);
	gpt_entry(1, 100, 99);                  /* no sector */
	gpt_entry(2, 4096, 100);                /* backwards */
	gpt_entry(3, end, end + 5);
	gpt_entry(4, 2048, UINT64_MAX);
	gpt_entry(5, 0, end - 1);               /* all of it, overlapping */
	gpt_entry(7, 4000, end);                /* across the end */
	gpt_seal();
	table_read();
	assert_int_equal(table.nr, 3);
	check(0, 1, MiB, MiB);
	check(1, 6, 0, DISK);
	check(2, 7, 8 * MiB, 8 * MiB);
}

static void gpt_of_millions(void **state)
{
	static const struct { uint32_t nr, size; } counts[] = {
		{ UINT32_MAX, 128 }, { 1u << 25, 128 }, { 32769, 128 },
		{ 128, UINT32_MAX }, { 128, 0 }, { 128, 8192 }, { 4, 127 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		gpt_make(512);
		memset(disk + DISK - 512, 0, 512);
		le32_put(disk + 512 + 80, counts[i].nr);
		le32_put(disk + 512 + 84, counts[i].size);
		gpt_seal();
		table_read();
		assert_int_equal(table.nr, 0);
		assert_true(reads < 20);
	}
	/* As many as fit the limit: all are checked, 255 taken. */
	gpt_make(512);
	le32_put(disk + 512 + 80, 32768);
	for (unsigned e = 0; e < 32768; e++)
		gpt_entry(e, 10000, 10001);
	gpt_seal();
	table_read();
	assert_int_equal(table.nr, PARTITION_MAX);
	assert_true(reads < 400);
}

static void gpt_table_outside(void **state)
{
	(void)state;
	gpt_make(512);
	memset(disk + DISK - 512, 0, 512);
	le64_put(disk + 512 + 72, DISK / 512 - 1);
	gpt_seal();
	table_read();
	assert_int_equal(table.nr, 0);
	le64_put(disk + 512 + 72, UINT64_MAX / 512);
	gpt_seal();
	table_read();
	assert_int_equal(table.nr, 0);
}

/* A name of lone surrogates, and one that fills its field. */
static void gpt_names(void **state)
{
	unsigned char *name = disk + 1024 + 56;

	(void)state;
	gpt_make(512);
	for (unsigned i = 0; i < 36; i++) {
		name[2 * i] = 0x34;
		name[2 * i + 1] = i == 35 ? 0xd8 : 0x12;
	}
	gpt_seal();
	table_read();
	assert_int_equal(strlen(table.list[0].name), 36 * 3);
	assert_string_equal(table.list[0].name + 35 * 3, "\xef\xbf\xbd");
}

static void chain_table(uint64_t at, unsigned i, unsigned type,
			uint32_t start, uint32_t sectors)
{
	unsigned char *e = disk + at + 446 + (size_t)i * 16;

	memset(e, 0, 16);
	e[4] = (unsigned char)type;
	le32_put(e + 8, start);
	le32_put(e + 12, sectors);
	disk[at + 510] = 0x55;
	disk[at + 511] = 0xaa;
}

static void mbr_chain_loops(void **state)
{
	(void)state;
	mbr_make(512);
	chain_table(8 * MiB, 0, 0x83, 2048, 2048);
	chain_table(8 * MiB, 1, 0x05, 0, 2048);         /* to itself */
	table_read();
	assert_int_equal(table.nr, 3 + PARTITION_MAX - 4);
	assert_true(reads < 300);
	chain_table(8 * MiB, 0, 0, 0, 0);               /* and empty */
	table_read();
	assert_int_equal(table.nr, 3);
	assert_true(reads < 150);
}

static void mbr_outside(void **state)
{
	(void)state;
	mbr_make(512);
	chain_table(0, 0, 0x83, 2048, UINT32_MAX);      /* cut off */
	chain_table(0, 2, 0x83, UINT32_MAX, 1);
	chain_table(8 * MiB, 0, 0x83, UINT32_MAX, 5);
	chain_table(8 * MiB, 2, 0x83, 1, UINT32_MAX);   /* garbage */
	table_read();
	check(0, 1, MiB, DISK - MiB);
	check(1, 2, 8 * MiB, 32 * MiB);
	check(2, 6, 12 * MiB, 8 * MiB);
	assert_int_equal(table.nr, 3);
}

static void no_tables(void **state)
{
	(void)state;
	memset(disk, 0, DISK);
	table_read();
	assert_int_equal(table.scheme, PARTITION_NONE);
	disk[510] = 0x55;
	disk[511] = 0xaa;
	memset(disk + 446, 0x90, 64);                   /* a boot sector */
	table_read();
	assert_int_equal(table.scheme, PARTITION_NONE);
	atomic_store(&img.size, 100);
	table_read();
	assert_int_equal(table.scheme, PARTITION_NONE);
	atomic_store(&img.size, 0);
	table_read();
	assert_int_equal(table.nr, 0);
}

/* Disks cut off anywhere: the asserts of table_read() and image_read(). */
static void cut_off(void **state)
{
	(void)state;
	for (unsigned sector = 512; sector <= 4096; sector += 3584) {
		gpt_make(sector);
		for (uint64_t n = 0; n < 40 * KiB; n += 256) {
			atomic_store(&img.size, n);
			table_read();
		}
		mbr_make(sector);
		for (uint64_t n = 0; n < DISK; n += 511 * KiB) {
			atomic_store(&img.size, n);
			table_read();
		}
	}
}

static void json(void **state)
{
	autostrbuf sb = STRBUF_INIT;

	(void)state;
	mbr_make(512);
	table_read();
	partition_table_json(&table, &sb);
	assert_non_null(strstr(sb.text, "\"label\": \"dos\""));
	assert_non_null(strstr(sb.text, "\"extended\": true"));
	assert_non_null(strstr(sb.text, "\"number\": 6"));
	assert_ptr_equal(partition_find(&table, 6), &table.list[4]);
	assert_null(partition_find(&table, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gpt_of_512),
		cmocka_unit_test(gpt_of_4096),
		cmocka_unit_test(mbr_of_512),
		cmocka_unit_test(mbr_of_4096),
		cmocka_unit_test(gpt_entries_outside_and_empty),
		cmocka_unit_test(gpt_of_millions),
		cmocka_unit_test(gpt_table_outside),
		cmocka_unit_test(gpt_names),
		cmocka_unit_test(mbr_chain_loops),
		cmocka_unit_test(mbr_outside),
		cmocka_unit_test(no_tables),
		cmocka_unit_test(cut_off),
		cmocka_unit_test(json),
	};
	int rc;

	setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1);
	disk = malloc(DISK);
	if (!disk || mkstemp(path) < 0)
		return 1;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	partition_table_free(&table);
	free(disk);
	unlink(path);
	return rc;
}
