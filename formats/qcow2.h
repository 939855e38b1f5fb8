/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2.h - what the files of the qcow2 driver share: where the fields of the
 * format lie (qcow2.md), what an open image remembers, and the helpers that
 * read entries and reference counts.  All numbers on disk are big-endian.
 *
 *   qcow2-open.c    probe, header, header extensions, dirty marks
 *   qcow2-header.c  another header for an image in use; qcow2-resize.c size
 *   qcow2-map.c     guest offset -> extent
 *   qcow2-blocks.c  refcount table and blocks, how they grow
 *   qcow2-alloc.c   reference counts, free clusters
 *   qcow2-write.c   reserve, commit, abort; qcow2-unmap.c   unmap
 *   qcow2-entries.c L2 entries that are about to change
 *   qcow2-packed.c  where compressed streams go
 *   qcow2-data.c, -data-create.c  external data files
 *   qcow2-replay.c  images with the dirty mark
 *   qcow2-create.c  new images; qcow2-layout.c where their clusters go
 *   qcow2-snapshot.c, qcow2-bitmap.c  the tables of snapshots and bitmaps
 *   qcow2-bitmap-store.c  the bits: loading, storing, marks
 *   qcow2-shadow.c  counts as they shall be after a switch of roots
 *   qcow2-switch.c  from one set of roots to another at one instant
 *   qcow2-instant.c  create, delete, apply and rename snapshots
 *   qcow2-info.c    what info tells; qcow2-measure.c what measure does
 *   qcow2-empty.c   after a commit
 *   qcow2-amend.c, -width.c, -downgrade.c  other options
 *   qcow2-check.c, -recount.c  what check finds; qcow2-repair.c  check -r
 */
#ifndef FORMATS_QCOW2_H
#define FORMATS_QCOW2_H

#include "bitmap.h"
#include "blockcore.h"
#include "codec.h"

#define QCOW2_MAGIC 0x514649fbu

/* Header (qcow2.md 1). */
enum {
	QH_MAGIC = 0,
	QH_VERSION = 4,
	QH_BACKING_OFFSET = 8,
	QH_BACKING_SIZE = 16,
	QH_CLUSTER_BITS = 20,
	QH_SIZE = 24,
	QH_CRYPT_METHOD = 32,
	QH_L1_SIZE = 36,                /* with QH_L1_OFFSET: one write of 12 */
	QH_L1_OFFSET = 40,
	QH_REFTABLE_OFFSET = 48,        /* with ..._CLUSTERS: one write of 12 */
	QH_REFTABLE_CLUSTERS = 56,
	QH_NB_SNAPSHOTS = 60,           /* with ..._OFFSET: one write of 12 */
	QH_SNAPSHOTS_OFFSET = 64,
	QH_V2_LENGTH = 72,              /* a version 2 header ends here */
	QH_INCOMPAT = 72,
	QH_COMPAT = 80,
	QH_AUTOCLEAR = 88,
	QH_REFCOUNT_ORDER = 96,
	QH_HEADER_LENGTH = 100,
	QH_V3_MIN_LENGTH = 104,
	QH_COMPRESSION_TYPE = 104,
	QH_V3_LENGTH = 112,             /* what is written */
};

/* Feature bits (qcow2.md 2). */
#define QINCOMPAT_DIRTY         (UINT64_C(1) << 0)
#define QINCOMPAT_CORRUPT       (UINT64_C(1) << 1)
#define QINCOMPAT_DATA_FILE     (UINT64_C(1) << 2)
#define QINCOMPAT_COMPRESSION   (UINT64_C(1) << 3)
#define QINCOMPAT_EXTL2         (UINT64_C(1) << 4)
#define QINCOMPAT_KNOWN         UINT64_C(0x1f)
#define QCOMPAT_LAZY_REFCOUNTS  (UINT64_C(1) << 0)
#define QAUTOCLEAR_BITMAPS      (UINT64_C(1) << 0)
#define QAUTOCLEAR_DATA_RAW     (UINT64_C(1) << 1)
#define QAUTOCLEAR_KNOWN        UINT64_C(0x3)

/* Header extensions (qcow2.md 3): type u32, length u32, data, pad to 8. */
enum {
	QEXT_END = 0,
	QEXT_BITMAPS = 0x23852875,
	QEXT_LUKS = 0x0537be77,
	QEXT_DATA_FILE = 0x44415441,
	QEXT_FEATURES = 0x6803f857,
};
#define QEXT_BACKING_FORMAT 0xe2792acau
#define QFEATURE_ENTRY 48               /* type u8, bit u8, name[46] */
#define QFEATURE_NAMES 8                /* that we write */

/* Bitmaps extension. */
enum {
	QB_COUNT = 0,
	QB_RESERVED = 4,
	QB_DIR_SIZE = 8,
	QB_DIR_OFFSET = 16,
	QB_LENGTH = 24,
};

/* Bitmap directory entry (qcow2.md 8). */
enum {
	QBD_TABLE_OFFSET = 0,
	QBD_TABLE_SIZE = 8,
	QBD_FLAGS = 12,
	QBD_TYPE = 16,
	QBD_GRANULARITY_BITS = 17,
	QBD_NAME_SIZE = 18,
	QBD_EXTRA_SIZE = 20,
	QBD_FIXED = 24,
};

/* Snapshot table entry (qcow2.md 7). */
enum {
	QS_L1_OFFSET = 0,
	QS_L1_SIZE = 8,
	QS_ID_LEN = 12,
	QS_NAME_LEN = 14,
	QS_DATE_SEC = 16,
	QS_DATE_NSEC = 20,
	QS_VM_CLOCK_NSEC = 24,
	QS_VM_STATE_SIZE = 32,
	QS_EXTRA_SIZE = 36,
	QS_FIXED = 40,
	QS_EXTRA_VM_STATE_SIZE = 40,
	QS_EXTRA_DISK_SIZE = 48,
	QS_EXTRA_ICOUNT = 56,
};

/* L1, L2, refcount table entries (qcow2.md 4 and 6). */
#define QL1_HOST        UINT64_C(0x00fffffffffffe00)
#define QL1_RESERVED    UINT64_C(0x7f000000000001ff)
#define QL2_ZERO        UINT64_C(1)
#define QL2_HOST        UINT64_C(0x00fffffffffffe00)
#define QL2_RESERVED    UINT64_C(0x3f000000000001fe)
#define QL2_COMPRESSED  (UINT64_C(1) << 62)
#define QCOPIED         (UINT64_C(1) << 63)
#define QSUBS           32u     /* subclusters of a cluster */
#define QSUBS_DATA      UINT64_C(0x00000000ffffffff)
#define QSUBS_ZERO      UINT64_C(0xffffffff00000000)
#define QRT_HOST        UINT64_C(0xfffffffffffffe00)
#define QRT_RESERVED    UINT64_C(0x1ff)

/* Bounds of what an image may ask for (rule 14). */
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_L1_BYTES (32 * MiB)
#define QCOW2_MAX_REFTABLE_BYTES (8 * MiB)
#define QCOW2_MAX_SNAPSHOTS 65536
#define QCOW2_MAX_BITMAPS 65535
#define QCOW2_MAX_HOST (UINT64_C(1) << 56)
#define QCOW2_MAX_BACKING_NAME 1023
#define QCOW2_MAX_BACKING_FMT 15

/* A header extension as found, in the order of the file. */
struct qcow2_ext {
	uint32_t type, len;
	unsigned char *data;
};

struct qcow2 {
	/* Constant after open. */
	unsigned version;
	unsigned cluster_bits;
	unsigned refcount_order;        /* a count has 1 << order bits */
	unsigned l2_entry;              /* bytes: 8, or 16 with subclusters */
	unsigned compression;           /* 0 deflate, 1 zstd */
	uint32_t crypt_method;
	uint32_t header_length;
	uint64_t incompat, compat;
	uint64_t autoclear;             /* as found in the file */
	bool usable;                    /* map() and writing understand it */

	/* Extensions; the parsed ones are also in the list. */
	struct qcow2_ext *exts;
	size_t nr_exts;
	bool has_bitmaps;               /* the extension is there */
	uint32_t nb_bitmaps;
	uint64_t bitmaps_size, bitmaps_offset;  /* of the directory */
	uint64_t new_dir, new_dir_size; /* of one that does not count yet */
	bool has_luks;
	uint64_t luks_offset, luks_length;
	char *data_file;                /* as stored, or NULL */
	struct file *data;              /* NULL: guest data is in img->file */
	bool shrunk;                    /* became smaller since it was opened
					 * (one resize at a time) */
	bool raw;                       /* what the guest reads is, always,
					 * what @data holds */
	pthread_mutex_t header;         /* who rewrites the header; outside of
					 * all others here */
	pthread_mutex_t turn;           /* see qcow2_raw_begin() */
	_Atomic uint64_t turn_off, turn_end;

	/*
	 * Outermost first: tables, alloc, then the gate; both may be held
	 * across I/O.  "tables": who makes an L2 table.  "alloc": who looks
	 * for free clusters or changes a count, and all of qcow2-blocks.c.
	 * The engine's flush takes "alloc" (release), hence nobody who holds
	 * one of them may flush.  Reads and overwrites need neither.
	 */
	pthread_mutex_t tables;
	pthread_mutex_t alloc;
	_Atomic uint64_t file_end;      /* no cluster at or beyond it was ever
					 * in use; changes under "alloc" */
	_Atomic uint64_t reftable_offset;       /* change under "alloc" */
	_Atomic uint32_t reftable_clusters;
	/* Change under "tables" or image_freeze(): */
	_Atomic unsigned l1_seq;        /* odd: the next two are changing */
	_Atomic uint64_t l1_offset;     /* see qcow2_l1() */
	_Atomic uint32_t l1_size;       /* entries */
	_Atomic uint32_t nb_snapshots;
	_Atomic uint64_t snapshots_offset;
	_Atomic uint64_t snapshots_len; /* bytes; 0 before the first change */
	struct qcow2_shadow *shadow;    /* alloc: counts of a state to come */
	struct qcow2_hold *hold;        /* alloc: not to be handed out */
	bool head_is_root;              /* the header page's lock: it was made
					 * dirty for STAGE_ROOT */
	struct qcow2_watch *_Atomic watch;      /* who wants to know what
						 * changes in L2 tables */
	uint64_t host_limit;            /* no cluster may end beyond it */
	uint64_t free_index;            /* alloc: look for free clusters from
					 * here on */
	uint64_t packed_next;           /* alloc: where the next stream goes;
					 * 0: in a new cluster */
	uint64_t old_table[32];         /* alloc: refcount tables that are no
					 * more; more never fit below a larger
					 * one (each grows by half) */
	unsigned nr_old_tables;         /* alloc */
	uint64_t used_end;              /* alloc: how long the file has to be
					 * when it is closed */
};

/* view->root of what is not the live disk (a snapshot). */
struct qcow2_root {
	uint64_t l1_offset;
	uint32_t l1_size;               /* entries */
};

static inline struct qcow2 *qcow2_of(const struct image *img)
{
	return img->priv;
}

/* The active L1, both numbers of one moment. */
static inline struct qcow2_root qcow2_l1(struct qcow2 *q)
{
	struct qcow2_root l1;
	unsigned seq;

	do {
		seq = atomic_load(&q->l1_seq);
		l1.l1_offset = atomic_load(&q->l1_offset);
		l1.l1_size = atomic_load(&q->l1_size);
	} while (seq % 2 || seq != atomic_load(&q->l1_seq));
	return l1;
}

static inline void qcow2_l1_set(struct qcow2 *q, uint64_t host,
				uint32_t entries)
{
	atomic_fetch_add(&q->l1_seq, 1);
	atomic_store(&q->l1_offset, host);
	atomic_store(&q->l1_size, entries);
	atomic_fetch_add(&q->l1_seq, 1);
}

/* The file that guest data is in. */
static inline struct file *qcow2_data_of(const struct image *img)
{
	struct qcow2 *q = qcow2_of(img);

	return q->data ? q->data : img->file;
}

static inline bool qcow2_has_subs(const struct qcow2 *q)
{
	return q->l2_entry == 16;
}

/*
 * An L2 entry.  @subs says of each subcluster whether it is data (bits 0 to 31)
 * or zeroes (32 to 63); without subclusters all of them are what the entry is.
 */
struct qcow2_l2 {
	uint64_t e, subs;
};

/* Does it name host space?  In a data file that may begin at 0, but not of
 * zeroes. */
static inline bool qcow2_l2_has_host(const struct qcow2 *q, uint64_t e)
{
	if (e & (QL2_COMPRESSED | QL2_HOST))
		return !(e & QL2_COMPRESSED);
	return q->incompat & QINCOMPAT_DATA_FILE && e & QCOPIED &&
	       (qcow2_has_subs(q) || !(e & QL2_ZERO));
}

static inline struct qcow2_l2 qcow2_l2_at(const struct qcow2 *q,
					  const unsigned char *p)
{
	struct qcow2_l2 l2 = { .e = be64_at(p) };

	if (qcow2_has_subs(q))
		l2.subs = be64_at(p + 8);
	else if (!(l2.e & QL2_COMPRESSED))
		l2.subs = l2.e & QL2_ZERO ? QSUBS_ZERO :
			  qcow2_l2_has_host(q, l2.e) ? QSUBS_DATA : 0;
	return l2;
}

/* The data bits of the subclusters [first, end). */
static inline uint64_t qcow2_subs(uint64_t first, uint64_t end)
{
	return (UINT64_C(1) << end) - (UINT64_C(1) << first);
}

static inline void qcow2_l2_put(const struct qcow2 *q, unsigned char *p,
				struct qcow2_l2 l2)
{
	be64_put(p, l2.e);
	if (qcow2_has_subs(q))
		be64_put(p + 8, l2.subs);
}

/* Guest bytes that one L2 table maps. */
static inline uint64_t qcow2_l2_cover(const struct qcow2 *q)
{
	return (UINT64_C(1) << (2 * q->cluster_bits)) / q->l2_entry;
}

/* ---- compressed descriptors (qcow2.md 5) --------------------------------- */

static inline unsigned qcow2_packed_shift(unsigned cluster_bits)
{
	return 62 - (cluster_bits - 8);
}

static inline uint64_t qcow2_packed_host(const struct qcow2 *q, uint64_t e)
{
	return e & ((UINT64_C(1) << qcow2_packed_shift(q->cluster_bits)) - 1);
}

/* An upper bound (rule 8). */
static inline uint32_t qcow2_packed_len(const struct qcow2 *q, uint64_t e)
{
	uint64_t n = (e & ~(QCOPIED | QL2_COMPRESSED)) >>
		     qcow2_packed_shift(q->cluster_bits);

	return (uint32_t)((n + 1) * 512 - qcow2_packed_host(q, e) % 512);
}

/* ---- reference counts, 1 << order bits wide (qcow2.md 6) ----------------- */

static inline uint64_t refcount_max(unsigned order)
{
	return order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
}

/* Counts in one cluster of them. */
static inline uint64_t qcow2_refs_per_block(const struct qcow2 *q)
{
	return UINT64_C(8) << q->cluster_bits >> q->refcount_order;
}

static inline uint64_t refcount_get(const void *block, unsigned order,
				    uint64_t i)
{
	const unsigned char *p = block;
	unsigned bits = 1u << order;

	switch (order) {
	case 3:
		return p[i];
	case 4:
		return be16_at(p + 2 * i);
	case 5:
		return be32_at(p + 4 * i);
	case 6:
		return be64_at(p + 8 * i);
	default:        /* entry 0 is in the least significant bits */
		return p[i * bits / 8] >> i * bits % 8 & ((1u << bits) - 1);
	}
}

static inline void refcount_put(void *block, unsigned order, uint64_t i,
				uint64_t count)
{
	unsigned char *p = block;
	unsigned bits = 1u << order, shift = (unsigned)(i * bits % 8);
	unsigned mask;

	switch (order) {
	case 3:
		p[i] = (unsigned char)count;
		return;
	case 4:
		be16_put(p + 2 * i, (uint16_t)count);
		return;
	case 5:
		be32_put(p + 4 * i, (uint32_t)count);
		return;
	case 6:
		be64_put(p + 8 * i, count);
		return;
	default:
		mask = ((1u << bits) - 1) << shift;
		p[i * bits / 8] = (unsigned char)
			((p[i * bits / 8] & ~mask) | (unsigned)count << shift);
	}
}

/* ---- qcow2-open.c -------------------------------------------------------- */

/* The name in the image's own feature table of bit @bit of set @type (0
 * incompatible, 1 compatible, 2 autoclear); NULL: none.  At most 46 bytes,
 * not NUL-terminated: *@len. */
const char *qcow2_feature_name(const struct qcow2 *q, unsigned type,
			       unsigned bit, size_t *len);

/* Before the first change: what the header must not say any more. */
int qcow2_dirty(struct image *img);

/* ---- qcow2-header.c ------------------------------------------------------ */

struct qcow2_feature_name {
	unsigned char type, bit;
	char name[46];
};
extern const struct qcow2_feature_name qcow2_feature_names[QFEATURE_NAMES];
/* Has such an image the table of these names? */
bool qcow2_header_has_names(unsigned version, unsigned cluster_bits);
/* Of a header that is written now. */
uint32_t qcow2_header_length(const struct qcow2 *q, unsigned version);

/* What a header says beside where the tables are.  Strings are the caller's;
 * those of qcow2_header_get() the image's. */
struct qcow2_header {
	unsigned version;
	uint64_t incompat, compat, autoclear;
	const char *backing, *backing_fmt;      /* NULL: none */
	const char *data_file;                  /* NULL: none */
	uint32_t nb_bitmaps;                    /* 0: no extension */
	uint64_t bitmaps_size, bitmaps_offset;
};
void qcow2_header_get(const struct image *img, struct qcow2_header *h);
/*
 * Writes a header that says @h and keeps extensions and fields that nobody here
 * knows.  Durable on return; whenever the power fails, the header is the old or
 * the new one.  What @h points at must be durable before.  Flushes: the caller
 * holds no lock.  What the image remembers (struct qcow2) is @h then, but not
 * img->backing_name and _fmt (image_change_backing()).  -EINVAL: a name is too
 * long; -ENOSPC: they do not fit into the cluster.
 */
int qcow2_header_set(struct image *img, const struct qcow2_header *h);
int qcow2_change_backing(struct image *img, const char *name,
			 const char *format, struct err *err);
/*
 * The first page, for a field that says where a table is (L1, refcount table,
 * snapshots, size), and bytes of it, inside of the gate.  All that changes this
 * page belongs to STAGE_SPACE_ROOT: such a field is durable before entries of
 * L2 and L1 that changed with it, and what it points at must be written around
 * the cache (or flushed) before.
 */
int qcow2_header_pin(struct image *img, struct mpage **pg);
void qcow2_header_put(struct image *img, struct mpage *pg, unsigned at,
		      const void *bytes, size_t len);
/* The stage of it, for who has changed it under its lock. */
void qcow2_header_dirty(struct image *img, struct mpage *pg);

/* ---- qcow2-resize.c ------------------------------------------------------ */

int qcow2_resize_check(struct image *img, uint64_t size,
		       enum preallocation mode, struct err *err);
int qcow2_resize(struct image *img, uint64_t size, enum preallocation mode,
		 struct err *err);

/* ---- qcow2-replay.c ------------------------------------------------------ */

/* Before writing: makes the counts of an image that is marked dirty true. */
int qcow2_replay(struct image *img, struct err *err);

/* ---- qcow2-map.c --------------------------------------------------------- */

int qcow2_map(const struct view *v, uint64_t off, uint64_t len,
	      struct extent *ext);
/* The 8 bytes at @host (a multiple of 8) of a table, through the cache. */
int qcow2_entry(struct image *img, uint64_t host, uint64_t *entry);
/*
 * Rule 14, where entries are read: 0, or -EIO after image_corrupt().  A good
 * L1 entry's offset is a whole cluster inside the file, or 0; so is that of a
 * good L2 entry (of a compressed one: begins inside the file).  In a data file
 * a cluster is where the guest has it: @off, or a byte of the cluster there.
 * Reserved bits, and subclusters of what is compressed, mean nothing here, as to
 * QEMU: only check tells of them.
 */
int qcow2_l1_check(struct image *img, uint64_t index, uint64_t e);
int qcow2_l2_check(struct image *img, uint64_t table, uint64_t off,
		   struct qcow2_l2 l2);
/* Is @host, the start of a table or cluster, inside the file as it is now? */
bool qcow2_inside(struct image *img, uint64_t host);

/* ---- qcow2-blocks.c (with "alloc" held) ---------------------------------- */

/* Does [host, host + len) touch the header, the active L1, the refcount table
 * or the snapshot table?  Needs no lock. */
bool qcow2_is_meta(const struct qcow2 *q, uint64_t host, uint64_t len);
/* Counts in a page; a page never holds those of two blocks. */
uint64_t qcow2_counts_per_page(const struct image *img);
/* Pins the page that counts @cluster; NULL: there is none, all are 0. */
int qcow2_counts_get(struct image *img, uint64_t cluster, struct mpage **pg);
/* Under the page's lock. */
uint64_t qcow2_count_at(struct image *img, struct mpage *pg,
			uint64_t cluster);
void qcow2_count_set(struct image *img, struct mpage *pg, uint64_t cluster,
		     uint64_t count);
/* Sees to it that there is a block of index @b. */
int qcow2_block_ensure(struct image *img, uint64_t b);

/* ---- qcow2-alloc.c ------------------------------------------------------- */

/* Adjacent clusters. */
struct qcow2_run {
	uint64_t host, n;
	bool fresh;             /* behind the end of the file so far */
};

/* Sets up the allocator's state from the header's values. */
int qcow2_alloc_init(struct image *img, uint64_t reftable_offset,
		     uint32_t reftable_clusters);
/* What only writing needs to know; before the first change. */
int qcow2_alloc_begin(struct image *img);
/* The count of the cluster that holds @host. */
int qcow2_refcount(struct image *img, uint64_t host, uint64_t *count);
/*
 * Takes the first run of @want free clusters (fewer only if an error comes
 * across).  Their counts are 1 on return.
 */
int qcow2_alloc(struct image *img, uint64_t want, struct qcow2_run *run);
/* Adds @delta (1 or -1) to the counts of every cluster that [host, host + len)
 * touches.  -EOVERFLOW: a count would not fit; nothing was changed. */
int qcow2_refcount_add(struct image *img, uint64_t host, uint64_t len,
		       int delta);
/* Gives back clusters whose counts are 1 and that nothing ever pointed to. */
void qcow2_unalloc(struct image *img, uint64_t host, uint64_t n);
int qcow2_release_probe(struct image *img, struct file *f, uint64_t host,
			uint64_t len);
int qcow2_release(struct image *img, struct file *f, uint64_t host,
		  uint64_t len);

/* With "alloc" held: the parts that others need.  A run whose counts are still
 * 0; one cluster of that kind, for a block; counts + 1; @end is in use. */
int qcow2_take_run(struct image *img, uint64_t want, uint64_t limit,
		   struct qcow2_run *run);
int qcow2_take_cluster(struct image *img, uint64_t *cluster);
int qcow2_counts_add(struct image *img, uint64_t host, uint64_t len,
		     int delta, uint64_t *done);
void qcow2_used_to(struct image *img, uint64_t end);

/* ---- qcow2-packed.c ------------------------------------------------------ */

/* Room for @len bytes (at most a cluster) behind the last stream, or in a new
 * cluster.  Each cluster it touches has one reference more on return. */
int qcow2_packed_alloc(struct image *img, uint32_t len, uint64_t *host);
uint64_t qcow2_packed_entry(const struct qcow2 *q, uint64_t host,
			    uint32_t len);

/* ---- qcow2-write.c, qcow2-unmap.c ---------------------------------------- */

int qcow2_reserve(struct image *img, struct reserve *res);
void qcow2_commit(struct image *img, const struct reserve *res);
void qcow2_abort(struct image *img, const struct reserve *res);
int qcow2_unmap(struct image *img, uint64_t off, uint64_t len,
		enum unmap_how how, uint64_t *done);

/* Bytes of clusters of the image file that @e refers to, or nothing. */
uint64_t qcow2_entry_space(struct image *img, uint64_t e, uint64_t *len);

/* ---- qcow2-data.c -------------------------------------------------------- */

/* Opens the data file of an image that has one. */
int qcow2_data_open(struct image *img, struct err *err);
void qcow2_data_close(struct image *img);
/*
 * Of a raw data file: entries that do not yet say "data" must say so on the
 * disk before guest bytes change below them.  Between the two calls map() lets
 * nobody write to [off, off + len) in place.
 */
void qcow2_raw_begin(struct image *img, uint64_t off, uint64_t len);
void qcow2_raw_end(struct image *img);
bool qcow2_raw_turning(const struct qcow2 *q, uint64_t off, uint64_t len);
/* Zeroes there, which take no space.  Never makes the file longer. */
int qcow2_data_zero(struct image *img, uint64_t off, uint64_t len);

/* ---- qcow2-data-create.c ------------------------------------------------- */

/* Could a data file be made or used there? */
int qcow2_data_check(const char *name, struct err *err);
/* Opens and locks one for @size bytes; empties nothing.  *@created: it was not
 * there. */
int qcow2_data_target(const char *name, uint64_t size, struct file **f,
		      bool *created, struct err *err);
/* Zeroes, @size of them, in place of what it held; with nocow as @o says. */
int qcow2_data_empty(struct file *f, const char *name,
		     const struct options *o, uint64_t size,
		     enum preallocation mode, struct err *err);

/* ---- qcow2-snapshot.c ---------------------------------------------------- */

struct qcow2_snapshot {
	struct snapshot_info info;
	uint64_t l1_offset;     /* not checked */
	uint32_t l1_size;       /* entries; not checked */
	uint32_t extra_size;
	uint32_t vm_state_32;   /* as stored */
	unsigned char *extra;   /* as stored */
};

struct qcow2_snapshots {
	struct qcow2_snapshot *items;
	size_t n;
	uint64_t bytes;         /* of the table in the file */
};

/* Are number and place of the table what they may be? */
int qcow2_snapshots_placed(const struct qcow2 *q, struct err *err);
int qcow2_snapshots_read(struct image *img, struct qcow2_snapshots *list,
			 struct err *err);
/*
 * The same for check -r, which says what it leaves out and goes on: all of an
 * entry's extra data that nobody reads, snapshots that are too many.
 */
struct qcow2_mend {
	struct check_result *res;
	uint32_t over;          /* snapshots behind the last one of the list */
	uint32_t entries;       /* of the list, that are not as in the file */
};
int qcow2_snapshots_mend(struct image *img, struct qcow2_snapshots *list,
			 struct qcow2_mend *mend, struct err *err);
void qcow2_snapshots_free(struct qcow2_snapshots *list);
/* The bytes of a table of these, which the caller frees. */
int qcow2_snapshots_encode(const struct qcow2_snapshots *list,
			   unsigned char **bytes, size_t *len);
/* Is its L1 table where and as long as one can be? */
int qcow2_snapshot_check(struct image *img, const struct qcow2_snapshot *s,
			 struct err *err);

/* ---- qcow2-instant.c ----------------------------------------------------- */

int qcow2_snapshot_create(struct image *img, const char *name,
			  struct progress *p, struct err *err);
int qcow2_snapshot_remove(struct image *img, size_t index, struct progress *p,
			  struct err *err);
int qcow2_snapshot_apply(struct image *img, size_t index, struct progress *p,
			 struct err *err);
int qcow2_snapshot_rename(struct image *img, size_t index, const char *name,
			  struct err *err);

/* ---- qcow2-bitmap.c ------------------------------------------------------ */

#define QBITMAP_IN_USE  (UINT32_C(1) << 0)
#define QBITMAP_AUTO    (UINT32_C(1) << 1)
#define QBITMAP_KNOWN   UINT32_C(0x7)
#define QBITMAP_EXTRA   (UINT32_C(1) << 2)      /* no matter to writers */
#define QBITMAP_HOST    UINT64_C(0x00fffffffffffe00)
#define QBITMAP_ONES    UINT64_C(1)     /* of a table entry: all set */
#define QBITMAP_MAX_BYTES (512 * MiB)   /* of the bits of one, in clusters */
#define QBITMAP_MAX_NAME 1023u

struct qcow2_bitmap {
	char *name;
	uint64_t table_offset;
	uint32_t table_size;    /* entries */
	uint32_t flags;
	unsigned granularity_bits;
	uint64_t entry;         /* host offset of its directory entry */
};

struct qcow2_bitmaps {
	struct qcow2_bitmap *items;
	size_t n;
};

/* Checks what the directory says; empty without a valid extension. */
int qcow2_bitmaps_read(struct image *img, struct qcow2_bitmaps *list,
		       struct err *err);
void qcow2_bitmaps_free(struct qcow2_bitmaps *list);
/* Entries that the table of a bitmap of this granularity has. */
uint64_t qcow2_bitmap_entries(const struct image *img, unsigned granularity);

/* ---- qcow2-bitmap-store.c ------------------------------------------------ */

extern const struct format_bitmaps qcow2_format_bitmaps;

/* ---- qcow2-create.c, -check.c, -info.c ----------------------------------- */

extern const struct format_snapshots qcow2_snapshot_ops;
extern const struct format_admin qcow2_admin;
extern const struct format qcow2_format;
extern const struct option_spec qcow2_amend_options[];
int qcow2_amend(struct image *img, const struct options *o,
		struct progress *progress, struct err *err);
int qcow2_measure(const struct options *o, const struct measure_source *src,
		  struct measure *m, struct err *err);
int qcow2_info(struct image *img, struct image_info *info, struct err *err);
int qcow2_check(struct image *img, struct check_result *res);
int qcow2_repair(struct image *img, unsigned fix, struct check_result *res);
int qcow2_empty(struct image *img);

#endif
