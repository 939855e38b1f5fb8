/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job-convert-fill.c - reads the pieces of a batch, finds the zeroes in them,
 * encodes them.  Runs on many threads at once, one batch each.
 *
 * qemu-img-cli.md, "convert -S", and what qemu-img was seen to write: blocks are
 * as large as the largest power of two in -S and aligned to that; zeroes between
 * data that are shorter than -S are data, but not those at either end of a
 * request.
 */
#include "job-convert.h"
#include "codec.h"

#include <sys/mman.h>

/* ---- reading ------------------------------------------------------------- */

struct image *convert_source(const struct convert *c, uint64_t *off,
			     uint64_t *len)
{
	*off += c->a->skip;
	for (unsigned i = 0;; i++) {
		struct image *img = c->a->src[i];
		uint64_t size = image_size(img);

		if (*off < size) {
			*len = min_u64(*len, size - *off);
			return img;
		}
		*off -= size;
	}
}

/* From the sources as they stand one behind the other. */
int convert_read(const struct convert *c, void *buf, uint64_t len,
		 uint64_t off)
{
	while (len) {
		uint64_t n = len, at = off;
		struct image *img = convert_source(c, &at, &n);
		int ret = image_read(&img->live, buf, n, at);

		if (ret)
			return ret;
		buf = (char *)buf + n;
		off += n;
		len -= n;
	}
	return 0;
}

/* ---- zeroes -------------------------------------------------------------- */

static bool bit(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> i % 64 & 1;
}

static uint64_t block_end(const struct convert *c, const struct piece *p,
			  uint64_t pos)
{
	return min_u64(round_down(p->off + pos, c->align) + c->align - p->off,
		       p->len);
}

static size_t block_bit(const struct convert *c, const struct piece *p,
			uint64_t pos)
{
	return p->bit + (p->off + pos) / c->align - p->off / c->align;
}

static void find_zeroes(const struct convert *c, struct batch *b,
			struct piece *p)
{
	p->bit = b->bits;
	for (uint64_t pos = 0, end; pos < p->len; pos = end) {
		uint64_t mask = UINT64_C(1) << b->bits % 64;
		uint64_t *bits = &b->zero[b->bits++ / 64];

		end = block_end(c, p, pos);
		if (is_zero(p->bytes + pos, end - pos))
			*bits |= mask;
		else
			*bits &= ~mask;
	}
}

/* Blocks of one answer from @pos on. */
static bool same_blocks(const struct convert *c, const struct batch *b,
			const struct piece *p, uint64_t pos, uint64_t *len)
{
	bool zero = bit(b->zero, block_bit(c, p, pos));
	uint64_t end = block_end(c, p, pos);

	while (end < p->len && bit(b->zero, block_bit(c, p, end)) == zero)
		end = block_end(c, p, end);
	*len = end - pos;
	return zero;
}

bool convert_run(const struct convert *c, const struct batch *b,
		 const struct piece *p, uint64_t pos, uint64_t *len)
{
	uint64_t end, n;

	if (!c->find_zeroes) {
		*len = p->len - pos;
		return false;
	}
	if (same_blocks(c, b, p, pos, len))
		return true;
	for (end = pos + *len; end < p->len; end += n)
		if (same_blocks(c, b, p, end, &n) &&
		    (n >= c->a->sparse || end + n == p->len))
			break;
	*len = end - pos;
	return false;
}

/* ---- a batch ------------------------------------------------------------- */

/* One unit; the bytes behind the end of the disk are zeroes. */
static int pack(const struct convert *c, struct batch *b, struct piece *p)
{
	unsigned char *buf = b->buf + p->at;

	memset(buf + p->len, 0, c->unit - p->len);
	if (c->a->sparse && is_zero(buf, p->len)) {
		p->kind = c->a->target_is_zero ? PIECE_SKIP : PIECE_ZERO;
		return 0;
	}
	return image_pack(c->a->dst, buf, b->packed + p->at, &p->packed);
}

/* A buffer that is used up is worth a huge page: an eighth of the time that a
 * dense disk takes goes into faults. */
static void want_huge(const struct convert *c, struct batch *b)
{
	if (b->huge)
		return;
	b->huge = true;
	(void)madvise(b->buf, c->batch_bytes, MADV_HUGEPAGE);
}

/*
 * Reading costs a third of the time that plain bytes take.  What is encoded must
 * not change under the encoder: a raw source may have other writers.
 */
static bool borrow(const struct convert *c, struct piece *p)
{
	uint64_t at = p->off, len = p->len;
	const struct image *img = convert_source(c, &at, &len);

	if (!c->a->lend || c->unit || p->len < CONVERT_BORROW || len < p->len ||
	    image_lend(&img->live, len, at, &p->loan))
		return false;
	p->bytes = p->loan.bytes;
	pause_point("convert-lent");
	return true;
}

void convert_give_back(struct batch *b)
{
	for (unsigned i = 0; i < b->nr; i++)
		file_give_back(&b->piece[i].loan);
}

static int fill_buffer(const struct convert *c, struct batch *b,
		       struct piece *p)
{
	int ret;

	if (p->len == CONVERT_REQUEST)
		want_huge(c, b);
	ret = convert_read(c, b->buf + p->at, p->len, p->off);
	if (ret && c->a->salvage) {
		convert_salvage(c, b, p);
		ret = 0;
	}
	p->bytes = b->buf + p->at;
	return ret;
}

int convert_fill_again(const struct convert *c, struct batch *b,
		       struct piece *p)
{
	int ret = fill_buffer(c, b, p);

	file_give_back(&p->loan);
	if (!ret && c->find_zeroes) {
		b->bits = p->bit;
		find_zeroes(c, b, p);
	}
	return ret;
}

/* The run of the source at @off, as it was planned: its bytes of a piece. */
static uint64_t run_len(const struct convert *c, const struct piece *p,
			uint64_t off)
{
	uint64_t len = p->off + p->len - off, at = off;
	const struct image *img = convert_source(c, &at, &len);
	struct run run;

	if (walk_run(&img->live, at, len, 0, MAP_EXACT, &run))
		return len;
	return run.len;
}

/* A piece of several runs that could not be read: up to which one it can. */
static int fill_runs(const struct convert *c, struct batch *b,
		     struct piece *p, uint64_t *got)
{
	int ret = 0;

	for (uint64_t pos = 0, n; pos < p->len && !ret; pos += n) {
		n = run_len(c, p, p->off + pos);
		ret = convert_read(c, b->buf + p->at + pos, n, p->off + pos);
		if (ret)
			*got = pos;
	}
	return ret;
}

/* On failure *@got bytes of the piece are good. */
static int fill(const struct convert *c, struct batch *b, struct piece *p,
		uint64_t *got)
{
	int ret = borrow(c, p) ? 0 : fill_buffer(c, b, p);

	if (ret && p->joined)
		ret = fill_runs(c, b, p, got);
	if (ret)
		return ret;
	if (c->unit)
		return pack(c, b, p);
	if (c->find_zeroes)
		find_zeroes(c, b, p);
	return 0;
}

/* What was read is stored all the same. */
static void cut(const struct convert *c, struct batch *b, unsigned i,
		uint64_t got)
{
	struct piece *p = &b->piece[i];

	b->nr = got ? i + 1 : i;
	p->len = got;
	if (got && c->find_zeroes)
		find_zeroes(c, b, p);
}

void convert_fill(struct convert *c, struct batch *b)
{
	for (unsigned i = 0; i < b->nr; i++) {
		struct piece *p = &b->piece[i];
		uint64_t got = 0;
		int ret = p->kind == PIECE_DATA ? fill(c, b, p, &got) : 0;

		if (!ret)
			continue;
		b->error = ret;
		b->bad_map = false;
		b->error_off = p->off + got;
		cut(c, b, i, got);
	}
}
