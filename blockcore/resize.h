/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize.h - what `imgctl resize` and `ctl resize` are told, in qemu-img's
 * words.
 */
#ifndef BLOCKCORE_RESIZE_H
#define BLOCKCORE_RESIZE_H

#include "job.h"

#define RESIZE_WARNING \
	"Shrinking an image will delete all data beyond the shrunken image's" \
	" end. Before performing such an operation, make sure there is no" \
	" important data there."

struct resize_request {
	int relative;           /* -1, 0, 1: what stood before the number */
	uint64_t number;
	bool shrink;            /* allowed */
	enum preallocation prealloc;
};

/* "[+|-]SIZE" */
int resize_parse(const char *text, struct resize_request *r, struct err *err);
/* -EPERM: it would become smaller, which is not allowed. */
int resize_run(struct image *img, const struct resize_request *r,
	       struct progress *progress, struct err *err);

#endif
