/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* amend.h - `amend` for tools/ and fs/: lists of options, and who knows them. */
#ifndef BLOCKCORE_AMEND_H
#define BLOCKCORE_AMEND_H

#include "job.h"

/* "-o help" */
int amend_help(const char *format, struct strbuf *out, struct err *err);
/* The -o lists in order.  On a writable image that nobody else uses. */
int amend_run(struct image *img, const char *const *lists, size_t n,
	      struct progress *p, struct err *err);

#endif
