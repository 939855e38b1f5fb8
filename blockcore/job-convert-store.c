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
			ret = image_write(&c->a->dst->live,
					  b->buf + p->at + pos, n,
					  p->off + pos);
	return ret;
}

static int store(const struct convert *c, const struct batch *b,
		 const struct piece *p)
{
	const struct view *v = &c->a->dst->live;

	switch (p->kind) {
	case PIECE_SKIP:
		return 0;
	case PIECE_ZERO:
		return image_unmap(v, p->off, p->len, UNMAP_ZERO);
	case PIECE_BLANK:
		return store_blank(v, p);
	case PIECE_DATA:
		break;
	}
	if (!c->unit)
		return store_runs(c, b, p);
	if (p->packed)
		return image_write_packed(v, b->packed + p->at, p->packed,
					  p->off);
	return image_write(v, b->buf + p->at, p->len, p->off);
}

int convert_store(struct convert *c, struct batch *b, uint64_t *failed)
{
	for (unsigned i = 0; i < b->nr; i++) {
		int ret = store(c, b, &b->piece[i]);

		if (ret) {
			*failed = b->piece[i].off;
			return ret;
		}
	}
	return 0;
}
