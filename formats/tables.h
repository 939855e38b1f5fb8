/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tables.h - what qcow and QED share: an L1 and L2 tables of 64-bit entries, and
 * space that is taken from the end of the file and, once it was used, never given
 * back.
 *
 * The format says in which order the bytes of an entry are and what an entry
 * means.  There are no reference counts: each cluster has one owner.
 */
#ifndef FORMATS_TABLES_H
#define FORMATS_TABLES_H

#include "blockcore.h"
#include "spare.h"

/* What an entry of an L2 table says.  EXT_HOLE is entry 0 in both formats. */
struct entry {
	enum extent_kind kind;
	uint64_t host;          /* DATA: of the cluster; PACKED: of the stream */
	uint32_t packed;        /* PACKED: bytes */
};

struct tables_kind {
	bool little_endian;
	/* How L2 tables must be aligned: no page of one holds anything else. */
	uint32_t table_align;
	/* The zero cluster's entry; 0: there is none. */
	uint64_t zero;
	void (*decode)(const struct image *img, uint64_t e, struct entry *out);
	/* The entry of @packed bytes (0: of a whole cluster) at @host. */
	uint64_t (*encode)(const struct image *img, uint64_t host,
			   uint32_t packed);
	uint64_t max_host;      /* no cluster may end beyond it */
	/* The file always ends with a whole cluster: other programs take one
	 * that is cut off for a lie. */
	bool whole_clusters;
};

/* First in the format's priv. */
struct tables {
	const struct tables_kind *kind;
	/* Constant after open. */
	uint64_t l1_offset, l1_entries;
	uint64_t l2_entries;    /* of each table */
	uint64_t start;         /* tables and data lie at or behind it */
	bool grows;             /* the file can become longer */
	uint64_t limit;         /* no cluster may end beyond it */
	uint64_t cut;           /* nothing but a part of a unit before it; 0:
				 * tables_cut() was not called */

	pthread_mutex_t lock;   /* who makes an L2 table */
	pthread_mutex_t space;  /* who takes space or gives it back: inner */
	_Atomic uint64_t next;  /* free from here on; changes under "space" */
	struct spare spare;     /* under "space" */
};

static inline struct tables *tables_of(const struct image *img)
{
	return img->priv;
}

/* The other fields are set.  tables_close() undoes it. */
int tables_open(struct image *img);
void tables_close(struct image *img);

int tables_map(const struct view *v, uint64_t off, uint64_t len,
	       struct extent *ext);
int tables_reserve(struct image *img, struct reserve *res);
void tables_commit(struct image *img, const struct reserve *res);
void tables_abort(struct image *img, const struct reserve *res);
int tables_unmap(struct image *img, uint64_t off, uint64_t len,
		 enum unmap_how how, uint64_t *done);
/* Nothing behind @end is in use any more. */
int tables_cut(struct image *img, uint64_t end);
/* The file ends with a whole cluster: for clean(). */
int tables_clean(struct image *img);

/* ---- check ---- */

/* Counts and tells what is wrong with L1, L2 tables and clusters: in the wrong
 * place, used twice, or used by nobody. */
int tables_check(struct image *img, struct check_result *res);
/* format_admin's repair. */
int tables_repair(struct image *img, unsigned fix, struct check_result *res);

#endif
