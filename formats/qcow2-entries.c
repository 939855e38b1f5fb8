/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-entries.c - L2 entries that are about to change (qcow2.md 4): a table
 * of the live disk's own, entries that were looked at, space that they drop.
 *
 * An L2 table that is missing, or that a snapshot uses as well, is made or
 * copied when something below it is reserved, and hung into the L1 at once:
 * that changes nothing for the guest.  What remains for commit() are entries
 * of one page of one L2 table, which nobody else can change under the claim.
 *
 * Refuses to know what entries become.
 */
#include "qcow2-entries.h"
#include "qcow2-shadow.h"

#include <inttypes.h>

/* ---- L2 tables of our own ------------------------------------------------ */

static int l1_get(struct image *img, uint64_t index, uint64_t *e)
{
	struct qcow2 *q = qcow2_of(img);
	int ret = qcow2_entry(img, q->l1_offset + 8 * index, e);

	return ret ? ret : qcow2_l1_check(img, index, *e);
}

/*
 * A new table, as @old (0: empty) is now, written to the file at once: its
 * host space is real then (rule 3), and only the pages that change later are
 * dirty.  It is durable before L1 points there.
 */
static int l2_write(struct image *img, uint64_t old, uint64_t host)
{
	autofree void *bytes = calloc(1, img->unit);
	int ret = bytes ? 0 : -ENOMEM;

	if (!ret && old)
		ret = meta_read(img, img->file, bytes, img->unit, old);
	if (ret)
		return ret;
	meta_forget(img, img->file, host, img->unit);
	return file_write(img->file, bytes, img->unit, host);
}

/* A table that is not ours alone is clean: no page of it needs forgetting. */
static int l1_set(struct image *img, uint64_t index, uint64_t old,
		  uint64_t host)
{
	uint64_t slot = qcow2_of(img)->l1_offset + 8 * index;
	struct mpage *pg;
	int ret = meta_get(img, img->file, round_down(slot, img->page), &pg);

	if (ret)
		return ret;
	change_begin(img);
	meta_wrlock(pg);
	be64_put((unsigned char *)meta_bytes(pg) + slot % img->page,
		 host | QCOPIED);
	meta_dirty(pg, STAGE_ROOT);
	meta_unlock(pg);
	if (old)
		space_retire(img, img->file, old, img->unit);
	change_end(img);
	meta_put(pg);
	return 0;
}

static int l2_make(struct image *img, uint64_t index, uint64_t old,
		   uint64_t *table)
{
	struct qcow2_run run;
	int ret = qcow2_alloc(img, 1, &run);

	if (ret)
		return ret;
	ret = l2_write(img, old, run.host);
	if (!ret)
		ret = l1_set(img, index, old, run.host);
	if (ret)
		qcow2_unalloc(img, run.host, 1);
	else
		*table = run.host;
	return ret;
}

/* Rule 14: guest entries must not go where the roots are. */
static int l2_check(struct image *img, uint64_t host)
{
	if (!host || !qcow2_is_meta(qcow2_of(img), host, img->unit))
		return 0;
	image_corrupt(img, "Preventing invalid write on metadata: L2 table at"
		      " offset %#" PRIx64 " overlaps with other metadata",
		      host);
	return -EIO;
}

/* The L2 table of @index for changing. */
static int l2_own(struct image *img, uint64_t index, uint64_t *table)
{
	uint64_t e = 0;
	int ret = l1_get(img, index, &e);

	if (!ret)
		ret = l2_check(img, e & QL1_HOST);
	if (ret)
		return ret;
	if (!(e & QL1_HOST && e & QCOPIED)) {
		with_lock(&qcow2_of(img)->tables);

		/* Somebody may have made it while we waited. */
		ret = l1_get(img, index, &e);
		if (ret)
			return ret;
		if (!(e & QL1_HOST && e & QCOPIED))
			return l2_make(img, index, e & QL1_HOST, table);
	}
	*table = e & QL1_HOST;
	return 0;
}

/* ---- entries ------------------------------------------------------------- */

unsigned char *entry_at(struct image *img, const struct entries *en,
			uint64_t i)
{
	uint64_t slot = en->table +
			qcow2_of(img)->l2_entry * (en->index + i);

	return (unsigned char *)meta_bytes(en->pg) + slot % img->page;
}

uint64_t qcow2_entry_space(struct image *img, uint64_t e, uint64_t *len)
{
	const struct qcow2 *q = qcow2_of(img);

	if (e & QL2_COMPRESSED) {
		*len = qcow2_packed_len(q, e);
		return qcow2_packed_host(q, e);
	}
	*len = e & QL2_HOST && !q->data ? img->unit : 0;
	return e & QL2_HOST;
}

/* Rule 14: what these entries drop will be given back and punched. */
static int entries_check(struct image *img, const struct entries *en)
{
	uint64_t host, len;

	for (uint64_t i = 0; i < en->n; i++) {
		struct qcow2_l2 l2 = en->old[i];
		int ret = l2.e || l2.subs ?
			  qcow2_l2_check(img, en->table,
					 en->off + i * img->unit, l2) : 0;

		if (ret)
			return ret;
		host = qcow2_entry_space(img, l2.e, &len);
		if (!len || !qcow2_is_meta(qcow2_of(img), host, len))
			continue;
		image_corrupt(img, "Preventing invalid write on metadata:"
			      " cluster at offset %#" PRIx64 " (L2 index: %#"
			      PRIx64 ")", host, en->index + i);
		return -EIO;
	}
	return 0;
}

int entries_get(struct image *img, uint64_t off, uint64_t len,
		struct entries *en)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t cluster = off / img->unit, per = img->unit / q->l2_entry;
	uint64_t slot;
	int ret = l2_own(img, cluster / per, &en->table);

	if (ret)
		return ret;
	en->off = off;
	en->index = cluster % per;
	slot = en->table + q->l2_entry * en->index;
	en->n = min_u64(div_up(len, img->unit),
			(img->page - slot % img->page) / q->l2_entry);
	ret = meta_get(img, img->file, round_down(slot, img->page), &en->pg);
	if (ret)
		return ret;
	meta_rdlock(en->pg);
	for (uint64_t i = 0; i < en->n; i++)
		en->old[i] = qcow2_l2_at(q, entry_at(img, en, i));
	meta_unlock(en->pg);
	ret = entries_check(img, en);
	if (ret)
		meta_put(en->pg);
	return ret;
}

/* Compressed clusters may be several streams': each one that it touches counts
 * for itself. */
void entry_retire(struct image *img, uint64_t e)
{
	uint64_t host, len, first;

	host = qcow2_entry_space(img, e, &len);
	first = round_down(host, img->unit);
	if (len)
		space_retire(img, img->file, first,
			     round_up(host + len, img->unit) - first);
}

/* Inside the gate.  Neighbours on the host are one record.  A data file's
 * clusters are nobody else's, ever. */
void entries_retire(struct image *img, const struct qcow2_l2 *old, uint64_t n)
{
	for (uint64_t i = 0, run; i < n; i += run) {
		uint64_t host = old[i].e & QL2_HOST;

		run = 1;
		if (old[i].e & QL2_COMPRESSED || !host || qcow2_of(img)->data) {
			entry_retire(img, old[i].e);
			continue;
		}
		while (i + run < n && !(old[i + run].e & QL2_COMPRESSED) &&
		       (old[i + run].e & QL2_HOST) == host + run * img->unit)
			run++;
		space_retire(img, img->file, host, run * img->unit);
	}
}
