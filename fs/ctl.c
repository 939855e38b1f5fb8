/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl.c - the control file: a write is one or more lines, each a command in
 * imgctl's words, run in order up to the first error (F18).
 *
 * Knows lines, the sentence that belongs to an outcome and where it is read
 * back.  Refuses to know how a command is run: ctl-run.c does.
 */
#include "fs/ctl.h"

#include <stdio.h>

enum { CTL_MAX = 4096 };        /* bytes of one write */

struct ctl_handle {
	struct handle h;
	pthread_mutex_t lock;   /* guards what follows */
	char *sentence;         /* of the last write, with its newline; NULL:
				 * there was none */
	bool fresh;             /* ... and nothing was read since */
	uint64_t base;          /* file offset where it begins (F18: the write
				 * has moved the shell's offset) */
};

static struct ctl_handle *ctl_handle(struct handle *h)
{
	return container_of(h, struct ctl_handle, h);
}

/* ---- writing ------------------------------------------------------------------------ */

struct ctl_write {
	struct slow s;
	struct ctl_handle *ch;
	struct strbuf out;      /* what the commands say */
	size_t len;
	char text[CTL_MAX + 1];
};

/* What the outcome leaves behind on this handle: what the commands had to say,
 * then the sentence of the one that failed, or "ok" if there is nothing. */
static void remember(struct ctl_handle *ch, struct strbuf *out, int ret,
		     const struct err *err)
{
	if (ret)
		strbuf_printf(out, "%s\n%s", err_text(err),
			      err->hint ? err->hint : "");
	else if (!out->len)
		strbuf_puts(out, "ok\n");
	with_lock(&ch->lock);
	free(ch->sentence);
	ch->sentence = strbuf_take(out);
	ch->fresh = true;
}

static void refused(struct ctl_handle *ch, int ret, const struct err *err)
{
	autostrbuf out = STRBUF_INIT;

	mimage_outcome(ch->h.node->m, err_text(err));
	remember(ch, &out, ret, err);
}

/* In the background; what is read back is its number. */
static int job_start(struct ctl_call *c, struct strbuf *out, struct err *err)
{
	int ret = 0;

	if (ctl_call_start(c)) {
		strbuf_printf(out, "%u\n", c->job);
	} else {
		ret = err_set(err, -EBUSY, "Too many jobs of this image");
		mimage_outcome(c->m, err_text(err));
	}
	ctl_call_unref(c);
	return ret;
}

/* While the caller waits; he may interrupt it. */
static int call_run(struct ctl_write *w, struct ctl_call *c, struct err *err)
{
	int ret;

	slow_watch(&w->s, &c->interrupted, &c->progress.cancel);
	ret = ctl_call_run(c, err);
	slow_watch(&w->s, NULL, NULL);
	strbuf_add(&w->out, c->out.text ? c->out.text : "", c->out.len);
	ctl_call_unref(c);
	return ret;
}

/* One line, without its newline; blank ones do nothing. */
static int line_run(struct ctl_write *w, const char *line, struct err *err)
{
	struct mimage *m = w->ch->h.node->m;
	struct ctl_call *c;
	struct words words;
	bool job;
	int ret = words_parse(line, &words, &job, err);

	if (!ret && !words.nr)
		return 0;
	if (!ret && !(c = ctl_call_new(m, &words)))
		ret = err_set(err, -ENOMEM, "No memory");
	if (!ret && job)
		return job_start(c, &w->out, err);
	if (!ret)
		return call_run(w, c, err);
	mimage_outcome(m, err_text(err));
	return ret;
}

static int lines_run(struct ctl_write *w, struct err *err)
{
	char *at = w->text, *line;
	int ret = 0;

	if (memchr(w->text, 0, w->len)) {
		ret = err_set(err, -EINVAL, "A command holds no NUL");
		mimage_outcome(w->ch->h.node->m, err_text(err));
	}
	while (!ret && (line = strsep(&at, "\n"))) {
		if (slow_interrupted(&w->s))
			return err_set(err, -EINTR, "Interrupted");
		ret = line_run(w, line, err);
	}
	return ret;
}

static void ctl_run(struct slow *s)
{
	struct ctl_write *w = container_of(s, struct ctl_write, s);
	autoerr err = ERR_INIT;
	int ret;

	pause_point("fs:ctl");
	ret = lines_run(w, &err);
	remember(w->ch, &w->out, ret, &err);
	slow_end(s);
	if (ret)
		reply_err(s->req, ret);
	else
		reply_write(s->req, w->len);
	free(w);
}

static void ctl_write(fuse_req_t req, struct handle *h, const char *buf,
		      size_t len, off_t off)
{
	struct ctl_handle *ch = ctl_handle(h);
	autoerr err = ERR_INIT;
	struct ctl_write *w;
	int ret;

	(void)off;      /* means nothing here */
	if (len > CTL_MAX) {
		ret = err_set(&err, -E2BIG, "Commands are longer than %d bytes",
			      CTL_MAX);
		refused(ch, ret, &err);
		reply_err(req, ret);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (!w) {
		reply_err(req, -ENOMEM);
		return;
	}
	w->ch = ch;
	w->len = len;
	memcpy(w->text, buf, len);
	w->s.work.key = &h->node->m->outcome; /* one command at a time */
	slow_start(&w->s, req, h->node->mnt->commands, ctl_run);
}

/* ---- reading back --------------------------------------------------------------------- */

static void ctl_reply_text(fuse_req_t req, struct handle *h, size_t len, off_t off)
{
	struct ctl_handle *ch = ctl_handle(h);
	autofree char *copy = NULL;
	uint64_t at = (uint64_t)off;
	size_t n = 0;

	pthread_mutex_lock(&ch->lock);
	if (ch->fresh)
		ch->base = at;
	ch->fresh = false;
	if (at < ch->base)
		ch->base = 0;
	at -= ch->base;
	if (ch->sentence && (copy = strdup(ch->sentence)))
		n = strlen(copy);
	pthread_mutex_unlock(&ch->lock);
	if (at >= n)
		reply_buf(req, NULL, 0);
	else
		reply_buf(req, copy + at, min_u64(len, n - at));
}

/* ---- the file ----------------------------------------------------------------------------- */

static int ctl_open(struct node *n, struct fuse_file_info *fi,
		    struct handle **h)
{
	struct ctl_handle *ch = calloc(1, sizeof(*ch));

	(void)n;
	if (!ch)
		return -ENOMEM;
	pthread_mutex_init(&ch->lock, NULL);
	fi->direct_io = 1;
	*h = &ch->h;
	return 0;
}

static void ctl_release(struct handle *h)
{
	struct ctl_handle *ch = ctl_handle(h);

	free(ch->sentence);
	pthread_mutex_destroy(&ch->lock);
}

const struct node_ops ctl_ops = {
	.name = "ctl",
	.control = true,
	.mode = 0600,
	.open = ctl_open,
	.read = ctl_reply_text,
	.write = ctl_write,
	.release = ctl_release,
};
