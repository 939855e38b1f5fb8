/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* session.h - FUSE's requests and what they leave open; see session.c. */
#ifndef FS_SESSION_H
#define FS_SESSION_H

#include "fs/fs.h"

extern const struct fuse_lowlevel_ops session_ops;      /* user data: mount */
/* Gives back what the kernel had open when it went away. */
void session_release_all(struct mount *mnt);

/* capabilities.c */
void session_negotiate(const struct fs_options *o, struct fuse_conn_info *conn);
/* " name name ...": what the kernel is asked for, where it has it (-V). */
void session_capabilities(struct strbuf *out);

/* ---- handle.c: requests on open files ---- */

void handle_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t off,
		 struct fuse_file_info *fi);
void handle_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t len,
		  off_t off, struct fuse_file_info *fi);
void handle_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void handle_fsync(fuse_req_t req, fuse_ino_t ino, int data,
		  struct fuse_file_info *fi);
void handle_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data,
		     struct fuse_file_info *fi);
void handle_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off,
		      off_t len, struct fuse_file_info *fi);
void handle_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		  struct fuse_file_info *fi);
void handle_copy(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
		 struct fuse_file_info *fi_in, fuse_ino_t ino_out,
		 off_t off_out, struct fuse_file_info *fi_out, size_t len,
		 int flags);
void handle_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		 struct fuse_pollhandle *ph);

/* ---- change.c: names come and go ---- */

void change_mknod(fuse_req_t req, fuse_ino_t parent, const char *name,
		  mode_t mode, dev_t dev);
void change_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name,
		  mode_t mode);
void change_create(fuse_req_t req, fuse_ino_t parent, const char *name,
		   mode_t mode, struct fuse_file_info *fi);
void change_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void change_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void change_symlink(fuse_req_t req, const char *link, fuse_ino_t parent,
		    const char *name);
void change_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		   fuse_ino_t newparent, const char *newname, unsigned flags);
void change_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent,
		 const char *newname);

/* identity.c */
void identity_of(struct node *n, struct imgfs_identity *id);

#endif
