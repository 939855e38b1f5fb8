/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsmain.h - the process around the mount: going to the background, messages,
 * what mount(8) was told.  Knows processes.  Refuses to know images and FUSE's
 * requests.
 */
#ifndef FS_FSMAIN_H
#define FS_FSMAIN_H

#include "options.h"

/* ---- background.c: start errors reach the terminal -------------------------- */

/*
 * Forks before any thread exists.  In the parent it never returns: it waits for
 * background_ready() or background_failed() of the child and exits with 0 or 1;
 * a child that ends without either is a failure.  0 in the child, or -errno.
 */
int background_fork(void);
/* The mount answers: the parent leaves; from here on stdin, stdout and stderr
 * are /dev/null.  Nothing when background_fork() was not called. */
void background_ready(void);
/* The parent prints @err and exits with 1; without a parent it is printed
 * here, or logged once the mount has answered. */
void background_failed(const struct err *err);

/* ---- message.c: where messages go ---------------------------------------------- */

/* log=FILE, syslog in the background, or stderr. */
int message_open(const struct fs_options *o, struct err *err);
/* From now on a background process has no stderr. */
void message_background(void);

/* ---- mount8.c: the word rw -------------------------------------------------------- */

/*
 * mount(8) hands "rw" to its helpers also when nobody asked for it.  Was this
 * process started by mount(8), and without rw in its arguments or in the line
 * of fstab it was given?
 */
bool mount8_default_rw(const char *mountpoint);

#endif
