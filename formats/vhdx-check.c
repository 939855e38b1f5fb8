/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhdx-check.c - check and check -r: the second copies of header and region
 * table, and whether each block has a place of its own.
 *
 * The log needs no look: opening for writing replays it, opening for reading
 * sees the image as it will be then.  As QEMU, nothing is counted.
 */
#include "vhdx.h"

#include <inttypes.h>

#define MAX_UNITS (UINT64_C(1) << 27)   /* of 1 MiB: 128 TiB of file */
#define CHUNK 65536u

struct scan {
	struct image *img;
	struct check_result *res;
	bool fix;
	unsigned char *used;    /* a bit for each MiB of the file */
	uint64_t nr;
	uint64_t next;          /* where a copy of a block goes */
};

/* ---- a finding ----------------------------------------------------------- */

/* Puts @len bytes at @host right, or counts what is wrong there. */
static int mend(struct scan *s, const void *buf, size_t len, uint64_t host)
{
	int ret;

	if (!s->fix) {
		s->res->corruptions++;
		return 0;
	}
	ret = repair_write(s->img, s->img->file, buf, len, host);
	if (!ret)
		s->res->corruptions_fixed++;
	return ret;
}

/* ---- the copies ---------------------------------------------------------- */

/* The first change of an image writes both headers anew. */
static int check_headers(struct scan *s)
{
	struct vhdx *v = vhdx_of(s->img);
	int ret;

	if (!v->other_bad)
		return 0;
	check_say(s->res, "ERROR: VHDX header %d is damaged", 2 - (int)v->slot);
	if (!s->fix) {
		s->res->corruptions++;
		return 0;
	}
	ret = vhdx_header_write(s->img, v->header);
	v->other_bad = ret != 0;
	if (!ret)
		s->res->corruptions_fixed++;
	return ret;
}

static int check_regions(struct scan *s)
{
	struct vhdx *v = vhdx_of(s->img);
	autofree unsigned char *t = malloc(2 * VHDX_TABLE);
	bool good[2];
	int ret = t ? file_read(v->file, t, 2 * VHDX_TABLE, VHDX_REGION_AT) :
		      -ENOMEM;

	if (ret)
		return ret;
	for (unsigned i = 0; i < 2; i++)
		good[i] = !memcmp(t + i * VHDX_TABLE, "regi", 4) &&
			  vhdx_sealed(t + i * VHDX_TABLE, VHDX_TABLE);
	for (unsigned i = 0; !ret && i < 2; i++) {
		if (good[i] || !good[!i])
			continue;
		check_say(s->res, "ERROR: VHDX region table %u is damaged",
			  i + 1);
		ret = mend(s, t + !i * VHDX_TABLE, VHDX_TABLE,
			   VHDX_REGION_AT + i * VHDX_TABLE);
	}
	return ret;
}

/* ---- blocks -------------------------------------------------------------- */

/* Is any MiB of it taken?  If not, it is from now on. */
static bool take(struct scan *s, uint64_t host, uint64_t len)
{
	uint64_t first = host / MiB, n = len / MiB;

	for (uint64_t i = first; i < first + n && i < s->nr; i++)
		if (s->used[i / 8] >> i % 8 & 1)
			return false;
	for (uint64_t i = first; i < first + n && i < s->nr; i++)
		s->used[i / 8] |= (unsigned char)(1u << i % 8);
	return true;
}

static bool is_bitmap(const struct vhdx *v, uint64_t index)
{
	return index % (v->ratio + 1) == v->ratio;
}

/* What is wrong with the entry, or NULL. */
static const char *fault(struct scan *s, uint64_t index, uint64_t e)
{
	const struct vhdx *v = vhdx_of(s->img);
	bool bitmap = is_bitmap(v, index);
	uint64_t len = bitmap ? MiB : s->img->unit;
	unsigned state = (unsigned)BAT_STATE(e);

	/* Older writers left anything in bitmaps' entries. */
	if (bitmap && !v->differencing)
		return NULL;
	if (bitmap ? state && state != BITMAP_PRESENT :
	    state == 4 || state == 5 ||
	    (state == BLOCK_PARTIAL && !v->differencing))
		return "has an invalid state";
	if (state < BLOCK_PRESENT)
		return NULL;
	if (BAT_HOST(e) / MiB >= s->nr)
		return "lies beyond the end of the file";
	if (!vhdx_may_lie(v, BAT_HOST(e), len))
		return "lies on metadata";
	return take(s, BAT_HOST(e), len) ? NULL : "shares its place";
}

/* Of two blocks in one place nobody knows whose it is: the second one gets a
 * copy behind the end of the file, which is durable before the entry. */
static int separate(struct scan *s, uint64_t index, uint64_t e)
{
	const struct vhdx *v = vhdx_of(s->img);
	uint64_t len = is_bitmap(v, index) ? MiB : s->img->unit;
	autofree unsigned char *buf = malloc(MiB);
	unsigned char entry[8];
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; !ret && s->fix && at < len; at += MiB) {
		ret = meta_read(s->img, v->file, buf, MiB, BAT_HOST(e) + at);
		if (!ret)
			ret = repair_write(s->img, s->img->file, buf, MiB,
					   s->next + at);
	}
	if (!ret && s->fix)
		ret = repair_barrier(s->img);
	if (ret)
		return ret;
	le64_put(entry, s->next | BAT_STATE(e));
	s->next += len;
	return mend(s, entry, sizeof(entry), v->bat + 8 * index);
}

/* A block whose place is no place reads as nothing. */
static int check_entry(struct scan *s, uint64_t index, uint64_t e)
{
	const struct vhdx *v = vhdx_of(s->img);
	const char *what = fault(s, index, e);
	static const unsigned char none[8];

	if (!what)
		return 0;
	check_say(s->res, "ERROR: block %" PRIu64 " (entry %#" PRIx64 ") %s",
		  index - index / (v->ratio + 1), e, what);
	if (!strcmp(what, "shares its place"))
		return separate(s, index, e);
	return mend(s, none, sizeof(none), v->bat + 8 * index);
}

static int check_bat(struct scan *s)
{
	const struct vhdx *v = vhdx_of(s->img);
	autofree unsigned char *buf = malloc(CHUNK);
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; !ret && i < v->entries; i += CHUNK / 8) {
		uint64_t n = min_u64(CHUNK / 8, v->entries - i);

		if (s->res->cancel && atomic_load(s->res->cancel))
			return -EINTR;
		ret = meta_read(s->img, v->file, buf, 8 * n, v->bat + 8 * i);
		for (uint64_t k = 0; !ret && k < n; k++)
			ret = check_entry(s, i + k, le64_at(buf + 8 * k));
	}
	return ret;
}

static int scan(struct image *img, bool fix, struct check_result *res)
{
	struct scan s = { .img = img, .res = res, .fix = fix };
	autofree unsigned char *used = NULL;
	uint64_t size;
	int ret = file_size(vhdx_of(img)->file, &size);

	if (ret)
		return ret;
	s.nr = min_u64(div_up(size, MiB), MAX_UNITS);
	s.next = round_up(size, MiB);
	s.used = used = calloc(1, s.nr / 8 + 1);
	if (!used)
		return -ENOMEM;
	ret = check_headers(&s);
	if (!ret)
		ret = check_regions(&s);
	return ret ? ret : check_bat(&s);
}

int vhdx_check(struct image *img, struct check_result *res)
{
	return scan(img, false, res);
}

/* As QEMU, a log that was replayed when the image was opened counts. */
int vhdx_repair(struct image *img, unsigned fix, struct check_result *res)
{
	struct vhdx *v = vhdx_of(img);

	int ret;

	if (v->was_pending)
		res->corruptions_fixed++;
	v->was_pending = false;
	ret = scan(img, fix & CHECK_FIX_ERRORS, res);
	return ret ? ret : vhdx_find_end(img);
}
