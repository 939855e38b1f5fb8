/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job-convert-store.c - writes the pieces of a batch to the target.
 *
 * Without -W only one thread at a time is in here, and batches come in
 * ascending order.
 */
#include "job-convert.h"

static const unsigned char blank[64 << 10];

static int store_blank(const struct view *v, const struct piece *p)
{
	int ret = 0;

	for (uint64_t pos = 0, n; pos < p->len && !ret; pos += n) {
		n = min_u64(p->len - pos, sizeof(blank));
		ret = image_write(v, blank, n, p->off + pos);
	}
	return ret;
}

/* @len bytes of the piece that were found to be zero. */
static int store_found(const struct convert *c, const struct piece *p,
		       uint64_t pos, uint64_t len)
{
	if (c->a->target_is_zero)
		return 0;
	return image_unmap(&c->a->dst->live, p->off + pos, len, UNMAP_ZERO);
}

static int store_runs(const struct convert *c, const struct batch *b,
		      const struct piece *p)
{
	int ret = 0;

	for (uint64_t pos = 0, n; pos < p->len && !ret; pos += n)
		if (convert_run(c, b, p, pos, &n))
			ret = store_found(c, p, pos, n);
		else
			ret = image_write(&c->a->dst->live, p->bytes + pos,
					  n, p->off + pos);
	return ret;
}

/* What the host cannot copy.  A failure to read is left in the batch. */
static ssize_t copy_request(const struct convert *c, struct batch *b,
			    uint64_t off, uint64_t len)
{
	uint64_t end = round_down(off, CONVERT_REQUEST) + CONVERT_REQUEST;
	int ret;

	len = min_u64(len, end - off);
	ret = convert_read(c, b->buf, len, off);
	if (ret) {
		b->error = ret;
		b->error_off = off;
		return 0;
	}
	ret = image_write(&c->a->dst->live, b->buf, len, off);
	return ret ? ret : (ssize_t)len;
}

static int store_copy(const struct convert *c, struct batch *b,
		      const struct piece *p)
{
	for (uint64_t pos = 0; pos < p->len && !convert_cancelled(c);) {
		uint64_t off = p->off + pos, at = off, len = p->len - pos;
		const struct image *src = convert_source(c, &at, &len);
		ssize_t n = image_copy(&c->a->dst->live, off, &src->live, at,
				       len);

		if (n == -EOPNOTSUPP)
			n = copy_request(c, b, off, len);
		if (n <= 0)
			return (int)n;
		pos += (uint64_t)n;
	}
	return 0;
}

/* The source may have been cut off under what we borrowed. */
static int store_data(const struct convert *c, struct batch *b,
		      struct piece *p)
{
	int ret = store_runs(c, b, p);

	if (ret != -EFAULT || !p->loan.len)
		return ret;
	ret = convert_fill_again(c, b, p);
	return ret ? ret : store_runs(c, b, p);
}

static int store(const struct convert *c, struct batch *b, struct piece *p)
{
	const struct view *v = &c->a->dst->live;

	switch (p->kind) {
	case PIECE_SKIP:
		return 0;
	case PIECE_ZERO:
		return image_unmap(v, p->off, p->len, UNMAP_ZERO);
	case PIECE_BLANK:
		return store_blank(v, p);
	case PIECE_COPY:
		return store_copy(c, b, p);
	case PIECE_DATA:
		break;
	}
	if (!c->unit)
		return store_data(c, b, p);
	/* Whether it shrinks or not: as qemu-img. */
	if (c->a->compress && c->a->dst->never_packed)
		return -ENOTSUP;
	if (p->packed)
		return image_write_packed(v, b->packed + p->at, p->packed,
					  p->off);
	return image_write(v, b->buf + p->at, p->len, p->off);
}

int convert_store(struct convert *c, struct batch *b, uint64_t *failed)
{
	convert_warn(c, b);
	for (unsigned i = 0; i < b->nr; i++) {
		int ret = store(c, b, &b->piece[i]);

		if (ret) {
			*failed = b->piece[i].off;
			return ret;
		}
	}
	return 0;
}
