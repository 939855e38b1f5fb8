/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-instant.c - creates, deletes and renames internal snapshots (qcow2.md
 * 7): what the new roots are.  How one gets there is qcow2-switch.c; applying is
 * qcow2-apply.c.
 */
#include "qcow2-switch.h"
#include "job.h"

#include <stdio.h>
#include <time.h>

#define NAME_MAX_BYTES 255u
#define PASSES 16u              /* over the active tables before the instant */
#define FEW 32u                 /* tables and pages are left for it */

/* ---- the table of snapshots ------------------------------------------------ */

int qcow2_switch_snapshots(struct qcow2_switch *sw,
			   const struct qcow2_snapshots *list)
{
	autofree unsigned char *bytes = NULL;
	size_t len = 0;
	int ret;

	sw->nb_snapshots = list->n;
	sw->snapshots = sw->snapshots_len = 0;
	if (!list->n)
		return 0;
	ret = qcow2_snapshots_encode(list, &bytes, &len);
	if (!ret)
		ret = qcow2_switch_put(sw, bytes, len, &sw->snapshots);
	sw->snapshots_len = len;
	return ret;
}

static char *next_id(const struct qcow2_snapshots *list)
{
	unsigned long long highest = 0, n;
	char id[24];

	for (size_t i = 0; i < list->n; i++) {
		n = strtoull(list->items[i].info.id, NULL, 10);
		highest = n > highest && n < UINT32_MAX ? n : highest;
	}
	snprintf(id, sizeof(id), "%llu", highest + 1);
	return strdup(id);
}

/* One more entry at the end; its L1 is set later. */
static int list_add(struct qcow2_snapshots *list, const char *name,
		    uint64_t size)
{
	struct qcow2_snapshot *grown, *s;
	struct timespec now;

	if (list->n >= QCOW2_MAX_SNAPSHOTS)
		return -EFBIG;
	grown = realloc(list->items, (list->n + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	list->items = grown;
	s = &grown[list->n];
	clock_gettime(CLOCK_REALTIME, &now);
	*s = (struct qcow2_snapshot) {
		.info = {
			.id = next_id(list),
			.name = strndup(name, NAME_MAX_BYTES),
			.date_sec = (uint32_t)now.tv_sec,
			.date_nsec = (uint32_t)now.tv_nsec,
			.disk_size = size,
		},
	};
	list->n++;
	return s->info.id && s->info.name ? 0 : -ENOMEM;
}

static void list_remove(struct qcow2_snapshots *list, size_t index)
{
	struct qcow2_snapshot *s = &list->items[index];

	free(s->info.id);
	free(s->info.name);
	free(s->extra);
	memmove(s, s + 1, (list->n - index - 1) * sizeof(*s));
	list->n--;
}

/* ---- the instant ----------------------------------------------------------- */

void qcow2_switch_expect(struct qcow2_switch *sw, uint64_t tables)
{
	if (sw->p)
		atomic_store(&sw->p->total, tables + !tables);
}

/* Until what writers change during a pass is little. */
static int look_until_few(struct qcow2_switch *sw)
{
	uint64_t found = UINT64_MAX;
	int ret = 0;

	for (unsigned i = 0; !ret && found > FEW && i < PASSES; i++)
		ret = qcow2_switch_look(sw, &found);
	pause_point("snapshot:instant");
	return ret ? ret : qcow2_switch_tick(sw, 0);
}

/*
 * After a turn that gives the guest what was shared, or leaves tables where they
 * are, nobody writes before the flush has ended: the old state still holds those
 * clusters, and counts what its tables name.  A flush before makes that one
 * short.
 */
static int flush_frozen(struct qcow2_switch *sw, int ret)
{
	if (!ret && sw->turn == TURN_OWN)
		ret = image_flush(sw->img);
	image_thaw(sw->img);
	return ret;
}

/* The rest, with nobody writing; then it becomes durable.  Until then nobody
 * else changes the header. */
static int instant(struct qcow2_switch *sw)
{
	struct image *img = sw->img;
	int ret = sw->turn == TURN_OWN ? image_flush(img) : 0;
	with_lock(&qcow2_of(img)->header);

	if (ret)
		return ret;
	image_freeze(img);
	pause_point("snapshot:frozen");
	sw->size = image_size(img);
	ret = qcow2_switch_settle(sw);
	if (!ret)
		ret = qcow2_switch_turn(sw);
	ret = flush_frozen(sw, ret);
	return ret ? ret : image_flush(img);
}

static int refuse(struct image *img)
{
	const struct qcow2 *q = qcow2_of(img);

	return q->usable && !(q->incompat & QINCOMPAT_DATA_FILE) ? 0 :
	       -EOPNOTSUPP;
}

/* ---- create ---------------------------------------------------------------- */

static int create_prepare(struct qcow2_switch *sw,
			  struct qcow2_snapshots *list, const char *name)
{
	struct qcow2_snapshot *s;
	uint64_t bytes = sw->l1_size * 8;
	int ret = list_add(list, name, sw->size);

	if (!ret)
		ret = qcow2_switch_place(sw, bytes, &sw->l1);
	if (!ret)
		ret = qcow2_switch_place(sw, bytes, &sw->twin);
	if (ret)
		return ret;
	s = &list->items[list->n - 1];
	s->l1_offset = sw->twin;
	s->l1_size = (uint32_t)sw->l1_size;
	return qcow2_switch_snapshots(sw, list);
}

int qcow2_snapshot_create(struct image *img, const char *name,
			  struct progress *p, struct err *err)
{
	struct qcow2_snapshots list = { NULL, 0, 0 };
	struct qcow2_switch sw;
	int ret = refuse(img);

	if (!ret)
		ret = qcow2_snapshots_read(img, &list, err);
	if (ret)
		return ret;
	ret = qcow2_switch_begin(&sw, img, p);
	sw.turn = TURN_SHARED;
	if (!ret)
		ret = create_prepare(&sw, &list, name);
	qcow2_switch_expect(&sw, sw.nr);
	if (!ret)
		ret = look_until_few(&sw);
	if (!ret)
		ret = instant(&sw);
	qcow2_switch_end(&sw, !ret);
	qcow2_snapshots_free(&list);
	return qcow2_switch_worded(ret);
}

/* ---- delete ---------------------------------------------------------------- */

int qcow2_snapshot_tree(struct image *img, const struct qcow2_snapshots *list,
			size_t index, struct qcow2_root *l1, struct err *err)
{
	const struct qcow2_snapshot *s;

	if (index >= list->n)
		return -ENOENT;
	s = &list->items[index];
	*l1 = (struct qcow2_root) { s->l1_offset, s->l1_size };
	return qcow2_snapshot_check(img, s, err);
}

static int drop_tree(struct qcow2_switch *sw, struct qcow2_root l1)
{
	int ret = qcow2_switch_tree(sw, l1, -1);

	if (ret || !l1.l1_size)
		return ret;
	return qcow2_switch_count(sw, l1.l1_offset, (uint64_t)l1.l1_size * 8,
				  -1);
}

int qcow2_snapshot_remove(struct image *img, size_t index, struct progress *p,
			  struct err *err)
{
	struct qcow2_snapshots list = { NULL, 0, 0 };
	struct qcow2_switch sw;
	struct qcow2_root l1 = { 0, 0 };
	int ret = qcow2_snapshots_read(img, &list, err);

	if (!ret)
		ret = qcow2_snapshot_tree(img, &list, index, &l1, err);
	if (ret) {
		qcow2_snapshots_free(&list);
		return ret;
	}
	ret = qcow2_switch_begin(&sw, img, p);
	sw.turn = TURN_OWN;
	qcow2_switch_expect(&sw, sw.nr + l1.l1_size);
	list_remove(&list, index);
	if (!ret)
		ret = qcow2_switch_place(&sw, sw.l1_size * 8, &sw.l1);
	if (!ret)
		ret = qcow2_switch_snapshots(&sw, &list);
	if (!ret)
		ret = drop_tree(&sw, l1);
	if (!ret)
		ret = look_until_few(&sw);
	if (!ret)
		ret = instant(&sw);
	qcow2_switch_end(&sw, !ret);
	qcow2_snapshots_free(&list);
	return qcow2_switch_worded(ret);
}

/* ---- rename ----------------------------------------------------------------- */

static int same_disk(struct qcow2_switch *sw,
		     const struct qcow2_snapshots *list)
{
	struct image *img = sw->img;
	int ret = meta_read(img, img->file, sw->l1_bytes, sw->l1_size * 8,
			    sw->old_l1.l1_offset);

	if (!ret)
		ret = qcow2_switch_place(sw, sw->l1_size * 8, &sw->l1);
	if (!ret)
		ret = qcow2_switch_snapshots(sw, list);
	if (!ret)
		ret = qcow2_switch_turn(sw);
	return ret;
}

int qcow2_switch_around(struct qcow2_switch *sw,
			const struct qcow2_snapshots *list)
{
	struct image *img = sw->img;
	int ret = image_flush(img);
	with_lock(&qcow2_of(img)->header);

	if (ret)
		return ret;
	sw->turn = TURN_OWN;
	image_freeze(img);
	sw->size = image_size(img);
	return flush_frozen(sw, same_disk(sw, list));
}

int qcow2_snapshot_rename(struct image *img, size_t index, const char *name,
			  struct err *err)
{
	struct qcow2_snapshots list = { NULL, 0, 0 };
	struct qcow2_switch sw;
	char *copy = strndup(name, NAME_MAX_BYTES);
	int ret = copy ? qcow2_snapshots_read(img, &list, err) : -ENOMEM;

	if (!ret && index >= list.n)
		ret = -ENOENT;
	if (ret) {
		free(copy);
		qcow2_snapshots_free(&list);
		return ret;
	}
	free(list.items[index].info.name);
	list.items[index].info.name = copy;
	ret = qcow2_switch_begin(&sw, img, NULL);
	if (!ret)
		ret = qcow2_switch_around(&sw, &list);
	qcow2_switch_end(&sw, !ret);
	qcow2_snapshots_free(&list);
	return qcow2_switch_worded(ret);
}
