/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partitions.h - the partition table of a guest's disk.
 *
 * Knows GPT and MBR with logical partitions, and the numbers that Linux gives
 * them.  Refuses to know files: partition N is a window on the disk.
 */
#ifndef FS_PARTITIONS_H
#define FS_PARTITIONS_H

#include "blockcore/blockcore.h"

enum partition_scheme { PARTITION_NONE, PARTITION_MBR, PARTITION_GPT };

/* As the kernel: numbers are 1 to 255. */
#define PARTITION_MAX 255

struct partition {
	unsigned number;        /* N of /dev/sdaN and of partitions/N */
	uint64_t start, size;   /* bytes; inside the disk, size > 0 */
	bool container;         /* MBR extended: holds the logical ones, is
				 * no file */
	char type[37];          /* GUID, or "0x83" */
	char uuid[37];          /* what udev calls the PARTUUID */
	char *name;             /* GPT, UTF-8; else NULL */
	uint64_t attributes;    /* GPT; of MBR the byte with the boot flag */
};

struct partition_table {
	enum partition_scheme scheme;
	uint32_t sector;        /* bytes: 512 or 4096 */
	bool backup;            /* GPT: the primary one is damaged */
	char id[37];            /* the disk's GUID, or signature "0x12345678" */
	struct partition *list; /* ascending numbers */
	unsigned nr;
};

/*
 * Reads the table of @v.  A disk without one, or with one that the kernel would
 * not take, is PARTITION_NONE and no error; what lies outside of the disk is
 * cut off or left out.  Work is bounded whatever the disk says.  0 or the errno
 * of a failed read.
 */
int partition_table_read(const struct view *v, struct partition_table *t);
void partition_table_free(struct partition_table *t);
/* The partition with that number, or NULL. */
const struct partition *partition_find(const struct partition_table *t,
				       unsigned number);
/* The text of partitions/table.json. */
void partition_table_json(const struct partition_table *t, struct strbuf *out);

/* ---- what the readers of MBR and GPT share ---------------------------------- */

struct partition_scan {
	const struct view *view;
	uint64_t size;                  /* of the disk, whole 512 bytes */
	struct partition_table *table;
};

/* 1: @len bytes were read; 0: they are not all on the disk; or an errno. */
int scan_read(const struct partition_scan *s, void *buf, size_t len,
	      uint64_t off);
/* Appends a partition, cut off at the end of the disk; NULL: nothing of it is
 * on the disk, or there are too many. */
struct partition *scan_add(const struct partition_scan *s, unsigned number,
			   uint64_t start, uint64_t size);

/* Both return 1 when there is such a table, 0 when not, or an errno.  @sector0
 * is the disk's first 512 bytes with the signature 55 AA. */
int gpt_read(const struct partition_scan *s, const unsigned char *sector0);
int mbr_read(const struct partition_scan *s, const unsigned char *sector0);

/* An MBR entry. */
enum {
	MBR_SIGNATURE = 440, MBR_ENTRIES = 446, MBR_ENTRY_SIZE = 16,
	MBR_MAGIC = 510,
	MBR_E_FLAGS = 0, MBR_E_TYPE = 4, MBR_E_START = 8, MBR_E_SECTORS = 12,
	MBR_TYPE_PROTECTIVE = 0xee,
};

static inline const unsigned char *mbr_entry(const unsigned char *sector,
					     unsigned i)
{
	return sector + MBR_ENTRIES + (size_t)i * MBR_ENTRY_SIZE;
}

static inline bool mbr_magic(const unsigned char *sector)
{
	return sector[MBR_MAGIC] == 0x55 && sector[MBR_MAGIC + 1] == 0xaa;
}

#endif
