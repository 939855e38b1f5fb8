/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dmg-tables.c - which chunks a DMG has (dmg.md): "mish" tables, in base64
 * inside of a property list, or as resources in the older resource fork.
 *
 * Of the list only its <data> elements matter: what begins with "mish" is a
 * table.  Everything here is an attacker's.
 */
#include "dmg.h"

#include <inttypes.h>
#include <nettle/base64.h>

enum {
	M_SECTOR = 8,
	M_OFFSET = 24,
	M_SUM_TYPE = 64,
	M_SUM = 72,
	M_COUNT = 200,
	M_CHUNKS = 204,
	C_TYPE = 0,
	C_SECTOR = 8,
	C_SECTORS = 16,
	C_OFFSET = 24,
	C_LENGTH = 32,
	C_SIZE = 40,
};

#define PLIST_MAX (64 * MiB)
#define MAX_SECTORS 131072u     /* of a chunk that is stored */
#define MAX_LENGTH (64 * MiB)
#define SUM_CRC32 2u

/* ---- chunks -------------------------------------------------------------- */

static bool is_nothing(uint32_t type)
{
	return type == DMG_TYPE_ZERO || type == DMG_TYPE_IGNORE;
}

static int add(struct dmg *d, const struct dmg_chunk *c)
{
	struct dmg_chunk *grown;

	if (d->nr == d->room) {
		d->room = d->room ? 2 * d->room : 64;
		grown = reallocarray(d->chunks, d->room, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		d->chunks = grown;
	}
	d->chunks[d->nr++] = *c;
	return 0;
}

static int check_stored(const struct dmg *d, const struct dmg_chunk *c,
			uint64_t len, size_t i, struct err *err)
{
	if (c->sectors > MAX_SECTORS)
		return err_set(err, -EINVAL, "sector count %" PRIu64 " for"
			       " chunk %zu is larger than max (%u)",
			       c->sectors, i, MAX_SECTORS);
	if (len > MAX_LENGTH)
		return err_set(err, -EINVAL, "length %" PRIu64 " for chunk %zu"
			       " is larger than max (%" PRIu64 ")", len, i,
			       MAX_LENGTH);
	if (!range_within(c->host, len, d->file_end))
		return err_set(err, -EINVAL, "chunk %zu lies beyond the end of"
			       " the file", i);
	return 0;
}

/* One of the 40 bytes of a table; @base: of its offsets. */
static int take_chunk(struct dmg *d, const unsigned char *p, uint64_t first,
		      uint64_t base, struct err *err)
{
	uint64_t sector = be64_at(p + C_SECTOR), off = be64_at(p + C_OFFSET);
	uint64_t len = be64_at(p + C_LENGTH);
	struct dmg_chunk c = {
		.type = be32_at(p + C_TYPE),
		.sectors = be64_at(p + C_SECTORS),
		.table = (uint32_t)d->nr_tables - 1,
	};
	int ret = 0;

	if (c.type == DMG_TYPE_COMMENT || c.type == DMG_TYPE_END ||
	    !c.sectors)
		return 0;
	if (add_overflows(first, sector, &c.sector) ||
	    !range_within(c.sector, c.sectors, INT64_MAX / SECTOR_SIZE) ||
	    add_overflows(base, off, &c.host))
		return err_set(err, -EINVAL, "chunk %zu is out of reach",
			       d->nr);
	if (!is_nothing(c.type))
		ret = check_stored(d, &c, len, d->nr, err);
	c.len = (uint32_t)len;
	return ret ? ret : add(d, &c);
}

static int take_table(struct dmg *d, const unsigned char *mish)
{
	struct dmg_table *grown;

	grown = reallocarray(d->tables, d->nr_tables + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	d->tables = grown;
	grown[d->nr_tables++] = (struct dmg_table) {
		.is_crc = be32_at(mish + M_SUM_TYPE) == SUM_CRC32,
		.has_crc = be32_at(mish + M_SUM_TYPE) == SUM_CRC32 &&
			   be32_at(mish + M_SUM),
		.crc = be32_at(mish + M_SUM),
	};
	return 0;
}

/* What is no table is passed over. */
static int take_mish(struct dmg *d, const unsigned char *p, size_t len,
		     struct err *err)
{
	uint64_t base;
	int ret;

	if (len < M_CHUNKS || memcmp(p, "mish", 4))
		return 0;
	if (add_overflows(d->fork, be64_at(p + M_OFFSET), &base))
		return err_set(err, -EINVAL, "A table of chunks is out of"
			       " reach");
	if (be32_at(p + M_COUNT) > (len - M_CHUNKS) / C_SIZE)
		return err_set(err, -EINVAL, "A table of chunks is cut off");
	ret = take_table(d, p);
	for (uint32_t i = 0; !ret && i < be32_at(p + M_COUNT); i++)
		ret = take_chunk(d, p + M_CHUNKS + C_SIZE * (size_t)i,
				 be64_at(p + M_SECTOR), base, err);
	return ret;
}

/* ---- the two kinds of lists ---------------------------------------------- */

static int take_data(struct dmg *d, const char *text, size_t len,
		     struct err *err)
{
	struct base64_decode_ctx ctx;
	size_t n = BASE64_DECODE_LENGTH(len);
	autofree unsigned char *bytes = malloc(n + 1);

	if (!bytes)
		return -ENOMEM;
	base64_decode_init(&ctx);
	if (!base64_decode_update(&ctx, &n, bytes, len, text))
		return err_set(err, -EINVAL, "The property list has bad"
			       " base64");
	return take_mish(d, bytes, n, err);
}

static int read_plist(struct image *img, struct err *err)
{
	struct dmg *d = dmg_of(img);
	autofree char *text = NULL;
	const char *p, *end;
	int ret;

	if (d->plist_len > PLIST_MAX ||
	    !range_within(d->plist, d->plist_len, d->file_end))
		return err_set(err, -EINVAL, "The property list lies beyond"
			       " the end of the file, or is too large");
	text = malloc(d->plist_len + 1);
	if (!text)
		return -ENOMEM;
	ret = file_read(img->file, text, d->plist_len, d->plist);
	if (ret)
		return err_errno(err, ret, "Could not read the property list");
	text[d->plist_len] = '\0';
	for (p = text; !ret && (p = strstr(p, "<data>")); p = end) {
		p += 6;
		end = strstr(p, "</data>");
		if (!end)
			return err_set(err, -EINVAL, "The property list is cut"
				       " off");
		ret = take_data(d, p, (size_t)(end - p), err);
	}
	return ret;
}

/* Resources: a length and that many bytes, one after the other. */
static int read_resources(struct image *img, struct err *err)
{
	struct dmg *d = dmg_of(img);
	autofree unsigned char *all = NULL;
	uint64_t at, end;
	int ret;

	if (d->rsrc_len > PLIST_MAX || d->rsrc_len < 16 ||
	    !range_within(d->rsrc, d->rsrc_len, d->file_end))
		return err_set(err, -EINVAL, "The resource fork lies beyond"
			       " the end of the file, or is too large");
	all = malloc(d->rsrc_len);
	if (!all)
		return -ENOMEM;
	ret = file_read(img->file, all, d->rsrc_len, d->rsrc);
	if (ret)
		return err_errno(err, ret, "Could not read the resource fork");
	at = be32_at(all);
	end = min_u64(d->rsrc_len, at + (uint64_t)be32_at(all + 8));
	while (!ret && range_within(at, 4, end)) {
		uint32_t n = be32_at(all + at);

		at += 4;
		if (!range_within(at, n, end))
			return err_set(err, -EINVAL, "The resource fork is cut"
				       " off");
		ret = take_mish(d, all + at, n, err);
		at += n;
	}
	return ret;
}

/* Nothing but the disk itself. */
static int all_raw(struct image *img, struct err *err)
{
	struct dmg *d = dmg_of(img);
	uint64_t left = image_size(img), at = 0;
	int ret = 0;

	if (!left || d->fork_len != left)
		return -EINVAL;
	if (!range_within(d->fork, left, d->file_end))
		return err_set(err, -EINVAL, "The disk is cut off");
	d->tables = calloc(1, sizeof(*d->tables));
	if (!d->tables)
		return -ENOMEM;
	d->nr_tables = 1;
	while (left && !ret) {
		uint64_t n = min_u64(left, MAX_LENGTH);
		struct dmg_chunk c = {
			.sector = at / SECTOR_SIZE,
			.sectors = n / SECTOR_SIZE,
			.host = d->fork + at,
			.len = (uint32_t)n,
			.type = DMG_TYPE_RAW,
		};

		ret = add(d, &c);
		at += n;
		left -= n;
	}
	return ret;
}

int dmg_tables_read(struct image *img, struct err *err)
{
	const struct dmg *d = dmg_of(img);

	if (d->plist_len)
		return read_plist(img, err);
	return d->rsrc_len ? read_resources(img, err) : all_raw(img, err);
}
