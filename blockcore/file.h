/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file.h - things that hold bytes: a regular file, a block device, an image
 * used as a file, later nbd, http, rbd.
 *
 * Everybody else calls the file_*() functions.  They are the one checked
 * wrapper (remote.md R1): they clip reads at the end of the file, pad to
 * min_io, split at max_io, loop over short counts, keep the state "has
 * unsynced bytes" (rule 11) and "is broken" (rule 6, R6).  A driver's ops see
 * only legal requests.
 *
 * All calls may be made by any number of threads at once.  Offsets and lengths
 * are bytes.  Returns: 0 (or a count where said) or a negative errno.
 */
#ifndef BLOCKCORE_FILE_H
#define BLOCKCORE_FILE_H

#include "err.h"

#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/uio.h>

struct file;
struct file_queue;      /* requests that wait for the pool */
struct json;
struct policy;

enum file_kind {
	FILE_DATA,      /* bytes are stored */
	FILE_ZERO,      /* reads as zeroes, takes no space */
	FILE_HOLE,      /* takes no space, content not known to be zero */
};

enum file_sparse { SPARSE_UNKNOWN, SPARSE_YES, SPARSE_NO };

enum zero_how {
	ZERO_MAY_UNMAP = 1 << 0,        /* may give the space back */
	ZERO_ALLOCATE  = 1 << 1,        /* must leave the space allocated */
	ZERO_FAST      = 1 << 2,        /* -EOPNOTSUPP rather than be slow */
};

/* Permissions of formats/locking.md: bit i uses byte 100+i or 200+i. */
enum file_perm {
	PERM_READ   = 1 << 0,
	PERM_WRITE  = 1 << 1,
	PERM_RESIZE = 1 << 3,
};

struct file_traits {            /* constant after open */
	uint32_t min_io;        /* granularity of driver I/O; the wrapper pads */
	uint32_t pref_io;
	uint32_t max_io;        /* the wrapper splits */
	uint16_t depth;         /* requests in flight that pay */
	bool read_only;
	bool grows;             /* pwritev past the end extends the file */
	bool seekable_holes;    /* extent() finds holes */
	bool remote;
};

enum file_op { FILE_OP_READ, FILE_OP_WRITE, FILE_OP_SYNC, FILE_OP_ZERO,
	       FILE_OP_DISCARD };

/*
 * One request in flight.  The caller owns it and its buffers until @done has
 * been called; @done runs on a thread of the file's pool, must not block and
 * must not submit more than one request in its place.
 */
struct file_req {
	enum file_op op;
	struct iovec *iov;      /* READ, WRITE */
	int niov;
	uint64_t off, len;      /* len: bytes of iov, or of ZERO, DISCARD */
	unsigned how;           /* ZERO */
	int result;             /* out: 0 or negative errno */
	void (*done)(struct file_req *req);
	void *data;             /* the caller's */
	struct file *file;      /* set by file_submit() */
	struct file_req *next;  /* the pool's */
};

/* Bytes of a file seen without a copy: see file_lend(). */
struct file_loan {
	const unsigned char *bytes;
	void *base;             /* the driver's */
	size_t len;             /* of @base; 0: there is none */
};

/* A driver.  Optional ops may be NULL: sync_begin, zero, discard, allocate, copy, lend,
 * extent, lock, make_writable, submit.  preadv and pwritev may return short
 * counts; 0 from preadv is the end of the file. */
struct file_ops {
	const char *name;       /* protocol: "file", "host_device" ... */
	ssize_t (*preadv)(struct file *f, const struct iovec *v, int n,
			  uint64_t off);
	ssize_t (*pwritev)(struct file *f, const struct iovec *v, int n,
			   uint64_t off);
	int (*sync)(struct file *f);
	void (*sync_begin)(struct file *f);
	int (*zero)(struct file *f, uint64_t off, uint64_t len, unsigned how);
	int (*discard)(struct file *f, uint64_t off, uint64_t len);
	int (*allocate)(struct file *f, uint64_t off, uint64_t len);
	/* @src is of a driver with the same copy(); may do a part. */
	ssize_t (*copy)(struct file *f, uint64_t off, struct file *src,
			uint64_t src_off, uint64_t len);
	int (*lend)(struct file *f, uint64_t off, size_t len,
		    struct file_loan *loan);
	int (*truncate)(struct file *f, uint64_t size);
	int (*size)(struct file *f, uint64_t *size);
	int (*extent)(struct file *f, uint64_t off, uint64_t len,
		      enum file_kind *kind, uint64_t *run);
	int (*stat)(struct file *f, struct stat *st);
	int (*lock)(struct file *f, unsigned used, unsigned unshared,
		    struct err *err);
	/* From read-only to writable; its locks stay what they are. */
	int (*make_writable)(struct file *f);
	int (*submit)(struct file *f, struct file_req *req);
	void (*close)(struct file *f);
};

struct file {
	const struct file_ops *ops;
	struct file_traits traits;
	char *name;             /* what messages call it */
	uint64_t id;            /* unique in this process; keys the page cache */
	_Atomic bool unsynced;  /* bytes were written since the last sync */
	_Atomic int broken;     /* rule 6: sticky, 0 or negative errno */
	_Atomic unsigned refs;
	uint64_t allocated;     /* unused by drivers; the engine's high-water */
	_Atomic enum file_sparse sparse;        /* the engine's: walk.c */
	pthread_mutex_t sync_lock;      /* one sync at a time: who finds
					 * nothing unsynced waits for it */
	pthread_rwlock_t edge;  /* min_io > 1: shared by whole blocks,
				 * exclusive for parts of one */
	struct file_queue *_Atomic queue;       /* file-pool.c */
};

/* ---- making one --------------------------------------------------------- */

/* Fills the common part; traits are defaulted to those of a regular file. */
void file_init(struct file *f, const struct file_ops *ops, const char *name);
struct file *file_ref(struct file *f);
/* Drops a reference; the last one closes.  NULL is allowed. */
void file_unref(struct file *f);

enum file_flag {
	FILE_RDWR      = 1 << 0,        /* open for writing */
	FILE_RDWR_TRY  = 1 << 1,        /* for writing if permitted (a mount
					 * may want to write later) */
	FILE_CREATE    = 1 << 2,        /* create if missing; never truncates */
	FILE_DIRECT    = 1 << 3,        /* O_DIRECT */
	FILE_NO_FLUSH  = 1 << 4,        /* sync() does nothing */
	FILE_NO_LOCK   = 1 << 5,        /* locking=off */
	FILE_EXCL      = 1 << 6,        /* with CREATE: fail if it exists */
};

/*
 * Opens by a protocol node: {"driver": "file", "filename": ..., options}.
 * @policy NULL: names are followed as given.  FIFOs and sockets are refused
 * without blocking (qemu-img-cli.md 12).  Block devices and regular files work.
 * Error texts are qemu-img's, without the "Could not open 'X': " of callers.
 */
int file_open(const struct json *node, unsigned flags,
	      const struct policy *policy, struct file **f, struct err *err);
/* The same for a plain path (protocol prefixes are not looked at). */
int file_open_path(const char *path, unsigned flags,
		   const struct policy *policy, struct file **f,
		   struct err *err);

/* ---- using one ---------------------------------------------------------- */

/* Reads exactly @len; what lies past the end of the file reads as zeroes. */
int file_read(struct file *f, void *buf, size_t len, uint64_t off);
int file_readv(struct file *f, const struct iovec *v, int n, uint64_t off);
/* Writes exactly @len and marks the file unsynced, after the bytes are in. */
int file_write(struct file *f, const void *buf, size_t len, uint64_t off);
int file_writev(struct file *f, const struct iovec *v, int n, uint64_t off);
/* Makes everything written so far durable; no call when nothing is unsynced.
 * A failure is sticky: every later write and sync returns it (rule 6). */
int file_sync(struct file *f);
/* The host begins to write what it has not yet: a sync that follows will be
 * shorter. */
void file_sync_begin(struct file *f);
/* Afterwards the range reads as zeroes; falls back to writing zeroes unless
 * ZERO_FAST.  May extend a file that grows. */
int file_zero(struct file *f, uint64_t off, uint64_t len, unsigned how);
/* Contents become undefined; may do nothing.  Never fails for lack of support.
 * Beyond the end: nothing. */
int file_discard(struct file *f, uint64_t off, uint64_t len);
/* Makes host space real (ENOSPC now, not at fsync); the content is kept and
 * fresh space reads as zeroes; the file grows to off + len.  0 where the file
 * system cannot say. */
int file_allocate(struct file *f, uint64_t off, uint64_t len);
/* Bytes of @src, shared or copied by the host without our seeing them: how many
 * were (some of @len), or -EOPNOTSUPP: read and write them. */
ssize_t file_copy(struct file *f, uint64_t off, struct file *src,
		  uint64_t src_off, uint64_t len);
/*
 * The host's own pages of [off, off + len), all of it within the file, until
 * file_give_back(); they are in memory on return.  They change when somebody
 * writes to the file, and are gone (SIGBUS) when somebody cuts it off: only for
 * files that nobody writes to, and the program says what it does then.
 * -EOPNOTSUPP: read them.
 */
int file_lend(struct file *f, uint64_t off, size_t len,
	      struct file_loan *loan);
void file_give_back(struct file_loan *loan);
int file_truncate(struct file *f, uint64_t size);
int file_size(struct file *f, uint64_t *size);
/* How the bytes at @off are stored and how far that run goes (1..len).  Past
 * the end of the file: FILE_ZERO.  Files that cannot tell: FILE_DATA. */
int file_extent(struct file *f, uint64_t off, uint64_t len,
		enum file_kind *kind, uint64_t *run);
/* Host bytes in use (st_blocks * 512); -ENOTSUP where unknown. */
int file_disk_usage(struct file *f, uint64_t *bytes);
int file_stat(struct file *f, struct stat *st);
/* The open descriptor of a regular file that is read through the page cache;
 * it stays the file's own.  Else -1. */
int file_descriptor(struct file *f);

/*
 * locking.md: hold exactly the bytes 100+i of @used and 200+i of @unshared,
 * then test.  On a conflict the old set is restored and the error names the
 * permission.  May be called again to raise or lower.
 */
int file_lock(struct file *f, unsigned used, unsigned unshared,
	      struct err *err);
/* Of a file that was opened read-only.  -EACCES, -EROFS ...; the sentence is
 * "Could not open 'X': ...". */
int file_make_writable(struct file *f, struct err *err);

/*
 * Starts @req; its done() will be called exactly once, also on error.  Nothing
 * of @f is in flight when its last reference is dropped, and that is not done
 * inside of a done().  Not before the last fork.
 */
void file_submit(struct file *f, struct file_req *req);
/* For drivers with a submit() of their own, which sees reads and writes that
 * need no padding, splitting or clipping: in place of calling done(). */
void file_req_done(struct file_req *req, int result);

/* ---- path policy (blueprint 1, "Names inside an image") ------------------ */

/*
 * Where names that come out of an image may lead.  A struct policy with no
 * roots refuses every name.  Build one before mounting (fuse.md F29).
 */
struct policy *policy_new(void);
void policy_free(struct policy *p);
/* Allows everything below the folder @dir (opened now, kept open). */
int policy_allow(struct policy *p, const char *dir, struct err *err);
/* F29: refuse files of this st_dev (our own mount). */
void policy_deny_dev(struct policy *p, dev_t dev);
/*
 * Opens @path under @p (NULL: plain open(2)) with open(2) flags.  Refuses what
 * is not a regular file or, only without a policy, a block device.  Returns a
 * descriptor or a negative errno.  The error names the path and the option
 * allow-path.
 */
int policy_open(const struct policy *p, const char *path, int oflags,
		mode_t mode, struct err *err);

#endif
