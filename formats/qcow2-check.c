/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-check.c - is a qcow2 image what it says?  Counts every reference to
 * every cluster of the file, compares that with the reference counts, and looks
 * at the COPIED bits (qcow2.md 14).  Findings come in qemu-img's order and
 * words.  Repairs nothing.
 *
 * Tables are read as they come, each at once; what is remembered of the image
 * are the counts alone.
 */
#include "qcow2.h"
#include "qcow2-counts.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define L1_PIECE 65536u         /* bytes of an L1 read at once */

struct check {
	struct image *img;
	struct qcow2 *q;
	struct check_result *res;
	uint64_t unit;
	uint64_t file_size;
	uint64_t nr_clusters;   /* of the file, the last one may be short, and
				 * of what is counted behind it */
	struct counts counts;   /* two more: see count_region() */
	unsigned char *l2;      /* one table ... */
	uint64_t l2_at;         /* ... and where it is; UINT64_MAX: none */
	unsigned char *block;   /* one refcount block */
	uint64_t block_at;      /* likewise */
	unsigned char *reftable;
	uint64_t nr_blocks;     /* entries of @reftable */
	bool unaligned_said;
};

static int cancelled(const struct check *c)
{
	return c->res->cancel && atomic_load(c->res->cancel) ? -EINTR : 0;
}

static void corrupt(struct check *c, const char *fmt, ...) printf_like(2, 3);
static void corrupt(struct check *c, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	check_say(c->res, "%s", line);
	c->res->corruptions++;
}

/* ---- counting ------------------------------------------------------------ */

static int count_cluster(struct check *c, uint64_t cluster)
{
	int ret = counts_add(&c->counts, cluster);

	c->nr_clusters = max_u64(c->nr_clusters, cluster + 1);
	if (ret == -EOVERFLOW) {
		corrupt(c, "ERROR: overflow cluster offset=0x%" PRIx64,
			cluster * c->unit);
		check_say(c->res, "Use qemu-img amend to increase the refcount"
			  " entry width or qemu-img convert to create a clean"
			  " copy if the image cannot be opened for writing");
		return 0;
	}
	if (ret == -ENOMEM)
		check_say(c->res, "ERROR: the references of this image need"
			  " more than %u MiB of memory to be counted",
			  (unsigned)(COUNTS_LIMIT / MiB));
	return ret;
}

/* A reference to every cluster that holds some of these bytes.  They may end
 * less than a cluster behind the end of the file, which may be short of one. */
static int count_region(struct check *c, uint64_t off, uint64_t size)
{
	uint64_t end;
	int ret = 0;

	if (!size)
		return 0;
	if (add_overflows(off, size, &end) ||
	    (end > c->file_size && end - c->file_size >= c->unit)) {
		corrupt(c, "ERROR: counting reference for region exceeding the"
			" end of the file by one cluster or more: offset 0x%"
			PRIx64 " size 0x%" PRIx64, off, size);
		return 0;
	}
	for (uint64_t i = off / c->unit; i * c->unit < end && !ret; i++)
		ret = count_cluster(c, i);
	return ret;
}

/* ---- L2 ------------------------------------------------------------------ */

static int l2_load(struct check *c, uint64_t at)
{
	int ret;

	if (c->l2_at == at)
		return 0;
	c->l2_at = UINT64_MAX;
	ret = meta_read(c->img, c->img->file, c->l2, c->unit, at);
	if (!ret)
		c->l2_at = at;
	return ret;
}

/* What is counted for the report, in the live disk only. */
struct tally {
	bool live;
	uint64_t next;          /* where the last cluster of this table ends;
				 * 0: there was none */
};

static int check_packed(struct check *c, struct qcow2_l2 l2, uint64_t i,
			struct tally *t)
{
	uint64_t e = l2.e, host = qcow2_packed_host(c->q, e);

	if (e & QCOPIED)
		corrupt(c, "ERROR: coffset=0x%" PRIx64 ": copied flag must"
			" never be set for compressed clusters", host);
	if (c->q->data) {
		corrupt(c, "ERROR compressed cluster %" PRIu64 " with data"
			" file, entry=0x%" PRIx64, i, e & ~QCOPIED);
		return 0;
	}
	if (l2.subs) {
		corrupt(c, "ERROR compressed cluster %" PRIu64 " with"
			" non-zero subcluster allocation bitmap, entry=0x%"
			PRIx64, i, e & ~QCOPIED);
		return 0;
	}
	if (t->live) {
		c->res->allocated_clusters++;
		c->res->compressed_clusters++;
		/* In the middle of others it is read by itself. */
		c->res->fragmented_clusters++;
	}
	return count_region(c, host, qcow2_packed_len(c->q, e));
}

static int check_stored(struct check *c, struct qcow2_l2 l2, struct tally *t)
{
	uint64_t host = l2.e & QL2_HOST;

	if (l2.subs & l2.subs >> QSUBS & QSUBS_DATA)
		corrupt(c, "ERROR offset=%" PRIx64 ": Allocated cluster has"
			" corrupted subcluster allocation bitmap", host);
	if (t->live) {
		c->res->allocated_clusters++;
		if (t->next && host != t->next)
			c->res->fragmented_clusters++;
		t->next = host + c->unit;
	}
	if (host % c->unit)
		corrupt(c, "ERROR offset=%" PRIx64 ": %s cluster is not"
			" properly aligned; L2 entry corrupted.", host,
			l2.subs & QSUBS_DATA ? "Data" : "Preallocated");
	return c->q->data ? 0 : count_region(c, host, c->unit);
}

static int check_l2_entry(struct check *c, struct qcow2_l2 l2, uint64_t i,
			  struct tally *t)
{
	if (l2.e & QL2_COMPRESSED)
		return check_packed(c, l2, i, t);
	if (l2.e & QL2_RESERVED)
		corrupt(c, "ERROR found l2 entry with reserved bits set: %"
			PRIx64, l2.e);
	if (qcow2_l2_has_host(c->q, l2.e))
		return check_stored(c, l2, t);
	if (l2.subs & QSUBS_DATA)
		corrupt(c, "ERROR: Unallocated cluster has non-zero"
			" subcluster allocation map");
	return 0;
}

static int check_l2(struct check *c, uint64_t at, bool live)
{
	struct tally t = { .live = live };
	int ret = l2_load(c, at);

	for (uint64_t i = 0; i < c->unit && !ret; i += c->q->l2_entry) {
		struct qcow2_l2 l2 = qcow2_l2_at(c->q, c->l2 + i);

		if (l2.e || l2.subs)
			ret = check_l2_entry(c, l2, i / c->q->l2_entry, &t);
	}
	return ret;
}

/* ---- L1 ------------------------------------------------------------------ */

static int check_l1_entry(struct check *c, uint64_t e, bool live)
{
	uint64_t at = e & QL1_HOST;
	int ret;

	if (e & QL1_RESERVED)
		corrupt(c, "ERROR found L1 entry with reserved bits set: %"
			PRIx64, e);
	ret = count_region(c, at, c->unit);
	if (at % c->unit)
		corrupt(c, "ERROR l2_offset=%" PRIx64 ": Table is not cluster"
			" aligned; L1 entry corrupted", at);
	if (!ret)
		ret = cancelled(c);
	return ret ? ret : check_l2(c, at, live);
}

static int l1_load(struct check *c, void *buf, uint64_t at, uint64_t bytes)
{
	int ret = -EIO;

	if (at <= INT64_MAX - bytes)
		ret = meta_read(c->img, c->img->file, buf, bytes, at);
	if (ret)
		check_say(c->res, "ERROR: I/O error in check_refcounts_l1");
	return ret ? ret : cancelled(c);
}

/* Calls @fn for every entry that is not 0. */
static int l1_walk(struct check *c, uint64_t at, uint32_t n, bool live,
		   int (*fn)(struct check *c, uint32_t i, uint64_t e,
			     bool live))
{
	autofree unsigned char *buf = malloc(L1_PIECE);
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < n && !ret; i++) {
		uint64_t in = i * 8 % L1_PIECE, e;

		if (!in)
			ret = l1_load(c, buf, at + i * 8,
				      min_u64(L1_PIECE, (n - i) * 8));
		e = ret ? 0 : be64_at(buf + in);
		if (e)
			ret = fn(c, (uint32_t)i, e, live);
	}
	return ret;
}

static int count_l1_entry(struct check *c, uint32_t i, uint64_t e, bool live)
{
	(void)i;
	return check_l1_entry(c, e, live);
}

static int check_l1(struct check *c, uint64_t at, uint32_t n, bool live)
{
	int ret = count_region(c, at, (uint64_t)n * 8);

	return ret ? ret : l1_walk(c, at, n, live, count_l1_entry);
}

/* ---- snapshots and bitmaps ----------------------------------------------- */

static int check_snapshot(struct check *c, const struct qcow2_snapshot *s)
{
	if (s->l1_offset % c->unit)
		corrupt(c, "ERROR snapshot %s (%s) l1_offset=%#" PRIx64 ": L1"
			" table is not cluster aligned; snapshot table entry"
			" corrupted", s->info.id, s->info.name, s->l1_offset);
	else if (s->l1_size > QCOW2_MAX_L1_BYTES / 8)
		corrupt(c, "ERROR snapshot %s (%s) l1_size=%#" PRIx32 ": L1"
			" table is too large; snapshot table entry corrupted",
			s->info.id, s->info.name, s->l1_size);
	else
		return check_l1(c, s->l1_offset, s->l1_size, false);
	return 0;
}

static int check_snapshots(struct check *c,
			   const struct qcow2_snapshots *list)
{
	int ret = 0;

	for (size_t i = 0; i < list->n && !ret; i++)
		ret = check_snapshot(c, &list->items[i]);
	return ret ? ret : count_region(c, c->q->snapshots_offset,
					list->bytes);
}

/* "Snapshot table too large" and its hint, as a finding. */
static void say_table(struct check *c, const char *what, struct err *err)
{
	const char *hint = err->hint ? err->hint : "";

	check_say(c->res, "ERROR %s%s%s%.*s", what, err_text(err),
		  *hint ? "\n" : "", (int)strcspn(hint, "\n"), hint);
}

/* The table must be readable before anything is counted. */
static int snapshots_load(struct check *c, struct qcow2_snapshots *list)
{
	autoerr err = ERR_INIT;
	int ret = qcow2_snapshots_placed(c->q, &err);

	if (ret) {
		if (ret == -EFBIG)
			err_hint(&err, "You can force-remove all %" PRIu32
				 " overhanging snapshots with qemu-img check"
				 " -r all\n",
				 c->q->nb_snapshots - QCOW2_MAX_SNAPSHOTS);
		*err.text = 's';        /* QEMU's words begin small here */
		say_table(c, "", &err);
		return ret;
	}
	ret = qcow2_snapshots_read(c->img, list, &err);
	if (ret)
		say_table(c, "failed to read the snapshot table: ", &err);
	for (size_t i = 0; i < list->n && !ret; i++)
		if (c->q->version >= 3 && list->items[i].extra_size < 16)
			corrupt(c, "ERROR snapshot table entry %zu is"
				" incomplete", i);
	return ret;
}

static int bad_bitmap(struct check *c, const struct qcow2_bitmap *b)
{
	check_say(c->res, "Could not read bitmap_table table from image for"
		  " bitmap '%s': Invalid argument", b->name);
	return -EINVAL;
}

static int check_bitmap(struct check *c, const struct qcow2_bitmap *b)
{
	uint64_t bytes = (uint64_t)b->table_size * 8;
	autofree unsigned char *buf = malloc(L1_PIECE);
	int ret = buf ? count_region(c, b->table_offset, bytes) : -ENOMEM;

	for (uint64_t at = 0; at < bytes && !ret; at += 8) {
		uint64_t e;

		if (!(at % L1_PIECE))
			ret = meta_read(c->img, c->img->file, buf,
					min_u64(L1_PIECE, bytes - at),
					b->table_offset + at);
		e = ret ? 0 : be64_at(buf + at % L1_PIECE);
		if (e & ~(QBITMAP_HOST | 1) || (e & 1 && e != 1) ||
		    (e & QBITMAP_HOST) % c->unit)
			return bad_bitmap(c, b);
		if (!ret && e & QBITMAP_HOST)
			ret = count_region(c, e & QBITMAP_HOST, c->unit);
		if (!ret && !(at % L1_PIECE))
			ret = cancelled(c);
	}
	return ret;
}

static int check_bitmaps(struct check *c)
{
	struct qcow2_bitmaps list;
	autoerr err = ERR_INIT;
	int ret;

	if (!c->q->has_bitmaps)
		return 0;
	ret = count_region(c, c->q->bitmaps_offset, c->q->bitmaps_size);
	if (!ret)
		ret = qcow2_bitmaps_read(c->img, &list, &err);
	if (ret) {
		check_say(c->res, "%s", err_text(&err));
		return ret;
	}
	for (size_t i = 0; i < list.n && !ret; i++)
		ret = check_bitmap(c, &list.items[i]);
	qcow2_bitmaps_free(&list);
	return ret;
}

/* ---- reference counts ---------------------------------------------------- */

static int check_block(struct check *c, uint64_t i)
{
	uint64_t e = be64_at(c->reftable + 8 * i), at = e & QRT_HOST, n;
	int ret;

	if (e & QRT_RESERVED) {
		corrupt(c, "ERROR refcount table entry %" PRIu64 " has"
			" reserved bits set", i);
		return 0;
	}
	if (at % c->unit) {
		corrupt(c, "ERROR refcount block %" PRIu64 " is not cluster"
			" aligned; refcount table entry corrupted", i);
		return 0;
	}
	if (at / c->unit >= c->nr_clusters) {
		corrupt(c, "ERROR refcount block %" PRIu64 " is outside image",
			i);
		return 0;
	}
	if (!at)
		return 0;
	ret = count_region(c, at, c->unit);
	n = counts_get(&c->counts, at / c->unit);
	if (!ret && n != 1)
		corrupt(c, "ERROR refcount block %" PRIu64 " refcount=%"
			PRIu64, i, n);
	return ret;
}

static int check_reftable(struct check *c)
{
	uint64_t bytes = c->nr_blocks * 8;
	int ret = count_region(c, c->q->reftable_offset, bytes);

	for (uint64_t i = 0; i < c->nr_blocks && !ret; i++)
		ret = check_block(c, i);
	return ret;
}

/* -EIO: the block is nowhere. */
static int block_load(struct check *c, uint64_t i)
{
	uint64_t at = be64_at(c->reftable + 8 * i) & QRT_HOST;
	int ret;

	if (at % c->unit) {
		if (!c->unaligned_said)
			check_say(c->res, "qcow2: Image is corrupt: Refblock"
				  " offset %#" PRIx64 " unaligned (reftable"
				  " index: %#" PRIx64 "); further non-fatal"
				  " corruption events will be suppressed", at,
				  i);
		c->unaligned_said = true;
		return -EIO;
	}
	if (at > INT64_MAX - c->unit)
		return -EIO;
	if (c->block_at == at)
		return 0;
	c->block_at = UINT64_MAX;
	ret = meta_read(c->img, c->img->file, c->block, c->unit, at);
	if (!ret)
		c->block_at = at;
	return ret;
}

/* What the image says about a cluster. */
static int stored_count(struct check *c, uint64_t cluster, uint64_t *count)
{
	uint64_t per = qcow2_refs_per_block(c->q), i = cluster / per;
	int ret;

	*count = 0;
	if (i >= c->nr_blocks || !(be64_at(c->reftable + 8 * i) & QRT_HOST))
		return 0;
	ret = block_load(c, i);
	if (!ret)
		*count = refcount_get(c->block, c->q->refcount_order,
				      cluster % per);
	return ret;
}

static void compare(struct check *c, uint64_t i, uint64_t *end)
{
	uint64_t stored, found = counts_get(&c->counts, i);
	int ret = stored_count(c, i, &stored);

	if (ret) {
		check_say(c->res, "Can't get refcount for cluster %" PRIu64
			  ": %s", i, strerror(-ret));
		c->res->check_errors++;
		return;
	}
	if (stored || found)
		*end = i + 1;
	if (stored == found)
		return;
	check_say(c->res, "%s cluster %" PRIu64 " refcount=%" PRIu64
		  " reference=%" PRIu64, stored > found ? "Leaked" : "ERROR",
		  i, stored, found);
	if (stored > found)
		c->res->leaks++;
	else
		c->res->corruptions++;
}

/* Nobody says or has anything about [first, first + n), which one block
 * counts? */
static bool nothing_there(struct check *c, uint64_t first, uint64_t n)
{
	uint64_t i = first / qcow2_refs_per_block(c->q);

	return counts_none(&c->counts, first, n) &&
	       (i >= c->nr_blocks || !be64_at(c->reftable + 8 * i));
}

static int compare_all(struct check *c)
{
	uint64_t per = qcow2_refs_per_block(c->q), end = 1;
	int ret = 0;

	for (uint64_t at = 0; at < c->nr_clusters && !ret; at += per) {
		uint64_t n = min_u64(per, c->nr_clusters - at);

		if (!nothing_there(c, at, n))
			for (uint64_t i = 0; i < n; i++)
				compare(c, at + i, &end);
		ret = cancelled(c);
	}
	c->res->image_end_offset = end * c->unit;
	return ret;
}

/* ---- COPIED -------------------------------------------------------------- */

static void check_copied_entry(struct check *c, uint64_t e)
{
	uint64_t host = e & QL2_HOST, count = 1;

	if (!qcow2_l2_has_host(c->q, e) ||
	    (!c->q->data && stored_count(c, host / c->unit, &count)))
		return;
	if ((count == 1) != !!(e & QCOPIED))
		corrupt(c, "ERROR OFLAG_COPIED data cluster: l2_entry=%" PRIx64
			" refcount=%" PRIu64, e, count);
}

static int check_copied(struct check *c, uint32_t i, uint64_t e, bool live)
{
	uint64_t at = e & QL1_HOST, count;
	int ret = at ? cancelled(c) : 0;

	(void)live;
	/* Without a count there is nothing to compare the bits with. */
	if (!at || ret || stored_count(c, at / c->unit, &count))
		return ret;
	if ((count == 1) != !!(e & QCOPIED))
		corrupt(c, "ERROR OFLAG_COPIED L2 cluster: l1_index=%" PRIu32
			" l1_entry=%" PRIx64 " refcount=%" PRIu64, i, e,
			count);
	ret = l2_load(c, at);
	for (uint64_t j = 0; j < c->unit && !ret; j += c->q->l2_entry)
		if (be64_at(c->l2 + j))
			check_copied_entry(c, be64_at(c->l2 + j));
	return ret;
}

/* ---- all of it ----------------------------------------------------------- */

static int check_init(struct check *c)
{
	uint64_t bytes = (uint64_t)c->q->reftable_clusters * c->unit;
	int ret = file_size(c->img->file, &c->file_size);

	if (ret)
		return ret;
	/* QEMU sees whole sectors. */
	c->file_size = round_up(c->file_size, SECTOR_SIZE);
	c->nr_clusters = div_up(c->file_size, c->unit);
	c->nr_blocks = bytes / 8;
	c->l2_at = c->block_at = UINT64_MAX;
	c->l2 = malloc(c->unit);
	c->block = malloc(c->unit);
	c->reftable = malloc(bytes);
	if (!c->l2 || !c->block || !c->reftable)
		return -ENOMEM;
	ret = counts_init(&c->counts, c->nr_clusters + 2,
			  refcount_max(c->q->refcount_order));
	return ret ? ret : meta_read(c->img, c->img->file, c->reftable, bytes,
				     c->q->reftable_offset);
}

static int check_run(struct check *c, const struct qcow2_snapshots *snaps)
{
	struct qcow2 *q = c->q;
	int ret = count_region(c, 0, c->unit);

	if (!ret)
		ret = check_l1(c, q->l1_offset, q->l1_size, true);
	if (!ret)
		ret = check_snapshots(c, snaps);
	if (!ret)
		ret = check_bitmaps(c);
	if (!ret)
		ret = check_reftable(c);
	if (!ret)
		ret = compare_all(c);
	return ret ? ret : l1_walk(c, q->l1_offset, q->l1_size, true,
				   check_copied);
}

int qcow2_check(struct image *img, struct check_result *res)
{
	struct check c = {
		.img = img,
		.q = qcow2_of(img),
		.res = res,
		.unit = img->unit,
	};
	struct qcow2_snapshots snaps = { NULL, 0, 0 };
	int ret;

	res->total_clusters = div_up(image_size(img), c.unit);
	ret = snapshots_load(&c, &snaps);
	if (!ret)
		ret = check_init(&c);
	if (!ret)
		ret = check_run(&c, &snaps);
	counts_free(&c.counts);
	free(c.l2);
	free(c.block);
	free(c.reftable);
	qcow2_snapshots_free(&snaps);
	return ret;
}
