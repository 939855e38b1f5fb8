/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk-range.c - what works on ranges of a disk without the kernel moving
 * bytes: fallocate (F13), SEEK_DATA and SEEK_HOLE (F14), copies inside the
 * mount (F15).
 *
 * Knows how to take such a request in pieces: a short one is done at once, a
 * long one goes on in a worker and ends within a second of an interrupt.
 * Refuses to know formats: a call that cannot be done says EOPNOTSUPP itself.
 */
#include "fs/disk.h"
#include "fs/slow.h"

#include <linux/falloc.h>

/* ---- fallocate -------------------------------------------------------------- */

enum { PIECE = 64 << 20 };

struct range {
	struct slow s;
	struct disk_handle *dh;
	int mode;
	uint64_t off, len;
};

/* Bytes beyond the end: allocating them is a write there, all else has nothing
 * to do there. */
static int range_fit(struct range *r, struct image *img)
{
	uint64_t size = disk_size(r->dh, img), want = r->len;
	int ret;

	if (r->mode & FALLOC_FL_KEEP_SIZE) {
		if (r->off >= size)
			r->len = 0;
		else
			r->len = min_u64(r->len, size - r->off);
		return 0;
	}
	ret = disk_fit(r->dh, img, r->off, &want, &r->s.interrupted);
	return !ret && want < r->len ? -ENOSPC : ret;
}

static int range_piece(struct range *r, struct image *img, uint64_t len)
{
	bool keep = r->dh->h.node->mnt->opt->discard_ignore;

	if (r->mode & FALLOC_FL_PUNCH_HOLE)
		return image_unmap(&img->live, r->off, len,
				   keep ? UNMAP_ZERO_KEEP : UNMAP_ZERO);
	if (r->mode & FALLOC_FL_ZERO_RANGE)
		return image_unmap(&img->live, r->off, len, UNMAP_ZERO_KEEP);
	return image_allocate(&img->live, r->off, len);
}

/* The next piece; 0 with r->len 0: all is done. */
static int range_step(struct range *r)
{
	struct image *img = disk_enter(r->dh->h.node);
	uint64_t len;
	int ret;

	if (!img)
		return -EIO;
	ret = range_fit(r, img);
	len = min_u64(r->len, PIECE);
	if (!ret && len) {
		ret = range_piece(r, img, len);
		disk_wrote(r->dh, r->off, len);
	}
	disk_leave(r->dh->h.node);
	if (!ret) {
		r->off += len;
		r->len -= len;
	}
	return ret == -ENOTSUP ? -EOPNOTSUPP : ret;
}

static void range_run(struct slow *s)
{
	struct range *r = container_of(s, struct range, s);
	int ret = 0;

	while (!ret && r->len && !slow_interrupted(s))
		ret = range_step(r);
	if (!ret && r->len)
		ret = -EINTR;
	reply_err(slow_end(s), ret);
	free(r);
}

static bool mode_known(int mode)
{
	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		return true;
	}
	return false;
}

void disk_fallocate(fuse_req_t req, struct handle *h, int mode, off_t off,
		    off_t len)
{
	struct range r = {
		.dh = disk_handle(h),
		.mode = mode,
		.off = (uint64_t)off,
		.len = (uint64_t)len,
	};
	struct range *later;
	int ret;

	if (!mode_known(mode)) {
		reply_err(req, -EOPNOTSUPP);
		return;
	}
	caller_watch(req, &r.s.interrupted);
	ret = range_step(&r);
	caller_unwatch(req);
	if (ret || !r.len) {
		reply_err(req, ret);
		return;
	}
	later = malloc(sizeof(*later));
	if (!later) {
		reply_err(req, -ENOMEM);
		return;
	}
	*later = r;
	slow_start(&later->s, req, h->node->mnt->workers, range_run);
}

/* ---- lseek --------------------------------------------------------------------- */

enum { SEEK_STEPS = 1024 };     /* of the map, in FUSE's thread */

struct seek {
	struct slow s;
	struct disk_handle *dh;
	int whence;
	uint64_t pos;
};

/* 1: not found yet, go on at k->pos; 0: found there. */
static int seek_in(struct seek *k, struct image *img)
{
	uint64_t end = disk_size(k->dh, img);
	struct run r;
	int ret;

	for (unsigned i = 0; i < SEEK_STEPS && k->pos < end; i++) {
		ret = walk_step(disk_view(k->dh, img), k->dh->start + k->pos,
				end - k->pos, 0, MAP_EXACT, &r);
		if (ret)
			return ret;
		if (r.zero == (k->whence == SEEK_HOLE))
			return 0;
		k->pos += r.len;
	}
	if (k->pos < end)
		return 1;
	return k->whence == SEEK_HOLE ? 0 : -ENXIO;
}

static int seek_some(struct seek *k)
{
	struct image *img = disk_enter(k->dh->h.node);
	int ret;

	if (!img)
		return -EIO;
	ret = seek_in(k, img);
	disk_leave(k->dh->h.node);
	return ret;
}

static void seek_reply(fuse_req_t req, const struct seek *k, int ret)
{
	if (ret)
		reply_err(req, ret < 0 ? ret : -EINTR);
	else
		reply_lseek(req, (off_t)k->pos);
}

static void seek_run(struct slow *s)
{
	struct seek *k = container_of(s, struct seek, s);
	int ret = 1;

	while (ret == 1 && !slow_interrupted(s))
		ret = seek_some(k);
	seek_reply(slow_end(s), k, ret);
	free(k);
}

/* Is there anything at @off at all?  (lseek(2): ENXIO) */
static bool seek_inside(const struct seek *k)
{
	struct image *img = disk_enter(k->dh->h.node);
	bool inside = false;

	if (img) {
		inside = k->pos < disk_size(k->dh, img);
		disk_leave(k->dh->h.node);
	}
	return inside;
}

void disk_lseek(fuse_req_t req, struct handle *h, off_t off, int whence)
{
	struct seek k = {
		.dh = disk_handle(h),
		.whence = whence,
		.pos = (uint64_t)off,
	};
	struct seek *later;
	int ret;

	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		reply_err(req, -EINVAL);
		return;
	}
	ret = seek_inside(&k) ? seek_some(&k) : -ENXIO;
	later = ret == 1 ? malloc(sizeof(*later)) : NULL;
	if (!later) {
		seek_reply(req, &k, ret == 1 ? -ENOMEM : ret);
		return;
	}
	*later = k;
	slow_start(&later->s, req, h->node->mnt->workers, seek_run);
}

/* ---- copies ------------------------------------------------------------------------ */

/* One call does no more: the caller asks again for the rest. */
#define COPY_MAX (256 * MiB)

struct copy {
	struct slow s;
	struct disk_handle *in, *out;
	uint64_t from, to, len, done;
};

/* Up to *n bytes into @buf, or *zero: they all are zero, and not read. */
static int copy_read(struct copy *c, void *buf, uint64_t *n, bool *zero)
{
	struct image *img = disk_enter(c->in->h.node);
	uint64_t off = c->in->start + c->from, size;
	struct run r;
	int ret = 0;

	if (!img)
		return -EIO;
	size = disk_size(c->in, img);
	*n = c->from < size ? min_u64(*n, size - c->from) : 0;
	if (*n)
		ret = walk_step(disk_view(c->in, img), off, *n, 0, MAP_EXACT,
				&r);
	if (*n && !ret) {
		*zero = r.zero;
		*n = r.zero ? r.len : min_u64(*n, DISK_IO_MAX);
		if (!r.zero)
			ret = image_read(disk_view(c->in, img), buf, *n, off);
	}
	disk_leave(c->in->h.node);
	return ret;
}

static int copy_write(struct copy *c, const void *buf, uint64_t *n, bool zero)
{
	struct image *img = disk_enter(c->out->h.node);
	int ret;

	if (!img)
		return -EIO;
	ret = disk_fit(c->out, img, c->to, n, &c->s.interrupted);
	if (!ret && zero)
		ret = image_unmap(&img->live, c->to, *n, UNMAP_ZERO);
	else if (!ret)
		ret = image_write(&img->live, buf, *n, c->to);
	disk_wrote(c->out, c->to, *n);
	disk_leave(c->out->h.node);
	return ret;
}

/* 0 with c->len 0: the end. */
static int copy_step(struct copy *c)
{
	void *buf = disk_buffer(DISK_IO_MAX);
	uint64_t n = c->len;
	bool zero = false;
	int ret;

	if (!buf)
		return -ENOMEM;
	ret = copy_read(c, buf, &n, &zero);
	if (!ret && n)
		ret = copy_write(c, buf, &n, zero);
	if (ret)
		return ret;
	c->from += n;
	c->to += n;
	c->done += n;
	c->len = n ? c->len - n : 0;
	return 0;
}

static void copy_run(struct slow *s)
{
	struct copy *c = container_of(s, struct copy, s);
	fuse_req_t req;
	int ret = 0;

	while (!ret && c->len && !slow_interrupted(s))
		ret = copy_step(c);
	if (!ret && c->len && !c->done)
		ret = -EINTR;
	req = slow_end(s);
	if (c->done)
		reply_write(req, c->done);
	else if (ret)
		reply_err(req, ret);
	else
		reply_write(req, 0);
	free(c);
}

void disk_copy(fuse_req_t req, struct handle *in, off_t off_in,
	       struct handle *out, off_t off_out, size_t len)
{
	struct copy *c = calloc(1, sizeof(*c));

	if (!c) {
		reply_err(req, -ENOMEM);
		return;
	}
	c->in = disk_handle(in);
	c->out = disk_handle(out);
	c->from = (uint64_t)off_in;
	c->to = (uint64_t)off_out;
	c->len = min_u64(len, COPY_MAX);
	slow_start(&c->s, req, in->node->mnt->workers, copy_run);
}
