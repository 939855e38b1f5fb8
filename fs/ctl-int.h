/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ctl-int.h - what ctl-run.c (one command) and ctl-calls.c (all that run) share
 * of ctl.h. */
#ifndef FS_CTL_INT_H
#define FS_CTL_INT_H

#include "fs/ctl.h"
#include "fs/mimage.h"

/* All commands of the mount that run, and the jobs that have run. */
struct ctl_calls {
	pthread_mutex_t lock;           /* guards what follows, and calls'; no
					 * lock is taken under it */
	pthread_cond_t changed;         /* a call ended, gave up an image ... */
	struct ctl_call *list;          /* a reference each */
	unsigned last_job;
	uint64_t nr_ended;
	bool ending;
};

/* It is in the list from now on; of a call that runs. */
void ctl_call_list(struct ctl_call *c);
/* Leaves the list, unless it is a job that nobody has dismissed. */
void ctl_call_done(struct ctl_call *c, int ret, const char *sentence);

/* A job that has ended leaves the list; false: it runs. */
bool ctl_call_dismiss(struct ctl_call *c);
/* Who polls its file is told (jobs.c). */
void jobs_wake(struct ctl_call *c);
/* Under the lock: until something has changed, or for a moment. */
void ctl_changed_wait(struct ctl_calls *l);

#endif
