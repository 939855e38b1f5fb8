/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-sparse.c - sparse extents: a directory of tables of grains (vmdk.md 3, 4
 * and 6), read through the cache, a piece of a table at a time.
 *
 * Knows the two headers, KDMV and COWD, and the marker in front of a compressed
 * grain.  Refuses to know which extent of which disk it is.
 */
#include "vmdk.h"

#include "codec.h"

#include <inttypes.h>

enum {                          /* KDMV */
	KH_VERSION = 4,
	KH_FLAGS = 8,
	KH_CAPACITY = 12,
	KH_GRAIN = 20,
	KH_DESC = 28,
	KH_DESC_SIZE = 36,
	KH_GTES = 44,
	KH_RGD = 48,
	KH_GD = 56,
	KH_OVERHEAD = 64,
	KH_COMPRESSION = 77,
};

enum {                          /* COWD */
	CH_CAPACITY = 12,
	CH_GRAIN = 16,
	CH_GD = 20,
	CH_GDES = 24,
};

#define KDMV 0x564d444bu        /* little-endian */
#define COWD 0x44574f43u
#define FLAG_RGD 2u
#define FLAG_ZEROES 4u
#define GD_AT_END UINT64_MAX
#define MAX_GTES 512u
#define MAX_GD (512 * MiB / 4)          /* entries */
#define MAX_GRAIN (64 * MiB)
#define MARKER 12u                      /* lba u64, size u32 */

enum { LOOK = 64 };                     /* entries that are read at once */

/* ---- headers ------------------------------------------------------------- */

static uint64_t sectors(const unsigned char *p)
{
	uint64_t n = le64_at(p);

	return n > INT64_MAX / SECTOR_SIZE ? INT64_MAX : n * SECTOR_SIZE;
}

/* The tables as a whole must be inside of the file. */
static int check_geometry(struct vmdk_extent *x, uint64_t capacity,
			  struct err *err)
{
	uint64_t table = x->gtes * x->grain, gd;

	if (!table || x->grain > MAX_GRAIN)
		return err_set(err, -EINVAL, "L1 entry size is invalid");
	gd = div_up(max_u64(capacity, x->size), table);
	if (gd > MAX_GD)
		return err_set(err, -EFBIG, "L1 size too big");
	if (!range_within(x->gd, 4 * gd, x->file_end))
		return err_set(err, -EINVAL, "The grain directory goes beyond"
			       " the end of the file");
	x->roots = gd;
	atomic_store(&x->next, x->file_end);
	return 0;
}

static bool meet(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/* An entry that is written there must change nothing else: neither what is there
 * now, nor what a longer file will have there. */
static void judge_directories(struct vmdk_extent *x, uint64_t text_at,
			      uint64_t text_len)
{
	uint64_t header = x->cowd ? VMDK_COWD_HEADER : SECTOR_SIZE;
	uint64_t len = 4 * x->roots;

	x->gd_fault = x->rgd_fault = NULL;
	if (meet(x->gd, len, 0, header) || meet(x->gd, len, text_at, text_len))
		x->gd_fault = "lies on other metadata";
	if (x->rgd == x->gd && !x->gd_fault)
		x->rgd = 0;
	if (!x->rgd)
		return;
	if (!range_within(x->rgd, len, x->file_end))
		x->rgd_fault = "points after EOF";
	else if (meet(x->rgd, len, 0, header) ||
		 meet(x->rgd, len, text_at, text_len))
		x->rgd_fault = "lies on other metadata";
	else if (meet(x->rgd, len, x->gd, len))
		x->rgd_fault = "lies on the other one";
	if (x->rgd_fault)
		x->rgd = 0;
}

static int marker_is(struct file *f, uint64_t at, uint32_t type)
{
	unsigned char m[16];
	int ret = file_read(f, m, sizeof(m), at);

	return ret ? ret : le32_at(m + 12) == type && !le32_at(m + 8);
}

/* A stream's header is written before the directory's place is known: a copy
 * at the end has it. */
static int read_footer(const struct vmdk_extent *x, unsigned char *h,
		       struct err *err)
{
	int ret;

	if (x->file_end < 4 * SECTOR_SIZE)
		return err_set(err, -EINVAL, "Invalid footer");
	ret = marker_is(x->file, x->file_end - 3 * SECTOR_SIZE, 3);
	if (ret == 1)
		ret = marker_is(x->file, x->file_end - SECTOR_SIZE, 0);
	if (ret == 1)
		ret = file_read(x->file, h, SECTOR_SIZE,
				x->file_end - 2 * SECTOR_SIZE);
	else if (!ret)
		ret = -EINVAL;
	if (ret || le32_at(h) != KDMV)
		return err_set(err, ret ? ret : -EINVAL, "Invalid footer");
	return 0;
}

static int open_kdmv(struct vmdk_extent *x, unsigned char *h, struct err *err)
{
	uint64_t overhead;
	int ret = 0;

	x->ended = le64_at(h + KH_GD) == GD_AT_END;
	if (x->ended)
		ret = read_footer(x, h, err);
	if (ret)
		return ret;
	if (le32_at(h + KH_VERSION) > 3)
		return err_set(err, -ENOTSUP, "Unsupported VMDK version %"
			       PRIu32, le32_at(h + KH_VERSION));
	x->gtes = le32_at(h + KH_GTES);
	if (x->gtes > MAX_GTES)
		return err_set(err, -EINVAL, "L2 table size too big");
	x->grain = sectors(h + KH_GRAIN);
	x->gd = sectors(h + KH_GD);
	if (le32_at(h + KH_FLAGS) & FLAG_RGD)
		x->rgd = sectors(h + KH_RGD);
	x->zeroes = le32_at(h + KH_FLAGS) & FLAG_ZEROES;
	x->packed = le16_at(h + KH_COMPRESSION) == 1;
	overhead = sectors(h + KH_OVERHEAD);
	if (overhead > x->file_end)
		return err_set(err, -EINVAL, "File truncated, expecting at"
			       " least %" PRIu64 " bytes", overhead);
	if (!x->size)
		x->size = sectors(h + KH_CAPACITY);
	return check_geometry(x, sectors(h + KH_CAPACITY), err);
}

static int open_cowd(struct vmdk_extent *x, const unsigned char *h,
		     struct err *err)
{
	uint64_t capacity = le32_at(h + CH_CAPACITY) * UINT64_C(512);

	x->grain = le32_at(h + CH_GRAIN) * UINT64_C(512);
	x->gd = le32_at(h + CH_GD) * UINT64_C(512);
	x->gtes = VMDK_GTES_MAX;
	x->cowd = true;
	return check_geometry(x, capacity, err);
}

static int open_any(struct vmdk_extent *x, struct err *err)
{
	unsigned char h[SECTOR_SIZE];
	int ret = file_size(x->file, &x->file_end);

	if (!ret)
		ret = file_read(x->file, h, sizeof(h), 0);
	if (ret)
		return err_errno(err, ret, "Could not read header from file"
				 " '%s'", x->file->name);
	if (le32_at(h) == KDMV)
		return open_kdmv(x, h, err);
	if (le32_at(h) == COWD && !strcmp(x->type, "VMFSSPARSE"))
		return open_cowd(x, h, err);
	return err_set(err, -EINVAL, "File '%s' is no sparse extent",
		       x->file->name);
}

int vmdk_sparse_open(struct vmdk_extent *x, uint64_t text_at,
		     uint64_t text_len, struct err *err)
{
	int ret = open_any(x, err);

	if (!ret)
		judge_directories(x, text_at, text_len);
	return ret;
}

int vmdk_embedded(struct file *f, uint64_t *offset, uint64_t *len,
		  struct err *err)
{
	unsigned char h[SECTOR_SIZE];
	int ret = file_read(f, h, sizeof(h), 0);

	if (ret)
		return err_errno(err, ret, "Could not read header from file"
				 " '%s'", f->name);
	*offset = sectors(h + KH_DESC);
	*len = sectors(h + KH_DESC_SIZE);
	return 0;
}

/* ---- mapping ------------------------------------------------------------- */

static uint64_t end_of(const struct vmdk_extent *x)
{
	return atomic_load_explicit(&x->next, memory_order_acquire);
}

int vmdk_table_at(struct image *img, const struct vmdk_extent *x, uint64_t gd,
		  uint64_t index, uint64_t *table)
{
	unsigned char e[4];
	int ret = meta_peek(img, x->file, e, sizeof(e), gd + 4 * index);

	if (!ret)
		*table = (uint64_t)le32_at(e) * SECTOR_SIZE;
	return ret;
}

/* The table of grain @g; 0: none, and *@run grains from @g on have none. */
static int table_of(struct image *img, const struct vmdk_extent *x,
		    uint64_t g, uint64_t *table, uint64_t *run)
{
	unsigned char buf[4 * LOOK];
	uint64_t i = g / x->gtes, n = 0, max;
	int ret;

	max = min_u64(LOOK, div_up(x->size, x->gtes * x->grain) - i);
	ret = meta_peek(img, x->file, buf, 4 * max, x->gd + 4 * i);
	if (ret)
		return ret;
	*table = (uint64_t)le32_at(buf) * SECTOR_SIZE;
	while (n < max && !le32_at(buf + 4 * n))
		n++;
	*run = n * x->gtes - (n ? g % x->gtes : 0);
	if (!*table || range_within(*table, 4 * x->gtes, end_of(x)))
		return 0;
	image_corrupt(img, "Grain table at offset %#" PRIx64 " is beyond the"
		      " end of the file", *table);
	return -EIO;
}

enum extent_kind vmdk_kind_of(const struct vmdk_extent *x, uint32_t gte)
{
	if (!gte)
		return EXT_HOLE;
	if (gte == 1 && x->zeroes)
		return EXT_ZERO;
	return x->packed ? EXT_PACKED : EXT_DATA;
}

/* Entries from the first one on that continue it. */
static uint64_t run_of(const struct vmdk_extent *x, const unsigned char *buf,
		       uint64_t max)
{
	uint32_t first = le32_at(buf);
	enum extent_kind kind = vmdk_kind_of(x, first);
	uint64_t step = kind == EXT_DATA ? x->grain / SECTOR_SIZE : 0, n = 1;

	if (kind == EXT_PACKED)
		return 1;
	while (n < max && vmdk_kind_of(x, le32_at(buf + 4 * n)) == kind &&
	       le32_at(buf + 4 * n) == first + n * step)
		n++;
	return n;
}

bool vmdk_stream_fits(const struct vmdk_extent *x, uint64_t host,
		      uint32_t size, uint64_t end)
{
	return size && size <= 2 * x->grain + 4096 &&
	       range_within(host + MARKER, size, end);
}

/* The stream's length stands in front of it. */
static int map_packed(struct image *img, const struct vmdk_extent *x,
		      uint64_t host, uint64_t in, struct extent *ext)
{
	unsigned char m[MARKER];
	int ret = meta_peek(img, x->file, m, sizeof(m), host);
	uint32_t size = le32_at(m + 8);

	if (ret)
		return ret;
	if (!vmdk_stream_fits(x, host, size, end_of(x))) {
		image_corrupt(img, "Grain marker at offset %#" PRIx64
			      " is invalid", host);
		return -EIO;
	}
	ext->host = host + MARKER;
	ext->flags = EXT_SHARED;
	ext->unit.codec = &codec_zlib;
	ext->unit.packed = size;
	/* The disk's last grain may be shorter. */
	ext->unit.len = (uint32_t)min_u64(x->grain, x->size -
					  round_down(in, x->grain));
	ext->unit.skip = (uint32_t)(in % x->grain);
	return 0;
}

static int map_grains(struct image *img, const struct vmdk_extent *x,
		      uint64_t table, uint64_t in, uint64_t len,
		      struct extent *ext)
{
	unsigned char buf[4 * LOOK];
	uint64_t g = in / x->grain, i = g % x->gtes, skip = in % x->grain;
	uint64_t max = min_u64(div_up(skip + len, x->grain),
			       min_u64(LOOK, x->gtes - i));
	uint64_t host;
	int ret = meta_peek(img, x->file, buf, 4 * max, table + 4 * i);

	if (ret)
		return ret;
	ext->kind = vmdk_kind_of(x, le32_at(buf));
	ext->len = min_u64(len, run_of(x, buf, max) * x->grain - skip);
	if (ext->kind != EXT_DATA && ext->kind != EXT_PACKED)
		return 0;
	host = (uint64_t)le32_at(buf) * SECTOR_SIZE;
	if (host >= end_of(x)) {
		image_corrupt(img, "Grain at offset %#" PRIx64 " is beyond the"
			      " end of the file", host);
		return -EIO;
	}
	ext->file = x->file;
	if (ext->kind == EXT_PACKED)
		return map_packed(img, x, host, in, ext);
	ext->host = host + skip;
	ext->flags |= EXT_OPAQUE;
	return 0;
}

int vmdk_sparse_map(struct image *img, const struct vmdk_extent *x,
		    uint64_t in, uint64_t len, struct extent *ext)
{
	uint64_t table, run;
	int ret = table_of(img, x, in / x->grain, &table, &run);

	if (ret)
		return ret;
	if (table)
		return map_grains(img, x, table, in, len, ext);
	ext->kind = EXT_HOLE;
	ext->len = min_u64(len, run * x->grain - in % x->grain);
	return 0;
}
