/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-resize.c - `resize [--shrink] [--preallocation=MODE] [--force] [+|-]SIZE`.
 *
 * The size comes last, whatever it looks like.  A smaller disk is refused while
 * somebody has it open: the kernel has pages of what would be gone.  Under
 * cache=writeback the kernel owns the size of what is open (F7).
 */
#include "fs/ctl.h"
#include "fs/notify.h"

#include "resize.h"

enum { OPT_SHRINK = 256, OPT_PREALLOCATION, OPT_FORCE };

static int parse(struct ctl_call *c, struct resize_request *r, bool *force,
		 struct err *err)
{
	static const struct ctl_option options[] = {
		{ OPT_SHRINK, "shrink", false },
		{ OPT_PREALLOCATION, "preallocation", true },
		{ OPT_FORCE, "force", false },
		{ 'q', "quiet", false },
		{ 0, NULL, false },
	};
	const char *arg, *size = NULL;
	int id;

	if (c->argc > 1)
		size = c->argv[--c->argc];
	while ((id = ctl_next(c, options, &arg, err)) > 0)
		if (id == OPT_SHRINK)
			r->shrink = true;
		else if (id == OPT_FORCE)
			*force = true;
		else if (id == OPT_PREALLOCATION &&
			 preallocation_parse(arg, &r->prealloc, NULL))
			return err_set(err, -EINVAL,
				       "Invalid preallocation mode '%s'", arg);
	if (id < 0)
		return id;
	if (!size || c->nr_operands)
		return err_set(err, -EINVAL, "resize takes one size");
	return resize_parse(size, r, err);
}

int ctl_resize(struct ctl_call *c, struct err *err)
{
	struct resize_request r = { .prealloc = PREALLOC_OFF };
	const struct fs_options *opt = c->m->mnt->opt;
	bool force = false;
	int ret = parse(c, &r, &force, err);

	if (!ret)
		ret = ctl_change(c, err);
	if (!ret && (r.shrink || opt->cache == FS_CACHE_WRITEBACK))
		ret = ctl_disk_idle(c, force, err);
	if (!ret)
		ret = resize_run(c->img, &r, &c->progress, err);
	if (!ret && opt->cache == FS_CACHE_WRITEBACK) {
		atomic_fetch_add(&c->m->resized, 1);
		notify_entry(c->m->mnt, node_ino(c->m, NODE_IMAGE, 0, 0),
			     "disk");
	}
	return ret;
}
