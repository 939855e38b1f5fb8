/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * change.c - FUSE's requests that make, remove and rename: in directories whose
 * entries are commands (dir_ops) they are run, elsewhere refused.
 *
 * Knows that such a request is answered within a second: what takes longer goes
 * on as a job (F21), and that the next such request then waits for it, itself as
 * a job before long: they are done in the order in which they were made.
 * Refuses to know what the commands do.
 */
#include "fs/ctl.h"
#include "fs/session.h"
#include "fs/tree.h"

#include <limits.h>
#include <stdio.h>

enum { ANSWER_MS = 900 };       /* a caller is answered within a second */

enum change_what { CHANGE_MAKE, CHANGE_REMOVE, CHANGE_RENAME, CHANGE_UNLINK };

struct change {
	struct slow s;
	struct mount *mnt;
	enum change_what what;
	fuse_ino_t parent;
	struct node *dir;       /* counted while it runs */
	char name[NAME_MAX + 1], to[NAME_MAX + 1];
};

static int refusal(const struct mount *mnt)
{
	return mnt->opt->rw ? -EPERM : -EROFS;
}

static void refuse(fuse_req_t req)
{
	reply_begin(req);
	reply_err(req, refusal(fuse_req_userdata(req)));
	reply_end(req);
}

/* ---- on a worker ------------------------------------------------------------------ */

/* Which command it is. */
static int in_words(const struct change *c, struct words *w, struct err *err)
{
	const struct dir_ops *d = c->dir->dir;

	switch (c->what) {
	case CHANGE_MAKE:
		return d->make ? d->make(c->dir, c->name, w, err) : -EPERM;
	case CHANGE_REMOVE:
		return d->remove ? d->remove(c->dir, c->name, w, err) : -EPERM;
	default:
		return d->rename ?
			       d->rename(c->dir, c->name, c->to, w, err) :
			       -EPERM;
	}
}

/* 0 also when it goes on in the background. */
static int run_words(struct change *c, struct words *w)
{
	struct ctl_call *call = ctl_call_new(c->dir->m, w);
	int ret = 0;

	if (!call)
		return -ENOMEM;
	if (c->what == CHANGE_MAKE) {
		call->dir = c->dir->kind;
		call->subject = strdup(c->name);
		BUG_ON(!call->subject);
	}
	if (ctl_call_start_in_turn(call)) {
		ctl_call_wait(call, ANSWER_MS, &ret);
	} else {
		ret = -EBUSY;
		mimage_outcome(c->dir->m, "Too many changes wait for their turn");
	}
	ctl_call_unref(call);
	return ret;
}

static int change_command(struct change *c)
{
	struct words w = { 0 };
	autoerr err = ERR_INIT;
	int ret;

	/* What is still being made is no longer wanted. */
	if (c->what == CHANGE_REMOVE &&
	    ctl_cancel(c->dir->m, c->dir->kind, c->name))
		return 0;
	ret = in_words(c, &w, &err);
	if (!ret)
		return run_words(c, &w);
	words_free(&w);
	err_errno(&err, ret, "%s", c->name);
	mimage_outcome(c->dir->m, err_text(&err));
	return ret;
}

static int change_do(struct change *c)
{
	const struct dir_ops *d = c->dir->dir;
	int ret = c->dir->m ? mimage_check_path(c->dir->m) : 0;

	if (ret)
		return ret;
	if (!d || c->dir->layer)
		return refusal(c->mnt);
	if (c->what == CHANGE_UNLINK)
		return d->unlink ? d->unlink(c->dir, c->name) :
				   refusal(c->mnt);
	if (!d->make)
		return refusal(c->mnt);
	return c->mnt->opt->rw ? change_command(c) : -EROFS;
}

/* 1: it has been replied to. */
static int reply_made(struct change *c, fuse_req_t req)
{
	struct fuse_entry_param e;
	struct node *child;
	int ret = tree_lookup(c->dir, c->name, MAY_WAIT, &child);

	if (ret)
		return ret;
	ret = tree_entry(c->dir, child, MAY_WAIT, &e);
	node_unref(child);
	if (ret)
		return ret;
	if (reply_entry(req, &e))
		node_forget(c->mnt, e.ino, 1);
	return 1;
}

/* An interrupt changes nothing: the answer comes within a second. */
static void change_run(struct slow *s)
{
	struct change *c = container_of(s, struct change, s);
	fuse_req_t req = slow_end(s);
	int ret = -ESTALE;

	c->dir = node_find(c->mnt, c->parent);
	if (c->dir)
		ret = change_do(c);
	if (!ret && c->what == CHANGE_MAKE)
		ret = reply_made(c, req);
	if (ret <= 0)
		reply_err(req, ret);
	if (c->dir)
		node_unref(c->dir);
	free(c);
}

/* ---- requests ------------------------------------------------------------------------ */

static void start(fuse_req_t req, enum change_what what, fuse_ino_t parent,
		  const char *name, const char *to)
{
	struct change *c = calloc(1, sizeof(*c));

	reply_begin(req);
	if (strlen(name) > NAME_MAX || (to && strlen(to) > NAME_MAX)) {
		/* The kernel lets a kilobyte pass. */
		reply_err(req, -ENAMETOOLONG);
		free(c);
	} else if (c) {
		c->mnt = fuse_req_userdata(req);
		c->what = what;
		c->parent = parent;
		snprintf(c->name, sizeof(c->name), "%s", name);
		snprintf(c->to, sizeof(c->to), "%s", to ? to : "");
		slow_start(&c->s, req, c->mnt->workers, change_run);
	} else {
		reply_err(req, -ENOMEM);
	}
	reply_end(req);
}

void change_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name,
		  mode_t mode)
{
	(void)mode;
	start(req, CHANGE_MAKE, parent, name, NULL);
}

void change_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	start(req, CHANGE_REMOVE, parent, name, NULL);
}

void change_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	start(req, CHANGE_UNLINK, parent, name, NULL);
}

void change_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		   fuse_ino_t newparent, const char *newname, unsigned flags)
{
	if (flags & ~(unsigned)RENAME_NOREPLACE || parent != newparent) {
		reply_begin(req);
		reply_err(req, parent != newparent ? -EXDEV : -EINVAL);
		reply_end(req);
		return;
	}
	start(req, CHANGE_RENAME, parent, name, newname);
}

void change_mknod(fuse_req_t req, fuse_ino_t parent, const char *name,
		  mode_t mode, dev_t dev)
{
	(void)parent, (void)name, (void)mode, (void)dev;
	refuse(req);
}

void change_create(fuse_req_t req, fuse_ino_t parent, const char *name,
		   mode_t mode, struct fuse_file_info *fi)
{
	(void)parent, (void)name, (void)mode, (void)fi;
	refuse(req);
}

void change_symlink(fuse_req_t req, const char *link, fuse_ino_t parent,
		    const char *name)
{
	(void)link, (void)parent, (void)name;
	refuse(req);
}

void change_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent,
		 const char *newname)
{
	(void)ino, (void)newparent, (void)newname;
	refuse(req);
}
