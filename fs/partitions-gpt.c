/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partitions-gpt.c - the GUID partition table, UEFI specification chapter 5.
 *
 * Taken as Linux takes it: a protective MBR, and a header whose checksums, its
 * own and that of the entries, are right.  Unlike Linux the backup at the end
 * is used whenever the primary one is damaged.  The sectors' size is that at
 * which a header is found.
 */
#include "partitions.h"

#include <stdio.h>
#include <zlib.h>

enum {          /* the header */
	H_SIGNATURE = 0, H_SIZE = 12, H_CRC = 16, H_MY_LBA = 24,
	H_FIRST = 40, H_LAST = 48, H_GUID = 56, H_ENTRIES_LBA = 72,
	H_NR = 80, H_ENTRY_SIZE = 84, H_ENTRIES_CRC = 88, H_MIN = 92,
};
enum {          /* an entry */
	E_TYPE = 0, E_GUID = 16, E_FIRST = 32, E_LAST = 40, E_ATTR = 48,
	E_NAME = 56, E_NAME_UNITS = 36, E_MIN = 128,
};
enum {
	SECTOR_MAX = 4096,
	ENTRY_SIZE_MAX = 4096,
	TABLE_MAX = 4 << 20,            /* bytes of entries: Linux's limit too */
	CHUNK = 64 << 10,
};

struct gpt {
	uint32_t sector;
	uint64_t last_lba;              /* of the disk */
	uint64_t entries;               /* byte where they begin */
	uint32_t nr, entry_size, crc;
	char id[37];
};

/* Stored as one 32-bit, two 16-bit numbers and bytes. */
static void guid_text(const unsigned char *g, char text[37])
{
	snprintf(text, 37, "%08x-%04x-%04x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x", le32_at(g), le16_at(g + 4),
		 le16_at(g + 6), g[8], g[9], g[10], g[11], g[12], g[13], g[14],
		 g[15]);
}

/* ---- names: UTF-16 ------------------------------------------------------- */

/* The code point at unit @*i; what is not one is U+FFFD. */
static uint32_t utf16_next(const unsigned char *units, unsigned *i)
{
	uint32_t c = le16_at(units + *i * 2), low;

	(*i)++;
	if (c < 0xd800 || c > 0xdfff)
		return c;
	low = *i < E_NAME_UNITS ? le16_at(units + *i * 2) : 0;
	if (c > 0xdbff || low < 0xdc00 || low > 0xdfff)
		return 0xfffd;
	(*i)++;
	return 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
}

static void utf8_put(struct strbuf *sb, uint32_t c)
{
	static const unsigned char lead[] = { 0, 0xc0, 0xe0, 0xf0 };
	int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;

	strbuf_putc(sb, (char)(lead[more] | (c >> (6 * more))));
	while (more--)
		strbuf_putc(sb, (char)(0x80 | ((c >> (6 * more)) & 0x3f)));
}

static char *name_text(const unsigned char *units)
{
	struct strbuf sb = STRBUF_INIT;
	unsigned i = 0;
	uint32_t c;

	strbuf_puts(&sb, "");
	while (i < E_NAME_UNITS && (c = utf16_next(units, &i)) != 0)
		utf8_put(&sb, c);
	return strbuf_take(&sb);
}

/* ---- the header ---------------------------------------------------------- */

static bool header_crc_ok(unsigned char *h, uint32_t sector)
{
	uint32_t size = le32_at(h + H_SIZE), crc = le32_at(h + H_CRC);

	if (size < H_MIN || size > sector)
		return false;
	le32_put(h + H_CRC, 0);
	return (uint32_t)crc32(0, h, size) == crc;
}

static bool header_parse(unsigned char *h, uint64_t lba, struct gpt *g)
{
	uint64_t first = le64_at(h + H_FIRST), last = le64_at(h + H_LAST);
	uint64_t entries = le64_at(h + H_ENTRIES_LBA);

	if (memcmp(h + H_SIGNATURE, "EFI PART", 8) ||
	    !header_crc_ok(h, g->sector) || le64_at(h + H_MY_LBA) != lba ||
	    first > last || last > g->last_lba || entries > g->last_lba)
		return false;
	g->entries = entries * g->sector;
	g->nr = le32_at(h + H_NR);
	g->entry_size = le32_at(h + H_ENTRY_SIZE);
	g->crc = le32_at(h + H_ENTRIES_CRC);
	guid_text(h + H_GUID, g->id);
	return g->entry_size >= E_MIN && g->entry_size <= ENTRY_SIZE_MAX &&
	       g->entry_size % 8 == 0 && g->nr <= TABLE_MAX / g->entry_size;
}

/* Are the entries there, as their checksum says?  1, 0 or an errno. */
static int entries_check(const struct partition_scan *s, const struct gpt *g)
{
	uint64_t left = (uint64_t)g->nr * g->entry_size, off = g->entries;
	autofree unsigned char *buf = malloc(CHUNK);
	uint32_t crc = 0;

	if (!buf)
		return -ENOMEM;
	while (left) {
		size_t n = (size_t)min_u64(left, CHUNK);
		int rc = scan_read(s, buf, n, off);

		if (rc <= 0)
			return rc;
		crc = (uint32_t)crc32(crc, buf, (uInt)n);
		off += n;
		left -= n;
	}
	return crc == g->crc;
}

/* The header at sector @lba: 1 when it and its entries are sound. */
static int header_read(const struct partition_scan *s, uint64_t lba,
		       struct gpt *g)
{
	unsigned char h[SECTOR_MAX];
	int rc = scan_read(s, h, g->sector, lba * g->sector);

	if (rc <= 0)
		return rc;
	if (!header_parse(h, lba, g))
		return 0;
	return entries_check(s, g);
}

/* ---- the entries --------------------------------------------------------- */

static void entry_take(const struct partition_scan *s, const struct gpt *g,
		       unsigned number, const unsigned char *e)
{
	static const unsigned char unused[16];
	uint64_t first = le64_at(e + E_FIRST), last = le64_at(e + E_LAST);
	struct partition *p;

	if (!memcmp(e + E_TYPE, unused, sizeof(unused)) || first > last ||
	    last > g->last_lba)
		return;
	p = scan_add(s, number, first * g->sector,
		     (last - first + 1) * g->sector);
	if (!p)
		return;
	guid_text(e + E_TYPE, p->type);
	guid_text(e + E_GUID, p->uuid);
	p->attributes = le64_at(e + E_ATTR);
	p->name = name_text(e + E_NAME);
}

static int entries_take(const struct partition_scan *s, const struct gpt *g)
{
	unsigned n = g->nr < PARTITION_MAX ? g->nr : PARTITION_MAX;

	for (unsigned i = 0; i < n; i++) {
		unsigned char e[E_MIN];
		int rc = scan_read(s, e, sizeof(e), g->entries +
				   (uint64_t)i * g->entry_size);

		if (rc <= 0)
			return rc;
		entry_take(s, g, i + 1, e);
	}
	return 1;
}

/* ---- which one ----------------------------------------------------------- */

static bool is_protective(const unsigned char *sector0)
{
	for (unsigned i = 0; i < 4; i++) {
		const unsigned char *e = mbr_entry(sector0, i);

		if (e[MBR_E_TYPE] == MBR_TYPE_PROTECTIVE &&
		    le32_at(e + MBR_E_START) == 1)
			return true;
	}
	return false;
}

/* Primary tables of both sectors' sizes, then backups. */
static int gpt_find(const struct partition_scan *s, struct gpt *g,
		    bool *backup)
{
	static const uint32_t sectors[] = { 512, 4096 };
	int rc = 0;

	for (unsigned i = 0; i < 4 && !rc; i++) {
		*g = (struct gpt){ .sector = sectors[i % 2] };
		*backup = i >= 2;
		if (s->size < 3 * (uint64_t)g->sector)
			continue;
		g->last_lba = s->size / g->sector - 1;
		rc = header_read(s, *backup ? g->last_lba : 1, g);
	}
	return rc;
}

int gpt_read(const struct partition_scan *s, const unsigned char *sector0)
{
	struct gpt g;
	bool backup;
	int rc;

	if (!is_protective(sector0))
		return 0;
	rc = gpt_find(s, &g, &backup);
	if (rc <= 0)
		return rc;
	s->table->scheme = PARTITION_GPT;
	s->table->sector = g.sector;
	s->table->backup = backup;
	memcpy(s->table->id, g.id, sizeof(g.id));
	return entries_take(s, &g);
}
