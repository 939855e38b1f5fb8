/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partitions-mbr.c - the table in a disk's first sector, and the chain of
 * tables in an extended partition.
 *
 * Numbers are Linux's: 1 to 4 by the place in the table, logical ones from 5 in
 * the order of the chain.  Nothing on the disk says how large its sectors are:
 * 512 bytes, unless volumes or the chain are found where 4096 would put them.
 */
#include "partitions.h"

#include <stdio.h>

enum {
	CHAIN_LENGTH_MAX = 100, /* tables in a row without a partition */
	VOLUME_HEAD = 4096,     /* bytes that tell whether a volume begins */
};

struct entry {
	unsigned char flags, type;
	uint64_t start, size;   /* bytes, start relative to something */
};

static struct entry entry_at(const unsigned char *table, unsigned i,
			     uint32_t sector)
{
	const unsigned char *e = mbr_entry(table, i);

	return (struct entry){
		.flags = e[MBR_E_FLAGS],
		.type = e[MBR_E_TYPE],
		.start = (uint64_t)le32_at(e + MBR_E_START) * sector,
		.size = (uint64_t)le32_at(e + MBR_E_SECTORS) * sector,
	};
}

static bool is_extended(const struct entry *e)
{
	return e->type == 0x05 || e->type == 0x0f || e->type == 0x85;
}

/* Boot sectors of FAT and NTFS have the same signature, and code where the
 * table would be. */
static bool is_table(const unsigned char *sector0)
{
	bool used = false;

	for (unsigned i = 0; i < 4; i++) {
		const struct entry e = entry_at(sector0, i, 1);

		if (e.flags != 0 && e.flags != 0x80)
			return false;
		if (e.type == MBR_TYPE_PROTECTIVE)
			return false;
		used |= e.size && e.type;
	}
	return used;
}

/* ---- how large is a sector? ---------------------------------------------- */

static bool is_volume(const unsigned char *head)
{
	return le16_at(head + 1080) == 0xef53 ||        /* ext2, 3, 4 */
	       mbr_magic(head) ||                       /* FAT, NTFS, EBR */
	       !memcmp(head, "XFSB", 4) ||
	       !memcmp(head, "LUKS\xba\xbe", 6) ||
	       !memcmp(head + 512, "LABELONE", 8) ||    /* LVM */
	       !memcmp(head + 4086, "SWAPSPACE2", 10);
}

/* How many of the table's partitions begin like a volume?  Or an errno. */
static int volumes_found(const struct partition_scan *s,
			 const unsigned char *sector0, uint32_t sector)
{
	unsigned char head[VOLUME_HEAD];
	int found = 0;

	for (unsigned i = 0; i < 4; i++) {
		const struct entry e = entry_at(sector0, i, sector);
		int rc;

		if (!e.size || !e.start)
			continue;
		rc = scan_read(s, head, sizeof(head), e.start);
		if (rc < 0)
			return rc;
		found += rc && is_volume(head);
	}
	return found;
}

static int sector_find(const struct partition_scan *s,
		       const unsigned char *sector0, uint32_t *sector)
{
	int small = volumes_found(s, sector0, 512);
	int large = small < 0 ? small : volumes_found(s, sector0, 4096);

	if (large < 0)
		return large;
	*sector = large > small ? 4096 : 512;
	return 0;
}

/* ---- partitions ---------------------------------------------------------- */

static void take(const struct partition_scan *s, unsigned number,
		 const struct entry *e, uint64_t start)
{
	struct partition *p = scan_add(s, number, start, e->size);

	if (!p)
		return;
	p->attributes = e->flags;
	p->container = number <= 4 && is_extended(e);
	snprintf(p->type, sizeof(p->type), "0x%02x", e->type);
	snprintf(p->uuid, sizeof(p->uuid), "%s-%02x", s->table->id + 2,
		 number);
}

/* The extended partition: its first byte is what links are relative to. */
struct chain {
	const struct partition_scan *scan;
	uint64_t first, size;           /* of the extended partition */
	uint64_t here, here_size;       /* of the table at hand */
	unsigned next;                  /* number of the next logical one */
};

/* The third and fourth entry hold garbage at times: only what lies inside. */
static bool plausible(const struct chain *c, unsigned i, const struct entry *e)
{
	uint64_t start = c->here + e->start;

	if (i < 2)
		return true;
	return range_within(e->start, e->size, c->here_size) &&
	       start >= c->first &&
	       range_within(start - c->first, e->size, c->size);
}

static bool take_logical(struct chain *c, const unsigned char *table)
{
	bool taken = false;

	for (unsigned i = 0; i < 4 && c->next <= PARTITION_MAX; i++) {
		const struct entry e = entry_at(table, i,
						c->scan->table->sector);

		if (!e.size || is_extended(&e) || !plausible(c, i, &e))
			continue;
		take(c->scan, c->next++, &e, c->here + e.start);
		taken = true;
	}
	return taken;
}

/* The next table of the chain; false: this was the last. */
static bool follow(struct chain *c, const unsigned char *table)
{
	for (unsigned i = 0; i < 4; i++) {
		const struct entry e = entry_at(table, i,
						c->scan->table->sector);

		if (!e.size || !is_extended(&e))
			continue;
		c->here = c->first + e.start;
		c->here_size = e.size;
		return true;
	}
	return false;
}

/* A loop ends by the number of partitions, or by that of empty tables. */
static int chain_read(struct chain *c)
{
	unsigned empty = 0;

	while (empty++ < CHAIN_LENGTH_MAX && c->next <= PARTITION_MAX) {
		unsigned char table[SECTOR_SIZE];
		int rc = scan_read(c->scan, table, sizeof(table), c->here);

		if (rc <= 0)
			return rc;
		if (!mbr_magic(table))
			return 0;
		if (take_logical(c, table))
			empty = 0;
		if (!follow(c, table))
			return 0;
	}
	return 0;
}

/* Takes the table's own partitions; how many of them are extended. */
static unsigned take_primary(const struct partition_scan *s,
			     const unsigned char *sector0,
			     struct chain *chains)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < 4; i++) {
		const struct entry e = entry_at(sector0, i, s->table->sector);

		if (!e.size)
			continue;
		take(s, i + 1, &e, e.start);
		if (!e.start || !is_extended(&e))
			continue;
		chains[nr++] = (struct chain){
			.scan = s,
			.first = e.start, .size = e.size,
			.here = e.start, .here_size = e.size,
		};
	}
	return nr;
}

int mbr_read(const struct partition_scan *s, const unsigned char *sector0)
{
	struct partition_table *t = s->table;
	struct chain chains[4];
	unsigned nr, next = 5;
	int rc;

	if (!is_table(sector0))
		return 0;
	rc = sector_find(s, sector0, &t->sector);
	if (rc)
		return rc;
	t->scheme = PARTITION_MBR;
	snprintf(t->id, sizeof(t->id), "0x%08x",
		 le32_at(sector0 + MBR_SIGNATURE));
	nr = take_primary(s, sector0, chains);
	for (unsigned i = 0; i < nr && !rc; i++) {
		chains[i].next = next;
		rc = chain_read(&chains[i]);
		next = chains[i].next;
	}
	return rc ? rc : 1;
}
