/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * views.c - what imgctl would print, as files: info, status and the partition
 * table.  (map: views-map.c; check: views-check.c.)
 *
 * Knows that such a file is made at the first read of a handle and stays what
 * it is for that handle (F17).  Refuses to know the words: report.h and the
 * parts that know write them.
 */
#include "fs/views.h"

#include "fs/partitions.h"

/* ---- a text and its handle ---------------------------------------------------- */

int text_open(struct node *n, struct fuse_file_info *fi, struct handle **h)
{
	struct text_handle *th = calloc(1, sizeof(*th));

	(void)n;
	if (!th)
		return -ENOMEM;
	fi->direct_io = 1;
	*h = &th->h;
	return 0;
}

/* A reply is seen before the call that sends it returns: who got it may close
 * the file while the text is still looked at. */
static pthread_mutex_t replying = PTHREAD_MUTEX_INITIALIZER;

void text_free(struct strbuf *text)
{
	with_lock(&replying);

	strbuf_free(text);
}

void text_release(struct handle *h)
{
	text_free(&text_handle(h)->text);
}

void text_reply(fuse_req_t req, const struct strbuf *text, size_t len,
		uint64_t off)
{
	with_lock(&replying);

	if (off >= text->len)
		reply_buf(req, NULL, 0);
	else
		reply_buf(req, text->text + off,
			  min_u64(len, text->len - off));
}

struct text_read {
	struct slow s;
	struct text_handle *th;
	text_fill *fill;
	size_t len;
	uint64_t off;
};

/* Reads of one handle come one after the other (the work's key). */
static void text_run(struct slow *s)
{
	struct text_read *r = container_of(s, struct text_read, s);
	struct text_handle *th = r->th;
	int ret = 0;

	if (!atomic_load(&th->made)) {
		ret = r->fill(th->h.node, s, &th->text);
		if (ret)
			strbuf_free(&th->text);
		else
			atomic_store(&th->made, true);
	}
	slow_end(s);
	if (ret)
		reply_err(s->req, ret);
	else
		text_reply(s->req, &th->text, r->len, r->off);
	free(r);
}

void text_read(fuse_req_t req, struct handle *h, size_t len, off_t off,
	       struct work_pool *pool, const struct work *how,
	       text_fill *fill)
{
	struct text_handle *th = text_handle(h);
	struct text_read *r;

	if (atomic_load(&th->made)) {
		text_reply(req, &th->text, len, (uint64_t)off);
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		reply_err(req, -ENOMEM);
		return;
	}
	r->s.work = *how;
	r->th = th;
	r->fill = fill;
	r->len = len;
	r->off = (uint64_t)off;
	slow_start(&r->s, req, pool, text_run);
}

enum report_format text_format(const struct node *n)
{
	switch (n->kind) {
	case NODE_INFO_JSON:
	case NODE_MAP_JSON:
	case NODE_CHECK_JSON:
		return REPORT_JSON;
	default:
		return REPORT_HUMAN;
	}
}

/* ---- info --------------------------------------------------------------------------- */

static int info_fill(struct node *n, struct slow *s, struct strbuf *out)
{
	autoerr err = ERR_INIT;
	struct image *img;
	int ret;

	(void)s;
	pause_point("fs:info");
	ret = mimage_info_begin(n->m, n->layer, &img, &err);
	if (ret)
		return ret;
	ret = report_info(out, img, text_format(n), &err);
	mimage_info_end(n->m, img);
	return ret;
}

static void info_read(fuse_req_t req, struct handle *h, size_t len, off_t off)
{
	struct work how = { .key = h };

	text_read(req, h, len, off, h->node->mnt->openers, &how, info_fill);
}

const struct node_ops info_ops = {
	.name = "info",
	.mode = 0444,
	.open = text_open,
	.read = info_read,
	.release = text_release,
};

const struct node_ops info_json_ops = {
	.name = "info.json",
	.mode = 0444,
	.open = text_open,
	.read = info_read,
	.release = text_release,
};

/* ---- status ---------------------------------------------------------------------------- */

static int status_fill(struct node *n, struct slow *s, struct strbuf *out)
{
	(void)s;
	facts_unref(mimage_facts(n->m));        /* what is wrong with it now */
	mimage_status(n->m, out);
	return 0;
}

static void status_read(fuse_req_t req, struct handle *h, size_t len,
			off_t off)
{
	struct work how = { .key = h };

	text_read(req, h, len, off, h->node->mnt->openers, &how, status_fill);
}

static void status_attr(struct node *n, const struct facts *f,
			struct stat *st)
{
	autostrbuf text = STRBUF_INIT;

	(void)f;
	mimage_status(n->m, &text);
	st->st_size = (off_t)text.len;
}

const struct node_ops status_ops = {
	.name = "status",
	.mode = 0444,
	.attr = status_attr,
	.open = text_open,
	.read = status_read,
	.release = text_release,
};

/* ---- partitions/table.json ---------------------------------------------------------------- */

static int table_text(const struct node *n, const struct facts *f,
		      struct strbuf *out)
{
	if (n->layer >= f->nr)
		return f->error ? f->error : -ENOENT;
	if (!f->layers[n->layer].parts)
		return -ENOENT;
	partition_table_json(f->layers[n->layer].parts, out);
	return 0;
}

static int table_fill(struct node *n, struct slow *s, struct strbuf *out)
{
	struct facts *f = mimage_facts(n->m);
	int ret = table_text(n, f, out);

	(void)s;
	facts_unref(f);
	return ret;
}

static void table_read(fuse_req_t req, struct handle *h, size_t len, off_t off)
{
	struct work how = { .key = h };

	text_read(req, h, len, off, h->node->mnt->openers, &how, table_fill);
}

static void table_attr(struct node *n, const struct facts *f, struct stat *st)
{
	autostrbuf text = STRBUF_INIT;

	if (!table_text(n, f, &text))
		st->st_size = (off_t)text.len;
}

const struct node_ops table_ops = {
	.name = "table.json",
	.mode = 0444,
	.attr = table_attr,
	.open = text_open,
	.read = table_read,
	.release = text_release,
};
