/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blockcore.h - the contract between image formats and the engine, and what
 * both give to fs/ and tools/.
 *
 * A format answers one question, "where do these bytes live?" (map), and
 * records the answer when it changes (reserve, commit, abort, unmap).  It never
 * moves guest data, never walks a backing chain, never compresses, encrypts or
 * syncs: the engine does, once, for every format.
 *
 * Terms
 *   guest offset (off)  byte of the virtual disk
 *   host offset (host)  byte of a struct file
 *   unit                what the format allocates at once (cluster, grain,
 *                       block); any number of bytes (rule 10)
 *   piece               what of a unit may be stored by itself (subcluster)
 *   page                what metadata is cached, dirtied and written in
 *
 * Return values: 0 or a count on success, a negative errno on failure.  Output
 * parameters are untouched on failure.
 *
 * Locks, outermost first: claim -> flush -> gate -> page -> space (a format's
 * allocator lock).  Rules are those of imgfs-internals(7).
 */
#ifndef BLOCKCORE_H
#define BLOCKCORE_H

#include "file.h"
#include "options.h"

struct codec;           /* deflate, zstd: codec.h */
struct cipher;          /* keys and IV rule of one encrypted payload */
struct engine;
struct format_bitmaps;  /* bitmap.h */
struct image;
struct image_info;
struct check_result;
struct json;
struct measure;         /* measure.h */
struct measure_source;
struct mpage;
struct policy;
struct progress;         /* job.h */
struct snapshot_info;
struct snapshot_key;

/* ---- views ---------------------------------------------------------------
 * What map() is asked about: the live disk (root == NULL), or another root of
 * the same image (a snapshot's L1).  All views of an image share one engine:
 * one cache, one set of epochs, one allocator.
 */
struct view {
	struct image *img;
	void *root;             /* the format's; NULL is the live disk */
	uint64_t size;          /* guest bytes; of the live disk: see
				 * image_size() */
};

/* ---- extents: the one currency between formats and engine --------------- */

enum extent_kind {
	EXT_HOLE,       /* this layer is silent: ask the backing image */
	EXT_ZERO,       /* reads as zeroes, whatever lies below */
	EXT_DATA,       /* bytes stored one to one at @file + @host */
	EXT_PACKED,     /* bytes are part of an encoded unit, see @unit */
};

enum extent_flag {
	EXT_SHARED   = 1 << 0,  /* may not be overwritten in place */
	EXT_PREALLOC = 1 << 1,  /* ZERO or HOLE whose @host space is
				 * reserved */
	EXT_OPAQUE   = 1 << 2,  /* qemu-img map does not look for holes of
				 * @file in it */
};

struct extent {
	enum extent_kind kind;
	unsigned flags;
	uint64_t off;           /* guest offset; always the one asked for */
	uint64_t len;           /* never 0, never beyond what was asked */

	struct file *file;      /* DATA, PACKED, PREALLOC */
	uint64_t host;          /* byte in @file that holds @off, or the unit */

	const struct cipher *cipher;    /* NULL unless stored encrypted */
	uint64_t iv;                    /* IV number of the sector at @off */

	struct {                        /* PACKED only; extent = rest of unit */
		const struct codec *codec;
		uint32_t packed;        /* bytes at @host; an upper bound (8) */
		uint32_t len;           /* bytes after decoding */
		uint32_t skip;          /* decoded bytes that precede @off */
	} unit;
};

enum map_flag {
	MAP_EXACT  = 1 << 0,    /* reporting: look below DATA for host holes
				 * (the engine does; formats ignore it) */
	MAP_AS_QEMU = 1 << 1,   /* ... but only where qemu-img does */
};

/* ---- formats ------------------------------------------------------------ */

/* What probing looks at (raw.md, Probing).  A guest writes a raw image's head
 * and tail: treat both as hostile. */
struct probe {
	const char *name;               /* file name, may be NULL */
	const unsigned char *head;      /* first bytes of the file ... */
	size_t head_len;                /* ... 512 or more, zero-extended */
	const unsigned char *tail;      /* last 512 bytes, or NULL */
	uint64_t size;
};

/* What is about to be stored in a reservation. */
enum intent {
	STORE_DATA,
	STORE_PACKED,   /* exactly one unit, @packed encoded bytes */
	STORE_PREALLOC, /* reads as zeroes, host space reserved */
};

/*
 * A promise of host space for guest units that no other thread can touch: the
 * engine holds a claim on [off, off + len) from before reserve() until after
 * commit() or abort() (rule 2).  reserve() does everything that can fail: it
 * allocates, and it loads and pins the pages that commit() will change, so that
 * commit() cannot fail once guest data has been written (rule 3).
 */
struct reserve {
	enum intent intent;
	uint64_t off, len;      /* in: whole units (the image's last unit may
				 * be cut off by its size) */
	uint64_t fill, fill_end; /* STORE_DATA: what will be stored, in whole
				 * pieces; the rest of the units stays as it is.
				 * out: more, if other bytes of them have to be
				 * stored again; what ends behind dst is cut */
	uint32_t packed;        /* STORE_PACKED: encoded bytes */
	struct extent dst;      /* out: kind DATA; host and file where to
				 * write; dst.off == off; dst.len may be
				 * short, but whole units */
	bool fresh;             /* out: the host space reads as zeroes already
				 * (it lay beyond the end of the file) */
	uint8_t frame[64];      /* out: in-band header to write first ... */
	uint8_t frame_len;      /* ... and its size (vmdk grain marker) */
	struct mpage *pins[8];  /* the format's: pages pinned for commit */
	uint64_t cookie[4];     /* the format's */
};

enum unmap_how {
	UNMAP_ZERO,             /* must read as zeroes; space may be freed */
	UNMAP_ZERO_KEEP,        /* must read as zeroes; space is kept */
	UNMAP_HOLE,             /* must read through to the backing image */
	UNMAP_FREE,             /* contents undefined, release the space */
};

enum preallocation { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC,
		     PREALLOC_FULL };

/* A page as a flush writes it: img->page bytes. */
struct journal_page {
	struct file *file;
	uint64_t host;
	const void *bytes;
};

struct format {
	const char *name;
	size_t priv_size;               /* bytes of image->priv, zeroed */
	bool probed_guard;              /* raw: guard sector 0 when probed */
	bool no_snapshot_of_size;       /* size follows the file (raw) */
	bool ours_alone;                /* QEMU has none such: not there when
					 * probe_as_qemu */
	bool supports_backing;
	bool stores_packed;             /* STORE_PACKED: convert -c */

	/* 0 = not ours, else how sure: 100 magic, 1 fall-back (raw). */
	int  (*probe)(const struct probe *p);
	/*
	 * Reads the header from img->file; sets size, unit, align, page,
	 * backing_name, backing_fmt, codec, priv.  img->want_write tells
	 * whether the image shall be writable now: what forbids that is an
	 * error here.  Everything read is checked here (rule 14).  On error
	 * the format frees what it made itself.
	 */
	int  (*open)(struct image *img, struct err *err);
	/* From read-only to writable on an open image, nothing in flight:
	 * refuses what open() for writing would refuse.  May be NULL. */
	int  (*upgrade)(struct image *img, struct err *err);
	/* After the last flush: clears dirty marks.  Called only if dirty()
	 * ran.  May issue file_write to its header; the engine syncs. */
	int  (*clean)(struct image *img);
	/* Frees priv's contents; no I/O. */
	void (*close)(struct image *img);

	/* Reading.  Called by many threads at once, holding nothing.
	 * 0 < len, off + len <= view size.  One extent for @off, as long as
	 * is cheap to find (at least to the end of the page of entries). */
	int  (*map)(const struct view *v, uint64_t off, uint64_t len,
		    struct extent *ext);

	/* Writing.  Many threads at once, on disjoint claimed ranges. */
	int  (*dirty)(struct image *img);       /* once, before any change */
	int  (*reserve)(struct image *img, struct reserve *res);
	/* The engine calls both of these inside the gate (change_begin). */
	void (*commit)(struct image *img, const struct reserve *res);
	void (*abort)(struct image *img, const struct reserve *res);
	/*
	 * Whole units, claimed; ZERO and ZERO_KEEP also whole pieces of one
	 * unit.  Pins its pages, then changes them between
	 * change_begin() and change_end().  Does a prefix of the range and
	 * says in @done how much.  -ENOTSUP: cannot express this; the engine
	 * writes zeroes instead (ZERO), or does nothing (HOLE, FREE).
	 */
	int  (*unmap)(struct image *img, uint64_t off, uint64_t len,
		      enum unmap_how how, uint64_t *done);

	/*
	 * Rule 16, for host space given to space_retire().  Called by one
	 * thread at a time, after the flush that dropped the reference and
	 * after the epochs.  release_probe: does nothing but this reference
	 * hold the bytes (1 yes, 0 no, negative errno: leak it)?  After a yes
	 * the bytes cannot gain another reference.  The engine then punches
	 * them and calls release, which drops the count: from then on reserve()
	 * may hand them out.  NULL: retired space is never reused.
	 */
	int  (*release_probe)(struct image *img, struct file *file,
			      uint64_t host, uint64_t len);
	int  (*release)(struct image *img, struct file *file,
			uint64_t host, uint64_t len);

	/*
	 * Another virtual size, on a writable image, for image_resize().
	 * resize_check() refuses what cannot be, with a sentence, and makes
	 * room in the tables for a larger one; the old size stays in force.
	 * resize() makes the header say @size (raw: the file be of it);
	 * img->size is the engine's to set.  What was written around the cache
	 * must be durable before that; entries are already, when it matters.
	 * The engine flushes afterwards when it matters.  Of @mode only raw
	 * does something, the engine takes the space elsewhere.  NULL: cannot.
	 */
	int  (*resize_check)(struct image *img, uint64_t size,
			     enum preallocation mode, struct err *err);
	int  (*resize)(struct image *img, uint64_t size,
		       enum preallocation mode, struct err *err);

	/*
	 * Rule 19.  Before pages of one stage are written in their place:
	 * writes the first of them, as many as fit (*done, at least one), to
	 * the format's journal as a step that is there as a whole or not at
	 * all.  The engine makes that durable, writes them in place, makes
	 * that durable too, and comes back for the rest.  One thread at a
	 * time.  NULL: pages go to their place at once.
	 */
	int  (*journal)(struct image *img, const struct journal_page *pages,
			size_t n, size_t *done);

	/* Persistent dirty bitmaps (bitmap.h).  NULL: cannot. */
	const struct format_bitmaps *bitmaps;

	const struct format_admin *admin;
};

/*
 * Internal snapshots.  Called through snapshot.h, one change at a time and after
 * dirty(); list() and view() at any time.  @index is of the list as it is.
 */
struct format_snapshots {
	/* An array that the caller frees, NULL when empty. */
	int (*list)(struct image *img, struct snapshot_info **items, size_t *n,
		    struct err *err);
	/* Sets v->root and v->size.  The snapshot stays while it is open. */
	int (*view)(struct image *img, const struct snapshot_key *key,
		    struct view *v, struct err *err);
	void (*view_close)(struct view *v);
	/*
	 * The first three are durable on return, and at every moment before it
	 * the file holds the old state or the new one.  What takes long is done
	 * beside writers, in steps; image_freeze() is held for what the size of
	 * L1 bounds (apply() replaces the disk: for all of it).
	 */
	int (*create)(struct image *img, const char *name, struct progress *p,
		      struct err *err);
	int (*remove)(struct image *img, size_t index, struct progress *p,
		      struct err *err);
	int (*apply)(struct image *img, size_t index, struct progress *p,
		     struct err *err);
	int (*rename)(struct image *img, size_t index, const char *name,
		      struct err *err);
};

/* Whole-image work; each lives in its own source file (qcow2-check.c ...). */
struct format_admin {
	/* NULL create: "does not support image creation". */
	const struct option_spec *create_options;
	/*
	 * Refuses bad options before anything is touched (rc 1 and the same
	 * sentence as qemu-img's).  @size is bytes, a multiple of 512.
	 */
	int (*create_check)(const struct options *o, uint64_t size,
			    struct err *err);
	/* Writes an empty image into @f, which is empty and locked. */
	int (*create)(struct file *f, const struct options *o, uint64_t size,
		      struct err *err);
	/*
	 * A second file that the image will consist of (*@name, of @o; *@beside
	 * NULL: none): opened, locked, and as good as sure to be usable.
	 * Nothing is changed, but for *@created.  Before the target is emptied,
	 * so that a refusal leaves both as they were.  Then create_with() is
	 * called in place of create().  NULL: there never is one.
	 */
	int (*create_open)(const struct options *o, uint64_t size,
			   struct file **beside, const char **name,
			   bool *created, struct err *err);
	int (*create_with)(struct file *f, struct file *beside,
			   const struct options *o, uint64_t size,
			   struct err *err);
	/* Format-specific part of info; fills what it knows. */
	int (*info)(struct image *img, struct image_info *info,
		    struct err *err);
	/* NULL: "This image format does not support checks". */
	int (*check)(struct image *img, struct check_result *res);
	/*
	 * check -r, through image_repair(): what check() finds, and puts right
	 * as much of it as @fix (enum check_fix) allows.  What was put right
	 * counts in *_fixed, the rest in leaks, corruptions, check_errors.
	 * Changes the file only by repair_write(), repair_discard()
	 * and repair_barrier(), in an order in which the power may fail at any
	 * moment: what is left then must be repairable by another run, and no
	 * guest data may be lost that was there before.  On return what @img
	 * remembers (priv) is as if it had just been opened.  NULL: the same
	 * sentence.
	 */
	int (*repair)(struct image *img, unsigned fix,
		      struct check_result *res);
	/*
	 * Other options for a writable image that nobody else uses (amend.h).
	 * Refuses before it changes anything; whenever the power fails the
	 * image is sound and reads the same (but for its size).  NULL: "does
	 * not support option amendment".
	 */
	const struct option_spec *amend_options;
	int (*amend)(struct image *img, const struct options *o,
		     struct progress *progress, struct err *err);
	/* How large would an image of @src be?  Options as for create.
	 * NULL: "does not support size measurement". */
	int (*measure)(const struct options *o,
		       const struct measure_source *src, struct measure *m,
		       struct err *err);
	/*
	 * Writes the name and format of another backing file, or of none (@name
	 * NULL), into the header of a writable image (image_change_backing()).
	 * Whenever the power fails, the old or the new one is there.  Leaves
	 * img->backing and the names in memory to the caller.  NULL:
	 * -ENOTSUP.
	 */
	int (*change_backing)(struct image *img, const char *name,
			      const char *format, struct err *err);
	/*
	 * Through image_empty(): the image stores nothing any more, every byte
	 * reads through to what is below, and the file is as short as that
	 * allows.  Nothing is dirty or in flight; by repair_write() and
	 * repair_barrier(), and in such an order that a power failure leaves
	 * leaks at most.  What was stored may be seen until then, unit by unit.
	 * -EAGAIN: not in one go; the engine unmaps everything.  NULL: such
	 * images are never emptied.
	 */
	int (*empty)(struct image *img);
	/* NULL: the format has no internal snapshots. */
	const struct format_snapshots *snapshots;
};

/* All formats of this build, in probing order; ends with NULL. */
extern const struct format *const formats[];
const struct format *format_find(const char *name);

/*
 * What the file below a new image offers at creation, whatever the format
 * (protocol.c): the second table of options_new().  A name that the format's
 * own table has as well is the format's.
 */
extern const struct option_spec protocol_create_options[];
/* Applies nocow and extent_size_hint to the empty regular file at @path; where
 * the file system does not know them nothing happens. */
void protocol_apply(const char *path, const struct options *o);

/* NULL is off; else "invalid parameter value: X". */
int preallocation_parse(const char *text, enum preallocation *mode,
			struct err *err);
/* FALLOC reserves the range, FULL writes zeroes, the others do nothing. */
int preallocate(struct file *f, uint64_t off, uint64_t len,
		enum preallocation mode, struct err *err);

/* ---- images ------------------------------------------------------------- */

enum image_flag {
	IMAGE_RDWR       = 1 << 0,      /* writable at once, locked for it */
	IMAGE_RDWR_LATER = 1 << 1,      /* image_upgrade() may follow */
	IMAGE_NO_BACKING = 1 << 2,      /* do not open the chain */
	IMAGE_SHARE      = 1 << 3,      /* -U: force-share */
	IMAGE_INFO       = 1 << 4,      /* metadata only: locks as info's */
	IMAGE_CHECK      = 1 << 5,      /* for check: broken tables are no
					 * reason to refuse */
	IMAGE_ALONE      = 1 << 6,      /* hold byte 201 on raw too (mount) */
	IMAGE_NO_LOCK    = 1 << 7,
	IMAGE_DISCARD    = 1 << 8,      /* give freed host space back (punch) */
	IMAGE_RESIZE     = 1 << 9,      /* hold 103 on raw too (growable) */
	IMAGE_REPAIR     = 1 << 10,     /* for check -r, with RDWR and CHECK:
					 * nor are marks that a repair clears
					 * (corrupt, dirty) */
	IMAGE_STILL      = 1 << 11,     /* convert source: nobody may change it,
					 * raw or not, nor what is below it */
};

enum cache_mode { CACHE_WRITEBACK, CACHE_NONE, CACHE_WRITETHROUGH,
		  CACHE_DIRECTSYNC, CACHE_UNSAFE };
/* "none", "writeback" ... as -t takes them; false: no such mode. */
bool cache_mode_parse(const char *text, enum cache_mode *mode);

struct image_args {
	const struct json *node;        /* from spec_parse() */
	unsigned flags;
	enum cache_mode cache;
	const struct policy *policy;    /* for names inside the image; NULL:
					 * follow as qemu-img does */
	const struct policy *self_policy; /* for the image itself, or NULL */
};

/* A second file that an image consists of (VMDK extent, data file). */
struct child {
	char *role;             /* "extents.0", "data-file"; info's name */
	struct file *file;
	uint64_t bytes;
};

struct image {
	const struct format *fmt;
	struct file *file;
	struct image *backing;  /* NULL at the end of the chain */
	_Atomic uint64_t size;  /* guest-visible bytes */
	uint32_t unit;          /* allocation unit; parallels: any size */
	uint32_t piece;         /* of a unit, that may be data by itself; what
				 * open() does not set is the unit */
	uint32_t align;         /* smallest I/O (cipher sector), or 1 */
	uint32_t page;          /* metadata page: 512 .. 4096 (rule 7) */
	bool writable;          /* constant while anything is in flight */
	bool want_write;        /* for format->open() */
	bool probed;            /* format was guessed, not given */
	_Atomic bool keep_zeroes;       /* zeroes without a backing file are to
				 * be stored as such: it gets one (rebase) */
	bool zero_tail_hole;    /* a HOLE with no backing reads as zero: true
				 * for all formats of today */
	unsigned flags;         /* image_flag */
	enum cache_mode cache;
	const struct codec *codec;      /* for STORE_PACKED; NULL: cannot */
	int pack_level;         /* of the codec's; 0: QEMU's (set by who
				 * packs, before the first image_pack()) */
	bool never_packed;      /* though its format stores such units */
	const char *packed_only;        /* takes whole units, encoded, once
				 * (vmdk): the engine encodes what
				 * image_write() is given.  Its name, or NULL */
	char *name;             /* as info prints it ("top.qcow2") */
	char *backing_name;     /* as stored in the image, or NULL */
	char *backing_fmt;      /* as stored, or NULL */
	struct json *node;      /* the specification it was opened by */
	struct child *children; /* besides @file and backing */
	unsigned nr_children;
	const struct policy *policy;
	struct view live;
	struct engine *eng;     /* claims, epochs, caches: engine only */
	void *priv;             /* the format's own state */
};

/*
 * Opens an image and, unless IMAGE_NO_BACKING, its chain (read-only).  Errors
 * are qemu-img's sentences without the leading "Could not open 'X': ".  Locks
 * are taken per locking.md before anything is trusted.  Chains that loop or are
 * deeper than CHAIN_MAX are refused.
 */
#define CHAIN_MAX 256
int image_open(const struct image_args *args, struct image **img,
	       struct err *err);
/* The same on a file that is open already (a reference is taken on success):
 * args->node needs only "driver" and the format's options, or may be NULL to
 * probe.  Locks are taken on @file if it has any. */
int image_open_file(struct file *file, const struct image_args *args,
		    struct image **img, struct err *err);
/* An image as a file (qcow2 inside luks, raw offset over qcow2): reads and
 * writes go through the image's engine.  Takes the image: closing the file
 * closes it. */
int file_from_image_take(struct image *img, struct file **f, struct err *err);
/* As image_open() for a user's string; @format NULL probes. */
int image_open_name(const char *name, bool image_opts, const char *format,
		    unsigned flags, enum cache_mode cache,
		    struct image **img, struct err *err);
/* Flushes (unless broken), clears dirty marks, gives locks back, frees.  The
 * first error; the image is gone either way.  NULL is allowed. */
int image_close(struct image *img);
/* Is @st the status of a file that @img or its chain is read from? */
bool image_reads(const struct image *img, const struct stat *st);
/* Read-only -> writable: takes the write lock on the same descriptor, then
 * fmt->upgrade.  -ETXTBSY locked, -EROFS, -EUCLEAN ... */
int image_upgrade(struct image *img, struct err *err);
/* ... and back, which can be tried again: an image that cannot be left clean (a
 * full host) stays writable, and nothing is lost. */
int image_downgrade(struct image *img, struct err *err);
/* The same, but afterwards it is read-only in any case; what could not be
 * written is lost. */
int image_downgrade_anyhow(struct image *img, struct err *err);
/*
 * The same for an image of a chain, which was opened read-only: commit writes
 * to it.  With @grow also its size may change.  Its file is opened anew for
 * writing where need be.  image_downgrade_anyhow() goes back.
 */
int image_upgrade_base(struct image *img, bool grow, struct err *err);

static inline uint64_t image_size(const struct image *img)
{
	return atomic_load_explicit(&img->size, memory_order_acquire);
}

/* The only way to a second file (extent, data file): resolves @name against
 * the image's directory, applies the policy, locks it, records it. */
int child_open(struct image *img, const char *role, const char *name,
	       unsigned file_flags, struct file **f, struct err *err);

/* ---- bytes --------------------------------------------------------------
 * Any thread, any alignment, off + len within the view's size (else -EINVAL).
 * Ordering between overlapping calls in flight is the caller's business.
 */
int image_read(const struct view *v, void *buf, size_t len, uint64_t off);
int image_write(const struct view *v, const void *buf, size_t len,
		uint64_t off);
/* ZERO, ZERO_KEEP: every byte reads as zero afterwards, also at ragged ends.
 * HOLE, FREE: whole units only, ragged ends are left alone. */
int image_unmap(const struct view *v, uint64_t off, uint64_t len,
		enum unmap_how how);
/* fallocate mode 0: every byte has host space afterwards; content stays. */
int image_allocate(const struct view *v, uint64_t off, uint64_t len);
/*
 * Stores what @src has at @from at @to of @dst, another image, without moving
 * the bytes through our memory: how many were (some of @len), or -EOPNOTSUPP:
 * they have to be read and written.
 */
ssize_t image_copy(const struct view *dst, uint64_t to,
		   const struct view *src, uint64_t from, uint64_t len);
/*
 * file_lend() of what the chain holds as plain bytes at [off, off + len), one
 * run of one file.  -EOPNOTSUPP: read it.  Only where nobody in this process
 * writes to the chain meanwhile, and SIGBUS is dealt with (a file that is cut
 * off): a daemon reads instead.
 */
int image_lend(const struct view *v, size_t len, uint64_t off,
	       struct file_loan *loan);
/* Stores @buf (NULL: zeroes), which is what is read there from below, wherever
 * in [off, off + len) the image itself stores nothing. */
int image_pull(struct image *img, const void *buf, size_t len, uint64_t off);
/* Everything that was acknowledged is durable when this returns 0. */
int image_flush(struct image *img);
/* For who writes much before he flushes: @bytes more were written, @behind in
 * all.  Now and then the host is told to begin. */
void image_write_behind(struct image *img, _Atomic uint64_t *behind,
			uint64_t bytes);
bool image_is_dirty(struct image *img);
/* Counts the changes of this layer's metadata since it was opened: the same
 * number, the same metadata. */
uint64_t image_changes(const struct image *img);
/*
 * check -r of an image that was opened with IMAGE_RDWR | IMAGE_CHECK |
 * IMAGE_REPAIR and that nobody uses meanwhile.  Everything is durable on
 * return.  -ENOTSUP: the format cannot.  The caller checks again when anything
 * was fixed.
 */
enum check_fix {
	CHECK_FIX_LEAKS  = 1 << 0,
	CHECK_FIX_ERRORS = 1 << 1,
	CHECK_FIX_AS_QEMU = 1 << 2,     /* beside these: no more than QEMU's
					 * repair of the format would */
};
int image_repair(struct image *img, unsigned fix, struct check_result *res);
/* The same for an image that is open for reading (IMAGE_RDWR_LATER) and, being
 * what it is, for nothing else; and it is so afterwards. */
int image_repair_shut(struct image *img, unsigned fix,
		      struct check_result *res, struct err *err);
/* The same for an image that is open for writing as usual. */
int image_repair_held(struct image *img, unsigned fix,
		      struct check_result *res);
/*
 * Another backing file, or none (@name NULL), in the header and as
 * img->backing_name and _fmt; durable on return.  The chain that is open stays:
 * what is to be read through the new one is the caller's business.  -ENOTSUP:
 * the format cannot; -EINVAL, -ENOSPC: it cannot store this name.  @err may
 * stay without a sentence.
 */
int image_change_backing(struct image *img, const char *name,
			 const char *format, struct err *err);
/* For formats: a string that others may still be reading is freed when the
 * image is closed.  NULL is allowed. */
void image_keep_string(struct image *img, char *old);
/*
 * Drops everything that the image stores: it reads as what is below it.  Nobody
 * else uses it meanwhile.  Durable on return.  -ENOTSUP: the format never does
 * that (as QEMU's drivers).
 */
int image_empty(struct image *img);

struct resize_args {
	enum preallocation prealloc;    /* of what is new */
	struct progress *progress;      /* may be NULL; bytes of @prealloc */
};
/*
 * Another virtual size, larger or smaller; durable on return, and whenever the
 * power fails it is the old or the new one.  Behind a smaller end everything is
 * lost.  Reads and writes may go on.
 */
int image_resize(struct image *img, uint64_t size, const struct resize_args *a,
		 struct err *err);
/*
 * At least that large; durable when the image is flushed.  Waits for others who
 * change the size or the tables (a snapshot that is made), which may take long:
 * -EINTR when *@cancel, which may be NULL, becomes true meanwhile.
 */
int image_grow(struct image *img, uint64_t size, const _Atomic bool *cancel,
	       struct err *err);

/* Stores one unit encoded (convert -c).  @buf holds the whole unit (zeroes
 * behind the end of the image), @off is unit-aligned.  image_pack() may run in
 * any thread: it encodes into @out (>= unit bytes); *n = 0 means that it does
 * not shrink.  image_write_packed() stores what it made. */
int image_pack(struct image *img, const void *buf, void *out, size_t *n);
int image_write_packed(const struct view *v, const void *packed, size_t n,
		       uint64_t off);

/* ---- maps ---------------------------------------------------------------- */

/* One layer: what fmt->map says, clipped to the view.  The answer is a
 * snapshot: by the time the caller looks it may have changed. */
int image_map(const struct view *v, uint64_t off, uint64_t len,
	      struct extent *ext);

/* A run of the guest's disk as seen through the whole chain, merged. */
struct run {
	uint64_t off, len;
	unsigned depth;         /* layer that answers; 0 = top */
	bool present;           /* allocated in some layer */
	bool zero;              /* reads as zeroes */
	bool data;              /* stored as bytes */
	bool compressed;
	bool has_host;
	uint64_t host;          /* with has_host: byte in @file of @off */
	struct file *file;
	const char *filename;   /* of the layer's image or extent */
	bool encrypted;
};
/*
 * The run at @off: at most @len bytes, merged as `qemu-img map` merges, through
 * @layers images of the chain (0 = all).  MAP_EXACT also asks the host file
 * about holes.  Every user of extents (map, info, SEEK_HOLE, convert, compare,
 * st_blocks) walks with this.
 */
int walk_run(const struct view *v, uint64_t off, uint64_t len,
	     unsigned layers, unsigned flags, struct run *run);
/* The same without merging beyond one map() per layer: cheap and bounded.
 * Merging calls it until something differs or @len is reached. */
int walk_step(const struct view *v, uint64_t off, uint64_t len,
	      unsigned layers, unsigned flags, struct run *run);

/* ---- what the engine gives to formats ------------------------------------ */

/*
 * Write order (rule 4).  A dirty page belongs to exactly one stage (rule 7);
 * image_flush() makes stage N durable before it writes anything of N + 1.
 */
enum stage {
	STAGE_SPACE,            /* guest data, counts that only grow */
	STAGE_SPACE_ROOT,       /* what points at new refcount blocks */
	STAGE_LINK,             /* L2/BAT/grain entries */
	STAGE_ROOT,             /* L1 entries, header pointers */
	NR_STAGES
};

/*
 * Pages: img->page bytes of (file, host), host a multiple of the page size.
 * meta_get() reads, meta_get_new() starts from zeroes without reading (space
 * that was just allocated).  Both pin; meta_put() unpins; a pinned page is
 * never evicted.  The bytes are read under meta_rdlock and changed under
 * meta_wrlock; no I/O and no further lock but "space" while holding it.
 */
int meta_get(struct image *img, struct file *f, uint64_t host,
	     struct mpage **pg);
/* The same; if it has to be read, so may be the pages behind it up to @end, which
 * the caller will ask for next.  Only within one table: space that nobody names
 * as metadata must not come into the cache. */
int meta_get_run(struct image *img, struct file *f, uint64_t host,
		 uint64_t end, struct mpage **pg);
int meta_get_new(struct image *img, struct file *f, uint64_t host,
		 struct mpage **pg);
/* A copy of bytes, through the cache, also across pages. */
int meta_peek(struct image *img, struct file *f, void *buf, size_t len,
	      uint64_t host);
/* A further pin on a page that is pinned. */
struct mpage *meta_dup(struct mpage *pg);
void meta_put(struct mpage *pg);        /* NULL is allowed */
void meta_rdlock(struct mpage *pg);
void meta_wrlock(struct mpage *pg);
void meta_unlock(struct mpage *pg);
void *meta_bytes(struct mpage *pg);
/* Under meta_wrlock and inside the gate. */
void meta_dirty(struct mpage *pg, enum stage stage);
/* Inside the gate the answer stays. */
bool meta_is_dirty(const struct mpage *pg);
/* Rule 17: before metadata space is retired or becomes data: drops its pages,
 * dirty ones too. */
void meta_forget(struct image *img, struct file *f, uint64_t host,
		 uint64_t len);
/* Any bytes of metadata as they are now, cached or not, without filling the
 * cache: for check, info, snapshots.  Past the end of the file: zeroes. */
int meta_read(struct image *img, struct file *f, void *buf, size_t len,
	      uint64_t host);

/*
 * The gate (rule 5): a flush sees all changes made between begin and end, or
 * none.  Pin pages before; no I/O inside; do not nest.  commit() and abort()
 * are called inside it.
 */
void change_begin(struct image *img);
void change_end(struct image *img);

/* The reference to these host bytes was dropped inside this change; see
 * release_probe().  Never fails (a lost record only leaks). */
void space_retire(struct image *img, struct file *f, uint64_t host,
		  uint64_t len);

/*
 * Rule 15.  The caller has made map() answer SHARED (or otherwise different);
 * when this returns, every read and overwrite that might have seen the old
 * answer is over.
 */
void image_wait_epochs(struct image *img);

/*
 * Rule 15, for one instant: until image_thaw() nobody changes the mapping or
 * overwrites in place, and whoever did has ended.  Writers wait, readers do not.
 * image_flush() is allowed meanwhile.  The caller holds no claim and is in no
 * epoch.
 */
void image_freeze(struct image *img);
void image_thaw(struct image *img);

/* Rule 13: flushes if there are many dirty pages, long before writers would have
 * to.  For long work that makes many, between its steps; no lock but a claim may
 * be held. */
int image_throttle(struct image *img);

/*
 * For admin->repair(): bytes of metadata into the file, around the cache, whose
 * pages there are dropped; or host space given back, whose contents are
 * undefined then.  The first call marks the image (rule 12: runs dirty(), which
 * sees IMAGE_REPAIR).
 */
int repair_write(struct image *img, struct file *f, const void *buf,
		 size_t len, uint64_t host);
int repair_discard(struct image *img, struct file *f, uint64_t host,
		   uint64_t len);
/* What was written so far is durable before anything that follows.  Also for
 * the marks of dirty() and clean(), and for the replay of a journal. */
int repair_barrier(struct image *img);

/* The image was found corrupt at runtime: logs once, writes become -EUCLEAN. */
void image_corrupt(struct image *img, const char *fmt, ...) printf_like(2, 3);

/* ---- reports ------------------------------------------------------------- */

struct snapshot_info {
	char *id, *name;
	uint64_t vm_state_size;
	uint32_t date_sec, date_nsec;
	uint64_t vm_clock_nsec;
	int64_t icount;         /* -1: none */
	uint64_t disk_size;     /* guest bytes */
};

/* What admin->info fills; strings are owned by the struct. */
struct image_info {
	uint32_t cluster_size;          /* 0: not shown */
	bool encrypted, compressed;
	bool has_dirty, dirty;          /* "cleanly shut down" */
	struct snapshot_info *snapshots;
	size_t nr_snapshots;
	struct json *specific;          /* {"type": , "data": {}} or NULL */
};
void image_info_free(struct image_info *info);

/* qcow2.md 14; counts as in qemu-img check --output=json. */
struct check_result {
	uint64_t corruptions, leaks, check_errors;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t total_clusters, allocated_clusters, fragmented_clusters,
		 compressed_clusters;
	uint64_t image_end_offset;      /* 0: unknown */
	/* One finding, one line, without newline ("Leaked cluster ..."). */
	void (*say)(void *data, const char *line);
	void *data;
	_Atomic bool *cancel;           /* may be NULL; ends with -EINTR */
};
void check_say(struct check_result *res, const char *fmt, ...)
	printf_like(2, 3);

/* ---- the process --------------------------------------------------------- */

/* One bound for all metadata pages and decoded units (rule 13); default
 * 256 MiB. */
void cache_set_bound(uint64_t bytes);
uint64_t cache_used(void);
/* Where background errors go: one line, no newline.  Default: stderr. */
void log_set(void (*fn)(void *data, const char *line), void *data);
void log_line(const char *fmt, ...) printf_like(1, 2);
/* Lines about an image name it (default), or only its format: where the user
 * knows which image it is, as with qemu-img. */
extern bool log_names;
/* Probing finds what QEMU's finds and nothing else: fixed VHDs are raw. */
extern bool probe_as_qemu;
/*
 * Called at named points, so that tests can stop a thread there.
 * IMGFS_PAUSE=point:fifo[,point:fifo...]: each entry makes one thread, the first
 * that comes to its point, open the fifo for reading (that tells the test) and
 * wait until it gives a byte or its other end is closed.  Within a test program
 * pause_set() names a function that is called at every point instead.
 */
void pause_set(void (*fn)(const char *name));
void pause_point(const char *name);

#endif
