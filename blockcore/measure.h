/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * measure.h - how large a new image would be.  The sum of what a source holds is
 * made here; what that takes in a format is the format's (struct format_admin).
 */
#ifndef BLOCKCORE_MEASURE_H
#define BLOCKCORE_MEASURE_H

#include "blockcore.h"
#include "options.h"

struct measure {
	uint64_t required, full;        /* bytes */
	bool has_bitmaps;
	uint64_t bitmaps;               /* bytes */
};

/* What an image of a format is to hold: the disk of @view, or (NULL) nothing
 * yet. */
struct measure_source {
	const struct view *view;
	uint64_t size;                  /* guest bytes */
};

/*
 * Guest bytes of @src in units of @unit, counted from offset 0, that hold
 * something else than zeroes, as its layers know it.
 */
int measure_data(const struct measure_source *src, uint64_t unit,
		 uint64_t *bytes, struct err *err);

/* The target's format and options: -O (NULL: raw) and what -o lists.  To be
 * freed in any case. */
int measure_options(const char *target, const char *const *lists, size_t n,
		    const struct format **fmt, struct options **o,
		    struct err *err);
/* Sentences are qemu-img's; -ENOTSUP: that format is not measured. */
int measure_run(const struct format *fmt, const struct options *o,
		const struct measure_source *src, struct measure *m,
		struct err *err);

#endif
