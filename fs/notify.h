/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* notify.h - the thread that tells the kernel what is old; see notify.c. */
#ifndef FS_NOTIFY_H
#define FS_NOTIFY_H

#include "fs/fs.h"

/* NULL: no thread to be had. */
struct notifier *notifier_start(struct fuse_session *se);
/* What is queued is dropped; the session must still exist. */
void notifier_stop(struct notifier *nf);
/* After fuse_session_unmount(): nothing can keep the thread any more. */
void notifier_free(struct notifier *nf);

#endif
