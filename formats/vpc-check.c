/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vpc-check.c - are the copies of the footer, the header's sum and the table of
 * blocks sound, and how they get so again.  QEMU has no such check: the
 * sentences are ours.
 */
#include "vpc.h"

#include <inttypes.h>

enum { PIECE = 16384 };

struct scan {
	struct check_result *res;
	bool fix;
	uint64_t first;         /* host offset where blocks may begin */
	uint64_t end;           /* ... and where they end */
	uint64_t buckets;
	uint32_t *starts;       /* of each stretch as long as a block: the
				 * sector where one begins, or 0 */
};

static void fault(struct scan *s, const char *what, uint64_t n)
{
	check_say(s->res, "ERROR: %s (%" PRIu64 ")", what, n);
	if (s->fix)
		s->res->corruptions_fixed++;
	else
		s->res->corruptions++;
}

/* Does another block lie over the one at @at?  Two that begin in one stretch
 * always do. */
static bool is_taken(const struct scan *s, uint64_t at, uint64_t stride)
{
	uint64_t i = at / stride, e = at / SECTOR_SIZE;
	uint64_t sectors = stride / SECTOR_SIZE;

	return s->starts[i] ||
	       (i && s->starts[i - 1] && s->starts[i - 1] + sectors > e) ||
	       (i + 1 < s->buckets && s->starts[i + 1] &&
		s->starts[i + 1] < e + sectors);
}

/* A copy of its own for a block that another one lies over. */
static int separate(struct image *img, struct scan *s, unsigned char *entry)
{
	struct vpc *v = vpc_of(img);
	uint64_t len = vpc_stride(img), to = v->next;
	uint64_t from = (uint64_t)be32_at(entry) * SECTOR_SIZE;
	autofree unsigned char *buf = malloc(MiB);
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0, n; !ret && at < len; at += n) {
		n = min_u64(MiB, len - at);
		ret = file_read(img->file, buf, n, from + at);
		if (!ret)
			ret = repair_write(img, img->file, buf, n, to + at);
	}
	if (ret)
		return ret;
	v->next = to + len;
	be32_put(entry, (uint32_t)(to / SECTOR_SIZE));
	(void)s;
	return 1;
}

/* 1: the entry was changed. */
static int look_at_entry(struct image *img, struct scan *s, uint64_t i,
			 unsigned char *entry)
{
	uint32_t e = be32_at(entry);
	uint64_t at = (uint64_t)e * SECTOR_SIZE, stride = vpc_stride(img);

	if (e == VPC_FREE)
		return 0;
	s->res->allocated_clusters++;
	if (at < s->first || !range_within(at, stride, s->end)) {
		fault(s, at < s->first ? "a block lies over the header" :
		      "a block is beyond the end of the file", i);
		if (s->fix)
			be32_put(entry, VPC_FREE);
		return s->fix;
	}
	if (is_taken(s, at, stride)) {
		fault(s, "a block lies over another one", i);
		return s->fix ? separate(img, s, entry) : 0;
	}
	s->starts[at / stride] = e;
	return 0;
}

static int look_at_table(struct image *img, struct scan *s)
{
	struct vpc *v = vpc_of(img);
	autofree unsigned char *buf = malloc(4 * PIECE);
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; ret >= 0 && i < v->entries; i += PIECE) {
		uint64_t n = min_u64(PIECE, v->entries - i);
		int changed = 0;

		if (s->res->cancel && atomic_load(s->res->cancel))
			return -EINTR;
		ret = meta_read(img, img->file, buf, 4 * n, v->table + 4 * i);
		for (uint64_t k = 0; ret >= 0 && k < n; k++) {
			ret = look_at_entry(img, s, i + k, buf + 4 * k);
			changed |= ret > 0;
		}
		if (ret < 0 || !changed)
			continue;
		ret = repair_barrier(img);
		if (!ret)
			ret = repair_write(img, img->file, buf, 4 * n,
					   v->table + 4 * i);
	}
	return ret < 0 ? ret : 0;
}

/* The header's own sum, which QEMU does not look at; others do. */
static int look_at_header(struct image *img, struct scan *s)
{
	uint64_t at = be64_at(vpc_of(img)->footer + VF_DATA);
	unsigned char h[VD_LENGTH];
	uint32_t sum;
	int ret = meta_read(img, img->file, h, sizeof(h), at);

	if (ret)
		return ret;
	sum = vpc_checksum(h, VD_LENGTH, VD_CHECKSUM);
	if (sum == be32_at(h + VD_CHECKSUM))
		return 0;
	fault(s, "wrong checksum of the dynamic header", sum);
	be32_put(h + VD_CHECKSUM, sum);
	return s->fix ? repair_write(img, img->file, h, sizeof(h), at) : 0;
}

/* The footer behind the last block, and nothing behind the footer: first it is
 * there, then the rest goes. */
static int end_here(struct image *img, uint64_t size)
{
	struct vpc *v = vpc_of(img);
	uint64_t end = v->next + VF_LENGTH;
	int ret = repair_write(img, img->file, v->footer, VF_LENGTH, v->next);

	if (!ret)
		ret = repair_barrier(img);
	return !ret && size > end ? file_truncate(img->file, end) : ret;
}

static int look_at_end(struct image *img, struct scan *s, uint64_t size)
{
	struct vpc *v = vpc_of(img);
	unsigned char f[VF_LENGTH];
	uint64_t at = size - min_u64(size, VF_LENGTH);
	int ret = meta_read(img, img->file, f, sizeof(f), at);

	if (ret)
		return ret;
	if (vpc_is_footer(f) && be32_at(f + VF_CHECKSUM) ==
				vpc_checksum(f, VF_LENGTH, VF_CHECKSUM) &&
	    v->next + VF_LENGTH <= size)
		return 0;
	/* A byte short: as old images are. */
	if (!memcmp(f + 1, v->footer, VF_LENGTH - 1))
		return 0;
	fault(s, "no footer at the end of the file", at);
	return s->fix ? end_here(img, size) : 0;
}

static int run(struct image *img, struct scan *s)
{
	struct vpc *v = vpc_of(img);
	uint64_t size;
	autofree uint32_t *starts = NULL;
	int ret = file_size(img->file, &size);

	if (ret || v->fixed)
		return ret;
	s->end = min_u64(size, (uint64_t)VPC_FREE * SECTOR_SIZE);
	s->first = round_up(v->table + 4 * (uint64_t)v->entries, SECTOR_SIZE);
	s->buckets = s->end / vpc_stride(img) + 1;
	starts = s->starts = calloc(s->buckets, sizeof(*starts));
	if (!starts)
		return -ENOMEM;
	s->res->total_clusters = v->entries;
	ret = look_at_header(img, s);
	if (!ret)
		ret = look_at_table(img, s);
	if (!ret)
		ret = repair_barrier(img);
	return ret ? ret : look_at_end(img, s, size);
}

int vpc_check(struct image *img, struct check_result *res)
{
	struct scan s = { .res = res };

	return run(img, &s);
}

int vpc_repair(struct image *img, unsigned fix, struct check_result *res)
{
	struct scan s = { .res = res, .fix = fix & CHECK_FIX_ERRORS };

	return run(img, &s);
}
