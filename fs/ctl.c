/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl.c - the control file: a write is one or more lines, each a command in
 * imgctl's words, run in order up to the first error (F18).
 *
 * Knows lines, words, the sentence that belongs to an outcome and where it is
 * read back.  Refuses to know how an image is changed: each command calls the
 * part that does.
 */
#include "fs/slow.h"

#include <ctype.h>
#include <stdio.h>

enum { CTL_MAX = 4096 };        /* bytes of one write */

struct ctl_handle {
	struct handle h;
	pthread_mutex_t lock;   /* guards what follows */
	char *sentence;         /* of the last write; NULL: there was none */
	bool fresh;             /* ... and nothing was read since */
	uint64_t base;          /* file offset where it begins (F18: the write
				 * has moved the shell's offset) */
};

static struct ctl_handle *ctl_handle(struct handle *h)
{
	return container_of(h, struct ctl_handle, h);
}

/* ---- commands ------------------------------------------------------------------- */

struct command {
	const char *word;
	/* @arg: what follows the word, "" if nothing.  0, or a negative errno
	 * with a sentence. */
	int (*run)(struct node *n, const char *arg, struct err *err);
};

static int flush_run(struct node *n, const char *arg, struct err *err)
{
	struct mimage *m = n->m;
	int ret = 0;

	if (*arg)
		return err_set(err, -EINVAL, "flush takes no arguments");
	pthread_mutex_lock(&m->lock);
	if (m->failed)          /* it stays failed, also when opened anew */
		ret = err_set(err, -EIO, "%s", m->failed);
	pthread_mutex_unlock(&m->lock);
	/* What is closed was flushed. */
	if (ret || !mimage_get_fast(m, MIMAGE_READ))
		return ret;
	ret = mimage_flush(m);
	mimage_put(m, MIMAGE_READ);
	return ret ? err_errno(err, ret, "Could not flush the image") : 0;
}

static const struct command commands[] = {
	{ "flush", flush_run },
};

/* imgctl's words for what an image can be told to do.  Not here yet. */
static const char *const later[] = {
	"amend", "bitmap", "check", "commit", "rebase", "resize", "snapshot",
};
/* ... and those that are about other files, or only ask. */
static const char *const elsewhere[] = {
	"bench", "compare", "convert", "create", "dd", "info", "map",
	"measure",
};

static bool listed(const char *word, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(word, list[i]))
			return true;
	return false;
}

static int no_command(const char *word, struct err *err)
{
	if (listed(word, later, ARRAY_SIZE(later)))
		return err_set(err, -EOPNOTSUPP,
			       "%s is not supported by this version", word);
	if (listed(word, elsewhere, ARRAY_SIZE(elsewhere)))
		return err_set(err, -EINVAL,
			       "%s is a command of imgctl, not of ctl", word);
	return err_set(err, -EINVAL, "Unknown command '%.64s'", word);
}

static char *skip_blanks(char *s)
{
	while (isblank((unsigned char)*s))
		s++;
	return s;
}

static void cut_blanks(char *s)
{
	size_t n = strlen(s);

	while (n && isspace((unsigned char)s[n - 1]))
		s[--n] = 0;
}

/* One line, without its newline; blank ones do nothing. */
static int line_run(struct node *n, char *line, struct err *err)
{
	char *word = skip_blanks(line), *arg;
	size_t len;

	cut_blanks(word);
	if (!*word)
		return 0;
	len = strlen(word);
	if (len > 1 && word[len - 1] == '&' && isblank((unsigned char)word[len - 2]))
		return err_set(err, -EOPNOTSUPP,
			       "Jobs are not supported by this version");
	arg = word + strcspn(word, " \t");
	if (*arg)
		*arg++ = 0;
	arg = skip_blanks(arg);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(word, commands[i].word))
			return commands[i].run(n, arg, err);
	return no_command(word, err);
}

/* ---- writing ------------------------------------------------------------------------ */

struct ctl_write {
	struct slow s;
	struct ctl_handle *ch;
	size_t len;
	char text[CTL_MAX + 1];
};

/* What the outcome leaves behind: on this handle and in status. */
static void remember(struct ctl_handle *ch, int ret, const struct err *err)
{
	const char *sentence = ret ? err_text(err) : NULL;
	char *line = NULL;

	mimage_outcome(ch->h.node->m, sentence);
	if (asprintf(&line, "%s\n", sentence ? sentence : "ok") < 0)
		line = NULL;
	with_lock(&ch->lock);
	free(ch->sentence);
	ch->sentence = line;
	ch->fresh = true;
}

static int lines_run(struct ctl_write *w, struct err *err)
{
	char *at = w->text, *line;
	int ret = 0;

	if (memchr(w->text, 0, w->len))
		return err_set(err, -EINVAL, "A command holds no NUL");
	while (!ret && (line = strsep(&at, "\n"))) {
		if (slow_interrupted(&w->s))
			return err_set(err, -EINTR, "Interrupted");
		ret = line_run(w->ch->h.node, line, err);
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
	remember(w->ch, ret, &err);
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
		remember(ch, ret, &err);
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
	slow_start(&w->s, req, h->node->mnt->workers, ctl_run);
}

/* ---- reading back --------------------------------------------------------------------- */

static void ctl_read(fuse_req_t req, struct handle *h, size_t len, off_t off)
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
	.mode = 0600,
	.open = ctl_open,
	.read = ctl_read,
	.write = ctl_write,
	.release = ctl_release,
};
