/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * views.h - what the generated files share: views.c (info, status, the table of
 * partitions), views-map.c, views-check.c.
 */
#ifndef FS_VIEWS_H
#define FS_VIEWS_H

#include "fs/slow.h"

#include "report.h"

/* An open file whose whole text is made at its first read (F17). */
struct text_handle {
	struct handle h;
	_Atomic bool made;      /* @text is there and stays as it is */
	struct strbuf text;
};

static inline struct text_handle *text_handle(struct handle *h)
{
	return container_of(h, struct text_handle, h);
}

/* Makes the text, on a worker; looks at slow_interrupted() if it is long. */
typedef int text_fill(struct node *n, struct slow *s, struct strbuf *out);

int text_open(struct node *n, struct fuse_file_info *fi, struct handle **h);
void text_release(struct handle *h);
/* Once no reply is being made from it. */
void text_free(struct strbuf *text);
/* Answers from the text, or has a worker of @pool make it first; @how: key and
 * bulky of that work. */
void text_read(fuse_req_t req, struct handle *h, size_t len, off_t off,
	       struct work_pool *pool, const struct work *how,
	       text_fill *fill);
/* Of a text that is there. */
void text_reply(fuse_req_t req, const struct strbuf *text, size_t len,
		uint64_t off);
enum report_format text_format(const struct node *n);

#endif
