/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tables.c - two levels of tables; see tables.h.
 *
 * Space is taken from the end of the file and the file is longer than all that
 * is in use, because data is written before an entry leads there: a later user
 * finds the end again.  What an overwritten entry loses stays lost; clusters that
 * are discarded keep their place and become holes of the file.  Space for a write
 * that failed goes to the next one (spare.h).
 */
#include "tables.h"

#include <inttypes.h>

enum {
	LOOK = 64,              /* entries that are read at once */
	COOKIE_SLOT = 0,        /* host offset of the first entry */
	COOKIE_N,               /* how many */
};

/* ---- entries ------------------------------------------------------------- */

static uint64_t get(const struct tables *t, const void *p)
{
	return t->kind->little_endian ? le64_at(p) : be64_at(p);
}

static void put(const struct tables *t, void *p, uint64_t e)
{
	if (t->kind->little_endian)
		le64_put(p, e);
	else
		be64_put(p, e);
}

static uint64_t l2_bytes(const struct tables *t)
{
	return 8 * t->l2_entries;
}

/* Guest bytes that one L2 table maps. */
static uint64_t l2_cover(const struct image *img)
{
	return tables_of(img)->l2_entries * img->unit;
}

/* Does [host, host + len) lie where tables and data may? */
static bool may_lie(const struct tables *t, uint64_t host, uint64_t len)
{
	uint64_t end = atomic_load_explicit(&t->next, memory_order_acquire);

	return host >= t->start && range_within(host, len, end);
}

/* Rule 14. */
static int table_good(struct image *img, uint64_t index, uint64_t table)
{
	const struct tables *t = tables_of(img);

	if (!(table % t->kind->table_align) && may_lie(t, table, l2_bytes(t)))
		return 0;
	image_corrupt(img, "L2 table offset %#" PRIx64 " is invalid (L1 index:"
		      " %#" PRIx64 ")", table, index);
	return -EIO;
}

static bool entry_good(const struct image *img, const struct entry *e)
{
	const struct tables *t = tables_of(img);

	switch (e->kind) {
	case EXT_DATA:
		/* A cluster at the end of the file may be cut off. */
		return !(e->host % SECTOR_SIZE) && may_lie(t, e->host, 1);
	case EXT_PACKED:
		return e->packed && may_lie(t, e->host, 1);
	default:
		return true;
	}
}

/* ---- opening ------------------------------------------------------------- */

int tables_open(struct image *img)
{
	struct tables *t = tables_of(img);
	uint64_t size;
	int ret = file_size(img->file, &size);

	if (ret)
		return ret;
	pthread_mutex_init(&t->lock, NULL);
	pthread_mutex_init(&t->space, NULL);
	t->grows = img->file->traits.grows;
	t->limit = t->grows ? t->kind->max_host :
			      min_u64(size, t->kind->max_host);
	atomic_store(&t->next, round_up(size, img->unit));
	return 0;
}

void tables_close(struct image *img)
{
	pthread_mutex_destroy(&tables_of(img)->space);
	pthread_mutex_destroy(&tables_of(img)->lock);
}

int tables_cut(struct image *img, uint64_t end)
{
	struct tables *t = tables_of(img);
	int ret = file_truncate(img->file, end);

	if (ret)
		return ret;
	t->cut = round_up(end, img->unit);
	atomic_store(&t->next, t->cut);
	return 0;
}

int tables_clean(struct image *img)
{
	struct tables *t = tables_of(img);
	uint64_t size, end = round_up(atomic_load(&t->next), img->unit);
	int ret = file_size(img->file, &size);

	if (ret || !t->grows || end == t->cut)
		return ret;
	/* Longer: behind the end are bytes of a write that failed. */
	return size < end || (size > end && spare_used(&t->spare, end)) ?
	       file_truncate(img->file, end) : 0;
}

/* ---- mapping ------------------------------------------------------------- */

/* The L1 entry of index @i.  0: none, and *@run entries from there on are. */
static int l1_look(struct image *img, uint64_t i, uint64_t *table,
		   uint64_t *run)
{
	const struct tables *t = tables_of(img);
	unsigned char buf[8 * LOOK];
	uint64_t n = min_u64(LOOK, t->l1_entries - i);
	int ret = meta_peek(img, img->file, buf, 8 * n, t->l1_offset + 8 * i);

	if (ret)
		return ret;
	*table = get(t, buf);
	*run = 0;
	while (*run < n && !get(t, buf + 8 * *run))
		++*run;
	return *table ? table_good(img, i, *table) : 0;
}

static int entry_bad(struct image *img, uint64_t e, uint64_t off)
{
	image_corrupt(img, "Cluster entry %#" PRIx64 " is invalid (guest"
		      " offset: %#" PRIx64 ")", e, off);
	return -EIO;
}

/* Is @e, @n clusters behind the first one, more of the same? */
static bool continues(const struct image *img, const struct entry *first,
		      uint64_t e, uint64_t n)
{
	struct entry more;

	if (first->kind == EXT_PACKED)
		return false;
	tables_of(img)->kind->decode(img, e, &more);
	return more.kind == first->kind && entry_good(img, &more) &&
	       (more.kind != EXT_DATA ||
		more.host == first->host + n * img->unit);
}

static void fill(const struct image *img, const struct entry *e, uint64_t in,
		 struct extent *ext)
{
	ext->kind = e->kind;
	if (e->kind == EXT_DATA)
		ext->host = e->host + in;
	if (e->kind != EXT_PACKED)
		return;
	ext->host = e->host;
	ext->flags = EXT_SHARED;
	ext->unit.codec = img->codec;
	ext->unit.packed = e->packed;
	ext->unit.len = img->unit;
	ext->unit.skip = (uint32_t)in;
}

static int map_l2(struct image *img, uint64_t table, uint64_t off,
		  uint64_t len, struct extent *ext)
{
	const struct tables *t = tables_of(img);
	unsigned char buf[8 * LOOK];
	uint64_t in = off % img->unit, i = off / img->unit % t->l2_entries;
	uint64_t n = min_u64(div_up(in + len, img->unit),
			     min_u64(LOOK, t->l2_entries - i));
	uint64_t run = 1;
	struct entry first;
	int ret = meta_peek(img, img->file, buf, 8 * n, table + 8 * i);

	if (ret)
		return ret;
	t->kind->decode(img, get(t, buf), &first);
	if (!entry_good(img, &first))
		return entry_bad(img, get(t, buf), off);
	while (run < n && continues(img, &first, get(t, buf + 8 * run), run))
		run++;
	fill(img, &first, in, ext);
	ext->len = min_u64(len, run * img->unit - in);
	return 0;
}

int tables_map(const struct view *v, uint64_t off, uint64_t len,
	       struct extent *ext)
{
	struct image *img = v->img;
	uint64_t cover = l2_cover(img), table, run;
	struct extent found = {
		.kind = EXT_HOLE, .off = off, .file = img->file,
	};
	int ret = l1_look(img, off / cover, &table, &run);

	if (!ret && table)
		ret = map_l2(img, table, off, len, &found);
	else
		found.len = min_u64(len, run * cover - off % cover);
	if (!ret)
		*ext = found;
	return ret;
}

/* ---- space --------------------------------------------------------------- */

/* Under "space", hence never shorter than what was given out.  It is durable
 * as the data is: before an entry leads there. */
static int grow_file(struct image *img, uint64_t end)
{
	const struct tables *t = tables_of(img);

	return t->grows && t->kind->whole_clusters ?
	       file_truncate(img->file, end) : 0;
}

static int take(struct image *img, uint64_t len, uint64_t align,
		uint64_t *host)
{
	struct tables *t = tables_of(img);
	uint64_t at;
	int ret;
	with_lock(&t->space);

	at = round_up(atomic_load(&t->next), align);
	if (spare_take(&t->spare, len, align, host))
		return 0;
	if (!range_within(at, len, t->limit))
		return t->grows ? -EFBIG : -ENOSPC;
	ret = grow_file(img, at + len);
	if (ret)
		return ret;
	atomic_store_explicit(&t->next, at + len, memory_order_release);
	*host = at;
	return 0;
}

/* Nothing leads there. */
static void give(struct tables *t, uint64_t host, uint64_t len)
{
	with_lock(&t->space);

	atomic_store_explicit(&t->next, spare_give(&t->spare, host, len,
						   atomic_load(&t->next)),
			      memory_order_release);
}

/* Space for a table, empty: written at once, hence durable before L1 leads
 * there. */
static int take_table(struct image *img, uint64_t *table)
{
	struct tables *t = tables_of(img);
	uint64_t len = round_up(l2_bytes(t), img->unit);
	int ret = take(img, len, img->unit, table);

	if (ret)
		return ret;
	ret = file_zero(img->file, *table, len, ZERO_ALLOCATE);
	if (ret)
		give(t, *table, len);
	return ret;
}

static int table_make(struct image *img, uint64_t index, uint64_t *table)
{
	struct tables *t = tables_of(img);
	uint64_t slot = t->l1_offset + 8 * index;
	struct mpage *pg;
	int ret = meta_get(img, img->file, round_down(slot, img->page), &pg);

	if (ret)
		return ret;
	ret = take_table(img, table);
	if (!ret) {
		meta_forget(img, img->file, *table, l2_bytes(t));
		change_begin(img);
		meta_wrlock(pg);
		put(t, (unsigned char *)meta_bytes(pg) + slot % img->page,
		    *table);
		meta_dirty(pg, STAGE_ROOT);
		meta_unlock(pg);
		change_end(img);
	}
	meta_put(pg);
	return ret;
}

static int table_own(struct image *img, uint64_t index, uint64_t *table)
{
	struct tables *t = tables_of(img);
	uint64_t run;
	int ret = l1_look(img, index, table, &run);

	if (ret || *table)
		return ret;
	with_lock(&t->lock);
	/* Somebody may have made it while we waited. */
	ret = l1_look(img, index, table, &run);
	return ret || *table ? ret : table_make(img, index, table);
}

static int space_for(struct image *img, const struct reserve *res, uint64_t n,
		     uint64_t *host)
{
	return res->intent == STORE_PACKED ?
	       take(img, res->packed, 1, host) :
	       take(img, n * img->unit, img->unit, host);
}

/* ---- reserve, commit, abort ---------------------------------------------- */

static void promise(struct image *img, struct reserve *res, uint64_t n,
		    uint64_t host)
{
	res->dst = (struct extent) {
		.kind = EXT_DATA,
		.off = res->off,
		.len = n * img->unit,
		.file = img->file,
		.host = host,
	};
	/* A device is full of whatever was there before. */
	res->fresh = tables_of(img)->grows &&
		     !spare_used(&tables_of(img)->spare, host);
	res->cookie[COOKIE_N] = n;
}

int tables_reserve(struct image *img, struct reserve *res)
{
	const struct tables *t = tables_of(img);
	uint64_t cluster = res->off / img->unit, i, n, slot, table, host;
	int ret;

	if (res->intent == STORE_PREALLOC)
		return -ENOTSUP;        /* what has a place has bytes */
	ret = table_own(img, cluster / t->l2_entries, &table);
	if (ret)
		return ret;
	i = cluster % t->l2_entries;
	slot = table + 8 * i;
	n = min_u64(div_up(res->len, img->unit),
		    min_u64(t->l2_entries - i,
			    (img->page - slot % img->page) / 8));
	ret = meta_get(img, img->file, round_down(slot, img->page),
		       &res->pins[0]);
	if (ret)
		return ret;
	ret = space_for(img, res, n, &host);
	if (ret) {
		meta_put(res->pins[0]);
		return ret;
	}
	res->cookie[COOKIE_SLOT] = slot;
	promise(img, res, n, host);
	return 0;
}

void tables_commit(struct image *img, const struct reserve *res)
{
	const struct tables *t = tables_of(img);
	struct mpage *pg = res->pins[0];
	uint64_t slot = res->cookie[COOKIE_SLOT];

	meta_wrlock(pg);
	for (uint64_t i = 0; i < res->cookie[COOKIE_N]; i++)
		put(t, (unsigned char *)meta_bytes(pg) + slot % img->page +
		    8 * i,
		    t->kind->encode(img, res->dst.host + i * img->unit,
				    res->intent == STORE_PACKED ? res->packed :
								  0));
	meta_dirty(pg, STAGE_LINK);
	meta_unlock(pg);
	meta_put(pg);
}

void tables_abort(struct image *img, const struct reserve *res)
{
	give(tables_of(img), res->dst.host, res->intent == STORE_PACKED ?
	     res->packed : res->cookie[COOKIE_N] * img->unit);
	meta_put(res->pins[0]);
}

/* ---- unmap --------------------------------------------------------------- */

/* All of the same extent: @n entries become @e. */
static int set_entries(struct image *img, uint64_t off, uint64_t len,
		       uint64_t e, uint64_t *done)
{
	const struct tables *t = tables_of(img);
	uint64_t cluster = off / img->unit, i = cluster % t->l2_entries;
	uint64_t table, slot, n;
	struct mpage *pg;
	int ret = table_own(img, cluster / t->l2_entries, &table);

	if (ret)
		return ret;
	slot = table + 8 * i;
	n = min_u64(div_up(len, img->unit),
		    min_u64(t->l2_entries - i,
			    (img->page - slot % img->page) / 8));
	ret = meta_get(img, img->file, round_down(slot, img->page), &pg);
	if (ret)
		return ret;
	change_begin(img);
	meta_wrlock(pg);
	for (i = 0; i < n; i++)
		put(t, (unsigned char *)meta_bytes(pg) + slot % img->page +
		    8 * i, e);
	meta_dirty(pg, STAGE_LINK);
	meta_unlock(pg);
	change_end(img);
	meta_put(pg);
	*done = n * img->unit;
	return 0;
}

/*
 * What has a place keeps it: the engine makes zeroes there, which are a hole of
 * the file.  What has none gets the zero cluster's entry, or, with nothing
 * below it, none.
 */
int tables_unmap(struct image *img, uint64_t off, uint64_t len,
		 enum unmap_how how, uint64_t *done)
{
	const struct tables *t = tables_of(img);
	bool backed = img->backing || img->backing_name || img->keep_zeroes;
	struct extent ext;
	int ret = tables_map(&img->live, off,
			     min_u64(len, image_size(img) - off), &ext);

	if (ret)
		return ret;
	if (ext.kind == EXT_DATA)
		return -ENOTSUP;
	if (how == UNMAP_HOLE ? ext.kind == EXT_HOLE :
	    ext.kind == EXT_ZERO || (ext.kind == EXT_HOLE && !backed)) {
		*done = ext.len;
		return 0;
	}
	if (how == UNMAP_HOLE || !backed)
		return set_entries(img, off, ext.len, 0, done);
	return t->kind->zero ? set_entries(img, off, ext.len, t->kind->zero,
					   done) : -ENOTSUP;
}
