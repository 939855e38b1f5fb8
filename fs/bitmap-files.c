/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmap-files.c - the files of bitmaps/NAME/: info.json, map.json (the dirty
 * ranges, made while they are read), enabled (0 or 1; may be written).
 */
#include "fs/bitmaps.h"

#include "fs/ctl.h"
#include "fs/views.h"

#include "json.h"

#include <ctype.h>
#include <inttypes.h>

/* ---- info.json ------------------------------------------------------------------ */

static int info_text(struct image *img, const char *name, struct strbuf *out)
{
	struct bitmap_info b;
	uint64_t count = 0;
	int ret = bitmap_look(img, name, &b);

	if (ret)
		return ret;
	if (!b.inconsistent)
		ret = bitmap_count(img, name, &count, NULL);
	if (!ret) {
		autojson *j = json_object();

		json_add_take(j, "name", json_string(b.name));
		json_add_take(j, "granularity", json_uint(b.granularity));
		json_add_take(j, "enabled", json_bool(b.enabled));
		json_add_take(j, "inconsistent", json_bool(b.inconsistent));
		if (!b.inconsistent)
			json_add_take(j, "count", json_uint(count));
		json_write(out, j, true, 0);
		strbuf_putc(out, '\n');
	}
	free(b.name);
	return ret;
}

static int info_fill(struct node *n, struct slow *s, struct strbuf *out)
{
	autofree char *name = bitmap_name(n);
	autoerr err = ERR_INIT;
	struct image *img;
	int ret = bitmap_wait(n, name, &s->interrupted);

	if (!ret)
		ret = mimage_info_begin(n->m, n->layer, &img, &err);
	if (ret)
		return ret;
	ret = info_text(img, name, out);
	mimage_info_end(n->m, img);
	return ret;
}

static void info_read(fuse_req_t req, struct handle *h, size_t len, off_t off)
{
	struct work how = { .key = h };

	text_read(req, h, len, off, h->node->mnt->openers, &how, info_fill);
}

const struct node_ops bitmap_info_ops = {
	.name = "info.json",
	.mode = 0444,
	.open = text_open,
	.read = info_read,
	.release = text_release,
};

/* ---- map.json -------------------------------------------------------------------- */

enum { PIECE = 512 };           /* ranges at a time */

struct ranges_handle {
	struct handle h;
	/* What follows belongs to the read that runs: one at a time. */
	uint64_t at;            /* bytes of the disk that were looked at */
	bool started, ended;
	struct strbuf text;     /* [base, base + text.len) of the file */
	uint64_t base;
};

struct ranges_read {
	struct slow s;
	struct ranges_handle *rh;
	size_t len;
	uint64_t off;
};

static struct ranges_handle *ranges_handle(struct handle *h)
{
	return container_of(h, struct ranges_handle, h);
}

static void put_range(struct ranges_handle *rh, uint64_t off, uint64_t len)
{
	strbuf_printf(&rh->text, "%s{ \"start\": %" PRIu64 ", \"length\": %"
		      PRIu64 ", \"dirty\": true}", rh->started ? ",\n" : "[",
		      off, len);
	rh->started = true;
}

/* A bounded number of ranges more. */
static int more_ranges(struct ranges_handle *rh, struct image *img,
		       const char *name)
{
	uint64_t len;
	bool dirty;

	for (int i = 0; i < PIECE && rh->at < image_size(img); i++) {
		int ret = bitmap_run(img, name, rh->at, &len, &dirty, NULL);

		if (ret)
			return ret;
		if (dirty)
			put_range(rh, rh->at, len);
		rh->at += len;
	}
	if (rh->at < image_size(img))
		return 0;
	strbuf_puts(&rh->text, rh->started ? "]\n" : "[]\n");
	rh->ended = true;
	return 0;
}

static int ranges_piece(struct ranges_handle *rh, _Atomic bool *cancel)
{
	struct node *n = rh->h.node;
	autofree char *name = bitmap_name(n);
	autoerr err = ERR_INIT;
	struct image *img;
	int ret = bitmap_wait(n, name, cancel);

	if (!ret)
		ret = mimage_info_begin(n->m, n->layer, &img, &err);
	if (ret)
		return ret;
	ret = more_ranges(rh, img, name);
	mimage_info_end(n->m, img);
	return ret;
}

static void restart(struct ranges_handle *rh)
{
	strbuf_free(&rh->text);
	rh->at = rh->base = 0;
	rh->started = rh->ended = false;
}

static void forget_before(struct ranges_handle *rh, uint64_t off)
{
	size_t n = min_u64(off - rh->base, rh->text.len);

	memmove(rh->text.text, rh->text.text + n, rh->text.len - n);
	rh->text.len -= n;
	rh->base += n;
}

/* Makes [off, off + len) be in the text, or the end. */
static int ranges_reach(struct ranges_read *r)
{
	struct ranges_handle *rh = r->rh;
	int ret = 0;

	if (r->off < rh->base)
		restart(rh);
	while (!ret && !rh->ended &&
	       rh->base + rh->text.len < r->off + r->len) {
		if (slow_interrupted(&r->s))
			return -EINTR;
		if (rh->text.len)
			forget_before(rh, r->off);
		ret = ranges_piece(rh, &r->s.interrupted);
	}
	if (rh->text.len)
		forget_before(rh, r->off);
	return ret;
}

static void ranges_run(struct slow *s)
{
	struct ranges_read *r = container_of(s, struct ranges_read, s);
	int ret = ranges_reach(r);

	slow_end(s);
	if (ret)
		reply_err(s->req, ret);
	else
		text_reply(s->req, &r->rh->text, r->len, r->off - r->rh->base);
	free(r);
}

static void ranges_read_at(fuse_req_t req, struct handle *h, size_t len,
			   off_t off)
{
	struct ranges_read *r = calloc(1, sizeof(*r));

	if (!r) {
		reply_err(req, -ENOMEM);
		return;
	}
	r->s.work.key = h;
	r->s.work.bulky = true;
	r->rh = ranges_handle(h);
	r->len = len;
	r->off = (uint64_t)off;
	slow_start(&r->s, req, h->node->mnt->openers, ranges_run);
}

static int ranges_open(struct node *n, struct fuse_file_info *fi,
		       struct handle **h)
{
	struct ranges_handle *rh = calloc(1, sizeof(*rh));

	(void)n;
	if (!rh)
		return -ENOMEM;
	fi->direct_io = 1;
	*h = &rh->h;
	return 0;
}

static void ranges_release(struct handle *h)
{
	text_free(&ranges_handle(h)->text);
}

const struct node_ops bitmap_map_ops = {
	.name = "map.json",
	.mode = 0444,
	.open = ranges_open,
	.read = ranges_read_at,
	.release = ranges_release,
};

/* ---- enabled --------------------------------------------------------------------- */

static int enabled_fill(struct node *n, struct slow *s, struct strbuf *out)
{
	autofree char *name = bitmap_name(n);
	autoerr err = ERR_INIT;
	struct bitmap_info b;
	struct image *img;
	int ret = bitmap_wait(n, name, &s->interrupted);

	if (!ret)
		ret = mimage_info_begin(n->m, n->layer, &img, &err);
	if (ret)
		return ret;
	ret = bitmap_look(img, name, &b);
	mimage_info_end(n->m, img);
	if (ret)
		return ret;
	strbuf_puts(out, b.enabled ? "1\n" : "0\n");
	free(b.name);
	return 0;
}

static void enabled_read(fuse_req_t req, struct handle *h, size_t len,
			 off_t off)
{
	struct work how = { .key = h };

	text_read(req, h, len, off, h->node->mnt->openers, &how, enabled_fill);
}

struct enabled_write {
	struct slow s;
	struct node *n;
	size_t len;
	bool on;
};

/* As a command of ctl: one at a time, and status tells of it. */
static void enabled_run(struct slow *s)
{
	struct enabled_write *w = container_of(s, struct enabled_write, s);
	autofree char *name = bitmap_name(w->n);
	struct words words = { 0 };
	autoerr err = ERR_INIT;
	struct ctl_call *c;
	int ret = -ENOMEM;

	words_add(&words, "bitmap");
	words_add(&words, w->on ? "--enable" : "--disable");
	words_add(&words, "--");
	words_add(&words, name);
	c = ctl_call_new(w->n->m, &words);
	if (c) {
		slow_watch(s, &c->interrupted, &c->progress.cancel);
		ret = ctl_call_run(c, &err);
		slow_watch(s, NULL, NULL);
		ctl_call_unref(c);
	}
	slow_end(s);
	if (ret)
		reply_err(s->req, ret);
	else
		reply_write(s->req, w->len);
	free(w);
}

static void enabled_write(fuse_req_t req, struct handle *h, const char *buf,
			  size_t len, off_t off)
{
	struct enabled_write *w;
	size_t n = len;

	(void)off;
	while (n && isspace((unsigned char)buf[n - 1]))
		n--;
	if (n != 1 || (*buf != '0' && *buf != '1')) {
		reply_err(req, -EINVAL);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (!w) {
		reply_err(req, -ENOMEM);
		return;
	}
	w->n = h->node;
	w->len = len;
	w->on = *buf == '1';
	w->s.work.key = &h->node->m->outcome; /* one command at a time */
	slow_start(&w->s, req, h->node->mnt->commands, enabled_run);
}

const struct node_ops bitmap_enabled_ops = {
	.name = "enabled",
	.mode = 0644,
	.open = text_open,
	.read = enabled_read,
	.write = enabled_write,
	.release = text_release,
};
