/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tables-scan.h - what looking at two-level tables (tables-check.c) and closing
 * their gaps (tables-compact.c) share: who uses which cluster of the file.
 */
#ifndef FORMATS_TABLES_SCAN_H
#define FORMATS_TABLES_SCAN_H

#include "tables.h"

struct scan {
	struct image *img;
	struct check_result *res;
	unsigned fix;           /* enum check_fix */
	unsigned char *used;    /* a bit per host cluster */
	unsigned char *streams; /* a bit per one that only streams use */
	uint64_t nr;            /* host clusters */
	uint64_t room;          /* bits of each */
	unsigned char *table;   /* one L2 table */
	uint64_t last;          /* host of the data cluster before; or 0 */
	unsigned char *copy;    /* one cluster, to move it */
};

static inline uint64_t scan_entry(const struct scan *s, const void *p)
{
	return tables_of(s->img)->kind->little_endian ? le64_at(p) :
							be64_at(p);
}

static inline void scan_put(const struct scan *s, void *p, uint64_t e)
{
	if (tables_of(s->img)->kind->little_endian)
		le64_put(p, e);
	else
		be64_put(p, e);
}

static inline bool scan_used(const struct scan *s, uint64_t cluster)
{
	return s->used[cluster / 8] >> cluster % 8 & 1;
}

/* Clusters before hold the header and L1: never free. */
static inline uint64_t scan_first(const struct scan *s)
{
	return div_up(tables_of(s->img)->start, s->img->unit);
}

static inline uint64_t scan_table_bytes(const struct scan *s)
{
	return 8 * tables_of(s->img)->l2_entries;
}

/* ---- tables-check.c ---- */

/* Marks [host, host + len); false: somebody has one of its clusters already. */
bool scan_mark(struct scan *s, uint64_t host, uint64_t len);
void scan_unmark(struct scan *s, uint64_t host, uint64_t len);
/* @len bytes behind the last cluster of the file: marked, where they begin. */
int scan_append(struct scan *s, uint64_t len, uint64_t *host);
/* Bytes of the file to another place in it; nothing leads there yet. */
int scan_copy(struct scan *s, uint64_t from, uint64_t to, uint64_t len);
/* Durable on return; the bytes before it, too. */
int scan_put_entry(struct scan *s, uint64_t host, uint64_t e);

/* ---- tables-compact.c ---- */

/*
 * Gives back what nobody uses: clusters from the end of the file, and tables
 * where they fit, move into the gaps, then the file becomes shorter.  What was
 * copied is durable before an entry leads there, and the old place stays as it
 * is until that is durable, too.
 */
int tables_compact(struct scan *s);

#endif
