/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-replay.c - an image that was not closed by a writer who postponed its
 * reference counts (lazy refcounts, qcow2.md 9): before it is written to, the
 * counts are made what the tables say.
 *
 * We mark such images as well for as long as they are written to.  Ours are not
 * postponed (they are written with the guest's data, by the same sync: there is
 * nothing to win), so that after a crash the mark only brings back what leaked.
 * Refuses to know how counts are made anew: that is check -r's.
 */
#include "qcow2.h"

static void say(void *data, const char *line)
{
	(void)data;
	log_line("%s", line);
}

static int repair(struct image *img)
{
	struct check_result res = { .say = say };
	unsigned flags = img->flags;
	bool writable = img->writable;
	int ret;

	img->flags |= IMAGE_REPAIR | IMAGE_CHECK;
	img->writable = true;
	ret = qcow2_repair(img, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, &res);
	if (!ret)
		ret = repair_barrier(img);
	img->flags = flags;
	img->writable = writable;
	if (!ret && (res.corruptions || res.check_errors))
		ret = -EIO;
	return ret;
}

int qcow2_replay(struct image *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int ret;

	if (!(q->incompat & QINCOMPAT_DIRTY) || img->flags & IMAGE_REPAIR)
		return 0;
	ret = repair(img);
	if (!ret && q->incompat & QINCOMPAT_DIRTY)
		ret = -EIO;
	/* The repair was the first change: what else comes before one. */
	if (!ret)
		ret = qcow2_dirty(img);
	return ret ? err_errno(err, ret, "Could not repair dirty image") : 0;
}
