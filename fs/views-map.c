/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * views-map.c - map and map.json: made while they are read.
 *
 * Knows a cursor per open file: what was read is forgotten, so that memory does
 * not grow with the extents; a READ behind it starts again from 0 (F17).
 * Refuses to know the words (report.h) and where extents come from (the walk).
 */
#include "fs/views.h"

struct map_handle {
	struct handle h;
	/* What follows belongs to the read that runs: one at a time. */
	bool has_image;         /* a user of the image is ours */
	bool begun;
	uint64_t opened;        /* of the image that the cursor points into */
	struct map_cursor cursor;
	struct strbuf text;     /* [base, base + text.len) of the file */
	uint64_t base;
	int end;                /* 1: goes on; 0: ended; negative errno: ended
				 * by that */
};

static struct map_handle *map_handle(struct handle *h)
{
	return container_of(h, struct map_handle, h);
}

static int map_open(struct node *n, struct fuse_file_info *fi,
		    struct handle **h)
{
	struct map_handle *mh = calloc(1, sizeof(*mh));

	(void)n;
	if (!mh)
		return -ENOMEM;
	fi->direct_io = 1;
	*h = &mh->h;
	return 0;
}

static void map_release(struct handle *h)
{
	struct map_handle *mh = map_handle(h);

	text_free(&mh->text);
	if (mh->has_image)
		mimage_put(h->node->m, MIMAGE_READ);
}

/* ---- the cursor ------------------------------------------------------------------- */

static void cursor_restart(struct map_handle *mh, struct image *img)
{
	map_cursor_init(&mh->cursor, &img->live, text_format(mh->h.node), 0,
			UINT64_MAX);
	mh->text.len = 0;
	mh->base = 0;
	mh->end = 1;
	mh->begun = true;
	mh->opened = atomic_load(&mh->h.node->m->opened);
}

/* The image was opened anew: what the cursor points to is gone.  It goes on at
 * the guest's offset up to which it has printed. */
static void cursor_renew(struct map_handle *mh, struct image *img)
{
	struct map_cursor *c = &mh->cursor;
	uint64_t at = c->has_pending ? c->pending.off : c->at;
	bool started = c->started, ended = c->ended, listed = c->listed;

	map_cursor_init(c, &img->live, c->how, at, UINT64_MAX);
	c->started = started;
	c->ended = ended;
	c->listed = listed;
	mh->opened = atomic_load(&mh->h.node->m->opened);
}

/* One piece more, of bounded work. */
static int map_piece(struct map_handle *mh)
{
	struct mimage *m = mh->h.node->m;
	struct image *img;
	int ret = -EIO;

	mimage_enter(m);
	img = mimage_layer(m, mh->h.node->layer);
	if (img) {
		if (!mh->begun)
			cursor_restart(mh, img);
		else if (mh->opened != atomic_load(&m->opened))
			cursor_renew(mh, img);
		ret = map_cursor_next(&mh->cursor, &mh->text, NULL);
	}
	mimage_leave(m);
	return ret;
}

/* Forgets what lies before @off. */
static void forget(struct map_handle *mh, uint64_t off)
{
	size_t n = min_u64(off - mh->base, mh->text.len);

	memmove(mh->text.text, mh->text.text + n, mh->text.len - n);
	mh->text.len -= n;
	mh->base += n;
}

/* Makes [off, off + len) be in the text, or the end. */
static int map_reach(struct map_handle *mh, struct slow *s, uint64_t off,
		     uint64_t len)
{
	if (off < mh->base)
		mh->begun = false;
	if (!mh->begun) {
		mh->text.len = 0;
		mh->base = 0;
		mh->end = 1;
	}
	while (mh->base + mh->text.len < off + len && mh->end == 1) {
		if (slow_interrupted(s))
			return -EINTR;
		if (mh->text.len)
			forget(mh, off);
		mh->end = map_piece(mh);
	}
	if (mh->text.len)
		forget(mh, off);
	return 0;
}

/* ---- reading ------------------------------------------------------------------------ */

struct map_read {
	struct slow s;
	struct map_handle *mh;
	size_t len;
	uint64_t off;
};

static int map_get(struct map_handle *mh)
{
	int ret = 0;

	if (!mh->has_image)
		ret = mimage_get(mh->h.node->m, MIMAGE_READ, NULL);
	if (!ret)
		mh->has_image = true;
	return ret;
}

static void map_run(struct slow *s)
{
	struct map_read *r = container_of(s, struct map_read, s);
	struct map_handle *mh = r->mh;
	int ret = map_get(mh);

	pause_point("fs:map");
	if (!ret)
		ret = map_reach(mh, s, r->off, r->len);
	/* What was made before an error still counts. */
	if (!ret && r->off >= mh->base + mh->text.len && mh->end < 0)
		ret = mh->end;
	slow_end(s);
	if (ret)
		reply_err(s->req, ret);
	else
		text_reply(s->req, &mh->text, r->len, r->off - mh->base);
	free(r);
}

static void map_read(fuse_req_t req, struct handle *h, size_t len, off_t off)
{
	struct map_read *r = calloc(1, sizeof(*r));

	if (!r) {
		reply_err(req, -ENOMEM);
		return;
	}
	r->s.work.key = h;
	r->s.work.bulky = true;
	r->mh = map_handle(h);
	r->len = len;
	r->off = (uint64_t)off;
	slow_start(&r->s, req, h->node->mnt->workers, map_run);
}

const struct node_ops map_ops = {
	.name = "map",
	.mode = 0444,
	.open = map_open,
	.read = map_read,
	.release = map_release,
};

const struct node_ops map_json_ops = {
	.name = "map.json",
	.mode = 0444,
	.open = map_open,
	.read = map_read,
	.release = map_release,
};
