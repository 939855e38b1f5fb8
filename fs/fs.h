/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs.h - what the parts of imgfs's file system share.
 *
 *   session.c   FUSE's requests: finds node or handle, calls the node's ops
 *   reply.c     the only callers of fuse_reply_*
 *   notify.c    invalidations, sent by a thread that serves nothing (F22)
 *   node.c      the inode table
 *   tree.c      directories: lookup, readdir, attributes
 *   folder.c    SOURCE folders; peek.c: what one file of them is
 *   mimage.c    the open image; life.c: idle closing, the 5 s flush
 *   facts.c     what an image is, read as -U would and closed again
 *   disk.c, views.c, ctl.c ...   the ops of files
 *   passthrough.c  disks that the kernel reads by itself
 *
 * Locks, outermost first: mount.scan (folder.c), mount.passing -> mimage.gate -> mimage.lock
 * -> node table -> mount.lock -> notify queue.  Nothing of the engine is called
 * under mimage.lock or below.  The gate is above all locks of the engine.
 */
#ifndef FS_FS_H
#define FS_FS_H

#include "config.h"
#include "blockcore.h"
#include "identity.h"
#include "fs/options.h"
#include "fs/work.h"

#include <fuse_lowlevel.h>
#include <sys/stat.h>

struct bits;
struct ctl_calls;
struct facts;
struct folders;
struct life;
struct handle;
struct listing;
struct mimage;
struct mount;
struct node;
struct node_ops;
struct notifier;
struct partition_table;
struct words;

/* ---- the mount ------------------------------------------------------------ */

struct mount {
	const struct fs_options *opt;
	struct policy *policy;          /* for names inside images */
	struct policy *sources;         /* for links in folders: no allow-path */
	struct fuse_session *se;
	struct notifier *notifier;
	struct node_table *nodes;
	struct node *root;              /* NODE_FOLDER, or NODE_IMAGE */
	dev_t dev;                      /* of our own files, 0: not known yet */

	/* Slow things wait in pools of their own, not in FUSE's threads (F33):
	 * requests that compute; commands on images; opening and looking into
	 * images; flushes, closing, counting. */
	struct work_pool *workers, *commands, *openers, *housework, *peekers;
	struct ctl_calls *calls;        /* commands that run */

	pthread_mutex_t scan;           /* guards the folders and: */
	struct folders *folders;
	pthread_mutex_t lock;           /* guards images and their refs; no
					 * lock is taken under it */
	struct mimage *images;          /* all that are listed or in use */
	struct life *life;
	bool passes;                    /* passthrough.c: agreed with the
					 * kernel */
	pthread_mutex_t passing;        /* its; taken around the gate */
	pthread_mutex_t handle_lock;    /* guards handles */
	struct handle *handles;         /* all that are open */
	bool single;                    /* one image, at the root */

	void (*ready)(void *data);      /* the kernel and we agree (INIT) */
	void *ready_data;
	_Atomic bool ending;            /* destroy() has begun */
};

/*
 * Looks at the sources; a single image is opened and locked (unless idle= was
 * given).  Nothing is mounted yet and no thread runs.
 */
struct mount *mount_new(const struct fs_options *opt, struct err *err);
/* fuse_session_new() and mount with libfuse's own options in @args. */
int mount_attach(struct mount *mnt, struct fuse_args *args, struct err *err);
/* Serves until unmounted or signalled; 0, or a negative errno.  Starts the
 * threads: call it after the fork.  @ready (may be NULL) runs once the mount
 * answers. */
int mount_serve(struct mount *mnt, void (*ready)(void *data), void *data);
/* Flushes and closes what is open, unmounts if need be.  The first error of a
 * flush.  NULL is allowed. */
int mount_free(struct mount *mnt);

/* ---- images of the mount ---------------------------------------------------- */

enum mimage_use { MIMAGE_READ, MIMAGE_WRITE };

/* What makes a file the same as it was, as far as stat can tell. */
struct file_id {
	dev_t dev;
	ino_t ino;
	uint64_t size;
	struct timespec mtime;
};

#define TRACK_UNIT (64 * KiB)

struct mimage {
	struct mount *mnt;
	struct mimage *next;            /* mnt->images */
	struct mimage *name_next;       /* folder.c; mnt->scan */
	unsigned refs;                  /* listed, nodes, open; mnt->lock */
	char *name;                     /* directory's name; "" at the root */
	const char *title;              /* what messages call it */
	char *path;                     /* of the image file, or NULL */
	struct json *node;              /* its specification */
	uint64_t id_base;               /* of its nodes' numbers */
	bool fixed;                     /* a SOURCE itself: listed for ever */
	bool is_open;                   /* mnt->lock */
	_Atomic bool gone;              /* no longer listed (removed, replaced) */

	/* Taken shared by whoever uses @image (mimage_enter), exclusively to
	 * change what it is: upgrade, downgrade, close, read anew. */
	pthread_rwlock_t gate;
	struct image *image;            /* NULL: closed */
	_Atomic uint64_t opened;        /* counts openings: pointers into the
					 * image are void when it changed */
	bool writable;                  /* @image holds the write lock */
	struct bits *track;             /* disk.c notes what is written, a bit
					 * for TRACK_UNIT bytes; changes with the
					 * gate held exclusively */

	pthread_mutex_t lock;           /* guards what follows */
	pthread_cond_t changed;
	bool busy;                      /* being opened, upgraded, closed */
	unsigned readers, writers;      /* mimage_get() not yet put */
	struct timespec idle_since;     /* monotonic; with no users */
	bool dirty, tried;              /* life.c: since when, and when a */
	struct timespec dirty_since;    /* flush failed */
	struct timespec last_try;
	uint64_t flushed;               /* @changes at the last flush */
	uint64_t told;                  /* @changes that the partitions' pages
					 * know of; life.c's thread only */
	struct file_id id;              /* the file as last seen */
	struct file_id *files;          /* all files of the chain: of the open
					 * image as opened, else as we left
					 * them (for pages) */
	unsigned nr_files;
	uint64_t same_since;            /* since this opening the files were as
					 * we had left them, each time */
	bool housekeeping;              /* life.c's work is queued */
	char *outcome;                  /* last command's sentence; NULL: ok */
	char *trouble;                  /* why it could not be opened, or NULL */
	bool late;                      /* ... or made durable: tried again */
	char *failed;                   /* a sync failed: EIO for writing */
	struct facts *facts;            /* cached, or NULL */
	struct long_work *long_work;    /* list: checks that are running */
	struct work work;               /* life.c's */
	_Atomic uint64_t changes;       /* bumped by mimage_wrote(): reports
					 * made before are old */
	_Atomic uint64_t resized;       /* generation of the disk's node: under
					 * writeback the kernel never takes
					 * another size for one (F7) */
	_Atomic bool asked;             /* disk's attributes, since they last
					 * changed by themselves */
	void *disk;                     /* disk.c's: counted blocks ... */
	void *report;                   /* views-check.c's results ... */
	void *bitmap_names;             /* bitmaps.c's */
	void *snapshots;                /* snapshots.c's names ... */
};

struct mimage *mimage_ref(struct mimage *m);
void mimage_unref(struct mimage *m);

/*
 * A user comes and goes.  The first one opens and locks the image, the first
 * writer takes the write lock; after the last one life.c closes it in its time.
 * May block for as long as opening takes: call on a worker, or where
 * session.c did it already (node_ops.opens_image).  Errors: -EROFS without rw,
 * -EBUSY (base of an open overlay), -ETXTBSY (locked), -EUCLEAN, -EIO (a sync
 * failed) ...; the sentence is also what status says.
 */
int mimage_get(struct mimage *m, enum mimage_use use, struct err *err);
void mimage_put(struct mimage *m, enum mimage_use use);
/* Would mimage_get() succeed without any I/O?  Then it was done. */
bool mimage_get_fast(struct mimage *m, enum mimage_use use);

/*
 * Around each use of m->image, by a thread whose user (handle) has got the
 * image.  Not recursive.  Short: what waits for seconds brings a long_work.
 */
void mimage_enter(struct mimage *m);
void mimage_leave(struct mimage *m);
/*
 * A long use (a check): who wants the gate sets @cancel and @again.  When the
 * work ended early with @again set, leave, and begin anew.
 */
struct long_work {
	_Atomic bool cancel;            /* also set by the work's own owner */
	_Atomic bool again;
	struct long_work *next;
};
void mimage_enter_long(struct mimage *m, struct long_work *w);
void mimage_leave_long(struct mimage *m, struct long_work *w);

/* Between enter and leave: image number @layer of the chain (0: the top), or
 * NULL when the chain is shorter. */
struct image *mimage_layer(struct mimage *m, unsigned layer);

/*
 * Metadata of layer @layer only, for info: the open image if there is one
 * (then the gate is held), else opened as `info -U` would.  Give back with
 * mimage_info_end(), same arguments.
 */
int mimage_info_begin(struct mimage *m, unsigned layer, struct image **img,
		      struct err *err);
void mimage_info_end(struct mimage *m, struct image *img);

/* Everything written is durable (a user has got the image; takes the gate).
 * Remembers a failed sync. */
int mimage_flush(struct mimage *m);
/* The image is (maybe) dirty: the 5 s timer will see to it.  Cheap. */
void mimage_wrote(struct mimage *m);
/* May an open keep the kernel's pages (F6)?  session.c also asks whether they
 * are those of this opening of the image (node.cached). */
bool mimage_keep_cache(struct mimage *m);
/* How long attributes may be kept (F23), seconds. */
double mimage_timeout(struct mimage *m);
/* What `status` holds: two lines. */
void mimage_status(struct mimage *m, struct strbuf *out);
/* The outcome of a command (ctl): NULL is ok. */
void mimage_outcome(struct mimage *m, const char *sentence);
/* All attributes and, with @data, pages of the image's files are old. */
void mimage_changed(struct mimage *m, bool data);

/* ---- facts ------------------------------------------------------------------- */

/* One image of a chain. */
struct layer {
	char *name;                     /* of its file, for messages */
	uint64_t size;                  /* guest bytes */
	uint32_t unit;                  /* 0: none */
	bool has_backing;
	bool has_bitmaps;               /* its format knows of some */
	bool has_snapshots;             /* the format can have some */
	bool has_stat;
	struct stat st;                 /* the image file */
	struct partition_table *parts;  /* NULL: none */
};

struct facts {
	_Atomic unsigned refs;
	struct file_id id;              /* of the top file when this was read */
	struct timespec when;
	uint64_t opened, changes;       /* of the image at that time; @opened 0:
					 * it was not open */
	int error;                      /* why not all is known, or 0 ... */
	char *sentence;                 /* ... in words */
	unsigned nr;                    /* layers known: the whole chain if no
					 * error */
	struct layer *layers;
};

/* Never NULL.  Reads, as -U would, when nothing fresh is known: may block, so
 * session.c calls it on an opener; facts_fast() only answers from memory. */
struct facts *mimage_facts(struct mimage *m);
struct facts *mimage_facts_fast(struct mimage *m);
void facts_unref(struct facts *f);

/* ---- nodes ------------------------------------------------------------------- */

enum node_kind {
	NODE_FOLDER,                    /* root of several images */
	NODE_IMAGE,                     /* an image's directory, or backing/ */
	NODE_DISK,
	NODE_INFO, NODE_INFO_JSON,
	NODE_MAP, NODE_MAP_JSON,
	NODE_CHECK, NODE_CHECK_JSON,
	NODE_CTL, NODE_STATUS,          /* layer 0 only */
	NODE_PARTITIONS,                /* directory */
	NODE_TABLE,                     /* partitions/table.json */
	NODE_PARTITION,                 /* partitions/N */
	NODE_JOBS,                      /* directory; layer 0 only */
	NODE_JOB,                       /* jobs/ID */
	NODE_BITMAPS,                   /* directory */
	NODE_BITMAP,                    /* bitmaps/NAME, a directory */
	NODE_BITMAP_INFO, NODE_BITMAP_MAP, NODE_BITMAP_ENABLED,
	NODE_SNAPSHOTS,                 /* directory */
	NODE_SNAPSHOT,                  /* snapshots/NAME, a directory ... */
	NODE_SNAPSHOT_DISK, NODE_SNAPSHOT_INFO, /* ... and what is in it */
	NR_NODE_KINDS
};

/* Lives while the kernel knows it or something of ours does. */
struct node {
	fuse_ino_t ino;                 /* never used twice in a mount (F23) */
	enum node_kind kind;
	const struct node_ops *ops;     /* NULL: a directory ... */
	const struct dir_ops *dir;      /* ... and NULL: tree.c's own */
	struct mount *mnt;
	struct mimage *m;               /* counted; NULL: NODE_FOLDER */
	unsigned layer;                 /* of the chain; 0 is the top */
	unsigned number;                /* NODE_PARTITION, NODE_JOB ...: below
					 * NODE_NUMBER_MAX */
	/* node table's lock: */
	uint64_t lookups;               /* by the kernel */
	unsigned refs;
	struct node *hash_next;
	/* The image's @opened and @changes when this was last opened: whose
	 * pages the kernel has. */
	_Atomic uint64_t cached, cached_changes;
	unsigned opens;                 /* passthrough.c: mnt->passing */
	int backing_id;                 /* the same; 0: reads come to us */
};

/* An open file.  Ops embed it first in a struct of their own. */
struct handle {
	struct node *node;              /* counted */
	bool has_image;                 /* mimage_get() was done ... */
	enum mimage_use use;            /* ... like this */
	bool counted;                   /* passthrough.c's */
	struct handle *next, **prev;    /* mnt->handles */
};

/*
 * A kind's operations.  Each replies exactly once with reply_*() or says
 * reply_later().  NULL: session.c answers as said.  They run in FUSE's threads
 * and must not wait for more than one flush (F33).
 */
struct node_ops {
	const char *name;               /* in its directory; NULL: by number */
	bool control;                   /* mode is its own, and it may be opened
					 * for writing without rw */
	mode_t mode;                    /* permission bits before masking: 0444,
					 * 0644 (w only with rw), 0600 */
	bool opens_image;               /* session.c gets the image at open, for
					 * what fi->flags want, puts at release;
					 * also checks rw: -EROFS */

	/* Sets st_size, st_blocks, st_blksize; the rest is filled.  @f is the
	 * node's image as known.  NULL: all 0. */
	void (*attr)(struct node *n, const struct facts *f, struct stat *st);
	/*
	 * Makes the handle (calloc; session.c fills struct handle and frees it
	 * by free() after release()) and sets fi's flags; fi->fh is set by
	 * session.c.  NULL: -EISDIR.
	 */
	int (*open)(struct node *n, struct fuse_file_info *fi,
		    struct handle **h);
	void (*read)(fuse_req_t req, struct handle *h, size_t len, off_t off);
	void (*write)(fuse_req_t req, struct handle *h, const char *buf,
		      size_t len, off_t off);           /* NULL: EPERM */
	/* Each close(2) (F10).  NULL: 0. */
	void (*flush)(fuse_req_t req, struct handle *h);
	void (*fsync)(fuse_req_t req, struct handle *h, bool data); /* NULL: 0 */
	/* The last close: no reply of its own.  May be NULL. */
	void (*release)(struct handle *h);
	/* NULL: EOPNOTSUPP. */
	void (*fallocate)(fuse_req_t req, struct handle *h, int mode,
			  off_t off, off_t len);
	/* NULL: EINVAL. */
	void (*lseek)(fuse_req_t req, struct handle *h, off_t off, int whence);
	/* Truncate; @h NULL without an open file.  0: done, or accepted without
	 * effect (F8).  On a worker, with the image got for writing if
	 * opens_image and @size is not 0.  -EINTR: it waited, and the caller is
	 * @gone.  NULL: 0 is accepted, else EPERM. */
	int (*set_size)(struct node *n, struct handle *h, uint64_t size,
			const _Atomic bool *gone);
	/* Takes @ph (NULL: none).  NULL: always ready. */
	void (*poll)(fuse_req_t req, struct handle *h,
		     struct fuse_pollhandle *ph);
	/* NULL: EOPNOTSUPP; both handles are of kinds with this op. */
	void (*copy)(fuse_req_t req, struct handle *in, off_t off_in,
		     struct handle *out, off_t off_out, size_t len);
};

/* Whether an answer may wait for a disk. */
enum patience { AT_ONCE, MAY_WAIT };

/*
 * A directory whose entries come and go by commands; names in it are looked up
 * each time.  All return 0 or a negative errno.
 */
struct dir_ops {
	/* As tree_lookup() and tree_list(), AT_ONCE: -EAGAIN. */
	int (*lookup)(struct node *dir, const char *name, enum patience p,
		      struct node **child);
	int (*list)(struct node *dir, enum patience p, struct listing *l);
	/* Which command (ctl.h) makes, removes, renames the entry; NULL: EPERM.
	 * On a worker.  @err: a sentence for status, if it is refused. */
	int (*make)(struct node *dir, const char *name, struct words *w,
		    struct err *err);
	int (*remove)(struct node *dir, const char *name, struct words *w,
		      struct err *err);
	int (*rename)(struct node *dir, const char *name, const char *to,
		      struct words *w, struct err *err);
	/* Removes a file of it, at once; NULL: EPERM. */
	int (*unlink)(struct node *dir, const char *name);
};

/* disk.c: disk and partitions (n->kind says which); views*.c; ctl.c */
extern const struct node_ops disk_ops, partition_ops;
extern const struct node_ops info_ops, info_json_ops, map_ops, map_json_ops,
	check_ops, check_json_ops, table_ops, status_ops;
extern const struct node_ops ctl_ops, job_ops;
extern const struct node_ops snapshot_disk_ops, snapshot_info_ops;
extern const struct dir_ops jobs_ops, snapshots_ops, snapshot_ops;

struct node *node_ref(struct node *n);
void node_unref(struct node *n);

#define NODE_NUMBER_MAX (1u << 18)

/*
 * The table.  A node's number follows from what it is: the image's base (64
 * bits that count up, never used again) + layer, kind and partition.
 */
struct node_table *node_table_new(void);
void node_table_free(struct node_table *t);
/* A base for a new image. */
uint64_t node_new_base(struct node_table *t);
fuse_ino_t node_ino(const struct mimage *m, enum node_kind kind,
		    unsigned layer, unsigned number);
/* The node of this, made if need be (@m NULL: NODE_FOLDER); counted. */
struct node *node_get(struct mount *mnt, struct mimage *m,
		      enum node_kind kind, unsigned layer, unsigned number);
/* The node that the kernel means; counted.  NULL: it should not. */
struct node *node_find(struct mount *mnt, fuse_ino_t ino);
/* The kernel has looked it up once more; has forgotten @n times. */
void node_looked_up(struct node *n);
void node_forget(struct mount *mnt, fuse_ino_t ino, uint64_t n);
/* Calls @fn with each known number of the image's nodes, under the table's
 * lock: it may only take notes. */
void node_each(struct mimage *m,
	       void (*fn)(const struct node *n, void *data), void *data);
bool node_is_dir(enum node_kind kind);

/* What disk.c and views-check.c keep with an image (m->disk, m->report): made by
 * their first use (under their own lock or m->lock), freed here when the image
 * is forgotten; closed: the image was closed or read anew (gate held). */
void disk_forget(struct mimage *m);
void report_forget(struct mimage *m);
void snapshots_forget(struct mimage *m);
void disk_closed(struct mimage *m);

/* ---- replies (F24) ------------------------------------------------------------- */

/*
 * All return 0, or a negative errno when the kernel did not take the answer (the
 * caller was interrupted): only who gave something away with it cares.
 * @err: 0 or a negative errno; what the kernel would not take becomes EIO.
 */
int reply_err(fuse_req_t req, int err);
int reply_buf(fuse_req_t req, const void *buf, size_t len);
int reply_write(fuse_req_t req, size_t n);
int reply_lseek(fuse_req_t req, off_t off);
int reply_entry(fuse_req_t req, const struct fuse_entry_param *e);
int reply_attr(fuse_req_t req, const struct stat *st, double timeout);
int reply_open(fuse_req_t req, const struct fuse_file_info *fi);
int reply_statfs(fuse_req_t req, const struct statvfs *st);
int reply_ioctl(fuse_req_t req, int result, const void *buf, size_t len);
int reply_poll(fuse_req_t req, unsigned revents);
/* The handler returns without an answer: some other thread gives it. */
void reply_later(fuse_req_t req);
/* Around each handler (session.c): asserts that exactly one of the above, or
 * reply_later(), was called. */
void reply_begin(fuse_req_t req);
void reply_end(fuse_req_t req);

/* ---- invalidation (F22) ----------------------------------------------------------- */

/* Queued; any thread may call, holding anything.  @data: pages too. */
void notify_inode(struct mount *mnt, fuse_ino_t ino, bool data);
void notify_entry(struct mount *mnt, fuse_ino_t parent, const char *name);
/* What was queued has been sent, or a second is over.  The caller holds nothing
 * and has no directory's request to answer. */
void notify_settle(struct mount *mnt);

#endif
