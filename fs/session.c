/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * session.c - FUSE's requests by node number: lookup, attributes, directories,
 * open.  Those on open files are in handle.c.
 *
 * Knows how a request becomes a call on a node and what may wait: a request that
 * needs a disk is answered by a worker (F33).  Refuses to know images and what
 * is in files.
 */
#include "fs/session.h"
#include "fs/passthrough.h"
#include "fs/slow.h"
#include "fs/snapshots.h"
#include "fs/tree.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/statvfs.h>

/* ---- one call ----------------------------------------------------------------- */

struct call {
	fuse_req_t req;
	struct mount *mnt;
	fuse_ino_t ino;
	struct node *n;                 /* of @ino; counted while it runs */
	struct fuse_file_info fi;
	bool has_fi;
	size_t size;
	off_t off;
	bool plus;
	int to_set;
	struct stat attr;
	const char *name;
};

/* 1: it has replied; 0 or an errno: that is the reply.  -EAGAIN when it was not
 * to wait: it shall be called again on a worker. */
typedef int call_fn(struct call *c, enum patience p);

/* On its way to a worker. */
struct put_off {
	struct slow s;
	struct call c;
	call_fn *fn;
	char name[];
};

static int do_open(struct call *c, enum patience p);

/* A snapshot that is being made is there once it is; who opens its disk may be
 * interrupted before. */
static int wait_made(struct put_off *o)
{
	struct node *n = o->c.n;

	if (o->fn != do_open || n->kind != NODE_SNAPSHOT_DISK)
		return 0;
	return snapshot_wait(n->m, n->number, &o->s.interrupted);
}

static void put_off_run(struct slow *s)
{
	struct put_off *o = container_of(s, struct put_off, s);
	int ret = -ESTALE;

	o->c.n = node_find(o->c.mnt, o->c.ino);
	if (o->c.n)
		ret = wait_made(o);
	o->c.req = slow_end(s);
	if (o->c.n && !ret)
		ret = o->fn(&o->c, MAY_WAIT);
	if (ret <= 0)
		reply_err(o->c.req, ret);
	if (o->c.n)
		node_unref(o->c.n);
	free(o);
}

static void put_off(const struct call *c, call_fn *fn)
{
	size_t len = c->name ? strlen(c->name) + 1 : 0;
	struct put_off *o = calloc(1, sizeof(*o) + len);

	if (!o) {
		reply_err(c->req, -ENOMEM);
		return;
	}
	o->c = *c;
	o->fn = fn;
	if (len)
		o->c.name = memcpy(o->name, c->name, len);
	slow_start(&o->s, c->req, c->mnt->openers, put_off_run);
}

static void serve(struct call *c, call_fn *fn)
{
	int ret = -ESTALE;

	reply_begin(c->req);
	c->mnt = fuse_req_userdata(c->req);
	c->n = node_find(c->mnt, c->ino);
	if (c->n)
		ret = fn(c, AT_ONCE);
	if (ret == -EAGAIN)
		put_off(c, fn);
	else if (ret <= 0)
		reply_err(c->req, ret);
	if (c->n)
		node_unref(c->n);
	reply_end(c->req);
}

/* ---- lookup, attributes ----------------------------------------------------------- */

/* A name that is not there is remembered too (F20). */
static int no_entry(struct call *c)
{
	struct fuse_entry_param e = {
		.entry_timeout = tree_no_entry_timeout(c->n),
	};

	reply_entry(c->req, &e);
	return 1;
}

static int do_lookup(struct call *c, enum patience p)
{
	struct fuse_entry_param e;
	struct node *child;
	int ret = tree_lookup(c->n, c->name, p, &child);

	if (ret)
		return ret == -ENOENT ? no_entry(c) : ret;
	ret = tree_entry(c->n, child, p, &e);
	node_unref(child);
	if (ret)
		return ret;
	if (reply_entry(c->req, &e))
		node_forget(c->mnt, e.ino, 1);
	return 1;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct call c = { .req = req, .ino = parent, .name = name };

	serve(&c, do_lookup);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	node_forget(fuse_req_userdata(req), ino, n);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t n,
			    struct fuse_forget_data *list)
{
	for (size_t i = 0; i < n; i++)
		node_forget(fuse_req_userdata(req), list[i].ino,
			    list[i].nlookup);
	fuse_reply_none(req);
}

static int do_getattr(struct call *c, enum patience p)
{
	struct stat st;
	double timeout;
	int ret = tree_attr(c->n, p, &st, &timeout);

	if (ret)
		return ret;
	reply_attr(c->req, &st, timeout);
	return 1;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct call c = { .req = req, .ino = ino };

	(void)fi;
	serve(&c, do_getattr);
}

/* Must the image be had for writing, and is it not yet? */
static int get_for_size(struct call *c, struct handle *h, bool *got)
{
	*got = false;
	if (!c->n->ops->opens_image || !c->attr.st_size)
		return 0;
	if (c->n->layer || !c->mnt->opt->rw)
		return -EROFS;
	if (h && h->use == MIMAGE_WRITE)
		return 0;
	*got = true;
	return mimage_get(c->n->m, MIMAGE_WRITE, NULL);
}

static int set_size(struct call *c, enum patience p)
{
	struct handle *h = c->has_fi ? (void *)(uintptr_t)c->fi.fh : NULL;
	uint64_t size = (uint64_t)c->attr.st_size;
	_Atomic bool gone = false;
	bool got;
	int ret;

	if (!c->n->ops)
		return -EISDIR;
	if (size && p == AT_ONCE)
		return -EAGAIN;
	ret = get_for_size(c, h, &got);
	if (ret)
		return ret;
	caller_watch(c->req, &gone);
	if (c->n->ops->set_size)
		ret = c->n->ops->set_size(c->n, h, size, &gone);
	else
		ret = size ? -EPERM : 0;
	caller_unwatch(c->req);
	if (got)
		mimage_put(c->n->m, MIMAGE_WRITE);
	return ret;
}

/* Times are the image file's: setting them has no effect and is no error, so
 * that cp -p and touch end well.  Owner and mode are set on the image file. */
static int do_setattr(struct call *c, enum patience p)
{
	int ret = 0;

	if (c->to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID |
			 FUSE_SET_ATTR_GID))
		return -EPERM;
	if (c->to_set & FUSE_SET_ATTR_SIZE)
		ret = set_size(c, p);
	if (ret)
		return ret;
	c->to_set = 0;  /* done, if we come again for the attributes */
	return do_getattr(c, p);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr,
		       int to_set, struct fuse_file_info *fi)
{
	struct call c = { .req = req, .ino = ino, .attr = *attr,
			  .to_set = to_set, .has_fi = fi };

	if (fi)
		c.fi = *fi;
	serve(&c, do_setattr);
}

static int do_statfs(struct call *c, enum patience p)
{
	const char *path = tree_host_path(c->n);
	uint32_t unit = tree_unit(c->n);
	struct statvfs st;

	if (p == AT_ONCE)
		return -EAGAIN;
	if (!path || statvfs(path, &st))
		memset(&st, 0, sizeof(st));
	/* What a loop device takes for its discard granularity (F16). */
	if (unit)
		st.f_bsize = min_u64(unit, 64 * KiB);
	st.f_namemax = 255;
	reply_statfs(c->req, &st);
	return 1;
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct call c = { .req = req, .ino = ino ? ino : FUSE_ROOT_ID };

	serve(&c, do_statfs);
}

/* ---- directories ---------------------------------------------------------------------- */

struct dir_handle {
	struct handle h;
	pthread_mutex_t lock;           /* guards the listing */
	struct listing list;
	bool listed;
};

static void handle_add(struct handle *h, struct node *n)
{
	struct mount *mnt = n->mnt;

	h->node = node_ref(n);
	with_lock(&mnt->handle_lock);
	h->next = mnt->handles;
	h->prev = &mnt->handles;
	if (h->next)
		h->next->prev = &h->next;
	mnt->handles = h;
}

static void handle_del(struct handle *h)
{
	struct node *n = h->node;

	pthread_mutex_lock(&n->mnt->handle_lock);
	*h->prev = h->next;
	if (h->next)
		h->next->prev = h->prev;
	pthread_mutex_unlock(&n->mnt->handle_lock);
	if (n->ops && n->ops->release)
		n->ops->release(h);
	if (!n->ops)
		listing_free(&container_of(h, struct dir_handle, h)->list);
	if (h->has_image)
		mimage_put(n->m, h->use);
	free(h);
	node_unref(n);
}

void session_release_all(struct mount *mnt)
{
	while (mnt->handles)
		handle_del(mnt->handles);
}

static int do_opendir(struct call *c, enum patience p)
{
	struct dir_handle *d;
	int ret = c->n->m ? mimage_check_path(c->n->m) : 0;

	(void)p;
	if (ret || c->n->ops)
		return ret ? ret : -ENOTDIR;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	pthread_mutex_init(&d->lock, NULL);
	handle_add(&d->h, c->n);
	c->fi.fh = (uintptr_t)&d->h;
	if (reply_open(c->req, &c->fi))
		handle_del(&d->h);
	return 1;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct call c = { .req = req, .ino = ino, .fi = *fi };

	serve(&c, do_opendir);
}

/* Entry number @i of the directory: ".", "..", then the list. */
struct dirent_at {
	const char *name;
	struct node *node;      /* NULL: . and .. */
};

static struct dirent_at entry_at(const struct dir_handle *d, size_t i)
{
	if (i < 2)
		return (struct dirent_at) { i ? ".." : ".", NULL };
	return (struct dirent_at) { d->list.list[i - 2].name,
				    d->list.list[i - 2].node };
}

/* Without attributes: the kernel does not count it. */
static void plain_entry(const struct call *c, const struct dirent_at *at,
			struct fuse_entry_param *e)
{
	const struct node *n = at->node ? at->node : c->n;

	memset(e, 0, sizeof(*e));
	e->attr.st_ino = n->ino;
	e->attr.st_mode = n->ops ? S_IFREG : S_IFDIR;
}

/* The bytes that it needs; more than @room: it was not added. */
static size_t add_entry(struct call *c, const struct dirent_at *at, char *buf,
			size_t room, off_t next)
{
	struct fuse_entry_param e;
	size_t need;

	if (!c->plus || !at->node || tree_entry(c->n, at->node, MAY_WAIT, &e))
		plain_entry(c, at, &e);
	if (!c->plus)
		return fuse_add_direntry(c->req, buf, room, at->name, &e.attr,
					 next);
	need = fuse_add_direntry_plus(c->req, buf, room, at->name, &e, next);
	if (need > room && e.ino)
		node_forget(c->mnt, e.ino, 1);
	return need;
}

static size_t fill_entries(struct call *c, const struct dir_handle *d,
			   char *buf)
{
	size_t used = 0, need;

	for (size_t i = (size_t)c->off; i < d->list.nr + 2; i++) {
		struct dirent_at at = entry_at(d, i);

		need = add_entry(c, &at, buf + used, c->size - used,
				 (off_t)i + 1);
		if (need > c->size - used)
			break;
		used += need;
	}
	return used;
}

static int relist(struct call *c, struct dir_handle *d)
{
	struct listing now;
	int ret = tree_list(c->n, MAY_WAIT, &now);

	if (ret)
		return ret;
	listing_free(&d->list);
	d->list = now;
	d->listed = true;
	return 0;
}

/* Read from the start it is looked at anew: rewinddir(3).  The bytes, or an
 * errno. */
static ssize_t read_entries(struct call *c, struct dir_handle *d, char *buf)
{
	int ret = 0;

	with_lock(&d->lock);
	if (!c->off || !d->listed)
		ret = relist(c, d);
	return ret ? ret : (ssize_t)fill_entries(c, d, buf);
}

/* No lock is held at the reply: the handle may be gone after it. */
static int do_readdir(struct call *c, enum patience p)
{
	struct dir_handle *d;
	autofree char *buf = NULL;
	ssize_t n;

	if (p == AT_ONCE)
		return -EAGAIN;
	d = container_of((struct handle *)(uintptr_t)c->fi.fh,
			 struct dir_handle, h);
	buf = malloc(c->size);
	if (!buf)
		return -ENOMEM;
	n = read_entries(c, d, buf);
	if (n < 0)
		return (int)n;
	reply_buf(c->req, buf, (size_t)n);
	return 1;
}

static void readdir_call(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			 struct fuse_file_info *fi, bool plus)
{
	struct call c = { .req = req, .ino = ino, .size = size, .off = off,
			  .fi = *fi, .plus = plus };

	serve(&c, do_readdir);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	readdir_call(req, ino, size, off, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size,
			   off_t off, struct fuse_file_info *fi)
{
	readdir_call(req, ino, size, off, fi, true);
}

/* ---- open and release ----------------------------------------------------------------------- */

static enum mimage_use wanted(const struct call *c)
{
	return (c->fi.flags & O_ACCMODE) == O_RDONLY ? MIMAGE_READ :
						       MIMAGE_WRITE;
}

/* Root passes all modes: what cannot be written says so here (F25). */
static int may_open(const struct call *c)
{
	const struct node *n = c->n;

	if (!n->ops || !n->ops->open)
		return -EISDIR;
	if (wanted(c) == MIMAGE_READ)
		return 0;
	if (n->ops->control)
		return 0;
	if (!c->mnt->opt->rw || n->layer || !n->ops->write)
		return -EROFS;
	return 0;
}

/* Are the pages that the kernel may still have of this node those of the image
 * as it is open now? */
static bool pages_hold(struct node *n)
{
	uint64_t was = atomic_exchange(&n->cached, n->m->opened);
	uint64_t changes = n->m->changes;

	/* A partition is changed by way of the disk, behind its own pages. */
	if (n->kind == NODE_PARTITION &&
	    atomic_exchange(&n->cached_changes, changes) != changes)
		return false;
	return was && was >= n->m->same_since;
}

static int open_node(struct call *c, bool has_image)
{
	struct handle *h;
	int ret = c->n->ops->open(c->n, &c->fi, &h);

	if (ret)
		return ret;
	h->has_image = has_image;
	h->use = wanted(c);
	handle_add(h, c->n);
	c->fi.fh = (uintptr_t)h;
	if (has_image && !pages_hold(c->n))
		c->fi.keep_cache = 0;
	if (has_image)
		passthrough_open(c->req, h, &c->fi);
	if (reply_open(c->req, &c->fi)) {
		passthrough_release(c->req, h);
		handle_del(h);
	}
	return 1;
}

static int do_open(struct call *c, enum patience p)
{
	int ret = may_open(c);

	if (!ret)
		ret = mimage_check_path(c->n->m);
	if (ret)
		return ret;
	if (c->n->kind == NODE_SNAPSHOT_DISK && p == AT_ONCE)
		return -EAGAIN;         /* it may have to be awaited */
	if (!c->n->ops->opens_image)
		return open_node(c, false);
	if (!mimage_get_fast(c->n->m, wanted(c))) {
		if (p == AT_ONCE)
			return -EAGAIN;
		ret = mimage_get(c->n->m, wanted(c), NULL);
		if (ret)
			return ret;
	}
	ret = open_node(c, true);
	if (ret < 0)
		mimage_put(c->n->m, wanted(c));
	return ret;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct call c = { .req = req, .ino = ino, .fi = *fi };

	serve(&c, do_open);
}

static void op_release(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;

	(void)ino;
	reply_begin(req);
	passthrough_release(req, h);
	handle_del(h);
	reply_err(req, 0);
	reply_end(req);
}

/* ---- ioctl ---------------------------------------------------------------------------------------- */

static void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
		     struct fuse_file_info *fi, unsigned flags,
		     const void *in, size_t in_len, size_t out_len)
{
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;
	struct imgfs_identity id;

	(void)ino, (void)arg, (void)flags, (void)in, (void)in_len;
	reply_begin(req);
	if (cmd == (unsigned)IMGFS_IOC_IDENTITY && out_len >= sizeof(id)) {
		identity_of(h->node, &id);
		reply_ioctl(req, 0, &id, sizeof(id));
	} else {
		reply_err(req, -ENOTTY);
	}
	reply_end(req);
}

/* ---- the session ------------------------------------------------------------------------------------ */

static void op_init(void *data, struct fuse_conn_info *conn)
{
	struct mount *mnt = data;

	session_negotiate(mnt->opt, conn);
	passthrough_negotiate(mnt, conn);
	if (mnt->ready)
		mnt->ready(mnt->ready_data);
}

const struct fuse_lowlevel_ops session_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.statfs = op_statfs,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_release,
	.open = op_open,
	.release = op_release,
	.ioctl = op_ioctl,
	.mknod = change_mknod,
	.mkdir = change_mkdir,
	.create = change_create,
	.unlink = change_unlink,
	.rmdir = change_rmdir,
	.symlink = change_symlink,
	.rename = change_rename,
	.link = change_link,
	.read = handle_read,
	.write = handle_write,
	.flush = handle_flush,
	.fsync = handle_fsync,
	.fsyncdir = handle_fsyncdir,
	.fallocate = handle_fallocate,
	.lseek = handle_lseek,
	.copy_file_range = handle_copy,
	.poll = handle_poll,
};
