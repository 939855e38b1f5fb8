/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dmg.h - what the files of the DMG driver share. */
#ifndef FORMATS_DMG_H
#define FORMATS_DMG_H

#include "blockcore.h"

#define DMG_TYPE_ZERO 0x00000000u
#define DMG_TYPE_RAW 0x00000001u
#define DMG_TYPE_IGNORE 0x00000002u
#define DMG_TYPE_ADC 0x80000004u
#define DMG_TYPE_ZLIB 0x80000005u
#define DMG_TYPE_BZIP2 0x80000006u
#define DMG_TYPE_LZFSE 0x80000007u
#define DMG_TYPE_LZMA 0x80000008u
#define DMG_TYPE_COMMENT 0x7ffffffeu
#define DMG_TYPE_END 0xffffffffu

/* A run of the guest's sectors; sorted, never overlapping. */
struct dmg_chunk {
	uint64_t sector;        /* first one */
	uint64_t sectors;       /* never 0 */
	uint64_t host;          /* in the file */
	uint32_t len;           /* stored bytes */
	uint32_t type;
	uint32_t table;
};

/* What a table of chunks says about all their content. */
struct dmg_table {
	bool is_crc;            /* a CRC-32 is stored ... */
	bool has_crc;           /* ... and says something */
	uint32_t crc;
};

struct dmg {
	uint64_t file_end;
	uint64_t fork, fork_len;        /* the data fork */
	uint64_t plist, plist_len;
	uint64_t rsrc, rsrc_len;
	bool has_crc;
	uint32_t crc;                   /* of the data fork */
	bool has_master;
	uint32_t master;                /* of the tables' sums, as listed */
	struct dmg_chunk *chunks;
	size_t nr, room;
	struct dmg_table *tables;
	size_t nr_tables;
};

static inline struct dmg *dmg_of(const struct image *img)
{
	return img->priv;
}

extern const struct format_admin dmg_admin;

/* The codec of a chunk's type; NULL: none, or not in this build (then *@library
 * names what is missing). */
const struct codec *dmg_codec(uint32_t type, const char **library);

/* ---- dmg-tables.c ---- */

/* Reads the tables of chunks from the property list or the resource fork. */
int dmg_tables_read(struct image *img, struct err *err);

#endif
