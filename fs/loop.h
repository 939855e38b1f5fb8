/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* loop.h - the threads that take FUSE's requests; see loop.c. */
#ifndef FS_LOOP_H
#define FS_LOOP_H

struct fuse_session;

/* Serves until the mount ends or a signal ends the session; at most @max
 * requests at a time.  0, or the error that ended it. */
int loop_run(struct fuse_session *se, unsigned max);

#endif
