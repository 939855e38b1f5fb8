/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-write.c - changing where guest clusters live: reserve, commit, abort,
 * unmap (qcow2.md 4).
 *
 * An L2 table that is missing, or that a snapshot uses as well, is made or
 * copied when something below it is reserved, and hung into the L1 at once:
 * that changes nothing for the guest.  What remains for commit() are entries
 * of one page of one L2 table, which nobody else can change under the claim.
 *
 * Refuses to know how free clusters are found.
 */
#include "qcow2.h"
#include "qcow2-shadow.h"

#include <inttypes.h>

#define PAGE_ENTRIES (4096 / 8)

/* Entries of one page of an L2 table. */
struct entries {
	uint64_t table;         /* host offset of the L2 table */
	uint64_t index;         /* of the first one in the table */
	uint64_t n;
	struct mpage *pg;
	uint64_t off;           /* guest offset of the first one's cluster */
	struct qcow2_l2 old[PAGE_ENTRIES];      /* as they were when looked
						 * at */
};

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

static unsigned char *entry_at(struct image *img, const struct entries *en,
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

/*
 * Pins the page with the entry of @off, of a table that may be changed, and
 * looks at what it holds for up to @len bytes.  The claim keeps that as it is.
 */
static int entries_get(struct image *img, uint64_t off, uint64_t len,
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
static void entry_retire(struct image *img, uint64_t e)
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
static void entries_retire(struct image *img, const struct qcow2_l2 *old,
			   uint64_t n)
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

/* ---- reserve ------------------------------------------------------------- */

/*
 * Host space of its own that data goes to: there is none there now or, with
 * subclusters, not everywhere.  What is stored again then is what was there.
 */
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

/* What the subclusters of a cluster that was reserved are then. */
static uint64_t subs_of(const struct reserve *res)
{
	return res->intent == STORE_DATA ? QSUBS_DATA :
	       res->intent == STORE_PREALLOC ? QSUBS_ZERO : 0;
}

void qcow2_commit(struct image *img, const struct reserve *res)
{
	const struct qcow2 *q = qcow2_of(img);
	struct qcow2_l2 old[PAGE_ENTRIES];
	struct qcow2_l2 l2 = { res->cookie[COOKIE_ENTRY], subs_of(res) };
	struct mpage *pg = res->pins[0];
	uint64_t n = res->cookie[COOKIE_N];
	unsigned char *p;

	meta_wrlock(pg);
	p = (unsigned char *)meta_bytes(pg) +
	    res->cookie[COOKIE_SLOT] % img->page;
	for (uint64_t i = 0; i < n; i++, l2.e += img->unit, p += q->l2_entry) {
		old[i] = qcow2_l2_at(q, p);
		qcow2_l2_put(q, p, l2);
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

/* ---- unmap --------------------------------------------------------------- */

static bool has_backing(const struct image *img)
{
	return img->backing || img->backing_name || img->keep_zeroes;
}

/* What becomes of an entry, as QEMU leaves it (qcow2.md 4 and 12). */
static struct qcow2_l2 unmapped(struct image *img, struct qcow2_l2 l2,
				enum unmap_how how)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t zero = qcow2_has_subs(q) ? 0 : QL2_ZERO;

	if (how == UNMAP_HOLE || q->version < 3)
		return (struct qcow2_l2) { 0, 0 };
	if (how == UNMAP_ZERO_KEEP && q->data && !(l2.e & QL2_HOST))
		return (struct qcow2_l2) { zero, QSUBS_ZERO };
	if (how == UNMAP_ZERO_KEEP)
		return (struct qcow2_l2) {
			l2.e & QL2_COMPRESSED ? zero : l2.e | zero, QSUBS_ZERO,
		};
	if (l2.e || l2.subs || has_backing(img))
		return (struct qcow2_l2) { zero, QSUBS_ZERO };
	return (struct qcow2_l2) { 0, 0 };
}

/* Is all of @ext as it would be afterwards? */
static bool unmap_is_noop(struct image *img, const struct extent *ext,
			  enum unmap_how how)
{
	if (ext->flags & EXT_PREALLOC && how != UNMAP_ZERO_KEEP)
		return false;
	if (ext->kind == EXT_HOLE)
		return !unmapped(img, (struct qcow2_l2) { 0, 0 }, how).subs;
	return ext->kind == EXT_ZERO && how != UNMAP_HOLE;
}

static void entries_unmap(struct image *img, struct entries *en,
			  enum unmap_how how)
{
	const struct qcow2 *q = qcow2_of(img);

	change_begin(img);
	meta_wrlock(en->pg);
	for (uint64_t i = 0; i < en->n; i++) {
		struct qcow2_l2 l2 = unmapped(img, en->old[i], how);

		qcow2_l2_put(q, entry_at(img, en, i), l2);
		if (l2.e & QL2_HOST || q->data) /* keeps its space */
			en->old[i].e = 0;
	}
	meta_dirty(en->pg, STAGE_LINK);
	meta_unlock(en->pg);
	qcow2_watch_touch(img, en->off);
	entries_retire(img, en->old, en->n);
	change_end(img);
}

/* How many bytes at @off need no change; whole clusters, as far as the disk
 * has them. */
static int unmap_nothing(struct image *img, uint64_t off, uint64_t len,
			 enum unmap_how how, uint64_t *n)
{
	uint64_t left = image_size(img) - off;
	struct extent ext;
	int ret = qcow2_map(&img->live, off, min_u64(len, left), &ext);

	*n = 0;
	if (!ret && unmap_is_noop(img, &ext, how))
		*n = ext.len == left ? left : round_down(ext.len, img->unit);
	return ret;
}

/* A raw data file has its zeroes as bytes, and nothing is below it. */
static int unmap_raw(struct image *img, uint64_t off, uint64_t len,
		     enum unmap_how how, uint64_t *done)
{
	if (how == UNMAP_ZERO || how == UNMAP_ZERO_KEEP || has_backing(img))
		return -ENOTSUP;        /* the engine clears them */
	*done = len;
	return qcow2_data_zero(img, off, len);
}

int qcow2_unmap(struct image *img, uint64_t off, uint64_t len,
		enum unmap_how how, uint64_t *done)
{
	const struct qcow2 *q = qcow2_of(img);
	struct entries en;
	uint64_t n;
	int ret;

	if (q->raw)
		return unmap_raw(img, off, len, how, done);
	/* Without a zero flag only holes read as zeroes, if nothing is below:
	 * QEMU then frees what it was told to keep as well. */
	if (qcow2_of(img)->version < 3 && how != UNMAP_HOLE &&
	    has_backing(img))
		return -ENOTSUP;
	ret = unmap_nothing(img, off, len, how, &n);
	if (!ret && n) {
		*done = n;
		return 0;
	}
	if (!ret)
		ret = entries_get(img, off, len, &en);
	if (ret)
		return ret;
	/* Under the claim: afterwards the same place may be used again. */
	if (q->data && img->flags & IMAGE_DISCARD &&
	    (how == UNMAP_ZERO || how == UNMAP_FREE))
		(void)file_discard(q->data, off, en.n * img->unit);
	entries_unmap(img, &en, how);
	meta_put(en.pg);
	*done = en.n * img->unit;
	return 0;
}
