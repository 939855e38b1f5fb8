/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-write.c - changing where guest clusters live: reserve, commit, abort
 * (qcow2.md 4).  Entries and their tables are qcow2-entries.c's.
 *
 * With subclusters a cluster that has its place stays there, and only what is
 * stored becomes data.  One that moves takes its data along: what is stored
 * then reaches from the first of it to the last.
 *
 * Refuses to know how free clusters are found.
 */
#include "qcow2-entries.h"
#include "qcow2-shadow.h"

/* ---- reserve ------------------------------------------------------------- */

/* Host space of its own that data goes to: there is none there now or, with
 * subclusters, not everywhere. */
static bool has_room(struct image *img, const struct reserve *res,
		     struct qcow2_l2 l2)
{
	return res->intent == STORE_DATA &&
	       qcow2_l2_has_host(qcow2_of(img), l2.e) && l2.e & QCOPIED &&
	       l2.subs != QSUBS_DATA;
}

/* How many entries, from the first one on, have room side by side, or have
 * none. */
static uint64_t alike(struct image *img, const struct reserve *res,
		      const struct entries *en)
{
	bool room = has_room(img, res, en->old[0]);
	uint64_t host = en->old[0].e & QL2_HOST, n = 1;

	while (n < en->n && has_room(img, res, en->old[n]) == room &&
	       (!room ||
		(en->old[n].e & QL2_HOST) == host + n * img->unit))
		n++;
	return n;
}

/* The first subcluster of a cluster that moves whose data goes along, and the
 * one behind the last: QSUBS and 0 if there is none.  Compressed data is as
 * good as its whole cluster. */
static unsigned taken_from(struct qcow2_l2 l2)
{
	uint32_t data = (uint32_t)l2.subs;

	if (l2.e & QL2_COMPRESSED)
		return 0;
	return data ? (unsigned)__builtin_ctz(data) : QSUBS;
}

static unsigned taken_to(struct qcow2_l2 l2)
{
	uint32_t data = (uint32_t)l2.subs;

	if (l2.e & QL2_COMPRESSED)
		return QSUBS;
	return data ? QSUBS - (unsigned)__builtin_clz(data) : 0;
}

/* @n clusters move: what is stored is what they take along, too.  All between
 * the first and the last of them are new as a whole. */
static void take_along(struct image *img, struct reserve *res,
		       const struct entries *en, uint64_t n)
{
	uint64_t size = img->unit / QSUBS, last = res->off + (n - 1) * img->unit;

	res->fill = min_u64(res->fill,
			    res->off + taken_from(en->old[0]) * size);
	res->fill_end = max_u64(min_u64(res->fill_end, last + img->unit),
				last + taken_to(en->old[n - 1]) * size);
}

/* What commit() needs, in res->cookie. */
enum {
	COOKIE_SLOT,            /* host offset of the first entry */
	COOKIE_N,               /* how many */
	COOKIE_ENTRY,           /* the first one's new value */
	COOKIE_KEEPS,           /* the old entries' space is used again */
};

#define KEEPS_AND_TURNS 2       /* see qcow2_raw_begin() */

static void promise(struct image *img, struct reserve *res,
		    const struct entries *en, uint64_t n, uint64_t e)
{
	uint64_t host, len;

	host = qcow2_entry_space(img, e, &len);
	res->dst = (struct extent) {
		.kind = EXT_DATA,
		.off = res->off,
		.len = n * img->unit,
		.file = qcow2_data_of(img),
		.host = host,
	};
	res->pins[0] = en->pg;
	res->cookie[COOKIE_SLOT] = en->table +
				   qcow2_of(img)->l2_entry * en->index;
	res->cookie[COOKIE_N] = n;
	res->cookie[COOKIE_ENTRY] = e;
}

static int reserve_packed(struct image *img, struct reserve *res,
			  const struct entries *en)
{
	uint64_t host;
	int ret;

	if (qcow2_of(img)->data)
		return -ENOTSUP;
	if (en->old[0].subs & QSUBS_DATA)       /* some of it is stored */
		return -EIO;
	ret = qcow2_packed_alloc(img, res->packed, &host);
	if (!ret)
		promise(img, res, en, 1,
			qcow2_packed_entry(qcow2_of(img), host, res->packed));
	return ret;
}

static int reserve_clusters(struct image *img, struct reserve *res,
			    const struct entries *en)
{
	struct qcow2_run run = { .n = alike(img, res, en) };
	bool zero = res->intent == STORE_PREALLOC;
	int ret;

	if (has_room(img, res, en->old[0])) {
		res->cookie[COOKIE_KEEPS] = true;
		promise(img, res, en, run.n,
			(en->old[0].e & QL2_HOST) | QCOPIED);
		return 0;
	}
	ret = qcow2_alloc(img, run.n, &run);
	if (ret)
		return ret;
	res->fresh = run.fresh;
	take_along(img, res, en, run.n);
	promise(img, res, en, run.n, run.host | QCOPIED |
		(zero && !qcow2_has_subs(qcow2_of(img)) ? QL2_ZERO : 0));
	return 0;
}

/* In a data file there is one place for a cluster. */
static int reserve_data_file(struct image *img, struct reserve *res,
			     const struct entries *en)
{
	bool zero = res->intent == STORE_PREALLOC;
	uint64_t size;

	/* An entry cannot say that of the first cluster. */
	if (zero && !en->off)
		return -ENOTSUP;
	res->cookie[COOKIE_KEEPS] = true;
	promise(img, res, en, en->n, en->off | QCOPIED |
		(zero && !qcow2_has_subs(qcow2_of(img)) ? QL2_ZERO : 0));
	res->fresh = !zero && !file_size(res->dst.file, &size) &&
		     en->off >= size;
	return 0;
}

static bool all_data(const struct entries *en)
{
	uint64_t i = 0;

	while (i < en->n && en->old[i].subs == QSUBS_DATA)
		i++;
	return i == en->n;
}

/* What the guest reads as zeroes in one cluster, zeroed where it will be. */
static int clear_rest(struct image *img, uint64_t off, uint64_t data)
{
	uint64_t size = img->unit / QSUBS;
	int ret = 0;

	if (!data)
		return qcow2_data_zero(img, off, img->unit);
	for (unsigned i = 0; i < QSUBS && !ret; i++)
		if (!(data >> i & 1))
			ret = qcow2_data_zero(img, off + i * size, size);
	return ret;
}

/* What the entries of @en say: @l2[i], or data where the guest has it. */
static void say(struct image *img, const struct entries *en,
		const struct qcow2_l2 *l2)
{
	uint64_t host = en->off;

	change_begin(img);
	meta_wrlock(en->pg);
	for (uint64_t i = 0; i < en->n; i++, host += img->unit)
		qcow2_l2_put(qcow2_of(img), entry_at(img, en, i), l2 ? l2[i] :
			     (struct qcow2_l2) { host | QCOPIED, QSUBS_DATA });
	meta_dirty(en->pg, STAGE_LINK);
	meta_unlock(en->pg);
	change_end(img);
}

/*
 * The entries of a raw data file become data on the disk before the guest's
 * bytes reach the file: what others read from L2 and from the file never
 * differs.  What they said before, zeroes or nothing, is made true first.
 *
 * Where that cannot be made durable they say again what they did: else the next
 * writer would find data there, and write to the file below entries that on the
 * disk are zeroes.  (The zeroes in the file are true of both.)
 */
static int turn_raw(struct image *img, struct entries *en)
{
	uint64_t off = en->off;
	int ret = 0;

	for (uint64_t i = 0; i < en->n && !ret; i++)
		ret = clear_rest(img, off + i * img->unit,
				 en->old[i].subs & QSUBS_DATA);
	if (ret)
		return ret;
	qcow2_raw_begin(img, off, en->n * img->unit);
	say(img, en, NULL);
	pause_point("raw:turned");
	ret = image_flush(img);
	if (ret) {
		say(img, en, en->old);
		qcow2_raw_end(img);
	}
	return ret;
}

/* Until commit() or abort() nobody writes there in place. */
static int reserve_raw(struct image *img, struct reserve *res,
		       struct entries *en)
{
	bool turn = !all_data(en);
	int ret;

	if (res->intent != STORE_DATA)
		return -ENOTSUP;
	ret = turn ? turn_raw(img, en) : 0;
	if (!ret)
		ret = reserve_data_file(img, res, en);
	if (!ret && turn)
		res->cookie[COOKIE_KEEPS] = KEEPS_AND_TURNS;
	return ret;
}

static int reserve_any(struct image *img, struct reserve *res,
		       struct entries *en)
{
	const struct qcow2 *q = qcow2_of(img);

	if (res->intent == STORE_PACKED)
		return reserve_packed(img, res, en);
	if (!q->data)
		return reserve_clusters(img, res, en);
	return q->raw ? reserve_raw(img, res, en) :
			reserve_data_file(img, res, en);
}

int qcow2_reserve(struct image *img, struct reserve *res)
{
	struct entries en;
	int ret;

	if (res->intent == STORE_PREALLOC && qcow2_of(img)->version < 3)
		return -ENOTSUP;        /* it has no zero flag */
	ret = entries_get(img, res->off, res->len, &en);
	if (ret)
		return ret;
	res->cookie[COOKIE_KEEPS] = false;
	res->fresh = false;
	ret = reserve_any(img, res, &en);
	if (ret)
		meta_put(en.pg);
	return ret;
}

/* ---- commit, abort ------------------------------------------------------- */

/* The subclusters of the cluster at @off that were filled. */
static uint64_t filled(struct image *img, const struct reserve *res,
		       uint64_t off)
{
	uint64_t size = img->unit / QSUBS;
	uint64_t from = max_u64(res->fill, off) - off;
	uint64_t to = min_u64(res->fill_end, off + img->unit) - off;

	return qcow2_subs(from / size, to / size);
}

/* What the subclusters of the cluster at @off that was reserved are then. */
static uint64_t subs_of(struct image *img, const struct reserve *res,
			uint64_t off, struct qcow2_l2 old)
{
	uint64_t data;

	if (res->intent != STORE_DATA)
		return res->intent == STORE_PREALLOC ? QSUBS_ZERO : 0;
	data = filled(img, res, off);
	return (old.subs & ~(data << QSUBS)) | data;
}

void qcow2_commit(struct image *img, const struct reserve *res)
{
	const struct qcow2 *q = qcow2_of(img);
	struct qcow2_l2 old[PAGE_ENTRIES];
	uint64_t e = res->cookie[COOKIE_ENTRY], off = res->off;
	struct mpage *pg = res->pins[0];
	uint64_t n = res->cookie[COOKIE_N];
	unsigned char *p;

	meta_wrlock(pg);
	p = (unsigned char *)meta_bytes(pg) +
	    res->cookie[COOKIE_SLOT] % img->page;
	for (uint64_t i = 0; i < n; i++, p += q->l2_entry) {
		old[i] = qcow2_l2_at(q, p);
		qcow2_l2_put(q, p, (struct qcow2_l2) {
			e, subs_of(img, res, off, old[i]),
		});
		e += img->unit;
		off += img->unit;
	}
	meta_dirty(pg, STAGE_LINK);
	meta_unlock(pg);
	qcow2_watch_touch(img, res->off);
	if (!res->cookie[COOKIE_KEEPS])
		entries_retire(img, old, n);
	if (res->cookie[COOKIE_KEEPS] == KEEPS_AND_TURNS)
		qcow2_raw_end(img);
	meta_put(pg);
}

/* Its counts cannot be lowered here: as if it had been used and dropped. */
void qcow2_abort(struct image *img, const struct reserve *res)
{
	uint64_t e = res->cookie[COOKIE_ENTRY];

	if (e & QL2_COMPRESSED)
		entry_retire(img, e);
	else if (!res->cookie[COOKIE_KEEPS])
		space_retire(img, img->file, e & QL2_HOST,
			     res->cookie[COOKIE_N] * img->unit);
	if (res->cookie[COOKIE_KEEPS] == KEEPS_AND_TURNS)
		qcow2_raw_end(img);
	meta_put(res->pins[0]);
}
