/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* passthrough.h - disks that the kernel reads by itself; see passthrough.c.
 * Where libfuse is too old (before 3.17) nothing happens. */
#ifndef FS_PASSTHROUGH_H
#define FS_PASSTHROUGH_H

#include "fs/fs.h"

/* Is it to be asked for? */
bool passthrough_wanted(const struct fs_options *o);
/* When the kernel and we agree: sets mnt->passes. */
void passthrough_negotiate(struct mount *mnt, struct fuse_conn_info *conn);
/* Before the reply to the open that @h is of. */
void passthrough_open(fuse_req_t req, struct handle *h,
		      struct fuse_file_info *fi);
/* Before @h goes, with any request of this session. */
void passthrough_release(fuse_req_t req, struct handle *h);

#endif
