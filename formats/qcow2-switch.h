/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-switch.h - from one set of roots (L1, refcount table, snapshot table)
 * to another at one instant; see qcow2-switch.c.
 */
#ifndef FORMATS_QCOW2_SWITCH_H
#define FORMATS_QCOW2_SWITCH_H

#include "qcow2-shadow.h"

/* What the active L2 tables shall become. */
enum qcow2_turn {
	TURN_SHARED,    /* shared with a new snapshot: nothing is COPIED */
	TURN_OWN,       /* COPIED wherever the count is 1 then */
};

/* The place of one L1 entry: what was looked at, and what it becomes. */
struct qcow2_step {
	uint64_t entry;         /* of L1, as it was when looked at */
	uint64_t table;         /* host offset of the table that has been
				 * counted: the entry's own, or a copy */
	bool gone;              /* it is not replaced, but dropped */
};

static inline bool qcow2_step_is_copy(const struct qcow2_step *st)
{
	return st->table && st->table != (st->entry & QL1_HOST);
}

struct qcow2_switch {
	struct image *img;
	struct progress *p;     /* may be NULL */
	enum qcow2_turn turn;
	struct qcow2_root old_l1;
	struct qcow2_watch watch;
	struct qcow2_step *step;        /* for each entry of the active L1 */
	uint64_t nr;
	unsigned char *live, *old;      /* a table each */

	struct qcow2_run *mine; /* what was allocated, for giving up */
	size_t nr_mine, room_mine;

	/* The new roots. */
	uint64_t l1;            /* host offset */
	uint64_t l1_size;       /* entries */
	unsigned char *l1_bytes;
	uint64_t twin;          /* a second one with the same bytes, or 0 */
	uint64_t reftable, reftable_clusters;
	uint64_t snapshots, snapshots_len, nb_snapshots;
	uint64_t size;          /* guest bytes */
	bool turned;            /* the image has them */
	bool late;              /* it is too late to cancel */
};

/* What qemu-img says of counts that do not fit. */
static inline int qcow2_switch_worded(int ret)
{
	return ret == -EOVERFLOW ? -EINVAL : ret;
}

/* ---- qcow2-switch.c -------------------------------------------------------- */

/* qcow2_switch_end() in any case. */
int qcow2_switch_begin(struct qcow2_switch *sw, struct image *img,
		       struct progress *p);
/* Space for @bytes, at least one cluster, in one piece. */
int qcow2_switch_place(struct qcow2_switch *sw, uint64_t bytes,
		       uint64_t *host);
/* Metadata in a new place, at once. */
int qcow2_switch_write(struct qcow2_switch *sw, const void *bytes,
		       uint64_t len, uint64_t host);
/* Both. */
int qcow2_switch_put(struct qcow2_switch *sw, const void *bytes, uint64_t len,
		     uint64_t *host);
int qcow2_switch_count(struct qcow2_switch *sw, uint64_t host, uint64_t len,
		       int delta);
/* Progress; -ECANCELED. */
int qcow2_switch_tick(struct qcow2_switch *sw, uint64_t n);
/* With the image frozen: the new roots are those of the image. */
int qcow2_switch_turn(struct qcow2_switch *sw);
/* @durable: the flush that followed the turn has ended well.  What was only of
 * the old roots is free then.  Without a turn all is as before. */
void qcow2_switch_end(struct qcow2_switch *sw, bool durable);

/* ---- qcow2-step.c ---------------------------------------------------------- */

/* Is it the same place and state, whether COPIED or not? */
bool qcow2_same_entry(const struct qcow2 *q, const unsigned char *a,
		      const unsigned char *b);
/* Where the table of the L1 entry @e is; 0: nowhere.  -EIO: that cannot be. */
int qcow2_switch_table(struct image *img, uint64_t index, uint64_t e,
		       uint64_t *table);
/* Counts the table of the L1 entry @e, which does not change, and what hangs
 * below it. */
int qcow2_switch_branch(struct qcow2_switch *sw, uint64_t index, uint64_t e,
			int delta);
/* Counts what hangs below an L1 that does not change. */
int qcow2_switch_tree(struct qcow2_switch *sw, struct qcow2_root l1,
		      int delta);
/* Looks at the active tables as they are now; again: at what has changed.
 * *@found: how many tables or pages that were. */
int qcow2_switch_look(struct qcow2_switch *sw, uint64_t *found);
/* With the image frozen: the active tree does not change any more.  Makes
 * l1_bytes. */
int qcow2_switch_settle(struct qcow2_switch *sw);
/* A copy of the table at @host in which nothing is COPIED; 0: it is such a one
 * itself. */
int qcow2_switch_uncopied(struct qcow2_switch *sw, uint64_t host,
			  uint64_t *copy);

/* ---- qcow2-instant.c ------------------------------------------------------- */

/* How many tables will be looked at, for progress. */
void qcow2_switch_expect(struct qcow2_switch *sw, uint64_t tables);
/* The new table of snapshots. */
int qcow2_switch_snapshots(struct qcow2_switch *sw,
			   const struct qcow2_snapshots *list);
/* The L1 table of a snapshot. */
int qcow2_snapshot_tree(struct image *img, const struct qcow2_snapshots *list,
			size_t index, struct qcow2_root *l1, struct err *err);
/* The turn to the same disk, with other counts or snapshots around it. */
int qcow2_switch_around(struct qcow2_switch *sw,
			const struct qcow2_snapshots *list);

#endif
