/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-rebase.c - `rebase [-u] [-c] -b BASE [-F FORMAT]` of an image of the
 * mount, while its disk is read and written.
 *
 * Knows the chain that is open, and the one that takes its place.  With -u, too,
 * the new one has to be there; and the disk must not be open, as what it reads
 * changes.
 */
#include "fs/ctl.h"
#include "fs/mimage.h"

struct rebase {
	const char *base, *format;
	bool unsafe, compress;
};

static int parse(struct ctl_call *c, struct rebase *r, struct err *err)
{
	static const struct ctl_option options[] = {
		{ 'b', "backing", true }, { 'F', "backing-format", true },
		{ 'u', "backing-unsafe", false }, { 'c', "compress", false },
		{ 'p', "progress", false }, { 'q', "quiet", false },
		{ 0, NULL, false },
	};
	const char *arg;
	int id;

	while ((id = ctl_next(c, options, &arg, err)) > 0) {
		if (id == 'b')
			r->base = arg;
		if (id == 'F')
			r->format = arg;
		r->unsafe |= id == 'u';
		r->compress |= id == 'c';
	}
	if (id)
		return id;
	if (c->nr_operands)
		return err_set(err, -EINVAL, "rebase takes no file name here");
	if (!r->base && !r->unsafe)
		return err_set(err, -EINVAL, "Must specify backing file (-b) or"
			       " use unsafe mode (-u)");
	if (r->format && !format_find(r->format))
		return err_set(err, -EINVAL, "Invalid format name: '%s'",
			       r->format);
	if (r->base && !*r->base)
		r->base = NULL;
	return 0;
}

static int open_new(struct ctl_call *c, const struct rebase *r,
		    struct image **new, struct err *err)
{
	int ret;

	*new = NULL;
	if (!r->base)
		return 0;
	ret = ctl_open_image(c, r->base, r->format, 0, new, err);
	if (ret)
		err_prefix(err, "Could not open new backing file '%s': ",
			   r->base);
	return ret;
}

static int rebase(struct ctl_call *c, const struct rebase *r,
		  struct image *new, struct err *err)
{
	struct rebase_args a = {
		.top = c->img,
		.new = new,
		.name = r->base,
		.format = r->format,
		.compress = r->compress,
		.progress = &c->progress,
	};

	pause_point("fs:rebase");
	return r->unsafe ? rebase_header(c->img, r->base, r->format, err) :
			   job_rebase(&a, err);
}

static int rebase_onto(struct ctl_call *c, const struct rebase *r,
		       struct err *err)
{
	struct image *new;
	int ret = open_new(c, r, &new, err);

	if (ret)
		return ret;
	ret = rebase(c, r, new, err);
	if (ret) {
		image_close(new);
		return ret;
	}
	ctl_alone_begin(c);
	new = mimage_swap_backing(c->m, new);
	ctl_alone_end(c);
	image_close(new);       /* the old one */
	return 0;
}

int ctl_rebase(struct ctl_call *c, struct err *err)
{
	struct rebase r = { 0 };
	int ret = parse(c, &r, err);

	if (!ret)
		ret = ctl_change(c, err);
	if (!ret)
		ret = rebase_check(c->img, r.base, r.format, err);
	if (!ret && r.compress && !c->img->fmt->stores_packed)
		ret = err_set(err, -EOPNOTSUPP, "Compression not supported for"
			      " this file format");
	/* Encoded units are not stored beside writers. */
	if (!ret && (r.unsafe || r.compress))
		ret = ctl_disk_closed(c, err);
	return ret ? ret : rebase_onto(c, &r, err);
}
