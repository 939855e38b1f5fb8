/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ctl-flush.c - `flush`: what was written is durable. */
#include "fs/ctl.h"

int ctl_flush(struct ctl_call *c, struct err *err)
{
	struct mimage *m = c->m;
	int ret = 0;

	if (c->argc > 1)
		return err_set(err, -EINVAL, "flush takes no arguments");
	pthread_mutex_lock(&m->lock);
	if (m->failed)          /* it stays failed, also when opened anew */
		ret = err_set(err, -EIO, "%s", m->failed);
	pthread_mutex_unlock(&m->lock);
	/* What is closed was flushed. */
	if (ret || !mimage_get_fast(m, MIMAGE_READ))
		return ret;
	ret = mimage_flush(m);
	mimage_put(m, MIMAGE_READ);
	return ret ? err_errno(err, ret, "Could not flush the image") : 0;
}
