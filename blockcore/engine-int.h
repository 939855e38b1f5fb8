/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine-int.h - what the engine's files know of each other.
 *
 *   claim.c   byte ranges whose mapping is being changed
 *   epoch.c   who may still be using an extent
 *   meta.c    pages of metadata: cache, eviction, pins
 *   flush.c   the gate, the stages, durability
 *   space.c   host space from "dropped" to "free"
 *   unit.c    decoded units
 *   bits.c, bitmap.c, bitmap-admin.c    dirty bitmaps
 *   read.c, write.c, unmap.c    bytes
 *   walk.c    extents through the chain
 *   repair.c  check -r
 *   admin.c   changes of the whole image; resize.c its size
 *   snapshot.c  internal snapshots; the instant at which nobody writes
 *   engine.c  birth, death, marks
 */
#ifndef BLOCKCORE_ENGINE_INT_H
#define BLOCKCORE_ENGINE_INT_H

#include "bitmap.h"
#include "engine.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- claims --------------------------------------------------------------- */

struct claim_waiter;

/* Lives on its owner's stack. */
struct claim {
	uint64_t off, end;
	struct claim_waiter *waiters;           /* claims.lock */
};

/* Held claims are disjoint: a sorted array finds conflicts by bisection. */
struct claims {
	pthread_mutex_t lock;
	struct claim **held;
	size_t n, room;
	bool closed;            /* nobody gets a new one ... */
	pthread_cond_t opened;  /* ... before this */
	pthread_cond_t drained; /* closed, and none is held any more */
};

void claims_init(struct claims *c);
void claims_destroy(struct claims *c);
/* Waits until nobody holds a part of [off, end).  0 or -ENOMEM. */
int claim_take(struct engine *e, struct claim *c, uint64_t off, uint64_t end);
void claim_drop(struct engine *e, struct claim *c);
/* Waits until nobody holds a claim and nobody gets one; claims_open() ends
 * that.  Later claims do not come before: no stream of them delays it. */
void claims_close(struct engine *e);
void claims_open(struct engine *e);

/* ---- epochs --------------------------------------------------------------- */

#define EPOCH_CHUNKS 16         /* of 64, 128, 256 ... slots */

struct epoch_slot {
	_Atomic uint64_t seen;  /* 0: outside */
	unsigned depth;         /* owner only: nesting in one image */
} __attribute__((aligned(64)));

struct epochs {
	_Atomic uint64_t now;
	struct epoch_slot *_Atomic chunk[EPOCH_CHUNKS];
};

int epochs_init(struct epochs *ep);
void epochs_destroy(struct epochs *ep);
/* Between the two the calling thread may use extents that map() answers. */
void epoch_enter(struct engine *e);
void epoch_exit(struct engine *e);
/* Starts a new epoch; returns the number of the one that ended. */
uint64_t epoch_advance(struct engine *e);
/* The oldest epoch that somebody is still in; UINT64_MAX: nobody is. */
uint64_t epoch_oldest(struct engine *e);

/* ---- the engine ----------------------------------------------------------- */

/* Host space that nothing points to any more. */
struct retired {
	struct retired *next;
	struct file *file;
	uint64_t host, len;
	uint64_t epoch;         /* readers of this and older ones may see it */
};

struct tracking;

struct bitmap_state {
	pthread_mutex_t lock;
	struct bitmap_set set;          /* lock */
	bool listed;                    /* lock: the set is that of the file */
	struct tracking *_Atomic tracking; /* what records; NULL: nothing */
};

struct engine {
	struct image *img;
	struct claims claims;
	struct epochs epochs;

	pthread_rwlock_t gate;
	_Atomic uint64_t changes;       /* of metadata, so far */
	pthread_mutex_t flush_lock;
	_Atomic int broken;             /* rule 6: sticky */
	_Atomic bool corrupt;
	_Atomic bool frozen;            /* nothing is overwritten in place */
	_Atomic uint64_t flushes;       /* ended ones */

	pthread_mutex_t dirty_lock;     /* the lists below */
	struct mpage *dirty[NR_STAGES];
	_Atomic size_t nr_dirty;

	pthread_mutex_t mark_lock;      /* fmt->dirty() runs once */
	_Atomic bool marked;
	bool unclean;           /* engine_clean() has failed; its caller is
				 * alone */

	pthread_mutex_t resize_lock;    /* the size changes */

	pthread_mutex_t strings_lock;
	char **strings;                 /* image_keep_string() */
	size_t nr_strings;

	pthread_mutex_t retired_lock;
	struct retired *dropped;        /* unlinked in memory only */
	struct retired *waiting;        /* unlinked on disk; readers may be
					 * there */
	_Atomic bool has_retired;

	struct bitmap_state bitmaps;
};

/* Before any change: marks the image dirty, once (rule 12), and says why it
 * may not be written: -EROFS, -EUCLEAN, or the sticky error. */
int engine_begin(struct engine *e);

/* ---- pages ---------------------------------------------------------------- */

struct mpage {
	struct mpage *hash_next;                /* shard */
	struct mpage *clock_next, *clock_prev;  /* shard */
	struct engine *eng;
	struct file *file;
	uint64_t hash;          /* of file and host; the file may be gone */
	uint64_t host;
	_Atomic uint32_t pins;          /* grows under the shard's lock, or
					 * from what is pinned already */
	_Atomic bool used;              /* since the clock's hand came by */
	bool loading;                   /* shard */
	bool gone;                      /* shard: not in the table any more */
	int error;                      /* shard: of the load */
	/* A page is dirty, being written, both, or clean (rule 13). */
	_Atomic bool is_dirty, writing;
	enum stage stage;               /* of a dirty page: dirty_lock */
	struct mpage *dirty_next, *dirty_prev;  /* dirty_lock */
	pthread_rwlock_t lock;          /* data */
	uint32_t size;
	unsigned char data[] __attribute__((aligned(8)));
};

/* Pins and unlinks every dirty page into @out (at most @max): they are "being
 * written" then.  Inside the exclusive gate. */
size_t meta_collect(struct engine *e, struct mpage **out, size_t max);
/* After the copies of @pages were written, or (@redirty) were not. */
void meta_written(struct engine *e, struct mpage **pages, size_t n,
		  bool redirty);
/* Drops all pages of an engine that is about to end. */
void meta_drop_all(struct engine *e);
/* Rule 13: bytes of dirty pages and of copies being written, of all images;
 * and the bound for them. */
extern _Atomic uint64_t cache_dirty_bytes;
uint64_t cache_dirty_bound(void);
uint64_t cache_bound(void);

/* ---- retired space -------------------------------------------------------- */

/* The records made so far, for a flush that has just copied the pages. */
struct retired *space_take_dropped(struct engine *e);
/* That flush failed / ended. */
void space_put_back(struct engine *e, struct retired *list);
void space_settle(struct engine *e, struct retired *list);
/* Frees what no reader can see any more.  Under flush_lock. */
void space_reap(struct engine *e);
void space_drop_all(struct engine *e);

/* ---- flush ---------------------------------------------------------------- */

/* Rule 11: makes durable what was written to any file of the image. */
int sync_files(struct image *img);

/* ---- decoded units -------------------------------------------------------- */

int unit_read(const struct extent *ext, void *buf, size_t len);
/* The host bytes may soon hold something else. */
void unit_forget(const struct file *f, uint64_t host, uint64_t len);
uint64_t unit_cache_used(void);
/* What pages leave of the bound, at least a quarter of it (meta.c). */
uint64_t unit_cache_bound(void);
/* Pages have grown: units make room. */
void unit_trim(void);

/* ---- dirty bitmaps -------------------------------------------------------- */

/* Before the guest's bytes change, in an epoch or under a claim that lasts
 * until they have. */
void bitmaps_mark(struct engine *e, uint64_t off, uint64_t len);
void bitmaps_init(struct engine *e);
void bitmaps_destroy(struct engine *e);
/* By mark(): what records is marked as in use in the file. */
int bitmaps_use_tracked(struct image *img);
/* In a quiet image after a flush: stores what changed, durably. */
int bitmaps_store(struct image *img);

/* ---- bytes ---------------------------------------------------------------- */

static inline bool in_place(const struct extent *ext)
{
	return ext->kind == EXT_DATA && !(ext->flags & EXT_SHARED);
}

/* The same, in the epoch in which @ext was mapped: may it be done now? */
static inline bool may_overwrite(struct engine *e, const struct extent *ext)
{
	return in_place(ext) && !atomic_load(&e->frozen);
}

/* Stores bytes whose units, mapped as @old, the caller has claimed, in units of
 * their own.  How much of them (the old extent or the reservation may be
 * shorter), or an error. */
ssize_t store_claimed(struct image *img, const struct extent *old,
		      const void *buf, size_t len, uint64_t off);
/* Units for @len bytes at @off of one extent, which are claimed. */
int reserve_data(struct image *img, struct reserve *res, uint64_t off,
		 uint64_t len);
/* The end of every reservation: commit() if it was filled, else abort(). */
void reserve_settle(struct image *img, const struct reserve *res, bool stored);
/* Rule 13: beyond half of the bound (a flush copies what is dirty) whoever is
 * about to make more dirty pages writes his own first. */
int dirty_throttle(struct image *img);

/* How much of [off, end) fmt->unmap() may be asked for at once: pieces of one
 * unit, or whole units (at most @max bytes of them, if those are some). */
uint64_t unmap_reach(struct image *img, uint64_t off, uint64_t end,
		     uint64_t max);

/* image_allocate(); @host: also in the file below. */
int allocate_range(struct image *img, uint64_t off, uint64_t len, bool host);

/* Does every byte of the live disk's [off, off + len) below the top layer read
 * as zero without looking at data?  1, 0 or an error. */
int below_is_zero(struct image *img, uint64_t off, uint64_t len);

/* -EINVAL outside of the view. */
static inline int view_check(const struct view *v, uint64_t off, uint64_t len)
{
	uint64_t size = v->root ? v->size : image_size(v->img);

	return range_within(off, len, size) ? 0 : -EINVAL;
}

#endif
