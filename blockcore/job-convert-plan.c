/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job-convert-plan.c - what has to be copied, in ascending order.
 *
 * Walks the sources, which stand one behind the other, by the same runs as map
 * does, and cuts them into requests.  Knows what a new target reads as without
 * any write.  Refuses to read guest data.
 */
#include "job-convert.h"

/* A dense disk is not walked to its end before the first byte moves. */
#define LOOK_AHEAD GiB
/* Behind so much of nothing more of it is looked for at once. */
#define LOOK_AHEAD_MAX (64 * TiB)

/* Runs that need no work: after so many others get the plan. */
enum { PLAN_STEPS = 1024 };

/* ---- runs ---------------------------------------------------------------- */

static enum piece_kind zero_kind(const struct convert *c)
{
	if (!c->a->sparse)
		return PIECE_BLANK;
	return c->a->target_is_zero ? PIECE_SKIP : PIECE_ZERO;
}

/*
 * qemu-img-cli.md, "convert -B": what the top layer does not hold is the new
 * backing file's, as far as there was an old one; behind it are zeroes.
 */
static enum piece_kind inherited(const struct convert *c,
				 const struct image *img, struct run *run)
{
	uint64_t below = img->backing ? image_size(img->backing) : 0;

	if (run->off >= below)
		return zero_kind(c);
	run->len = min_u64(run->len, below - run->off);
	return PIECE_SKIP;
}

static enum piece_kind data_kind(const struct convert *c, const struct run *run)
{
	return c->a->copy_offload && run->has_host &&
	       !run->encrypted ? PIECE_COPY : PIECE_DATA;
}

/* What no layer above the target holds is the target's already, but for what a
 * layer hides by being too short. */
static enum piece_kind committed(const struct convert *c, const struct run *run)
{
	if (run->zero)
		return PIECE_ZERO;
	return run->present ? data_kind(c, run) : PIECE_SKIP;
}

/* Where in the source c->src the target's byte @off comes from. */
static uint64_t in_source(const struct convert *c, uint64_t off)
{
	return off + c->a->skip - c->base;
}

/* --salvage: what is read may be there all the same. */
static int unknown(struct convert *c, const struct image *img, int error)
{
	uint64_t left = image_size(img) - in_source(c, c->at);
	uint64_t end = c->at + min_u64(left, CONVERT_REQUEST);
	struct run run;

	end = min_u64(end, c->size);
	c->run_kind = PIECE_DATA;
	c->run_error = error;
	for (c->run_end = min_u64(c->at + SECTOR_SIZE, end); c->run_end < end;
	     c->run_end = min_u64(c->run_end + SECTOR_SIZE, end))
		if (!walk_step(&img->live, in_source(c, c->run_end),
			       SECTOR_SIZE, 0, 0, &run))
			break;
	return 0;
}

/* Finds out what is at c->at, unless that is known. */
static int look(struct convert *c)
{
	const struct image *img = c->a->src[c->src];
	unsigned layers = c->a->dst_has_backing ? 1 : c->a->layers;
	struct run run;
	uint64_t len;
	int ret;

	if (c->at < c->run_end)
		return 0;
	while (in_source(c, c->at) >= image_size(img)) {
		c->base += image_size(img);
		img = c->a->src[++c->src];
	}
	c->run_error = 0;
	c->ahead = min_u64(max_u64(c->ahead, LOOK_AHEAD), LOOK_AHEAD_MAX);
	len = min_u64(image_size(img) - in_source(c, c->at), c->ahead);
	ret = walk_run(&img->live, in_source(c, c->at), len, layers, MAP_EXACT,
		       &run);
	c->ahead = !ret && run.zero && run.len == len ? 2 * c->ahead : 0;
	if (ret)
		return c->a->salvage ? unknown(c, img, ret) : ret;
	if (c->a->dst_has_backing && !run.present)
		c->run_kind = inherited(c, img, &run);
	else if (c->a->layers)
		c->run_kind = committed(c, &run);
	else
		c->run_kind = run.zero ? zero_kind(c) : data_kind(c, &run);
	c->run_end = min_u64(c->at + run.len, c->size);
	return 0;
}

/* ---- pieces -------------------------------------------------------------- */

/*
 * Data that other runs left apart (layers of a chain) is one piece where that
 * makes no difference: any block of zeroes is long enough to be left out.
 */
static bool may_join(const struct convert *c, const struct batch *b,
		     uint64_t off)
{
	const struct piece *last = b->nr ? &b->piece[b->nr - 1] : NULL;

	return last && last->kind == PIECE_DATA &&
	       last->off + last->len == off && !c->unit && !c->a->salvage &&
	       off % max_u64(c->align, CONVERT_ROUND) == 0 &&
	       c->a->sparse <= c->align && b->used == last->at + last->len;
}

static void add(const struct convert *c, struct batch *b,
		enum piece_kind kind, uint64_t off, uint64_t len)
{
	struct piece *last = b->nr ? &b->piece[b->nr - 1] : NULL;

	if (kind == PIECE_SKIP)
		return;
	if (last && kind == PIECE_ZERO && last->kind == kind &&
	    last->off + last->len == off) {
		last->len += len;
		return;
	}
	if (kind == PIECE_DATA && may_join(c, b, off)) {
		last->len += len;
		last->joined = true;
		b->used += len;
		return;
	}
	b->piece[b->nr++] = (struct piece) { .kind = kind, .off = off,
					     .len = len, .at = b->used };
	if (kind == PIECE_COPY)         /* the buffer is all its own */
		b->used = CONVERT_REQUEST;
	if (kind == PIECE_DATA)
		b->used += round_up(len, CONVERT_ROUND);
}

/* How much of the run at c->at one request takes; 0: not in this batch. */
static uint64_t request_len(const struct convert *c, const struct batch *b)
{
	uint64_t len = c->run_end - c->at;

	if (c->run_kind == PIECE_SKIP || c->run_kind == PIECE_ZERO)
		return len;
	if (c->run_kind == PIECE_COPY)
		return b->used ? 0 : len;
	len = min_u64(len, CONVERT_REQUEST);
	if (c->run_kind == PIECE_DATA && b->used &&
	    len > CONVERT_SCATTERED - min_u64(b->used, CONVERT_SCATTERED))
		return 0;
	return len;
}

static int plan_plain(struct convert *c, struct batch *b)
{
	for (unsigned i = 0; i < PLAN_STEPS && c->at < c->size &&
	     b->nr < CONVERT_PIECES; i++) {
		int ret = look(c);
		uint64_t len;

		if (ret)
			return ret;
		len = request_len(c, b);
		if (!len)
			break;
		add(c, b, c->run_kind, c->at, len);
		if (c->run_error)
			b->piece[b->nr - 1].bad_map = c->run_error;
		c->at += len;
	}
	return 0;
}

/* ---- -c: whole units ------------------------------------------------------ */

/* Where the unit at c->at ends or, when it needs no reading and is of one kind,
 * the last unit of the same run. */
static uint64_t units_end(const struct convert *c)
{
	uint64_t end = min_u64(c->at + c->unit, c->size);

	if (c->run_kind != PIECE_SKIP && c->run_kind != PIECE_ZERO)
		return end;
	return max_u64(end, c->run_end == c->size ? c->size :
		       round_down(c->run_end, c->unit));
}

/* c->at moves behind the units; one of several kinds has to be read.  *@error:
 * why it is not known what the first byte is, or 0. */
static int units_kind(struct convert *c, enum piece_kind *kind, int *error)
{
	uint64_t end;
	int ret = look(c);

	if (ret)
		return ret;
	*error = c->run_error;
	end = units_end(c);
	/* Blank units are encoded as any others. */
	*kind = c->run_kind == PIECE_BLANK ? PIECE_DATA : c->run_kind;
	while (c->at < end) {
		ret = look(c);
		if (ret)
			return ret;
		if (c->run_kind != *kind)
			*kind = PIECE_DATA;
		c->at = min_u64(c->run_end, end);
	}
	return 0;
}

static int plan_units(struct convert *c, struct batch *b)
{
	for (unsigned i = 0; i < PLAN_STEPS && c->at < c->size &&
	     b->nr < CONVERT_PIECES && b->used + c->unit <= c->batch_bytes;
	     i++) {
		uint64_t off = c->at;
		enum piece_kind kind;
		int error, ret = units_kind(c, &kind, &error);

		if (ret)
			return ret;
		add(c, b, kind, off, c->at - off);
		if (error)
			b->piece[b->nr - 1].bad_map = error;
		b->used = round_up(b->used, c->unit);
	}
	return 0;
}

static size_t lost_bytes(const struct convert *c)
{
	return c->batch_bytes / SECTOR_SIZE * sizeof(int);
}

void convert_plan(struct convert *c, struct batch *b)
{
	int ret;

	b->nr = 0;
	b->used = 0;
	b->bits = 0;
	b->any_lost = false;
	if (b->lost)
		memset(b->lost, 0, lost_bytes(c));
	b->error_off = c->at;
	ret = c->unit ? plan_units(c, b) : plan_plain(c, b);
	b->error = ret;
	b->bad_map = ret;
	b->end = c->at;
	if (ret) {      /* what was planned comes first */
		b->error_off = c->at;
		c->at = c->size;
	}
}
