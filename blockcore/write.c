/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * write.c - storing the guest's bytes.
 *
 * What has a place of its own is overwritten there, inside an epoch and without
 * a lock.  Everything else goes the long way, under a claim of the whole units
 * it touches (rule 2): map again, reserve, fill, commit.  What can fail fails
 * before commit (rule 3), and then the image is as it was.
 */
#include "engine-int.h"
#include "codec.h"

/* One step of the long way: bounds the claim and the memory of a step. */
#define STEP_MAX (16 * MiB)

/* ---- in place ------------------------------------------------------------- */

/* How much was stored; 0: it has no place of its own. */
static ssize_t write_in_place(struct image *img, const void *buf, size_t len,
			      uint64_t off)
{
	struct extent ext;
	ssize_t ret;

	epoch_enter(img->eng);
	ret = img->fmt->map(&img->live, off, len, &ext);
	if (!ret && may_overwrite(img->eng, &ext)) {
		len = min_u64(len, ext.len);
		bitmaps_mark(img->eng, off, len);
		pause_point("write:mapped");
		ret = file_write(ext.file, buf, len, ext.host);
		if (!ret)
			ret = (ssize_t)len;
	}
	epoch_exit(img->eng);
	return ret;
}

/* ---- the long way --------------------------------------------------------- */

static int flush_above(struct image *img, uint64_t bytes)
{
	if (atomic_load_explicit(&cache_dirty_bytes, memory_order_relaxed) <
	    bytes || !atomic_load(&img->eng->nr_dirty))
		return 0;
	return image_flush(img);
}

int dirty_throttle(struct image *img)
{
	return flush_above(img, cache_dirty_bound() / 2);
}

/* Before a writer would have to: each flush is short, and nobody waits for the
 * end of one. */
int image_throttle(struct image *img)
{
	return flush_above(img, cache_dirty_bound() / 8);
}

/* Zeroes behind the end of the image: a unit may stick out. */
static int read_padded(struct image *img, char *buf, uint64_t len,
		       uint64_t off)
{
	uint64_t size = image_size(img), n = 0;
	int ret = 0;

	if (off < size) {
		n = min_u64(len, size - off);
		ret = image_read(&img->live, buf, n, off);
	}
	memset(buf + n, 0, len - n);
	return ret;
}

static uint64_t host_of(const struct reserve *res, uint64_t off)
{
	return res->dst.host + (off - res->off);
}

static int write_frame(const struct reserve *res)
{
	if (!res->frame_len)
		return 0;
	return file_write(res->dst.file, res->frame, res->frame_len,
			  res->dst.host - res->frame_len);
}

/* Stores @len bytes at @off in the reserved units, and around them, as far as
 * they are to be filled, what the guest sees there now. */
static int fill_units(struct image *img, const struct reserve *res,
		      const void *buf, size_t len, uint64_t off)
{
	size_t head = off - res->fill, tail = res->fill_end - (off + len);
	autofree char *around = malloc(head + tail + 1);
	struct iovec v[3] = {
		{ around, head }, { (void *)buf, len }, { around + head, tail },
	};
	int ret;

	if (!around)
		return -ENOMEM;
	ret = read_padded(img, around, head, res->fill);
	if (!ret)
		ret = read_padded(img, around + head, tail, off + len);
	if (!ret)
		ret = write_frame(res);
	if (ret)
		return ret;
	return file_writev(res->dst.file, v + !head, 3 - !head - !tail,
			   host_of(res, res->fill));
}

/* Fresh space reads as zeroes: if the guest sees zeroes around the new bytes
 * as well, there is nothing to write there.  All that is filled is of the kind
 * of @old, unless the format brings more along. */
static bool only_payload(struct image *img, const struct reserve *res,
			 const struct extent *old, uint64_t off, size_t len)
{
	if (!res->fresh || old->off + old->len < off + len ||
	    res->fill != round_down(off, img->piece) ||
	    res->fill_end != round_up(off + len, img->piece))
		return false;
	if (old->kind == EXT_ZERO)
		return true;
	return old->kind == EXT_HOLE &&
	       below_is_zero(img, res->fill, res->fill_end - res->fill) == 1;
}

static int fill(struct image *img, const struct reserve *res,
		const struct extent *old, const void *buf, size_t len,
		uint64_t off)
{
	if ((off == res->fill && off + len == res->fill_end &&
	     !res->frame_len) || only_payload(img, res, old, off, len))
		return file_write(res->dst.file, buf, len, host_of(res, off));
	return fill_units(img, res, buf, len, off);
}

int reserve_data(struct image *img, struct reserve *res, uint64_t off,
		 uint64_t len)
{
	int ret;

	*res = (struct reserve) {
		.intent = STORE_DATA,
		.off = round_down(off, img->unit),
		.fill = round_down(off, img->piece),
		.fill_end = round_up(off + len, img->piece),
	};
	res->len = round_up(off + len, img->unit) - res->off;
	ret = img->fmt->reserve(img, res);
	if (!ret)
		res->fill_end = min_u64(res->fill_end, res->off + res->dst.len);
	return ret;
}

void reserve_settle(struct image *img, const struct reserve *res, bool stored)
{
	change_begin(img);
	if (stored)
		img->fmt->commit(img, res);
	else
		img->fmt->abort(img, res);
	change_end(img);
}

ssize_t store_claimed(struct image *img, const struct extent *old,
		      const void *buf, size_t len, uint64_t off)
{
	struct reserve res;
	int ret;

	len = min_u64(len, old->len);
	ret = reserve_data(img, &res, off, len);
	if (ret)
		return ret;
	len = min_u64(len, res.off + res.dst.len - off);
	pause_point("write:reserved");
	ret = fill(img, &res, old, buf, len, off);
	if (knobs.no_gate)
		pause_point("write:filled");
	reserve_settle(img, &res, !ret);
	return ret ? ret : (ssize_t)len;
}

/* How much was stored; 0: look at the mapping again. */
static ssize_t write_units(struct image *img, const void *buf, size_t len,
			   uint64_t off)
{
	struct engine *e = img->eng;
	struct claim claim;
	struct extent ext;
	ssize_t ret;

	if (!img->fmt->reserve)
		return -EROFS;
	ret = dirty_throttle(img);
	if (ret)
		return ret;
	if (knobs.no_quarantine) {
		pthread_mutex_lock(&e->flush_lock);
		space_reap(e);
		pthread_mutex_unlock(&e->flush_lock);
	}
	len = min_u64(len, STEP_MAX);
	ret = claim_take(e, &claim, round_down(off, img->unit),
			 round_up(off + len, img->unit));
	if (ret)
		return ret;
	ret = image_map(&img->live, off, len, &ext);
	/* Somebody may have given it a place while we waited. */
	if (!ret && !in_place(&ext)) {
		bitmaps_mark(e, off, len);
		ret = store_claimed(img, &ext, buf, len, off);
	}
	claim_drop(e, &claim);
	return ret;
}

/* ---- packed units --------------------------------------------------------- */

static int write_through(struct image *img)
{
	if (img->cache != CACHE_WRITETHROUGH && img->cache != CACHE_DIRECTSYNC)
		return 0;
	return image_flush(img);
}

static int encode(const struct image *img, const void *buf, void *out,
		  size_t room, size_t *n)
{
	const struct codec *codec = img->codec;

	if (img->pack_level && codec->encode_at)
		return codec->encode_at(img->pack_level, buf, img->unit, out,
					room, n);
	return codec->encode(buf, img->unit, out, room, n);
}

int image_pack(struct image *img, const void *buf, void *out, size_t *n)
{
	return img->codec ? encode(img, buf, out, img->unit - 1, n) : -ENOTSUP;
}

/* As QEMU: what is stored already is not replaced. */
static int not_stored(struct image *img, uint64_t off)
{
	struct extent ext;
	int ret = image_map(&img->live, off,
			    min_u64(img->unit, image_size(img) - off), &ext);

	return !ret && (ext.kind == EXT_DATA || ext.kind == EXT_PACKED) ?
	       -EIO : ret;
}

static int store_packed(struct image *img, const void *packed, size_t n,
			uint64_t off)
{
	struct reserve res = {
		.intent = STORE_PACKED, .off = off, .len = img->unit,
		.packed = (uint32_t)n,
	};
	int ret = not_stored(img, off);

	if (!ret)
		ret = img->fmt->reserve(img, &res);
	if (ret)
		return ret;
	ret = write_frame(&res);
	if (!ret)
		ret = file_write(res.dst.file, packed, n, res.dst.host);
	reserve_settle(img, &res, !ret);
	return ret;
}

static int store_packed_claimed(struct image *img, const void *packed, size_t n,
				uint64_t off)
{
	struct claim claim;
	int ret = not_stored(img, off);

	/* What is refused is refused before the image is marked. */
	if (!ret)
		ret = engine_begin(img->eng);
	if (!ret)
		ret = dirty_throttle(img);
	if (!ret)
		ret = claim_take(img->eng, &claim, off, off + img->unit);
	if (ret)
		return ret;
	bitmaps_mark(img->eng, off, img->unit);
	ret = store_packed(img, packed, n, off);
	claim_drop(img->eng, &claim);
	return ret;
}

int image_write_packed(const struct view *v, const void *packed, size_t n,
		       uint64_t off)
{
	struct image *img = v->img;
	int ret;

	if (v->root || !img->codec || !img->fmt->reserve)
		return -ENOTSUP;
	if (off % img->unit || off >= image_size(img) || !n || n > img->unit)
		return -EINVAL;
	ret = store_packed_claimed(img, packed, n, off);
	return ret ? ret : write_through(img);
}

/* An image that takes nothing but encoded units: whole ones, and those too that
 * encoding makes longer. */
static int write_encoded(struct image *img, const char *buf, size_t len,
			 uint64_t off)
{
	size_t unit = img->unit, room = unit + unit / 8 + 1024, n = 0;
	autofree char *out = malloc(room), *whole = calloc(1, unit);
	int ret = out && whole ? 0 : -ENOMEM;

	while (!ret && len) {
		size_t have = min_u64(unit, image_size(img) - off);

		if (off % unit || len < have)
			return -EINVAL;
		memcpy(whole, buf, have);
		memset(whole + have, 0, unit - have);
		ret = encode(img, whole, out, room, &n);
		if (!ret)
			ret = n ? store_packed_claimed(img, out, n, off) : -EIO;
		buf += have;
		off += have;
		len -= have;
	}
	return ret;
}

/* ---- entry ---------------------------------------------------------------- */

static int guard(struct image *img, const void *buf, size_t len, uint64_t off)
{
	if (!img->probed || !img->fmt->probed_guard || off >= SECTOR_SIZE)
		return 0;
	return probe_guard(img, buf, len, off);
}

int image_write(const struct view *v, const void *buf, size_t len,
		uint64_t off)
{
	struct image *img = v->img;
	int ret = v->root ? -EROFS : view_check(v, off, len);

	if (!ret && len && !img->packed_only)
		ret = engine_begin(img->eng);
	if (!ret && len)
		ret = guard(img, buf, len, off);
	if (ret)
		return ret;
	if (img->packed_only) {
		ret = write_encoded(img, buf, len, off);
		len = 0;
	}
	while (len) {
		ssize_t n = write_in_place(img, buf, len, off);

		if (!n)
			n = write_units(img, buf, len, off);
		if (n < 0)
			return (int)n;
		buf = (const char *)buf + n;
		off += (size_t)n;
		len -= (size_t)n;
	}
	return ret ? ret : write_through(img);
}
