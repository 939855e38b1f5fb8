/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-check.c - is a qcow2 image what it says?  Counts every reference to
 * every cluster of the file, compares that with the reference counts, and looks
 * at the COPIED bits (qcow2.md 14).  Findings come in qemu-img's order and
 * words.  Here is the counting; qcow2-recount.c compares, qcow2-repair.c puts
 * right.
 *
 * Tables are read as they come, each at once; what is remembered of the image
 * are the counts alone.
 */
#include "qcow2-check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define L1_PIECE 65536u         /* bytes of an L1 read at once */

int check_cancelled(const struct check *c)
{
	return c->res->cancel && atomic_load(c->res->cancel) ? -EINTR : 0;
}

void corrupt(struct check *c, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	check_say(c->res, "%s", line);
	c->res->corruptions++;
}

static int count_others(struct check *c);

/* ---- counting ------------------------------------------------------------ */

static int count_cluster(struct check *c, uint64_t cluster)
{
	int ret = counts_add(&c->counts, cluster);

	if (ret == -EFBIG)
		return ret;
	c->nr_clusters = max_u64(c->nr_clusters, cluster + 1);
	if (ret == -EOVERFLOW) {
		c->overflown = true;
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

/* Whoever allocates there would give to a wrong reference what it refers to. */
bool is_wild(const struct check *c, uint64_t cluster)
{
	return cluster >= c->wild_from &&
	       (cluster - c->wild_from >= c->nr_wild ||
		c->wild[cluster - c->wild_from]);
}

static void wild_add(struct check *c, uint64_t off, uint64_t size)
{
	uint64_t first = max_u64(off / c->unit, c->wild_from);
	uint64_t end = c->wild_from + c->nr_wild;

	for (uint64_t i = first; i < end && (i - first) * c->unit < size; i++)
		c->wild[i - c->wild_from] = true;
}

/* They may end less than a cluster behind the end of the file, which may be
 * short of one. */
bool region_counts(const struct check *c, uint64_t off, uint64_t size)
{
	uint64_t end;

	return !add_overflows(off, size, &end) &&
	       (end <= c->file_size || end - c->file_size < c->unit);
}

/* A reference to every cluster that holds some of these bytes. */
int count_region(struct check *c, uint64_t off, uint64_t size)
{
	int ret = 0;

	if (!size)
		return 0;
	if (!region_counts(c, off, size)) {
		wild_add(c, off, size);
		corrupt(c, "ERROR: counting reference for region exceeding the"
			" end of the file by one cluster or more: offset 0x%"
			PRIx64 " size 0x%" PRIx64, off, size);
		return 0;
	}
	for (uint64_t i = off / c->unit; i * c->unit < off + size && !ret; i++)
		ret = count_cluster(c, i);
	return ret;
}

/* ---- L2 ------------------------------------------------------------------ */

int l2_load(struct check *c, uint64_t at)
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

bool only_l2(struct check *c, uint64_t cluster)
{
	if (!c->others_counted)
		c->others_known = !count_others(c);
	c->others_counted = true;
	return c->others_known && !counts_get(&c->others, cluster);
}

/* A preallocated cluster is never read: zeroes without it are as good.  What
 * was found wrong with the entry is gone with it. */
static int drop_prealloc(struct check *c, uint64_t at, struct qcow2_l2 l2)
{
	int ret = table_put(c, c->l2_at + at, c->l2 + at,
			    qcow2_has_subs(c->q) ? 0 : QL2_ZERO);

	if (ret)
		return ret;
	check_say(c->res, "Repairing offset=%" PRIx64 ": Preallocated cluster"
		  " is not properly aligned; L2 entry corrupted.",
		  l2.e & QL2_HOST);
	if (l2.e & QL2_RESERVED)
		c->gone++;
	c->res->corruptions_fixed++;
	return 0;
}

static int check_stored(struct check *c, struct qcow2_l2 l2, uint64_t i,
			struct tally *t)
{
	uint64_t host = l2.e & QL2_HOST;

	if (l2.subs & l2.subs >> QSUBS & QSUBS_DATA)
		corrupt(c, "ERROR offset=%" PRIx64 ": Allocated cluster has"
			" corrupted subcluster allocation bitmap", host);
	if (host % c->unit && !(l2.subs & QSUBS_DATA) &&
	    c->fix & CHECK_FIX_ERRORS && may_change(c, c->l2_at) &&
	    only_l2(c, c->l2_at / c->unit))
		return drop_prealloc(c, i * c->q->l2_entry, l2);
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
		return check_stored(c, l2, i, t);
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
	int ret = 0;

	if (e & QL1_RESERVED)
		corrupt(c, "ERROR found L1 entry with reserved bits set: %"
			PRIx64, e);
	if (!c->skip_l2)
		ret = count_region(c, at, c->unit);
	if (live && at + c->unit > c->q->l1_offset &&
	    at < c->q->l1_offset + 8ul * c->q->l1_size)
		c->l1_shared = true;
	if (at % c->unit)
		corrupt(c, "ERROR l2_offset=%" PRIx64 ": Table is not cluster"
			" aligned; L1 entry corrupted", at);
	if (!ret)
		ret = check_cancelled(c);
	return ret ? ret : check_l2(c, at, live);
}

static int l1_load(struct check *c, void *buf, uint64_t at, uint64_t bytes)
{
	int ret = -EIO;

	if (at <= INT64_MAX - bytes)
		ret = meta_read(c->img, c->img->file, buf, bytes, at);
	if (ret)
		check_say(c->res, "ERROR: I/O error in check_refcounts_l1");
	return ret ? ret : check_cancelled(c);
}

/* Calls @fn for every entry that is not 0. */
int l1_walk(struct check *c, uint64_t at, uint32_t n, bool live,
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

	/* They cannot keep what the data file held. */
	if (c->q->data && list->n)
		corrupt(c, "ERROR %zu snapshots in image with data file",
			list->n);
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

static void say_placed(struct check *c, int ret, struct err *err)
{
	if (ret == -EFBIG)
		err_hint(err, "You can force-remove all %" PRIu32 " overhanging"
			 " snapshots with qemu-img check -r all\n",
			 c->q->nb_snapshots - QCOW2_MAX_SNAPSHOTS);
	*err->text = 's';       /* QEMU's words begin small here */
	say_table(c, "", err);
}

/* Version 3 has the disk's size in it. */
static void entry_incomplete(struct check *c, size_t i)
{
	if (!(c->fix & CHECK_FIX_ERRORS)) {
		corrupt(c, "ERROR snapshot table entry %zu is incomplete", i);
		return;
	}
	check_say(c->res, "Repairing snapshot table entry %zu is incomplete",
		  i);
	c->mend.entries++;
}

/* The table must be readable before anything is counted. */
static int snapshots_load(struct check *c, struct qcow2_snapshots *list)
{
	autoerr err = ERR_INIT;
	bool mend = c->fix & CHECK_FIX_ERRORS;
	int ret = qcow2_snapshots_placed(c->q, &err);

	/* Those that are too many can be cut off. */
	if (ret && !(mend && ret == -EFBIG)) {
		say_placed(c, ret, &err);
		return ret;
	}
	err_clear(&err);
	ret = mend ? qcow2_snapshots_mend(c->img, list, &c->mend, &err) :
	      qcow2_snapshots_read(c->img, list, &err);
	if (ret)
		say_table(c, "failed to read the snapshot table: ", &err);
	for (size_t i = 0; i < list->n && !ret; i++)
		if (c->q->version >= 3 && list->items[i].extra_size < 16)
			entry_incomplete(c, i);
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
			ret = check_cancelled(c);
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

/* ---- all of it ----------------------------------------------------------- */

int check_reload(struct check *c, uint64_t more)
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
	c->overflown = false;
	c->gone = 0;
	free(c->wild);
	c->wild_from = c->nr_clusters;
	c->nr_wild = more;
	c->wild = calloc(more, sizeof(*c->wild));
	free(c->reftable);
	c->reftable = malloc(bytes);
	if (!c->reftable || !c->wild)
		return -ENOMEM;
	counts_free(&c->counts);
	ret = counts_init(&c->counts, c->nr_clusters + more,
			  refcount_max(c->q->refcount_order));
	return ret ? ret : meta_read(c->img, c->img->file, c->reftable, bytes,
				     c->q->reftable_offset);
}

int check_count(struct check *c)
{
	struct qcow2 *q = c->q;
	int ret = count_region(c, 0, c->unit);

	if (!ret)
		ret = check_l1(c, q->l1_offset, q->l1_size, true);
	if (!ret)
		ret = check_snapshots(c, &c->snaps);
	if (!ret)
		ret = check_bitmaps(c);
	return ret;
}

/* All references but those to L2 tables, in silence. */
static int count_others(struct check *c)
{
	struct check_result silent = { .cancel = c->res->cancel };
	struct check o = *c;
	int ret = counts_init(&o.counts, c->counts.nr, c->counts.max);

	o.res = &silent;
	o.fix = 0;
	o.skip_l2 = true;
	o.l2_at = UINT64_MAX;
	o.l2 = malloc(c->unit);
	if (!ret)
		ret = o.l2 ? check_count(&o) : -ENOMEM;
	free(o.l2);
	c->others = o.counts;
	return ret;
}

static int check_all(struct check *c)
{
	int ret = check_count(c);

	pause_point("check:counted");
	if (!ret)
		ret = check_reftable(c);
	if (!ret)
		ret = compare_all(c);
	return ret ? ret : check_copied(c);
}

int check_begin(struct check *c, struct image *img, unsigned fix,
		struct check_result *res)
{
	int ret;

	*c = (struct check) {
		.img = img,
		.q = qcow2_of(img),
		.res = res,
		.unit = img->unit,
		.fix = fix,
		.mend.res = res,
	};
	res->total_clusters = div_up(image_size(img), c->unit);
	ret = snapshots_load(c, &c->snaps);
	if (ret)
		return ret;
	c->l2 = malloc(c->unit);
	c->block = malloc(c->unit);
	/* A region may reach into two clusters behind the end. */
	return c->l2 && c->block ? check_reload(c, 2) : -ENOMEM;
}

void check_end(struct check *c)
{
	counts_free(&c->counts);
	counts_free(&c->others);
	free(c->l2);
	free(c->block);
	free(c->reftable);
	free(c->wild);
	free(c->meta.range);
	qcow2_snapshots_free(&c->snaps);
}

int qcow2_check(struct image *img, struct check_result *res)
{
	struct check c;
	int ret = check_begin(&c, img, 0, res);

	if (!ret)
		ret = check_all(&c);
	check_end(&c);
	return ret;
}
