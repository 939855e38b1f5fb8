/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * judge.h - what the parts of the judge share.
 *
 *   judge.c   options, one run per seed, the verdicts of other programs
 *   world.c   what every sector of the guest may hold
 *   disks.c   the image's files, each on a disk that loses power
 *   bitmaps.c what dirty bitmaps may say
 *   admin.c   snapshots and sizes, changed meanwhile
 *   work.c    threads that write, zero, flush and read back
 *
 * The judge knows blockcore's public calls, the disk that loses power and the
 * engine's off-switches.  Of a format (--format) it knows only what a crash may
 * leave; qemu-img makes the image, and reads and checks what is left.
 */
#ifndef JUDGE_H
#define JUDGE_H

#include "engine.h"
#include "../lib/testfile.h"

#define VERSION_MAX 62u         /* kinds are bits of a word */

enum { MAX_DISKS = 8 };

struct options {
	uint64_t cluster, size;
	unsigned first_seed, last_seed;
	unsigned threads, ops, outcomes;
	const char *dir, *off, *create, *format, *bin;
	const char *name;       /* in the verdict, instead of the format */
	const char *data;       /* "raw", "plain": with a data file */
	const char *make;       /* makes the image instead of qemu-img ... */
	const char *files[MAX_DISKS];   /* ... with these files beside it */
	unsigned nr_files;
	uint64_t torn, torn_end;        /* power_tears() */
	bool snapshot, packed, bitmap, no_crash, keep, expect_failure, at_sync;
	bool twice, admin;
};

extern struct options opt;

/* A shell's command, and its exit code; the judge ends unless it is 0. */
int sh(const char *fmt, ...) printf_like(1, 2);
void must(int rc, const char *what);
void must_ok(int ret, struct err *err, const char *what);

/* The image's disk, and behind it those of opt.files. */
struct disks {
	struct file *d[MAX_DISKS + 1];
	unsigned n;
};

/* From "template" and FILE-template ... */
void disks_load(struct disks *all);
/* What the engine gets for the names of second files; NULL: files. */
void disks_are(const struct disks *all);
void disks_crash(struct disks *all);
void disks_after(const struct disks *all, uint64_t seed, struct disks *after);
/* ... to "crashed" and FILE. */
void disks_store(const struct disks *all);
void disks_free(struct disks *all);

/*
 * Every sector holds (its number, version) or zeroes.  Whoever changes a sector
 * holds the lock of its stripe, so that versions of one sector follow each
 * other; sectors of one cluster are changed by many threads at once.
 */
struct world {
	uint64_t nr_sectors;
	_Atomic unsigned char *handed;  /* newest version given to the engine */
	_Atomic unsigned char *acked;   /* newest that came back */
	unsigned char *durable;         /* newest known durable: lock */
	_Atomic uint64_t *zeroes;       /* bit v: version v is zeroes */
	pthread_mutex_t lock;
	pthread_mutex_t *stripes;
};

int world_init(struct world *w, uint64_t nr_sectors);
void world_free(struct world *w);
/* Sectors that hold (number, 0) from the start instead of zeroes. */
void world_initial(struct world *w, uint64_t first, uint64_t n,
		   unsigned char *buf);
bool world_is_initial(const struct world *w, uint64_t sector,
		      const unsigned char *buf);
/* Locks the sectors; false (nothing locked): one of them has no versions
 * left. */
bool world_take(struct world *w, uint64_t first, uint64_t n);
void world_give(struct world *w, uint64_t first, uint64_t n);
/* New versions for locked sectors; @buf (NULL: zeroes) gets the bytes. */
void world_next(struct world *w, uint64_t first, uint64_t n,
		unsigned char *buf);
void world_acked(struct world *w, uint64_t first, uint64_t n);
/* What has been given to the engine; the caller frees it. */
unsigned char *world_handed(struct world *w);
/* Before a flush, and after it has succeeded. */
unsigned char *world_snapshot(struct world *w);
void world_durable(struct world *w, const unsigned char *snapshot);
/* What locked sectors must read as now.  False after saying what is wrong. */
bool world_current(const struct world *w, uint64_t first, uint64_t n,
		   const unsigned char *buf);
/* Is it a version from @lo to @hi?  False after saying that it is not. */
bool world_between(const struct world *w, uint64_t sector,
		   const unsigned char *buf, unsigned lo, unsigned hi);
/* What a sector may hold after a crash. */
bool world_after_crash(const struct world *w, uint64_t sector,
		       const unsigned char *buf);

struct work {
	struct world *world;
	struct image *img;
	struct file *disk;
	unsigned threads, ops;
	uint64_t seed;
	_Atomic unsigned done;          /* operations so far */
	unsigned cut_at;                /* operation at which the power goes */
	unsigned cut_requests;          /* ... after so many more requests */
	bool at_sync;                   /* ... syncs, the first one's to come */
	bool holes;                     /* the format can say "nothing here" */
	bool packed;                    /* store some units encoded */
	bool lost_write;                /* one write's fate is unknown */
	bool admin, admin_bitmaps;      /* --admin, and with bitmaps */
	_Atomic bool cut, misread;
	_Atomic unsigned flushes, errors;
};
/* Runs the threads; returns when all have ended. */
void work_run(struct work *work);

/* --bitmap (bitmaps.c): into the template; at the beginning of the work; is the
 * power to go while the image is closed; after content_is_good().  @resized: all
 * were used. */
void bitmaps_template(const char *dir);
void bitmaps_begin_work(const struct work *work);
bool bitmaps_at_close(uint64_t seed);
bool bitmaps_are_good(const struct world *w, const char *dir, bool resized);

/* --admin (admin.c): beside the others' work; after content_is_good(). */
void admin_start(struct work *work);
void admin_stop(void);
bool admin_is_good(const struct world *w, const char *dir);

/* xorshift: the same numbers for the same seed. */
static inline uint64_t rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
