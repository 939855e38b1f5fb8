/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-blocks.c - where reference counts are kept (qcow2.md 6): the refcount
 * table, the blocks it points at, and how both grow.  Knows what else must
 * never be handed out or overwritten: header, L1, this table, snapshot table.
 *
 * Refuses to know what the counts say; that is qcow2-alloc.c.
 *
 * Everything here but qcow2_is_meta() runs under the lock "alloc".
 *
 * New blocks and tables are written to the file at once, as zeroes or as they
 * shall be.  That makes their host space real (rule 3), it is durable before
 * anything points there (the first barrier of a flush syncs all bytes that
 * were written before), and only the pages that change later are dirty.
 */
#include "qcow2.h"
#include "qcow2-shadow.h"

#include <inttypes.h>

/* ---- what is where ------------------------------------------------------- */

static bool overlaps(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

/* All four are below 2^63 (check_tables() when the image was opened). */
bool qcow2_is_meta(const struct qcow2 *q, uint64_t host, uint64_t len)
{
	uint64_t unit = UINT64_C(1) << q->cluster_bits;
	uint64_t table = atomic_load_explicit(&q->reftable_offset,
					      memory_order_relaxed);
	uint64_t n = atomic_load_explicit(&q->reftable_clusters,
					  memory_order_relaxed);

	return host < unit ||
	       overlaps(host, len, q->l1_offset, (uint64_t)q->l1_size * 8) ||
	       overlaps(host, len, table, n * unit) ||
	       overlaps(host, len, q->snapshots_offset, q->snapshots_len);
}

static uint64_t reftable_entries(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);

	return (uint64_t)atomic_load(&q->reftable_clusters) * img->unit / 8;
}

static uint64_t reftable_slot(struct image *img, uint64_t b)
{
	struct qcow2 *q = qcow2_of(img);

	return atomic_load(&q->reftable_offset) + 8 * b;
}

/* Rule 14. */
static int block_check(struct image *img, uint64_t b, uint64_t e)
{
	uint64_t host = e & QRT_HOST;
	const char *what = NULL;

	if (e & QRT_RESERVED)
		what = "has reserved bits set";
	else if (host % img->unit)
		what = "unaligned";
	else if (host && !qcow2_inside(img, host))
		what = "is beyond the end of the file";
	else if (host && qcow2_is_meta(qcow2_of(img), host, img->unit))
		what = "overlaps with other metadata";
	if (!what)
		return 0;
	image_corrupt(img, "Refblock offset %#" PRIx64 " %s (reftable index: %#"
		      PRIx64 ")", host, what, b);
	return -EIO;
}

int qcow2_block_find(struct image *img, uint64_t b, uint64_t *host)
{
	uint64_t e = 0;
	int ret = 0;

	if (b < reftable_entries(img))
		ret = qcow2_entry(img, reftable_slot(img, b), &e);
	if (!ret)
		ret = block_check(img, b, e);
	if (!ret)
		*host = e & QRT_HOST;
	return ret;
}

/* ---- pages of counts ----------------------------------------------------- */

uint64_t qcow2_counts_per_page(const struct image *img)
{
	return (uint64_t)img->page * 8 >> qcow2_of(img)->refcount_order;
}

uint64_t qcow2_counts_page(struct image *img, uint64_t block,
			   uint64_t cluster)
{
	uint64_t i = cluster % qcow2_refs_per_block(qcow2_of(img));

	return block + i / qcow2_counts_per_page(img) * img->page;
}

int qcow2_counts_get(struct image *img, uint64_t cluster, struct mpage **pg)
{
	uint64_t block = 0;
	int ret = qcow2_block_find(img, cluster /
			     qcow2_refs_per_block(qcow2_of(img)), &block);

	if (ret)
		return ret;
	if (block)
		return meta_get(img, img->file,
				qcow2_counts_page(img, block, cluster), pg);
	*pg = NULL;
	return 0;
}

uint64_t qcow2_count_at(struct image *img, struct mpage *pg, uint64_t cluster)
{
	return refcount_get(meta_bytes(pg), qcow2_of(img)->refcount_order,
			    cluster % qcow2_counts_per_page(img));
}

void qcow2_count_set(struct image *img, struct mpage *pg, uint64_t cluster,
		     uint64_t count)
{
	refcount_put(meta_bytes(pg), qcow2_of(img)->refcount_order,
		     cluster % qcow2_counts_per_page(img), count);
}

/* ---- one more block ------------------------------------------------------ */

/* Stale pages of an earlier life would be taken for what is written now. */
static int write_fresh(struct image *img, const void *bytes, uint64_t len,
		       uint64_t host)
{
	meta_forget(img, img->file, host, len);
	return file_write(img->file, bytes, len, host);
}

static int write_empty_block(struct image *img, uint64_t host)
{
	autofree void *zeroes = calloc(1, img->unit);

	return zeroes ? write_fresh(img, zeroes, img->unit, host) : -ENOMEM;
}

/*
 * Pins the page that counts cluster @c, where block @b shall be: one of its
 * own if it counts itself.
 */
static int pin_own_count(struct image *img, uint64_t b, uint64_t c,
			 struct mpage **pg)
{
	int ret;

	if (c / qcow2_refs_per_block(qcow2_of(img)) == b)
		return meta_get(img, img->file,
				qcow2_counts_page(img, c * img->unit, c), pg);
	ret = qcow2_counts_get(img, c, pg);
	return ret || *pg ? ret : -EIO;
}

static void put_entry(struct mpage *pg, uint64_t at, uint64_t e,
		      enum stage stage)
{
	meta_wrlock(pg);
	be64_put((unsigned char *)meta_bytes(pg) + at, e);
	meta_dirty(pg, stage);
	meta_unlock(pg);
}

static void put_first_count(struct image *img, struct mpage *pg,
			    struct mpage *shadow, uint64_t c)
{
	meta_wrlock(pg);
	qcow2_count_set(img, pg, c, 1);
	meta_dirty(pg, STAGE_SPACE);
	meta_unlock(pg);
	if (shadow)
		qcow2_shadow_follow(img, shadow, pg, c, c + 1, 1);
}

/* Block @b at cluster @c, which is free; the table has room for it. */
static int block_link(struct image *img, uint64_t b, uint64_t c)
{
	uint64_t slot = reftable_slot(img, b);
	struct mpage *count, *table, *shadow;
	int ret = write_empty_block(img, c * img->unit);

	if (!ret)
		ret = pin_own_count(img, b, c, &count);
	if (ret)
		return ret;
	ret = meta_get(img, img->file, round_down(slot, img->page), &table);
	if (!ret) {
		shadow = qcow2_shadow_pin(img, c);
		change_begin(img);
		put_first_count(img, count, shadow, c);
		put_entry(table, slot % img->page, c * img->unit,
			  STAGE_SPACE_ROOT);
		change_end(img);
		meta_put(shadow);
		meta_put(table);
	}
	meta_put(count);
	return ret;
}

/* ---- a larger table ------------------------------------------------------ */

/*
 * What a larger table comes with: an area of whole clusters behind everything
 * that the old one could count.  It begins with the blocks that count it, the
 * table follows.
 */
struct area {
	uint64_t block;         /* index of its first block */
	uint64_t blocks, table; /* clusters */
};

/* The sizes that QEMU gives to both, for @n blocks before the area. */
static int area_plan(struct image *img, uint64_t n, struct area *a)
{
	uint64_t per = qcow2_refs_per_block(qcow2_of(img)), blocks = 0, need;
	uint64_t most = QCOW2_MAX_REFTABLE_BYTES / img->unit;

	*a = (struct area) { .block = n, .blocks = 1 };
	while (blocks != a->blocks) {
		blocks = a->blocks;
		need = n + blocks;
		a->table = min_u64(div_up((need + (need + 1) / 2) * 8,
					  img->unit), most);
		a->blocks = max_u64(div_up(n + a->table + blocks, per), blocks);
	}
	return n + a->blocks > a->table * img->unit / 8 ? -EFBIG : 0;
}

static uint64_t area_start(struct image *img, const struct area *a)
{
	return a->block * qcow2_refs_per_block(qcow2_of(img)) * img->unit;
}

/* The new table: the old one as it is now, block @b at cluster @c, the area. */
static int area_fill(struct image *img, const struct area *a, uint64_t b,
		     uint64_t c, unsigned char *bytes)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned char *table = bytes + a->blocks * img->unit;
	int ret = meta_read(img, img->file, table,
			    reftable_entries(img) * 8, reftable_slot(img, 0));

	if (ret)
		return ret;
	be64_put(table + 8 * b, c * img->unit);
	for (uint64_t i = 0; i < a->blocks; i++)
		be64_put(table + 8 * (a->block + i),
			 area_start(img, a) + i * img->unit);
	/* The blocks are adjacent: together they are one array of counts. */
	for (uint64_t i = 0; i < a->blocks + a->table; i++)
		refcount_put(bytes, q->refcount_order, i, 1);
	return 0;
}

static int area_write(struct image *img, const struct area *a, uint64_t b,
		      uint64_t c)
{
	uint64_t len = (a->blocks + a->table) * img->unit;
	autofree unsigned char *bytes = calloc(1, len);
	int ret = bytes ? area_fill(img, a, b, c, bytes) : -ENOMEM;

	return ret ? ret : write_fresh(img, bytes, len, area_start(img, a));
}

/* Nothing there was ever counted; an image that lies may use it still. */
static int area_check(struct image *img, const struct area *a)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t start = area_start(img, a);
	uint64_t len = (a->blocks + a->table) * img->unit;

	if (!range_within(start, len, q->host_limit))
		return q->host_limit < QCOW2_MAX_HOST ? -ENOSPC : -EFBIG;
	if (!qcow2_is_meta(q, start, len))
		return 0;
	image_corrupt(img, "Preventing invalid allocation of refcount table at"
		      " offset %#" PRIx64, start);
	return -EIO;
}

static void header_switch(struct image *img, struct mpage *head,
			  const struct area *a)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t host = area_start(img, a) + a->blocks * img->unit;
	unsigned char *p;

	meta_wrlock(head);
	p = meta_bytes(head);
	be64_put(p + QH_REFTABLE_OFFSET, host);
	be32_put(p + QH_REFTABLE_CLUSTERS, (uint32_t)a->table);
	/* After a switch of roots that is not durable yet everything that is
	 * changed hangs below the new ones. */
	qcow2_header_dirty(img, head);
	meta_unlock(head);
	atomic_store(&q->reftable_offset, host);
	atomic_store(&q->reftable_clusters, (uint32_t)a->table);
}

static int table_switch(struct image *img, const struct area *a, uint64_t b,
			uint64_t c)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t old = reftable_slot(img, 0), len = reftable_entries(img) * 8;
	struct mpage *count, *head, *shadow;
	int ret = pin_own_count(img, b, c, &count);

	if (ret)
		return ret;
	ret = meta_get(img, img->file, 0, &head);
	if (!ret) {
		shadow = qcow2_shadow_pin(img, c);
		change_begin(img);
		put_first_count(img, count, shadow, c);
		header_switch(img, head, a);
		space_retire(img, img->file, old, len);
		change_end(img);
		meta_put(shadow);
		/* Rule 17.  Until "alloc" is free nobody gets that space. */
		meta_forget(img, img->file, old, len);
		if (q->nr_old_tables < ARRAY_SIZE(q->old_table))
			q->old_table[q->nr_old_tables++] = old;
		meta_put(head);
	}
	meta_put(count);
	return ret;
}

/* Block @b at cluster @c, which is free; the table is too small for it. */
static int table_grow(struct image *img, uint64_t b, uint64_t c)
{
	struct area a;
	int ret = area_plan(img, b + 1, &a);

	if (!ret)
		ret = area_check(img, &a);
	if (!ret)
		ret = write_empty_block(img, c * img->unit);
	if (!ret)
		ret = area_write(img, &a, b, c);
	if (!ret)
		ret = table_switch(img, &a, b, c);
	if (!ret)
		qcow2_used_to(img, area_start(img, &a) +
			      (a.blocks + a.table) * img->unit);
	return ret;
}

/*
 * QEMU's places: a block goes to the first free cluster, and if nothing counts
 * that one yet, then what does goes behind it.  Three levels at most: a
 * cluster in a gap without a block has its successor in the same gap, or is
 * the last one before the next.
 */
int qcow2_block_ensure(struct image *img, uint64_t b)
{
	uint64_t block, c, home;
	int ret = qcow2_block_find(img, b, &block);

	if (ret || block)
		return ret;
	ret = qcow2_take_cluster(img, &c);
	if (ret)
		return ret;
	home = c / qcow2_refs_per_block(qcow2_of(img));
	if (home != b)
		ret = qcow2_block_ensure(img, home);
	if (ret)
		return ret;
	return b < reftable_entries(img) ? block_link(img, b, c) :
	       table_grow(img, b, c);
}
