/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * testfile.h - files for tests: one that sets traps (faults, blocked requests,
 * a log) around another file, and a disk in memory that loses power.
 *
 * All are ordinary struct files: open an image on one with image_open_file().
 * All functions may be called by any thread at any time, but for traps that are
 * freed with their file.
 */
#ifndef TESTS_TESTFILE_H
#define TESTS_TESTFILE_H

#include "file.h"

/* What a driver can be asked for; the first five are enum file_op. */
enum test_op {
	TEST_READ = FILE_OP_READ,
	TEST_WRITE = FILE_OP_WRITE,
	TEST_SYNC = FILE_OP_SYNC,
	TEST_ZERO = FILE_OP_ZERO,
	TEST_DISCARD = FILE_OP_DISCARD,
	TEST_ALLOCATE,
	TEST_TRUNCATE,
	NR_TEST_OPS,
	TEST_ANY = NR_TEST_OPS, /* for rules: every op */
};

const char *test_op_name(enum test_op op);

/* ---- traps ---------------------------------------------------------------
 * A file around another: requests pass through to the driver below as they
 * are, unless a rule matches.  Several rules may be set; the first that matches
 * acts.  Takes the reference to @below.
 */
struct file *trap_file_take(struct file *below);

struct trap_rule {
	enum test_op op;
	uint64_t off, len;      /* touching these bytes; len 0: anywhere
				 * (syncs touch nothing: leave it 0) */
	unsigned nth;           /* from the nth such request on, counted from
				 * the rule's making; 0 is 1, the first */
	unsigned times;         /* how many of them; 0: for ever */
	int error;              /* negative errno: fail with it */
	bool block;             /* wait until trap_release() */
	bool after;             /* act after the request was done below: its
				 * bytes are in, though it fails or waits */
};

struct trap;

/* Lives as long as @f.  error and block together: waits, then fails. */
struct trap *trap_add(struct file *f, const struct trap_rule *rule);
/* Waits until @n requests wait in it; false: not within 20 seconds. */
bool trap_wait(struct trap *t, unsigned n);
/* Lets go those that wait, now and later: a rule that only blocks is over. */
void trap_release(struct trap *t);
/* How often it has acted. */
unsigned trap_hits(struct trap *t);
/* Ends all rules (what waits goes on, without an error). */
void trap_clear(struct file *f);

/* Requests that came, whether they failed or not; TEST_ANY: all. */
uint64_t trap_count(struct file *f, enum test_op op);

/* The log: off until it is asked for. */
struct trap_entry {
	enum test_op op;
	uint64_t off, len;
	int result;             /* 0, bytes or negative errno */
};
void trap_log(struct file *f, bool on);
/* A copy of what was logged, oldest first; the caller frees *@log. */
size_t trap_log_take(struct file *f, struct trap_entry **log);

/* ---- a disk that loses power ---------------------------------------------
 * Bytes in memory.  What was synced is durable; of what was written since, each
 * sector of 512 bytes survives a power failure or does not, and so does the
 * file's length.  A sector that was written several times between two syncs may
 * come back with any of its contents.
 */
struct power_args {
	uint64_t size;          /* at the start, durable zeroes; huge is fine */
	uint64_t seed;          /* for what happens before the failure */
	bool fixed;             /* grows = false: a write past the end is cut
				 * short, then ENOSPC (remote.md R2) */
	uint64_t space;         /* bytes that the host has, in steps of 64 KiB;
				 * 0: enough.  Beyond: ENOSPC */
};

struct file *power_new(const struct power_args *a);

/* The power fails: from now on everything is EIO. */
void power_crash(struct file *f);
/* ... in the nth changing request or sync from now (1: the next): a write may
 * be there in part, a sync has done nothing.  0: never. */
void power_crash_after(struct file *f, uint64_t nth);
/* ... in the nth sync from now, before it has done anything: all that it would
 * have made durable is at risk at once.  0: never. */
void power_crash_sync(struct file *f, uint64_t nth);
bool power_crashed(struct file *f);
/* Changing requests and syncs so far. */
uint64_t power_ops(struct file *f);
/*
 * The nth write from now has an unknown fate: it returns @error, its sectors
 * may be there or not, and no sync makes them durable though it returns 0 (as
 * librbd's flush does, R6).
 */
void power_unknown_fate(struct file *f, uint64_t nth, int error);
/*
 * In these bytes a sector that was not synced may come back as noise, too,
 * neither old nor new: what a log and its checksums are for.  Whatever is made
 * of a failure has it as well.
 */
void power_tears(struct file *f, uint64_t off, uint64_t len);
/* Changes the space; 0: enough. */
void power_space(struct file *f, uint64_t bytes);

/*
 * What is found when the power is back: a new disk, all of it durable.  Of one
 * crash any number of outcomes can be made: the seed says which sectors survive
 * (seed 0: all that were not synced are lost, 1: all are there).
 */
struct file *power_after(struct file *f, uint64_t seed);
/* As it is now, unsynced bytes included, into a sparse host file. */
int power_save(struct file *f, const char *path);
/* Sectors that a failure could take now. */
uint64_t power_at_risk(struct file *f);

/* ---- random requests -----------------------------------------------------
 * Reads, writes and zeroes of any alignment, in ragged pieces, below half of
 * HAMMER_ROOM, at the empty file @f (or one of zeroes, of at least half of
 * HAMMER_ROOM, that does not grow): every read and every length is compared
 * with an array (a cmocka failure).  One thread at a time.
 */
#define HAMMER_ROOM (1 << 20)
void hammer(struct file *f, unsigned rounds);
/* What the file should hold after the last hammer(); zeroes behind its end. */
const unsigned char *hammer_bytes(void);

#endif
