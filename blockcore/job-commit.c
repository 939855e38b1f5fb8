/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job-commit.c - what an image and those below it hold goes down into a base of
 * its chain.
 *
 * The base gets what the top reads as, wherever a layer above the base has
 * stored anything.  Nobody sees a difference through the top while that goes
 * on: what is written to the base is hidden by the layer that it comes from.
 * So it can end at any moment, and be begun again.  When the base is durable the
 * top is emptied.
 *
 * Who writes to the top meanwhile is not seen by the copying: he is asked for,
 * by commit_args.changed, what he has changed since the last time, first while
 * he goes on, in the end with everybody kept out.
 *
 * Knows that order.  Copies by the same machine as convert.
 */
#include "job-convert.h"
#include "engine.h"

#include <stdlib.h>

enum { LAPS = 8 };              /* of copying what changed meanwhile ... */
#define LAST_LAP (16 * MiB)     /* ... or until it is no more than this */

/* In qemu-img's words. */
static int failed(struct err *err, int ret)
{
	if (ret == -ECANCELED || ret == -EINTR)
		return ret;
	return err_errno(err, ret, "Block job failed");
}

static unsigned layers_above(const struct image *top, const struct image *base)
{
	unsigned n = 0;

	while (top && top != base) {
		top = top->backing;
		n++;
	}
	BUG_ON(!top || !n);
	return n;
}

/* ---- which base ----------------------------------------------------------------- */

/* Do two names lead to one file? */
static bool same_path(const char *a, const char *b)
{
	autofree char *x = realpath(a, NULL);
	autofree char *y = realpath(b, NULL);

	return x && y && !strcmp(x, y);
}

/* By the name that is in the image above it, or any other that leads there. */
static struct image *find_base(struct image *top, const char *name)
{
	for (struct image *img = top; img->backing; img = img->backing)
		if ((img->backing_name && !strcmp(img->backing_name, name)) ||
		    !strcmp(img->backing->name, name) ||
		    same_path(img->backing->file->name, name))
			return img->backing;
	return NULL;
}

int commit_base(struct image *top, const char *name, const char *title,
		struct image **base, struct err *err)
{
	struct image *found = name ? find_base(top, name) : top->backing;

	if (!found && name)
		return err_set(err, -ENOENT, "Did not find '%s' in the backing"
			       " chain of '%s'", name, title);
	if (!found)
		return err_set(err, -EINVAL,
			       "Image does not have a backing file");
	*base = found;
	return 0;
}

/* ---- the base ------------------------------------------------------------------ */

/* What lies behind the old end reads as zeroes, as it did through the top. */
static int clear_tail(struct image *base, uint64_t old)
{
	uint64_t size = image_size(base);
	uint64_t below = base->backing ? image_size(base->backing) : 0;

	if (below <= old)
		return 0;
	return image_unmap(&base->live, old, min_u64(below, size) - old,
			   UNMAP_ZERO);
}

static int grow_base(struct image *base, uint64_t size, struct err *err)
{
	uint64_t old = image_size(base);
	int ret;

	if (size <= old)
		return 0;
	ret = image_grow(base, size, NULL, NULL);
	if (!ret)
		ret = clear_tail(base, old);
	return ret ? failed(err, ret) : 0;
}

/* ---- copying ---------------------------------------------------------------------- */

static int copy_all(const struct commit_args *a)
{
	struct image *top = a->top;
	struct convert_args c = {
		.src = &top,
		.nr_src = 1,
		.dst = a->base,
		.layers = layers_above(a->top, a->base),
		.threads = a->threads,
		.lend = a->lend,
		.flushed_after = true,
		.rate = a->rate,
		.progress = a->progress,
	};

	return job_convert(&c, NULL);
}

/* One stretch that has changed since it was copied. */
static int copy_range(const struct commit_args *a, unsigned layers, void *buf,
		      uint64_t off, uint64_t len)
{
	const struct view *v = &a->top->live;
	struct run run;
	int ret = 0;

	for (; len && !ret; off += run.len, len -= run.len) {
		ret = walk_step(v, off, len, layers, 0, &run);
		if (ret)
			break;
		if (!run.present && !run.zero)
			continue;
		if (run.zero) {
			ret = image_unmap(&a->base->live, off, run.len,
					  UNMAP_ZERO);
			continue;
		}
		run.len = min_u64(run.len, CONVERT_REQUEST);
		ret = image_read(v, buf, run.len, off);
		if (!ret)
			ret = image_write(&a->base->live, buf, run.len, off);
	}
	return ret;
}

/* Everything that is said to have changed: *@bytes. */
static int copy_changed(const struct commit_args *a, uint64_t *bytes)
{
	unsigned layers = layers_above(a->top, a->base);
	uint64_t size = image_size(a->top), off = 0, len;
	autofree void *buf = aligned_alloc(4096, CONVERT_REQUEST);
	int ret = buf ? 0 : -ENOMEM;

	*bytes = 0;
	while (!ret && a->changed(a->data, &off, &len)) {
		len = min_u64(len, off < size ? size - off : 0);
		ret = copy_range(a, layers, buf, off, len);
		*bytes += len;
		off += len;
		if (!ret && a->progress && atomic_load(&a->progress->cancel))
			ret = -ECANCELED;
	}
	return ret;
}

/* Fewer and fewer bytes each time, as far as whoever writes lets us. */
static int catch_up(const struct commit_args *a)
{
	uint64_t bytes = UINT64_MAX;
	int ret = 0;

	for (unsigned i = 0; a->changed && !ret && i < LAPS &&
	     bytes > LAST_LAP; i++)
		ret = copy_changed(a, &bytes);
	return ret;
}

/* ---- the end ------------------------------------------------------------------------- */

/* Nobody else is in the top from here on, if anybody ever was. */
static int last_instant(const struct commit_args *a)
{
	uint64_t bytes;
	int ret = grow_base(a->base, image_size(a->top), NULL);

	if (!ret && a->changed)
		ret = copy_changed(a, &bytes);

	pause_point("commit-copied");
	if (!ret && !knobs.no_job_flush)
		ret = image_flush(a->base);
	pause_point("commit-flushed");
	if (ret || a->drop)
		return ret;
	ret = image_empty(a->top);
	return ret == -ENOTSUP ? 0 : ret;       /* as QEMU: it stays full */
}

static int finish(const struct commit_args *a)
{
	int ret = catch_up(a);

	/* Most of it is durable before anybody has to wait. */
	if (!ret && !knobs.no_job_flush)
		ret = image_flush(a->base);
	if (ret)
		return ret;
	if (a->alone)
		a->alone(a->data, true);
	ret = last_instant(a);
	if (a->alone)
		a->alone(a->data, false);
	return ret;
}

int job_commit(const struct commit_args *a, struct err *err)
{
	int ret = grow_base(a->base, image_size(a->top), err);

	if (ret)
		return ret;
	ret = copy_all(a);
	if (!ret)
		ret = finish(a);
	return ret ? failed(err, ret) : 0;
}
