/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job.h - long work on images that both tools/ and fs/ start: convert, compare.
 * Jobs move bytes through the engine's public calls only.
 */
#ifndef BLOCKCORE_JOB_H
#define BLOCKCORE_JOB_H

#include "blockcore.h"

/* Shared by a job and who watches it. */
struct progress {
	_Atomic uint64_t done, total;   /* work units (bytes) */
	_Atomic bool cancel;            /* set: the job ends with -ECANCELED */
	_Atomic bool pause;             /* set: it waits at the next step */
	_Atomic uint64_t rate;          /* bytes per second, 0: no limit */
	/* Called now and then from one thread at a time; may be NULL. */
	void (*tick)(struct progress *p);
	void *data;
	/* progress_step()'s: what the rate was when, and what came since */
	uint64_t rate_was, since, paid;
};

/*
 * A safe point of a job, by one thread at a time: @bytes more are done.  Waits
 * while it is paused or ahead of its rate.  0, or -ECANCELED.  @p may be NULL.
 */
int progress_step(struct progress *p, uint64_t bytes);
/* Only the waiting, for who counts otherwise. */
int progress_pace(struct progress *p, uint64_t bytes);

struct convert_args {
	struct image **src;     /* concatenated */
	unsigned nr_src;
	uint64_t skip;          /* dd: bytes of the sources that are left out
				 * in front; < their sum, or 0 */
	uint64_t length;        /* dd: at most so many go to the target's
				 * beginning; 0: all */
	struct image *dst;      /* open for writing, size >= what is copied */
	bool compress;          /* -c */
	bool out_of_order;      /* -W */
	bool flushed_after;     /* the caller will flush @dst */
	bool target_is_zero;    /* what is not written reads as zeroes */
	bool dst_has_backing;   /* -B: only src's top layer is stored */
	unsigned layers;        /* commit: so many layers of the source go into
				 * @dst, which is the next one below them;
				 * 0: this is no commit */
	bool salvage;           /* --salvage: what cannot be read is zeroes */
	bool copy_offload;      /* -C: data is copied by the host, unseen */
	unsigned threads;       /* -m */
	bool lend;              /* sources may be seen by image_lend() */
	uint64_t sparse;        /* -S: bytes; 0 = never look for zeroes */
	uint64_t rate;          /* -r: bytes per second, 0 = none */
	bool quiet;
	struct progress *progress;
	/* A failed read or write: message "error while reading at byte N: "
	 * comes from here, one line each. */
	void (*report)(void *data, const char *line);
	/* --salvage, unless @quiet: the same about what was lost; by one
	 * thread at a time, in ascending order unless @out_of_order. */
	void (*warn)(void *data, const char *line);
	void *report_data;
};
int job_convert(const struct convert_args *a, struct err *err);

struct commit_args {
	struct image *top;      /* writable, unless @drop */
	struct image *base;     /* of its chain, writable */
	bool drop;              /* -d: @top keeps what it holds */
	uint64_t rate;          /* -r: bytes per second, 0 = none */
	unsigned threads;       /* 0: as many as cores */
	bool lend;              /* nobody else writes: as for convert */
	struct progress *progress;
	/*
	 * Where others write to @top meanwhile (all three or none): takes the
	 * next stretch at or behind *@off that has changed since changed() was
	 * asked, or the job begun; false: there is none.  Keeps everybody out
	 * of the image and lets them in again.
	 */
	bool (*changed)(void *data, uint64_t *off, uint64_t *len);
	void (*alone)(void *data, bool begin);
	void *data;
};
/* Begun again after whatever ended it, it ends as if nothing had.  Texts are
 * qemu-img's. */
int job_commit(const struct commit_args *a, struct err *err);
/* The image of @top's chain that @name means (NULL: the next one).  @title: of
 * @top, for the sentence. */
int commit_base(struct image *top, const char *name, const char *title,
		struct image **base, struct err *err);

struct rebase_args {
	struct image *top;      /* writable, with its chain; writers may go on */
	struct image *new;      /* open for reading; NULL: onto nothing */
	const char *name;       /* what the header gets; NULL: nothing */
	const char *format;
	bool compress;          /* -c: nobody else writes */
	bool lend;              /* both chains may be seen by image_lend() */
	unsigned threads;       /* 0: as many as cores */
	struct progress *progress;
};
/*
 * Begun again after whatever ended it, it ends as if nothing had.  @new is in the
 * header then, not yet in @top->backing.  Texts are qemu-img's.
 */
int job_rebase(const struct rebase_args *a, struct err *err);
/* Its two parts that -u needs as well: may the image get such a backing file,
 * and it does. */
int rebase_check(const struct image *top, const char *name, const char *format,
		 struct err *err);
int rebase_header(struct image *top, const char *name, const char *format,
		  struct err *err);

struct compare_args {
	struct image *a, *b;
	bool strict;
	struct progress *progress;
};
enum compare_verdict { COMPARE_SAME, COMPARE_CONTENT, COMPARE_SIZE,
		       COMPARE_STATUS };
struct compare_result {
	enum compare_verdict verdict;
	bool size_differs;      /* non-strict: warn first */
	uint64_t off;           /* CONTENT: sector; STATUS: offset */
	int bad;                /* 1: reading image a failed, 2: b */
};
int job_compare(const struct compare_args *a, struct compare_result *res,
		struct err *err);

#endif
