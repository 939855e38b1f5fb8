/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-commit.c - `commit [-b BASE] [-d] [-r RATE]` of an image of the mount,
 * while its disk is read and written.
 *
 * Knows what is written meanwhile: bits of the top that disk.c sets
 * (mimage.track), a fresh set of them for each lap, changed with everybody kept
 * out.  job-commit.c does the rest.
 */
#include "fs/ctl.h"
#include "fs/mimage.h"

#include "bitmap.h"

struct commit {
	struct ctl_call *c;
	struct image *base;
	const char *name;       /* -b */
	bool drop;
	struct bits *lap;       /* what was written before this lap */
};

/* ---- what was written ------------------------------------------------------------ */

/* Everybody is out.  The bits so far become those of the lap. */
static void new_lap(struct commit *cm)
{
	struct mimage *m = cm->c->m;

	bits_free(cm->lap);
	cm->lap = m->track;
	m->track = bits_new(div_up(image_size(m->image), TRACK_UNIT));
	if (!m->track) {        /* no memory: everything counts as written */
		m->track = cm->lap;
		if (m->track)
			bits_set(m->track, 0, bits_number(m->track));
		cm->lap = NULL;
	}
}

static void begin_lap(struct commit *cm)
{
	bool alone = cm->c->alone;

	if (!alone)
		ctl_alone_begin(cm->c);
	new_lap(cm);
	if (!alone)
		ctl_alone_end(cm->c);
}

/* The next stretch at or behind *@off, at most this long. */
static bool find(const struct bits *b, uint64_t *off, uint64_t *len)
{
	uint64_t n = b ? bits_number(b) : 0, at = *off / TRACK_UNIT;

	while (at < n) {
		bool set;
		uint64_t run = bits_next(b, at, n - at, &set);

		if (set) {
			*off = at * TRACK_UNIT;
			*len = run * TRACK_UNIT;
			return true;
		}
		at += run;
	}
	return false;
}

static bool changed(void *data, uint64_t *off, uint64_t *len)
{
	struct commit *cm = data;

	if (!*off)
		begin_lap(cm);
	return find(cm->lap, off, len);
}

static void alone(void *data, bool begin)
{
	struct commit *cm = data;

	if (begin)
		ctl_alone_begin(cm->c);
	else
		ctl_alone_end(cm->c);
}

/* ---- the command ------------------------------------------------------------------- */

/* The base becomes writable, and what is written is noted. */
static int begin(struct commit *cm, struct err *err)
{
	struct image *top = cm->c->img;
	int ret;

	ctl_alone_begin(cm->c);
	ret = image_upgrade_base(cm->base, image_size(top) >
				 image_size(cm->base), err);
	if (!ret)
		new_lap(cm);
	ctl_alone_end(cm->c);
	if (ret == -ETXTBSY)
		err_prefix(err, "Could not write to '%s': ", cm->base->name);
	return ret;
}

static int end(struct commit *cm, struct err *err)
{
	struct mimage *m = cm->c->m;
	int ret;

	ctl_alone_begin(cm->c);
	bits_free(m->track);
	m->track = NULL;
	ret = image_downgrade_anyhow(cm->base, err);
	ctl_alone_end(cm->c);
	bits_free(cm->lap);
	return ret;
}

static int commit(struct commit *cm, struct err *err)
{
	struct commit_args a = {
		.top = cm->c->img,
		.base = cm->base,
		.drop = cm->drop,
		.progress = &cm->c->progress,
		.changed = changed,
		.alone = alone,
		.data = cm,
	};
	int ret = begin(cm, err), ended;

	if (ret)
		return ret;
	pause_point("fs:commit");
	ret = job_commit(&a, err);
	ended = end(cm, ret ? NULL : err);
	return ret ? ret : ended;
}

static int parse(struct commit *cm, struct err *err)
{
	static const struct ctl_option options[] = {
		{ 'b', "base", true }, { 'd', "drop", false },
		{ 'r', "rate", true }, { 'p', "progress", false },
		{ 'q', "quiet", false }, { 0, NULL, false },
	};
	struct ctl_call *c = cm->c;
	uint64_t rate;
	const char *arg;
	int id;

	while ((id = ctl_next(c, options, &arg, err)) > 0) {
		if (id == 'b')
			cm->name = arg;
		if (id == 'b' || id == 'd')
			cm->drop = true;
		if (id == 'r' && size_parse(arg, &rate) != SIZE_OK)
			return err_set(err, -EINVAL,
				       "Invalid rate limit specified: '%s'.",
				       arg);
		if (id == 'r')
			atomic_store(&c->progress.rate, rate);
	}
	if (!id && c->nr_operands)
		return err_set(err, -EINVAL, "commit takes no file name here");
	return id;
}

int ctl_commit(struct ctl_call *c, struct err *err)
{
	struct commit cm = { .c = c };
	int ret = parse(&cm, err);

	if (!ret)
		ret = ctl_change(c, err);
	if (!ret)
		ret = commit_base(c->img, cm.name, c->m->title, &cm.base, err);
	return ret ? ret : commit(&cm, err);
}
