/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-sesparse.c - VMware's space-efficient extents (vmdk.md 7): a directory
 * of numbers of tables, tables of numbers of grains, both counted from the
 * start of an area of their own.
 *
 * Reads only: the journal, the bitmap and the backmap that a writer keeps in
 * step are not known.  Refuses to know which extent of which disk it is.
 */
#include "vmdk.h"

#include "codec.h"

#include <inttypes.h>

enum {                          /* the header: words of 64 bits */
	SE_MAGIC,
	SE_VERSION,
	SE_CAPACITY,
	SE_GRAIN,
	SE_TABLE,
	SE_FLAGS,
	SE_RESERVED,            /* four of them */
	SE_VOLATILE = 10,       /* from here on: place, size */
	SE_JOURNAL_HEADER = 12,
	SE_JOURNAL = 14,
	SE_DIRECTORY = 16,
	SE_TABLES = 18,
	SE_BITMAP = 20,
	SE_BACKMAP = 22,
	SE_GRAINS = 24,
};

#define MAGIC UINT64_C(0xcafebabe)
#define VOLATILE_MAGIC UINT64_C(0xcafecafe)
#define VERSION UINT64_C(0x0000000200000001)
#define GRAIN 8u                /* sectors */
#define TABLE 64u               /* sectors */
#define TABLE_BYTES (TABLE * SECTOR_SIZE)
#define TABLE_HERE UINT64_C(0x1000000000000000)
#define MAX_TABLES (UINT64_C(1) << 25)

enum { LOOK = 64 };             /* entries that are read at once */
enum { REPLAY = 24 };           /* volatile header: a journal is to be read */

/* ---- the header ---------------------------------------------------------- */

static uint64_t word(const unsigned char *h, unsigned i)
{
	return le64_at(h + 8 * i);
}

#define WORD "0x%016" PRIx64

/* QEMU's sentences. */
static int check_words(const unsigned char *h, struct err *err)
{
	if (word(h, SE_MAGIC) != MAGIC)
		return err_set(err, -ENOTSUP, "Bad const header magic: " WORD,
			       word(h, SE_MAGIC));
	if (word(h, SE_VERSION) != VERSION)
		return err_set(err, -ENOTSUP, "Unsupported version: " WORD,
			       word(h, SE_VERSION));
	if (word(h, SE_GRAIN) != GRAIN)
		return err_set(err, -ENOTSUP, "Unsupported grain size: %"
			       PRIu64, word(h, SE_GRAIN));
	if (word(h, SE_TABLE) != TABLE)
		return err_set(err, -ENOTSUP, "Unsupported grain table size: %"
			       PRIu64, word(h, SE_TABLE));
	if (word(h, SE_FLAGS))
		return err_set(err, -ENOTSUP, "Unsupported flags: " WORD,
			       word(h, SE_FLAGS));
	if (!is_zero(h + 8 * SE_RESERVED, 8 * (SE_VOLATILE - SE_RESERVED)))
		return err_set(err, -ENOTSUP, "Unsupported reserved bits: "
			       WORD " " WORD " " WORD " " WORD,
			       word(h, SE_RESERVED), word(h, SE_RESERVED + 1),
			       word(h, SE_RESERVED + 2),
			       word(h, SE_RESERVED + 3));
	return 0;
}

/* An area, as much of it as the file has: bytes. */
static void area(const struct vmdk_extent *x, const unsigned char *h,
		 unsigned i, uint64_t *at, uint64_t *len)
{
	uint64_t last = x->file_end / SECTOR_SIZE;
	uint64_t start = min_u64(word(h, i), last);

	*at = start * SECTOR_SIZE;
	*len = min_u64(word(h, i + 1), last - start) * SECTOR_SIZE;
}

/* Entries that a journal still holds would be missed. */
static int check_journal(const struct vmdk_extent *x, const unsigned char *h,
			 struct err *err)
{
	unsigned char v[32];
	uint64_t at = min_u64(word(h, SE_VOLATILE),
			      x->file_end / SECTOR_SIZE) * SECTOR_SIZE;
	int ret = file_read(x->file, v, sizeof(v), at);

	if (ret)
		return err_errno(err, ret, "Could not read the volatile header"
				 " of '%s'", x->file->name);
	if (le64_at(v) != VOLATILE_MAGIC)
		return err_set(err, -ENOTSUP, "Bad volatile header magic: "
			       WORD, le64_at(v));
	if (v[REPLAY])
		return err_set(err, -ENOTSUP, "Image is dirty, Replaying"
			       " journal not supported");
	return 0;
}

static int find_areas(struct vmdk_extent *x, const unsigned char *h,
		      struct err *err)
{
	uint64_t n = div_up(x->size, x->gtes * x->grain), len;

	if (n > MAX_TABLES)
		return err_set(err, -EFBIG, "L1 size too big");
	area(x, h, SE_DIRECTORY, &x->gd, &len);
	if (len < 8 * n)
		return err_set(err, -EINVAL, "The grain directory is smaller"
			       " than the disk");
	area(x, h, SE_TABLES, &x->tables, &len);
	x->nr_tables = len / TABLE_BYTES;
	area(x, h, SE_GRAINS, &x->grains, &len);
	x->nr_grains = len / x->grain;
	return 0;
}

int vmdk_sesparse_open(struct vmdk_extent *x, struct err *err)
{
	unsigned char h[SECTOR_SIZE];
	int ret = file_size(x->file, &x->file_end);

	if (!ret)
		ret = file_read(x->file, h, sizeof(h), 0);
	if (ret)
		return err_errno(err, ret, "Could not read header from file"
				 " '%s'", x->file->name);
	x->grain = GRAIN * SECTOR_SIZE;
	x->gtes = TABLE_BYTES / 8;
	ret = check_words(h, err);
	if (!ret)
		ret = check_journal(x, h, err);
	return ret ? ret : find_areas(x, h, err);
}

/* ---- mapping ------------------------------------------------------------- */

/* Kind and, for data, the host byte; false: the entry is none. */
static bool entry_of(const struct vmdk_extent *x, uint64_t e,
		     enum extent_kind *kind, uint64_t *host)
{
	uint64_t grain = (e >> 48 & 0xfff) | (e & 0xffffffffffff) << 12;

	*host = x->grains + grain * x->grain;
	switch (e >> 60) {
	case 0:
		*kind = EXT_HOLE;
		return !e;
	case 1:                 /* unmapped */
	case 2:
		*kind = EXT_ZERO;
		return true;
	case 3:
		*kind = EXT_DATA;
		return grain < x->nr_grains;
	default:
		*kind = EXT_HOLE;
		return false;
	}
}

/* The table that a word of the directory leads to, 0: none.  False: the word
 * leads nowhere. */
static bool table_of(const struct vmdk_extent *x, uint64_t e, uint64_t *table)
{
	uint64_t index = e & UINT32_MAX;

	*table = e ? x->tables + index * TABLE_BYTES : 0;
	return !e || ((e & ~(uint64_t)UINT32_MAX) == TABLE_HERE &&
		      index < x->nr_tables);
}

/* How many grains from @g on have no table. */
static uint64_t run_without(const struct vmdk_extent *x, uint64_t g,
			    const unsigned char *buf, uint64_t max)
{
	uint64_t n = 0;

	while (n < max && !le64_at(buf + 8 * n))
		n++;
	return n * x->gtes - g % x->gtes;
}

/* How many entries from the first one on continue it. */
static uint64_t run_of(const struct vmdk_extent *x, const unsigned char *buf,
		       uint64_t max)
{
	enum extent_kind first, kind;
	uint64_t start, host, n = 1;

	entry_of(x, le64_at(buf), &first, &start);
	for (; n < max; n++)
		if (!entry_of(x, le64_at(buf + 8 * n), &kind, &host) ||
		    kind != first ||
		    (kind == EXT_DATA && host != start + n * x->grain))
			break;
	return n;
}

static int map_entries(struct image *img, const struct vmdk_extent *x,
		       uint64_t table, uint64_t in, uint64_t len,
		       struct extent *ext)
{
	unsigned char buf[8 * LOOK];
	uint64_t i = in / x->grain % x->gtes, skip = in % x->grain, host;
	uint64_t max = min_u64(div_up(skip + len, x->grain),
			       min_u64(LOOK, x->gtes - i));
	int ret = meta_peek(img, x->file, buf, 8 * max, table + 8 * i);

	if (ret)
		return ret;
	if (!entry_of(x, le64_at(buf), &ext->kind, &host)) {
		image_corrupt(img, "Grain table entry %#" PRIx64 " is invalid",
			      le64_at(buf));
		return -EIO;
	}
	ext->len = min_u64(len, run_of(x, buf, max) * x->grain - skip);
	if (ext->kind == EXT_DATA) {
		ext->file = x->file;
		ext->host = host + skip;
		ext->flags |= EXT_OPAQUE;
	}
	return 0;
}

int vmdk_sesparse_map(struct image *img, const struct vmdk_extent *x,
		      uint64_t in, uint64_t len, struct extent *ext)
{
	unsigned char buf[8 * LOOK];
	uint64_t g = in / x->grain, i = g / x->gtes, table;
	uint64_t max = min_u64(LOOK, div_up(x->size, x->gtes * x->grain) - i);
	int ret = meta_peek(img, x->file, buf, 8 * max, x->gd + 8 * i);

	if (ret)
		return ret;
	if (!table_of(x, le64_at(buf), &table)) {
		image_corrupt(img, "Grain directory entry %#" PRIx64
			      " is invalid", le64_at(buf));
		return -EIO;
	}
	if (table)
		return map_entries(img, x, table, in, len, ext);
	ext->kind = EXT_HOLE;
	ext->len = min_u64(len, run_without(x, g, buf, max) * x->grain -
			   in % x->grain);
	return 0;
}

/* ---- check --------------------------------------------------------------- */

struct scan {
	const struct vmdk_extent *x;
	struct check_result *res;
	unsigned char *table;   /* the entries of one */
	unsigned char *used;    /* bit n: an entry has grain n */
};

static void found(struct scan *s, uint64_t g, const char *what)
{
	check_say(s->res, "ERROR: cluster offset for sector %" PRIu64 " %s",
		  (s->x->start + g * s->x->grain) / SECTOR_SIZE, what);
	s->res->corruptions++;
}

static void check_entry(struct scan *s, uint64_t g, uint64_t e)
{
	const struct vmdk_extent *x = s->x;
	enum extent_kind kind;
	uint64_t host, n;

	if (!entry_of(x, e, &kind, &host)) {
		found(s, g, "points after EOF");
		return;
	}
	if (kind != EXT_DATA)
		return;
	n = (host - x->grains) / x->grain;
	if (s->used[n / 8] >> n % 8 & 1)
		found(s, g, "has the place of another one");
	s->used[n / 8] |= (unsigned char)(1u << n % 8);
}

static int check_table(struct image *img, struct scan *s, uint64_t i,
		       uint64_t e)
{
	const struct vmdk_extent *x = s->x;
	uint64_t table, last = div_up(x->size, x->grain);
	int ret;

	if (!table_of(x, e, &table)) {
		found(s, i * x->gtes, "has no grain table");
		return 0;
	}
	if (!table)
		return 0;
	ret = meta_read(img, x->file, s->table, TABLE_BYTES, table);
	for (uint64_t k = 0; !ret && k < x->gtes; k++)
		if (i * x->gtes + k < last)
			check_entry(s, i * x->gtes + k,
				    le64_at(s->table + 8 * k));
	return ret;
}

int vmdk_sesparse_check(struct image *img, const struct vmdk_extent *x,
			struct check_result *res)
{
	uint64_t nr = div_up(x->size, x->gtes * x->grain);
	autofree unsigned char *table = malloc(TABLE_BYTES);
	autofree unsigned char *used = calloc(1, x->nr_grains / 8 + 1);
	struct scan s = { .x = x, .res = res, .table = table, .used = used };
	unsigned char e[8];
	int ret = table && used ? 0 : -ENOMEM;

	for (uint64_t i = 0; !ret && i < nr; i++) {
		if (res->cancel && atomic_load(res->cancel))
			return -EINTR;
		ret = meta_peek(img, x->file, e, sizeof(e), x->gd + 8 * i);
		if (!ret)
			ret = check_table(img, &s, i, le64_at(e));
	}
	return ret;
}
