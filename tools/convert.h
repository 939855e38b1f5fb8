/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert.h - the parts of `imgctl convert`: what the command line says
 * (convert.c), and the target (convert-target.c).
 */
#ifndef TOOLS_CONVERT_H
#define TOOLS_CONVERT_H

#include "tools.h"
#include "create.h"
#include "job.h"

struct convert_cmd {
	/* The command line. */
	struct open_how from, to;
	const char *source_cache, *target_cache;
	const char *backing, *backing_fmt;
	const char *snapshot;           /* -l */
	const char **lists;             /* -o, in order */
	size_t nr_lists;
	bool help, no_create, compress, out_of_order, target_is_zero;
	bool show, quiet, copy_offload, has_sparse, target_opts, skip_broken;
	bool bitmaps;
	bool salvage;
	int level;                      /* -o compression_level */
	unsigned threads;
	uint64_t sparse, rate;
	char **sources;
	unsigned nr_sources;
	const char *target;
	const char *stage;              /* dd's word for making it, or NULL */

	/* What is open. */
	struct image **src;
	struct image *dst;
	uint64_t size;                  /* of all sources */
	struct bitmap_info *list;       /* --bitmaps: of the source */
	size_t nr_list;

	/* The new target (convert-target.c). */
	const struct format *fmt;
	struct options *options;
	bool created;                   /* it was not there before */
	bool regular;                   /* a fresh file reads as zeroes */
};

/* Before anything is made: false after an error was printed. */
bool target_prepare(struct convert_cmd *c);
/* Makes (unless -n) and opens it: false after an error was printed. */
bool target_open(struct convert_cmd *c);
/* Options of convert alone for a target of @fmt (may be NULL), or NULL. */
const struct option_spec *target_own_options(const struct format *fmt);
/* Does what is not written read as zeroes? */
bool target_zero(const struct convert_cmd *c);

/* convert-bitmaps.c.  Before the target is made, when it is open (false after
 * an error was printed), and after the bytes (0, or printed an error). */
bool bitmaps_prepare(struct convert_cmd *c);
bool bitmaps_target_fits(const struct convert_cmd *c);
int bitmaps_copy(struct convert_cmd *c);

#endif
