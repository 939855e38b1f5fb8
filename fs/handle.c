/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * handle.c - FUSE's requests on open files: straight to the operations of the
 * file's kind, or the answer of a kind that has none.
 */
#include "fs/session.h"

#include <poll.h>

static struct handle *begin(fuse_req_t req, const struct fuse_file_info *fi)
{
	reply_begin(req);
	return (struct handle *)(uintptr_t)fi->fh;
}

void handle_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t off,
		 struct fuse_file_info *fi)
{
	struct handle *h = begin(req, fi);

	(void)ino;
	if (h->node->ops->read)
		h->node->ops->read(req, h, len, off);
	else
		reply_buf(req, NULL, 0);
	reply_end(req);
}

void handle_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t len,
		  off_t off, struct fuse_file_info *fi)
{
	struct handle *h = begin(req, fi);

	(void)ino;
	if (h->node->ops->write)
		h->node->ops->write(req, h, buf, len, off);
	else
		reply_err(req, -EPERM);
	reply_end(req);
}

void handle_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *h = begin(req, fi);

	(void)ino;
	if (h->node->ops->flush)
		h->node->ops->flush(req, h);
	else
		reply_err(req, 0);
	reply_end(req);
}

void handle_fsync(fuse_req_t req, fuse_ino_t ino, int data,
		  struct fuse_file_info *fi)
{
	struct handle *h = begin(req, fi);

	(void)ino;
	if (h->node->ops->fsync)
		h->node->ops->fsync(req, h, data);
	else
		reply_err(req, 0);
	reply_end(req);
}

void handle_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data,
		     struct fuse_file_info *fi)
{
	(void)ino, (void)data;
	begin(req, fi);
	reply_err(req, 0);
	reply_end(req);
}

void handle_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off,
		      off_t len, struct fuse_file_info *fi)
{
	struct handle *h = begin(req, fi);

	(void)ino;
	if (h->node->ops->fallocate)
		h->node->ops->fallocate(req, h, mode, off, len);
	else
		reply_err(req, -EOPNOTSUPP);
	reply_end(req);
}

void handle_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		  struct fuse_file_info *fi)
{
	struct handle *h = begin(req, fi);

	(void)ino;
	if (h->node->ops && h->node->ops->lseek)
		h->node->ops->lseek(req, h, off, whence);
	else
		reply_err(req, -EINVAL);
	reply_end(req);
}

void handle_copy(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
		 struct fuse_file_info *fi_in, fuse_ino_t ino_out,
		 off_t off_out, struct fuse_file_info *fi_out, size_t len,
		 int flags)
{
	struct handle *in = begin(req, fi_in);
	struct handle *out = (struct handle *)(uintptr_t)fi_out->fh;

	(void)ino_in, (void)ino_out, (void)flags;
	if (in->node->ops->copy && out->node->ops->copy)
		out->node->ops->copy(req, in, off_in, out, off_out, len);
	else
		reply_err(req, -EOPNOTSUPP);
	reply_end(req);
}

void handle_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		 struct fuse_pollhandle *ph)
{
	struct handle *h = begin(req, fi);

	(void)ino;
	if (h->node->ops && h->node->ops->poll) {
		h->node->ops->poll(req, h, ph);
	} else {
		if (ph)
			fuse_pollhandle_destroy(ph);
		reply_poll(req, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
	}
	reply_end(req);
}
