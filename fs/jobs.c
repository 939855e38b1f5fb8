/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * jobs.c - jobs/ID: a command that runs in the background, as a file.
 *
 * Reading it gives JSON, writing steers it, poll() tells of its end, unlink
 * dismisses what has ended.  Knows files and words.  Refuses to know what the
 * job does.
 */
#include "fs/ctl-int.h"
#include "fs/tree.h"

#include "json.h"

#include <ctype.h>
#include <poll.h>
#include <stdio.h>

enum { ORDER_MAX = 128 };       /* bytes of one write */

struct job_handle {
	struct handle h;
	struct ctl_call *c;     /* counted */
	pthread_mutex_t lock;   /* guards what follows */
	struct fuse_pollhandle *ph;
	unsigned seen;          /* c->turns at the last read */
	struct strbuf text;     /* as of the last read at 0 */
};

static struct job_handle *job_handle(struct handle *h)
{
	return container_of(h, struct job_handle, h);
}

/* ---- finding ------------------------------------------------------------------ */

/* With a reference, or NULL. */
static struct ctl_call *job_find(struct mimage *m, unsigned number)
{
	struct ctl_calls *l = m->mnt->calls;

	with_lock(&l->lock);
	for (struct ctl_call *c = l->list; c; c = c->next)
		if (c->m == m && c->job == number && !c->dismissed) {
			c->refs++;
			return c;
		}
	return NULL;
}

/* A decimal number without zeroes in front; 0: it is none. */
static unsigned job_number(const char *name)
{
	unsigned n = 0;

	if (*name < '1' || *name > '9' || strlen(name) > 6)
		return 0;
	for (; *name >= '0' && *name <= '9'; name++)
		n = 10 * n + (unsigned)(*name - '0');
	return *name || n >= NODE_NUMBER_MAX ? 0 : n;
}

static int jobs_lookup(struct node *dir, const char *name, enum patience p,
		       struct node **child)
{
	unsigned number = job_number(name);
	struct ctl_call *c = number ? job_find(dir->m, number) : NULL;

	(void)p;
	if (!c)
		return -ENOENT;
	ctl_call_unref(c);
	*child = node_get(dir->mnt, dir->m, NODE_JOB, 0, number);
	return 0;
}

static int jobs_list(struct node *dir, enum patience p, struct listing *out)
{
	struct ctl_calls *l = dir->mnt->calls;
	unsigned numbers[CTL_JOBS + CTL_IN_TURN + CTL_KEPT + CTL_KEPT_IN_TURN];
	size_t n = 0;
	char name[16];

	(void)p;
	pthread_mutex_lock(&l->lock);
	for (struct ctl_call *c = l->list; c && n < ARRAY_SIZE(numbers);
	     c = c->next)
		if (c->m == dir->m && c->job && !c->dismissed)
			numbers[n++] = c->job;
	pthread_mutex_unlock(&l->lock);
	for (size_t i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%u", numbers[i]);
		listing_add(out, name, node_get(dir->mnt, dir->m, NODE_JOB, 0,
						numbers[i]));
	}
	return 0;
}

/* Only what has ended; what runs is to be cancelled first. */
static int jobs_unlink(struct node *dir, const char *name)
{
	struct ctl_call *c = job_find(dir->m, job_number(name));
	bool done;

	if (!c)
		return -ENOENT;
	done = ctl_call_dismiss(c);
	ctl_call_unref(c);
	return done ? 0 : -EBUSY;
}

const struct dir_ops jobs_ops = {
	.lookup = jobs_lookup,
	.list = jobs_list,
	.unlink = jobs_unlink,
};

/* ---- reading ------------------------------------------------------------------- */

static const char *state_name(const struct ctl_call *c)
{
	if (c->state != CTL_DONE)
		return atomic_load(&c->progress.pause) ? "paused" : "running";
	if (!c->result)
		return "done";
	return c->result == -ECANCELED ? "cancelled" : "failed";
}

/* Its words, as they could be written again. */
static char *command_text(const struct ctl_call *c)
{
	struct strbuf sb = STRBUF_INIT;

	for (int i = 0; i < c->words.nr; i++) {
		const char *word = c->words.word[i];
		bool plain = *word && !strpbrk(word, " \t'\"\\&");

		if (i)
			strbuf_putc(&sb, ' ');
		for (const char *s = word; plain && *s; s++)
			strbuf_putc(&sb, *s);
		if (plain)
			continue;
		strbuf_putc(&sb, '\'');
		for (const char *s = word; *s; s++)
			if (*s == '\'')
				strbuf_puts(&sb, "'\\''");
			else
				strbuf_putc(&sb, *s);
		strbuf_putc(&sb, '\'');
	}
	return strbuf_take(&sb);
}

/* Under the calls' lock. */
static void job_json(const struct ctl_call *c, struct strbuf *out)
{
	autofree char *command = command_text(c);
	autojson *j = json_object();
	uint64_t total = atomic_load(&c->progress.total);
	uint64_t done = atomic_load(&c->progress.done);

	json_add_take(j, "id", json_uint(c->job));
	json_add_take(j, "type", json_string(c->words.word[0]));
	json_add_take(j, "command", json_string(command));
	json_add_take(j, "state", json_string(state_name(c)));
	json_add_take(j, "offset", json_uint(min_u64(done, total)));
	json_add_take(j, "total", json_uint(total));
	json_add_take(j, "rate", json_uint(atomic_load(&c->progress.rate)));
	if (c->state == CTL_DONE && c->result)
		json_add_take(j, "error", json_string(
			c->sentence ? c->sentence : strerror(-c->result)));
	if (c->state == CTL_DONE && c->out.len)
		json_add_take(j, "output", json_string(c->out.text));
	json_write(out, j, true, 0);
	strbuf_putc(out, '\n');
}

static void job_read(fuse_req_t req, struct handle *h, size_t len, off_t off)
{
	struct job_handle *jh = job_handle(h);
	struct ctl_calls *l = h->node->mnt->calls;
	autofree char *copy = NULL;
	uint64_t at = (uint64_t)off;
	size_t n;

	pthread_mutex_lock(&jh->lock);
	if (!off) {
		strbuf_free(&jh->text);
		pthread_mutex_lock(&l->lock);
		job_json(jh->c, &jh->text);
		jh->seen = jh->c->turns;
		pthread_mutex_unlock(&l->lock);
	}
	n = at < jh->text.len ? min_u64(len, jh->text.len - at) : 0;
	copy = malloc(n + 1);
	if (copy && n)
		memcpy(copy, jh->text.text + at, n);
	pthread_mutex_unlock(&jh->lock);
	if (copy)
		reply_buf(req, copy, n);
	else
		reply_err(req, -ENOMEM);
}

/* ---- steering ---------------------------------------------------------------------- */

/* The job's state is another one now: under the calls' lock. */
static void turn(struct ctl_calls *l, struct ctl_call *c)
{
	c->turns++;
	pthread_cond_broadcast(&l->changed);
}

static int set_rate(struct ctl_call *c, const char *text)
{
	uint64_t rate;

	if (size_parse(text, &rate) != SIZE_OK)
		return -EINVAL;
	atomic_store(&c->progress.rate, rate);
	return 0;
}

/* Under the calls' lock. */
static int obey(struct ctl_call *c, const char *order)
{
	if (!strcmp(order, "cancel"))
		atomic_store(&c->progress.cancel, true);
	else if (!strcmp(order, "pause"))
		atomic_store(&c->progress.pause, true);
	else if (!strcmp(order, "resume"))
		atomic_store(&c->progress.pause, false);
	else if (!strncmp(order, "rate=", 5))
		return set_rate(c, order + 5);
	else
		return -EINVAL;
	return 0;
}

static int job_order(struct ctl_call *c, const char *order)
{
	struct ctl_calls *l = c->m->mnt->calls;
	int ret;

	with_lock(&l->lock);
	if (c->state == CTL_DONE)
		return -ECANCELED;
	ret = obey(c, order);
	if (!ret)
		turn(l, c);
	return ret;
}

static void job_write(fuse_req_t req, struct handle *h, const char *buf,
		      size_t len, off_t off)
{
	struct ctl_call *c = job_handle(h)->c;
	char order[ORDER_MAX + 1];
	size_t n = len;
	int ret;

	(void)off;
	if (len > ORDER_MAX) {
		reply_err(req, -E2BIG);
		return;
	}
	while (n && isspace((unsigned char)buf[n - 1]))
		n--;
	memcpy(order, buf, n);
	order[n] = 0;
	ret = memchr(order, 0, n) ? -EINVAL : job_order(c, order);
	if (!ret)
		jobs_wake(c);
	if (ret)
		reply_err(req, ret);
	else
		reply_write(req, len);
}

/* ---- poll ------------------------------------------------------------------------------ */

/* Readable for ever once it has ended; an event when it has taken a turn since
 * it was read: paused, resumed, ended. */
static unsigned ready(struct job_handle *jh)
{
	struct ctl_calls *l = jh->h.node->mnt->calls;
	unsigned bits = 0;

	with_lock(&l->lock);
	if (jh->c->state == CTL_DONE)
		bits |= POLLIN | POLLRDNORM;
	else
		bits |= POLLOUT | POLLWRNORM;
	if (jh->seen != jh->c->turns)
		bits |= POLLPRI;
	return bits;
}

static struct fuse_pollhandle *swap_poll(struct job_handle *jh,
					 struct fuse_pollhandle *ph)
{
	struct fuse_pollhandle *old;

	with_lock(&jh->lock);
	old = jh->ph;
	jh->ph = ph;
	return old;
}

/* The newest one counts (F19).  What happens after it is there wakes it, what
 * happened before is in the answer. */
static void job_poll(fuse_req_t req, struct handle *h,
		     struct fuse_pollhandle *ph)
{
	struct job_handle *jh = job_handle(h);

	if (ph) {
		ph = swap_poll(jh, ph);
		if (ph)
			fuse_pollhandle_destroy(ph);
	}
	reply_poll(req, ready(jh));
}

void jobs_wake(struct ctl_call *c)
{
	struct mount *mnt = c->m->mnt;
	struct fuse_pollhandle *list[64];
	size_t n = 0;

	pthread_mutex_lock(&mnt->handle_lock);
	for (struct handle *h = mnt->handles; h && n < ARRAY_SIZE(list);
	     h = h->next)
		if (h->node->kind == NODE_JOB && job_handle(h)->c == c &&
		    (list[n] = swap_poll(job_handle(h), NULL)))
			n++;
	pthread_mutex_unlock(&mnt->handle_lock);
	while (n--) {
		fuse_lowlevel_notify_poll(list[n]);
		fuse_pollhandle_destroy(list[n]);
	}
}

/* ---- the file ---------------------------------------------------------------------------- */

static int job_open(struct node *n, struct fuse_file_info *fi,
		    struct handle **h)
{
	struct ctl_call *c = job_find(n->m, n->number);
	struct job_handle *jh = c ? calloc(1, sizeof(*jh)) : NULL;

	if (!c)
		return -ENOENT;
	if (!jh) {
		ctl_call_unref(c);
		return -ENOMEM;
	}
	pthread_mutex_init(&jh->lock, NULL);
	jh->c = c;
	jh->seen = c->turns;
	fi->direct_io = 1;
	*h = &jh->h;
	return 0;
}

static void job_release(struct handle *h)
{
	struct job_handle *jh = job_handle(h);

	if (jh->ph)
		fuse_pollhandle_destroy(jh->ph);
	strbuf_free(&jh->text);
	pthread_mutex_destroy(&jh->lock);
	ctl_call_unref(jh->c);
}

const struct node_ops job_ops = {
	.control = true,
	.mode = 0600,
	.open = job_open,
	.read = job_read,
	.write = job_write,
	.poll = job_poll,
	.release = job_release,
};
