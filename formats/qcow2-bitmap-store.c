/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-bitmap-store.c - the bits of persistent bitmaps (qcow2.md 8): loading
 * them, the marks that say "in use", storing them.
 *
 * A bitmap whose directory entry says "in use" is trusted by nobody: below that
 * mark, which is durable before, its clusters and its table are overwritten
 * where they are, and the mark goes when they are durable.  New clusters are
 * counted before the table points at them (STAGE_SPACE, STAGE_LINK).
 *
 * When bitmaps come or go or change their size, there is a new directory, which
 * begins to count with the header (qcow2-header.c); what only the old one knew
 * is retired then.  A crash leaks at most.
 *
 * All of it may fail for want of space and is tried again: what was allocated by
 * then is given back, or is a fresh bitmap's table that is used the next time.
 * At the last try what finds no space is stored as "all dirty", which needs none.
 *
 * A cluster that is not counted exactly once is not overwritten but replaced:
 * the image may lie.
 */
#include "qcow2.h"

#include <inttypes.h>

/* The places of struct bitmap. */
enum {
	P_TABLE = 0,            /* host offset; 0: not stored yet */
	P_ENTRIES = 1,
	P_ENTRY = 2,            /* host offset in the directory */
};

#define DIR_MAX_BYTES UINT64_C(67107840)

/* Bits that a cluster holds. */
static uint64_t cluster_bits_of(const struct image *img)
{
	return (uint64_t)img->unit * 8;
}

static uint64_t table_clusters(const struct image *img, uint64_t entries)
{
	return div_up(entries * 8, img->unit);
}

/* ---- listing and loading ------------------------------------------------- */

static int list_one(struct bitmap_set *set, struct qcow2_bitmap *from)
{
	struct bitmap *b = bitmap_found_take(set, from->name,
					     from->granularity_bits);

	from->name = NULL;
	if (!b)
		return -ENOMEM;
	b->enabled = from->flags & QBITMAP_AUTO;
	b->inconsistent = from->flags & QBITMAP_IN_USE;
	b->extra = from->flags & QBITMAP_EXTRA;
	b->place[P_TABLE] = from->table_offset;
	b->place[P_ENTRIES] = from->table_size;
	b->place[P_ENTRY] = from->entry;
	return 0;
}

static int bitmaps_list_all(struct image *img, struct bitmap_set *set,
			    struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);
	struct qcow2_bitmaps list;
	int ret = qcow2_bitmaps_read(img, &list, err);

	/* Marks will be written there. */
	if (!ret && q->has_bitmaps && img->want_write &&
	    qcow2_is_meta(q, q->bitmaps_offset, q->bitmaps_size))
		ret = err_set(err, -EINVAL, "Bitmap directory overlaps with"
			      " other metadata");
	for (size_t i = 0; i < list.n && !ret; i++)
		ret = list_one(set, &list.items[i]);
	qcow2_bitmaps_free(&list);
	return ret;
}

static int read_table(struct image *img, const struct bitmap *b,
		      unsigned char **table)
{
	uint64_t bytes = b->place[P_ENTRIES] * 8;       /* at most 8 MiB */
	unsigned char *t = malloc(bytes + 1);
	int ret = t ? meta_read(img, img->file, t, bytes, b->place[P_TABLE]) :
		      -ENOMEM;

	if (ret)
		free(t);
	else
		*table = t;
	return ret;
}

/* Rule 14.  The cluster that an entry names; 0: none. */
static int entry_host(struct image *img, uint64_t e, uint64_t *host)
{
	if (e & ~(QBITMAP_HOST | QBITMAP_ONES) ||
	    (e & QBITMAP_ONES && e != QBITMAP_ONES) ||
	    (e & QBITMAP_HOST) % img->unit ||
	    (e & QBITMAP_HOST && !qcow2_inside(img, e & QBITMAP_HOST)))
		return -EINVAL;
	*host = e & QBITMAP_HOST;
	return 0;
}

static int load_cluster(struct image *img, struct bits *bits, uint64_t i,
			uint64_t e, unsigned char *buf)
{
	uint64_t host, first = i * cluster_bits_of(img);
	int ret = entry_host(img, e, &host);

	if (ret)
		return ret;
	if (e == QBITMAP_ONES)
		bits_set(bits, first, cluster_bits_of(img));
	if (!host)
		return 0;
	ret = meta_read(img, img->file, buf, img->unit, host);
	if (!ret)
		bits_load(bits, first, buf, img->unit);
	return ret;
}

static int bitmaps_load_one(struct image *img, struct bitmap *b,
			    struct bits *bits, struct err *err)
{
	autofree unsigned char *table = NULL, *buf = malloc(img->unit);
	int ret = buf ? read_table(img, b, &table) : -ENOMEM;

	for (uint64_t i = 0; i < b->place[P_ENTRIES] && !ret; i++)
		ret = load_cluster(img, bits, i, be64_at(table + 8 * i), buf);
	return ret ? err_errno(err, ret, "Could not read bitmap '%s' from"
			       " image", b->name) : 0;
}

/* ---- may it be ----------------------------------------------------------- */

static uint64_t entry_bytes(const struct bitmap *b)
{
	return round_up(QBD_FIXED + strlen(b->name), 8);
}

static uint64_t dir_bytes(const struct bitmap_set *set)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < set->n; i++)
		bytes += entry_bytes(set->item[i]);
	return bytes;
}

static bool bitmaps_never(const struct image *img)
{
	return qcow2_of(img)->version < 3;
}

static int bitmaps_check(struct image *img, const struct bitmap_set *set,
			 const struct bitmap *b, struct err *err)
{
	if (bitmaps_never(img))
		return err_set(err, -ENOTSUP, "Cannot store dirty bitmaps in"
			       " qcow2 v2 files");
	if (qcow2_bitmap_entries(img, b->shift) * img->unit >
	    QBITMAP_MAX_BYTES)
		return err_set(err, -EINVAL, "Too much space will be occupied"
			       " by the bitmap. Use larger granularity");
	if (strlen(b->name) > QBITMAP_MAX_NAME)
		return err_set(err, -EINVAL, "Name length exceeds maximum (%u"
			       " characters)", QBITMAP_MAX_NAME);
	if (set->n >= QCOW2_MAX_BITMAPS)
		return err_set(err, -EINVAL, "Maximum number of persistent"
			       " bitmaps is already reached");
	if (dir_bytes(set) + entry_bytes(b) > DIR_MAX_BYTES)
		return err_set(err, -EINVAL, "Not enough space in the bitmap"
			       " directory");
	return 0;
}

/* ---- marks --------------------------------------------------------------- */

static uint32_t flags_of(const struct bitmap *b, bool in_use)
{
	return b->extra | (b->enabled ? QBITMAP_AUTO : 0) |
	       (in_use ? QBITMAP_IN_USE : 0);
}

/* Four bytes of one sector. */
static int write_flags(struct image *img, const struct bitmap *b, bool in_use)
{
	uint64_t at = b->place[P_ENTRY] + QBD_FLAGS;
	unsigned char bytes[4];

	be32_put(bytes, flags_of(b, in_use));
	meta_forget(img, img->file, round_down(at, img->page), img->page);
	return file_write(img->file, bytes, sizeof(bytes), at);
}

static int bitmaps_use(struct image *img, struct bitmap *b)
{
	return write_flags(img, b, true);
}

/* ---- space --------------------------------------------------------------- */

/* Is [host, + n clusters) ours alone, so that it may be overwritten? */
static bool may_overwrite(struct image *img, uint64_t host, uint64_t n)
{
	if (!host || qcow2_is_meta(qcow2_of(img), host, n * img->unit))
		return false;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t count;

		if (!qcow2_inside(img, host + i * img->unit) ||
		    qcow2_refcount(img, host + i * img->unit, &count) ||
		    count != 1)
			return false;
	}
	return true;
}

/* @n adjacent clusters. */
static int take_space(struct image *img, uint64_t n, uint64_t *host)
{
	struct qcow2_run run;
	int ret = qcow2_alloc(img, n, &run);

	if (ret)
		return ret;
	if (run.n < n) {
		qcow2_unalloc(img, run.host, run.n);
		return -ENOSPC;
	}
	*host = run.host;
	return 0;
}

/* Space that nothing has ever pointed to. */
static void drop_space(struct image *img, uint64_t host, uint64_t n)
{
	if (host)
		qcow2_unalloc(img, host, n);
}

/* Whole clusters; the rest of the last one is zeroes. */
static int write_space(struct image *img, const void *bytes, uint64_t len,
		       uint64_t host)
{
	uint64_t whole = round_up(len, img->unit);
	autofree unsigned char *buf = calloc(1, whole);

	if (!buf)
		return -ENOMEM;
	memcpy(buf, bytes, len);
	meta_forget(img, img->file, host, whole);
	return file_write(img->file, buf, whole, host);
}

/* Inside of a change.  Rule 17: its pages go first. */
static void retire(struct image *img, uint64_t host, uint64_t clusters)
{
	if (!host || !qcow2_inside(img, host))
		return;
	meta_forget(img, img->file, host, clusters * img->unit);
	space_retire(img, img->file, host, clusters * img->unit);
}

/* ---- storing the bits ---------------------------------------------------- */

/* All set, none set: that the table says.  NULL: none. */
static bool plain_cluster(const struct image *img, const struct bits *bits,
			  uint64_t i, uint64_t *e)
{
	uint64_t n, first = i * cluster_bits_of(img);
	bool set;

	if (!bits) {
		*e = 0;
		return true;
	}
	n = min_u64(cluster_bits_of(img), bits_number(bits) - first);
	if (bits_next(bits, first, n, &set) < n)
		return false;
	*e = set ? QBITMAP_ONES : 0;
	return true;
}

static int store_bits(struct image *img, const struct bits *bits, uint64_t i,
		      uint64_t old, uint64_t *e)
{
	autofree unsigned char *buf = malloc(img->unit);
	uint64_t host = old;
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	if (!may_overwrite(img, host, 1))
		ret = take_space(img, 1, &host);
	if (ret)
		return ret;
	bits_store(bits, i * cluster_bits_of(img), buf, img->unit);
	ret = write_space(img, buf, img->unit, host);
	if (!ret)
		*e = host;
	else if (host != old)
		drop_space(img, host, 1);
	return ret;
}

/* Stores cluster @i, where @old was; what the table has to say. */
static int store_cluster(struct image *img, const struct bitmap_set *set,
			 const struct bits *bits, uint64_t i, uint64_t old,
			 uint64_t *e)
{
	int ret;

	if (plain_cluster(img, bits, i, e))
		return 0;
	ret = store_bits(img, bits, i, old, e);
	if (!set->roughly || (ret != -ENOSPC && ret != -EDQUOT))
		return ret;
	/* It may say more than what was written. */
	*e = QBITMAP_ONES;
	return 0;
}

static void drop_table(struct image *img, const unsigned char *table,
		       uint64_t entries, uint64_t host)
{
	for (uint64_t i = 0; i < entries; i++)
		drop_space(img, be64_at(table + 8 * i) & QBITMAP_HOST, 1);
	drop_space(img, host, table_clusters(img, entries));
}

/* A table of its own; nothing of an old one is used. */
static int store_elsewhere(struct image *img, const struct bitmap_set *set,
			   const struct bits *bits, unsigned char *table,
			   uint64_t entries, uint64_t *host)
{
	int ret = 0;

	for (uint64_t i = 0; i < entries && !ret; i++) {
		uint64_t e = 0;

		ret = store_cluster(img, set, bits, i, 0, &e);
		be64_put(table + 8 * i, e);
	}
	if (!ret)
		ret = take_space(img, table_clusters(img, entries), host);
	if (!ret)
		ret = write_space(img, table, entries * 8, *host);
	if (ret)
		drop_table(img, table, entries, *host);
	return ret;
}

/* One entry of a table that is in the file, and what it no longer names. */
static int change_entry(struct image *img, uint64_t slot, uint64_t old,
			uint64_t e)
{
	struct mpage *pg;
	int ret;

	if (old == e)
		return 0;
	ret = meta_get(img, img->file, round_down(slot, img->page), &pg);
	if (ret)
		return ret;
	change_begin(img);
	meta_wrlock(pg);
	be64_put((unsigned char *)meta_bytes(pg) + slot % img->page, e);
	meta_dirty(pg, STAGE_LINK);
	meta_unlock(pg);
	if ((old & QBITMAP_HOST) != (e & QBITMAP_HOST))
		retire(img, old & QBITMAP_HOST, 1);
	change_end(img);
	meta_put(pg);
	return 0;
}

static int store_in_place(struct image *img, const struct bitmap_set *set,
			  const struct bitmap *b, const struct bits *bits,
			  const unsigned char *table)
{
	int ret = 0;

	for (uint64_t i = 0; i < b->place[P_ENTRIES] && !ret; i++) {
		uint64_t old = be64_at(table + 8 * i), e = 0, host;

		if (entry_host(img, old, &host))
			host = old = 0;
		ret = store_cluster(img, set, bits, i, host, &e);
		if (!ret)
			ret = change_entry(img, b->place[P_TABLE] + 8 * i,
					   old, e);
	}
	return ret;
}

/* The old table waits with those of removed bitmaps. */
static int leave_old(struct bitmap_set *set, const struct bitmap *b)
{
	struct bitmap **grown = realloc(set->gone, (set->nr_gone + 1) *
					sizeof(*grown));
	struct bitmap *old;

	if (!grown)
		return -ENOMEM;
	set->gone = grown;
	old = calloc(1, sizeof(*old));
	if (!old)
		return -ENOMEM;
	memcpy(old->place, b->place, sizeof(old->place));
	set->gone[set->nr_gone++] = old;
	return 0;
}

static int store_moved(struct image *img, struct bitmap_set *set,
		       struct bitmap *b, const struct bits *bits)
{
	uint64_t entries = qcow2_bitmap_entries(img, b->shift), host = 0;
	autofree unsigned char *table = calloc(entries + 1, 8);
	int ret = table ? 0 : -ENOMEM;

	if (!ret)
		ret = store_elsewhere(img, set, bits, table, entries, &host);
	if (ret)
		return ret;
	if (b->place[P_TABLE] && leave_old(set, b)) {
		drop_table(img, table, entries, host);
		return -ENOMEM;
	}
	b->place[P_TABLE] = host;
	b->place[P_ENTRIES] = entries;
	set->changed = true;
	return 0;
}

static int store_bitmap(struct image *img, struct bitmap_set *set,
			struct bitmap *b)
{
	const struct bits *bits = atomic_load(&b->bits);
	uint64_t entries = qcow2_bitmap_entries(img, b->shift);
	autofree unsigned char *table = NULL;
	int ret;

	if (entries != b->place[P_ENTRIES] ||
	    !may_overwrite(img, b->place[P_TABLE],
			   table_clusters(img, entries)))
		return store_moved(img, set, b, bits);
	ret = read_table(img, b, &table);
	return ret ? ret : store_in_place(img, set, b, bits, table);
}

/* ---- the directory ------------------------------------------------------- */

static void put_entry(const struct bitmap *b, bool in_use, unsigned char *p)
{
	size_t len = strlen(b->name);

	be64_put(p + QBD_TABLE_OFFSET, b->place[P_TABLE]);
	be32_put(p + QBD_TABLE_SIZE, (uint32_t)b->place[P_ENTRIES]);
	be32_put(p + QBD_FLAGS, flags_of(b, in_use));
	p[QBD_TYPE] = 1;
	p[QBD_GRANULARITY_BITS] = (unsigned char)b->shift;
	be16_put(p + QBD_NAME_SIZE, (uint16_t)len);
	memcpy(p + QBD_FIXED, b->name, len);
}

/* One that has never counted. */
static void drop_new_directory(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);

	drop_space(img, q->new_dir, div_up(q->new_dir_size, img->unit));
	q->new_dir = 0;
}

/* It says what will be true when the header points at it; @stored: all are. */
static int store_directory(struct image *img, const struct bitmap_set *set,
			   bool stored)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t bytes = dir_bytes(set), at = 0, host = 0;
	autofree unsigned char *dir = calloc(1, bytes + 1);
	int ret = dir ? 0 : -ENOMEM;

	for (size_t i = 0; i < set->n && !ret; i++) {
		const struct bitmap *b = set->item[i];

		put_entry(b, b->inconsistent || (b->in_use && !stored),
			  dir + at);
		at += entry_bytes(b);
	}
	if (!ret && set->n)
		ret = take_space(img, div_up(bytes, img->unit), &host);
	if (!ret && set->n)
		ret = write_space(img, dir, bytes, host);
	if (ret) {
		drop_space(img, host, div_up(bytes, img->unit));
		return ret;
	}
	q->new_dir = host;
	q->new_dir_size = bytes;
	return 0;
}

static int bitmaps_store_all(struct image *img, struct bitmap_set *set)
{
	int ret = 0;

	drop_new_directory(img);
	for (size_t i = 0; i < set->n && !ret; i++)
		if (set->item[i]->in_use && !set->item[i]->inconsistent)
			ret = store_bitmap(img, set, set->item[i]);
	return ret || !set->changed ? ret : store_directory(img, set, true);
}

static int bitmaps_place_all(struct image *img, struct bitmap_set *set)
{
	int ret = 0;

	drop_new_directory(img);
	for (size_t i = 0; i < set->n && !ret; i++)
		if (set->item[i]->fresh && !set->item[i]->place[P_TABLE])
			ret = store_moved(img, set, set->item[i], NULL);
	return ret ? ret : store_directory(img, set, false);
}

/* ---- making it count ----------------------------------------------------- */

static int clear_marks(struct image *img, const struct bitmap_set *set)
{
	int ret = 0;
	size_t i;

	for (i = 0; i < set->n && !ret; i++)
		if (set->item[i]->in_use && !set->item[i]->inconsistent)
			ret = write_flags(img, set->item[i], false);
	/* All or none: who goes on writing takes them for marked. */
	while (ret && i--)
		if (set->item[i]->in_use && !set->item[i]->inconsistent)
			(void)write_flags(img, set->item[i], true);
	return ret;
}

/* What a table named, and its own space. */
static void retire_table(struct image *img, const struct bitmap *b)
{
	autofree unsigned char *table = NULL;

	if (read_table(img, b, &table))
		return;         /* leaked */
	change_begin(img);
	for (uint64_t i = 0; i < b->place[P_ENTRIES]; i++) {
		uint64_t host;

		if (!entry_host(img, be64_at(table + 8 * i), &host))
			retire(img, host, 1);
	}
	retire(img, b->place[P_TABLE],
	       table_clusters(img, b->place[P_ENTRIES]));
	change_end(img);
}

static void retire_directory(struct image *img, uint64_t host, uint64_t bytes)
{
	change_begin(img);
	retire(img, host, div_up(bytes, img->unit));
	change_end(img);
}

static void retire_gone(struct image *img, const struct bitmap_set *set)
{
	for (size_t i = 0; i < set->nr_gone; i++)
		retire_table(img, set->gone[i]);
}

static void take_places(const struct qcow2 *q, struct bitmap_set *set)
{
	uint64_t at = q->new_dir;

	for (size_t i = 0; i < set->n; i++) {
		set->item[i]->place[P_ENTRY] = at;
		at += entry_bytes(set->item[i]);
	}
}

static int bitmaps_publish(struct image *img, struct bitmap_set *set)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t old = q->has_bitmaps ? q->bitmaps_offset : 0;
	uint64_t old_size = q->bitmaps_size;
	struct qcow2_header h;
	int ret;

	if (!set->changed) {
		ret = clear_marks(img, set);
		if (!ret)
			retire_gone(img, set);
		return ret;
	}
	qcow2_header_get(img, &h);
	h.nb_bitmaps = (uint32_t)set->n;
	h.bitmaps_offset = q->new_dir;
	h.bitmaps_size = q->new_dir_size;
	h.autoclear &= ~QAUTOCLEAR_BITMAPS;
	if (set->n)
		h.autoclear |= QAUTOCLEAR_BITMAPS;
	ret = qcow2_header_set(img, &h);
	if (!ret)
		take_places(q, set);
	q->new_dir = 0;         /* after a failure it may count or not: leaked */
	if (ret)
		return ret;
	if (old)
		retire_directory(img, old, old_size);
	retire_gone(img, set);
	return 0;
}

const struct format_bitmaps qcow2_format_bitmaps = {
	.never = bitmaps_never,
	.list = bitmaps_list_all,
	.load = bitmaps_load_one,
	.check = bitmaps_check,
	.use = bitmaps_use,
	.store = bitmaps_store_all,
	.place = bitmaps_place_all,
	.publish = bitmaps_publish,
	.retire = retire_gone,
};
