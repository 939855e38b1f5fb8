/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job-convert.h - what the parts of convert share.
 *
 *   job-convert-plan.c   cuts the sources into pieces, in ascending order
 *   job-convert-fill.c   reads a batch of pieces, finds zeroes, encodes
 *   job-convert-store.c  writes a batch
 *   job-convert-salvage.c  reads around what cannot be read
 *   job-convert.c        the threads, and the order of batches
 */
#ifndef BLOCKCORE_JOB_CONVERT_H
#define BLOCKCORE_JOB_CONVERT_H

#include "job.h"

enum {
	/* One request; qemu-img's, so that clusters are allocated in the same
	 * steps and errors name the same byte. */
	CONVERT_REQUEST = 2 << 20,
	CONVERT_PIECES = 64,
	CONVERT_ROUND = 4096,   /* pieces in a buffer; O_DIRECT likes it */
	/* Scattered data: a batch of several pieces holds no more, so that
	 * the rest of its buffer is never touched. */
	CONVERT_SCATTERED = 512 << 10,
	/* Below it a copy costs less than to borrow (read: 4 GB/s). */
	CONVERT_BORROW = 256 << 10,
	/* Guest bytes that one batch encodes at least. */
	CONVERT_PACK = 64 << 10,
};

enum piece_kind {
	PIECE_SKIP,     /* the target reads right without us */
	PIECE_ZERO,     /* must read as zeroes */
	PIECE_BLANK,    /* zeroes are to be stored as data (-S 0) */
	PIECE_DATA,
	PIECE_COPY,     /* data that the host copies (-C) */
};

/* A stretch of the target that one request is about. */
struct piece {
	enum piece_kind kind;
	uint64_t off, len;      /* guest bytes */
	const unsigned char *bytes;     /* DATA: in the batch's buffer, or */
	struct file_loan loan;          /* ... the host's own pages */
	size_t at;              /* DATA: where in the batch's buffers ... */
	size_t bit;             /* ... and the bit of its first block */
	bool joined;            /* DATA: of several runs */
	size_t packed;          /* -c: encoded bytes; 0: does not shrink */
	bool salvaged;          /* batch.lost tells which sectors are not ... */
	int bad_map;            /* ... and why there was no telling what it is;
				 * of a unit (-c), what its first byte is */
};

/*
 * What a worker does in one go.  Belongs to the worker that took it until it is
 * ready, and then to the one that stores it.
 */
struct batch {
	struct piece piece[CONVERT_PIECES];
	unsigned nr;
	size_t used;            /* bytes of @buf */
	uint64_t end;           /* guest offset behind the batch */
	unsigned char *buf;     /* page-aligned */
	bool huge;              /* @buf may be a huge page */
	unsigned char *packed;  /* -c: as large as @buf */
	uint64_t *zero;         /* a bit for each block that was read */
	size_t bits;
	int *lost;              /* --salvage: for each sector of @buf why it
				 * could not be read, or 0 ... */
	bool any_lost;          /* ... if there is one */
	int error;              /* reading failed ... */
	uint64_t error_off;     /* ... in the piece there */
	bool bad_map;           /* ... or there was no telling what is there */
	uint64_t seq;           /* its number in the order of planning */
	struct batch *next;     /* convert.free */
};

struct convert {
	const struct convert_args *a;
	uint64_t size;          /* guest bytes to be copied */
	bool find_zeroes;       /* in what was read */
	uint64_t align;         /* zeroes are looked for in such blocks */
	uint32_t unit;          /* -c: the target's, else 0 */
	size_t batch_bytes;
	unsigned nr_batches, nr_workers;
	struct batch *batches;
	struct batch **line;    /* read, by number modulo nr_batches (order) */

	/* The plan: under @plan. */
	pthread_mutex_t plan;
	uint64_t at;            /* planned up to here */
	unsigned src;           /* the source at @at ... */
	uint64_t base;          /* ... and where it begins, behind the others */
	uint64_t ahead;         /* how far the next look goes; 0: as usual */
	uint64_t run_end;       /* what kind @at .. @run_end is */
	enum piece_kind run_kind;
	int run_error;          /* --salvage: why that is not known, or 0 */
	uint64_t planned;       /* batches so far: the next one's number */

	/* The order of storing: under @order. */
	pthread_mutex_t order;
	pthread_cond_t room;    /* a batch became free, or the end */
	struct batch *free;
	uint64_t stored;        /* the number of the batch that is next */
	bool storing;           /* somebody is */
	int error;              /* the first one: all stop */

	_Atomic uint64_t behind; /* bytes stored, if @dst will be flushed */
	uint64_t begin, paid;   /* -r: ns, bytes; only who stores */
};

/* Puts into @b what comes next; an error is left in it. */
void convert_plan(struct convert *c, struct batch *b);
/* After the read of a piece failed: reads it sector by sector, and leaves zeroes
 * where that fails. */
void convert_salvage(const struct convert *c, struct batch *b, struct piece *p);
int convert_read(const struct convert *c, void *buf, uint64_t len,
		 uint64_t off);
/* Reads and encodes; an error is left in the batch. */
void convert_fill(struct convert *c, struct batch *b);
/* A piece of borrowed pages that are there no more: reads it. */
int convert_fill_again(const struct convert *c, struct batch *b,
		       struct piece *p);
/* What was borrowed for a batch. */
void convert_give_back(struct batch *b);
/* The run of a piece at @pos: is it zero, and how long is it? */
bool convert_run(const struct convert *c, const struct batch *b,
		 const struct piece *p, uint64_t pos, uint64_t *len);
/* The source of the target's byte at *@off: *@off becomes its offset there, @len
 * is cut at its end. */
struct image *convert_source(const struct convert *c, uint64_t *off,
			     uint64_t *len);
bool convert_cancelled(const struct convert *c);
/* Tells what was lost of a batch. */
void convert_warn(struct convert *c, const struct batch *b);
/* @failed: the offset that the message names. */
int convert_store(struct convert *c, struct batch *b, uint64_t *failed);

#endif
