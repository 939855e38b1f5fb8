/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-apply.c - makes the disk what an internal snapshot holds, while it is
 * used.
 *
 * Two switches of roots (qcow2-switch.c).  The snapshot's tree is counted once
 * more beside writers; at one instant, bounded by the size of L1, it becomes the
 * disk's.  What the disk was is then in use by nobody, and its counts drop in a
 * second switch.  A power failure between the two leaves leaked space.  Of a
 * disk with few tables the counts drop in that instant, and there is no second.
 *
 * Dirty bitmaps are told of what differs between the two trees; what is written
 * from then on to the instant they record themselves.
 */
#include "qcow2-switch.h"
#include "bitmap.h"
#include "engine.h"

#define FEW (2 * MiB)           /* bytes of tables that are read in an instant */

/* ---- the first switch ------------------------------------------------------- */

/* The snapshot's entry @e in the active L1: its table is shared, unless there
 * are COPIED bits in it, left over from when it was not. */
static int applied_entry(struct qcow2_switch *sw, uint64_t i, uint64_t e)
{
	uint64_t table = e & QL1_HOST, copy;
	int ret;

	if (!table)
		return 0;
	ret = qcow2_switch_uncopied(sw, table, &copy);
	if (!ret && copy)
		ret = qcow2_switch_count(sw, table, sw->img->unit, -1);
	if (!ret)
		be64_put(sw->l1_bytes + 8 * i, copy ? copy | QCOPIED : table);
	return ret;
}

static int applied_l1(struct qcow2_switch *sw, struct qcow2_root l1)
{
	uint64_t cover = qcow2_l2_cover(qcow2_of(sw->img));
	int ret = 0;

	sw->l1_size = max_u64(l1.l1_size, div_up(sw->size, cover));
	if (sw->l1_size > QCOW2_MAX_L1_BYTES / 8)
		return -EFBIG;
	free(sw->l1_bytes);
	sw->l1_bytes = calloc(sw->l1_size + 1, 8);
	if (!sw->l1_bytes)
		return -ENOMEM;
	for (uint64_t i = 0; !ret && i < l1.l1_size; i++) {
		uint64_t e;

		ret = qcow2_entry(sw->img, l1.l1_offset + 8 * i, &e);
		if (!ret)
			ret = applied_entry(sw, i, e);
	}
	return ret ? ret : qcow2_switch_place(sw, sw->l1_size * 8, &sw->l1);
}

/* The disk's L1, and which tables only the disk had, for what the cache knows of
 * them. */
static int note_gone(struct qcow2_switch *sw, uint64_t *old)
{
	int ret = 0;

	for (uint64_t i = 0; !ret && i < sw->nr; i++) {
		struct qcow2_step *st = &sw->step[i];

		ret = qcow2_entry(sw->img, sw->old_l1.l1_offset + 8 * i,
				  &st->entry);
		st->gone = st->entry & QCOPIED;
		old[i] = st->entry;
	}
	return ret;
}

/* Its L1 may change yet, by little. */
static int has_few_tables(struct qcow2_switch *sw, bool *few)
{
	uint64_t n = 0, e;
	int ret = 0;

	for (uint64_t i = 0; !ret && i < sw->nr; i++) {
		ret = qcow2_entry(sw->img, sw->old_l1.l1_offset + 8 * i, &e);
		n += !ret && e;
	}
	*few = n * sw->img->unit <= FEW && !knobs.no_apply_at_once;
	return ret;
}

/* What hung below the L1 entries @old.  The snapshot's tree is counted by then:
 * what both have never looks free. */
static int drop_branches(struct qcow2_switch *sw, const uint64_t *old,
			 uint64_t n)
{
	int ret = 0;

	for (uint64_t i = 0; !ret && i < n; i++)
		if (old[i])
			ret = qcow2_switch_branch(sw, i, old[i], -1);
	return ret;
}

/* Until then nobody else changes the header. */
static int instant(struct qcow2_switch *sw, uint64_t *old, bool drop)
{
	struct image *img = sw->img;
	int ret;
	with_lock(&qcow2_of(img)->header);

	image_freeze(img);
	pause_point("snapshot:frozen");
	ret = qcow2_of(img)->l1_offset == sw->old_l1.l1_offset ? 0 : -EAGAIN;
	if (!ret)
		ret = note_gone(sw, old);
	if (!ret && drop)
		ret = drop_branches(sw, old, sw->nr);
	if (!ret)
		ret = qcow2_switch_turn(sw);
	image_thaw(img);
	return ret ? ret : image_flush(img);
}

/* ---- dirty bitmaps ---------------------------------------------------------- */

static int table_read(struct image *img, uint64_t index, uint64_t e,
		      unsigned char *bytes)
{
	uint64_t table;
	int ret = qcow2_switch_table(img, index, e, &table);

	if (!ret && table)
		ret = meta_read(img, img->file, bytes, img->unit, table);
	else
		memset(bytes, 0, img->unit);
	return ret;
}

/* What differs between two tables is touched, run by run. */
static int touch_entries(struct qcow2_switch *sw, uint64_t index)
{
	struct image *img = sw->img;
	const struct qcow2 *q = qcow2_of(img);
	uint64_t n = img->unit / q->l2_entry, from = 0;
	uint64_t off = index * qcow2_l2_cover(q);
	int ret = 0;

	for (uint64_t i = 0; !ret && i <= n; i++) {
		if (i < n && !qcow2_same_entry(q, sw->live + i * q->l2_entry,
					       sw->old + i * q->l2_entry))
			continue;
		if (i > from)
			ret = bitmaps_touch(img, off + from * img->unit,
					    (i - from) * img->unit);
		from = i + 1;
	}
	return ret;
}

static int touch_table(struct qcow2_switch *sw, uint64_t index, uint64_t is,
		       uint64_t will)
{
	int ret;

	if ((is & QL1_HOST) == (will & QL1_HOST))
		return 0;
	ret = table_read(sw->img, index, is, sw->live);
	if (!ret)
		ret = table_read(sw->img, index, will, sw->old);
	return ret ? ret : touch_entries(sw, index);
}

static int touch_changes(struct qcow2_switch *sw, struct qcow2_root l1)
{
	struct image *img = sw->img;
	uint64_t n = max_u64(sw->nr, l1.l1_size);
	int ret = 0;

	for (uint64_t i = 0; !ret && i < n; i++) {
		uint64_t is = 0, will = 0;

		if (i < sw->nr)
			ret = qcow2_entry(img, sw->old_l1.l1_offset + 8 * i,
					  &is);
		if (!ret && i < l1.l1_size)
			ret = qcow2_entry(img, l1.l1_offset + 8 * i, &will);
		if (!ret)
			ret = touch_table(sw, i, is, will);
		if (!ret)
			ret = qcow2_switch_tick(sw, 0);
	}
	return ret;
}

/* ---- the second switch ------------------------------------------------------ */

/* Nobody uses what hung below @old any more.  The disk is the snapshot's already:
 * whatever happens here costs space only. */
static void drop_old(struct image *img, const struct qcow2_snapshots *list,
		     const uint64_t *old, uint64_t n, struct progress *p)
{
	struct qcow2_switch sw;
	int ret = qcow2_switch_begin(&sw, img, p);

	sw.late = true;
	if (!ret)
		ret = drop_branches(&sw, old, n);
	if (!ret)
		ret = qcow2_switch_around(&sw, list);
	qcow2_switch_end(&sw, !ret);
	if (ret)
		log_line("%s: Space of the disk before the snapshot was"
			 " applied is leaked: %s", img->name ? img->name :
			 "qcow2", strerror(-ret));
}

/* ---- apply ------------------------------------------------------------------- */

static int turn_to(struct qcow2_switch *sw, struct qcow2_root l1,
		   const struct qcow2_snapshots *list, uint64_t *old,
		   bool drop)
{
	int ret = qcow2_switch_tree(sw, l1, 1);

	if (!ret)
		ret = applied_l1(sw, l1);
	if (!ret && bitmaps_any(sw->img))
		ret = touch_changes(sw, l1);
	if (!ret)
		ret = qcow2_switch_snapshots(sw, list);
	pause_point("snapshot:instant");
	if (!ret)
		ret = qcow2_switch_tick(sw, 0);
	return ret ? ret : instant(sw, old, drop);
}

static int apply(struct image *img, struct qcow2_root l1, uint64_t size,
		 const struct qcow2_snapshots *list, struct progress *p)
{
	struct qcow2_switch sw;
	int ret = qcow2_switch_begin(&sw, img, p);
	autofree uint64_t *old = calloc(sw.nr + 1, sizeof(*old));
	uint64_t n = sw.nr;
	bool few = false;

	if (!ret && !old)
		ret = -ENOMEM;
	sw.turn = TURN_SHARED;
	sw.size = size;
	qcow2_switch_expect(&sw, n + l1.l1_size);
	if (!ret)
		ret = has_few_tables(&sw, &few);
	if (!ret)
		ret = turn_to(&sw, l1, list, old, few);
	qcow2_switch_end(&sw, !ret);
	if (!ret && !few)
		drop_old(img, list, old, n, p);
	return ret;
}

int qcow2_snapshot_apply(struct image *img, size_t index, struct progress *p,
			 struct err *err)
{
	struct qcow2_snapshots list = { NULL, 0, 0 };
	struct qcow2_root l1 = { 0, 0 };
	int ret = qcow2_snapshots_read(img, &list, err);

	if (!ret)
		ret = qcow2_snapshot_tree(img, &list, index, &l1, err);
	if (!ret)
		ret = apply(img, l1, round_down(list.items[index].info.disk_size,
						SECTOR_SIZE), &list, p);
	qcow2_snapshots_free(&list);
	return qcow2_switch_worded(ret);
}
