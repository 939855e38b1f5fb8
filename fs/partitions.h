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
	char type[37];          /* GUID in capitals, or "0x83" */
	char uuid[37];          /* what udev calls the PARTUUID */
	char *name;             /* GPT, UTF-8; else NULL */
	uint64_t attributes;    /* GPT; of MBR the boot flag's byte */
};

struct partition_table {
	enum partition_scheme scheme;
	uint32_t sector;        /* bytes: 512 or 4096 */
	bool backup;            /* GPT: the primary one is damaged */
	char id[37];            /* disk's GUID, or MBR signature "0x..." */
	struct partition *list; /* ascending numbers */
	unsigned nr;
};

/*
 * Reads the table of @v.  A disk without one, or with one that the kernel would
 * not take, is PARTITION_NONE and no error; what lies outside of the disk is cut
 * off or left out.  Work is bounded whatever the disk says.  0 or the errno of a
 * failed read.
 */
int partition_table_read(const struct view *v, struct partition_table *t);
void partition_table_free(struct partition_table *t);
/* The text of partitions/table.json. */
void partition_table_json(const struct partition_table *t, struct strbuf *out);

#endif
