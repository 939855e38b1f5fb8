/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vpc.c - Virtual PC's and Hyper-V's VHD (vpc.md): fixed, dynamic,
 * differencing.
 *
 * A new block begins where the footer is, so that one moves first: the new copy
 * is written when the block is promised and durable with the data (SPACE); then
 * the block's bitmap may go over the old one (SPACE_ROOT), then the BAT may
 * point there (LINK).  A block once given stays.  In a differencing image a
 * block with sectors of the parent is not written in place: it is copied whole.
 */
#include "vpc.h"

#include "json.h"

#include <inttypes.h>

enum { LOOK = 64 };             /* entries of the BAT that map() looks at */

/* ---- the footer ----------------------------------------------------------- */

uint32_t vpc_checksum(const unsigned char *p, size_t n, size_t field)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i++)
		if (i < field || i >= field + 4)
			sum += p[i];
	return ~sum;
}

void vpc_seal_footer(unsigned char *f)
{
	be32_put(f + VF_CHECKSUM, vpc_checksum(f, VF_LENGTH, VF_CHECKSUM));
}

bool vpc_is_footer(const unsigned char *p)
{
	return !memcmp(p + VF_COOKIE, "conectix", 8);
}

/* Found by its tail only by name: a guest may write a footer into a raw disk. */
static bool is_named_fixed(const struct probe *p)
{
	const char *dot = p->name ? strrchr(p->name, '.') : NULL;

	return dot && (!strcmp(dot, ".vhd") || !strcmp(dot, ".vpc")) &&
	       p->tail && vpc_is_footer(p->tail) &&
	       be32_at(p->tail + VF_TYPE) == VPC_FIXED &&
	       be32_at(p->tail + VF_CHECKSUM) ==
			vpc_checksum(p->tail, VF_LENGTH, VF_CHECKSUM);
}

static int vpc_probe(const struct probe *p)
{
	if (p->head_len >= VF_LENGTH && vpc_is_footer(p->head))
		return 100;
	return !probe_as_qemu && is_named_fixed(p) ? 50 : 0;
}

static bool app_is(const unsigned char *f, const char *app)
{
	return !memcmp(f + VF_APP, app, 4);
}

/* Which creators mean the size they state, and which the geometry (vpc.md,
 * "Virtual size rule"). */
static bool size_is_stated(const unsigned char *f, uint64_t chs)
{
	if (chs == VPC_CHS_MAX)
		return true;
	if (qemu_compat() >= 100)
		return !app_is(f, "vpc ") && !app_is(f, "qemu");
	return app_is(f, "win ") || app_is(f, "qem2") || app_is(f, "tap\0") ||
	       app_is(f, "CTXS");
}

static int take_size(struct image *img, struct err *err)
{
	const unsigned char *f = vpc_of(img)->footer;
	const char *calc = json_get_str(img->node, "force_size_calc");
	uint64_t chs = (uint64_t)be16_at(f + VF_CYLINDERS) * f[VF_HEADS] *
		       f[VF_SECTORS], size;
	bool stated = size_is_stated(f, chs);

	if (calc && !strcmp(calc, "chs"))
		stated = false;
	else if (calc && !strcmp(calc, "current_size"))
		stated = true;
	else if (calc)
		return err_set(err, -EINVAL, "Invalid size calculation"
			       " algorithm");
	size = stated ? round_down(be64_at(f + VF_SIZE), SECTOR_SIZE) :
	       chs * SECTOR_SIZE;
	if (size / SECTOR_SIZE > VPC_SECTORS_MAX &&
	    !vpc_of(img)->fixed)
		return err_set(err, -EFBIG, "invalid VPC image");
	vpc_of(img)->stated = stated;
	atomic_store(&img->size, size);
	return 0;
}

/* The copy in front, else the footer itself, which in the oldest images is a
 * byte short. */
static int read_footer(struct image *img, struct err *err)
{
	struct vpc *v = vpc_of(img);
	int ret = file_size(img->file, &v->file_end);

	if (!ret)
		ret = file_read(img->file, v->footer, VF_LENGTH, 0);
	if (ret)
		return err_errno(err, ret, "Unable to read VHD header");
	v->fixed = !vpc_is_footer(v->footer);
	if (v->fixed && v->file_end < VF_LENGTH)
		return err_set(err, -EINVAL, "File too small for a VHD header");
	for (uint64_t n = VF_LENGTH; v->fixed && n >= VF_LENGTH - 1; n--) {
		ret = file_read(img->file, v->footer, VF_LENGTH,
				v->file_end - n);
		if (ret)
			return err_errno(err, ret, "Unable to read VHD header");
		if (vpc_is_footer(v->footer))
			break;
	}
	if (!vpc_is_footer(v->footer) ||
	    (v->fixed && be32_at(v->footer + VF_TYPE) != VPC_FIXED))
		return err_set(err, -EINVAL, "invalid VPC image");
	if (be32_at(v->footer + VF_CHECKSUM) !=
	    vpc_checksum(v->footer, VF_LENGTH, VF_CHECKSUM))
		return err_set(err, -EINVAL, "Incorrect header checksum");
	return 0;
}

/* ---- the dynamic header ---------------------------------------------------- */

static int truncated(struct err *err)
{
	return err_set(err, -EINVAL, "block-vpc: free_data_block_offset points"
		       " after the end of file. The image has been truncated.");
}

static int take_header(struct image *img, const unsigned char *h,
		       struct err *err)
{
	struct vpc *v = vpc_of(img);
	uint32_t block = be32_at(h + VD_BLOCK);
	uint64_t table_end;

	if (memcmp(h + VD_COOKIE, "cxsparse", 8))
		return err_set(err, -EINVAL, "Invalid header magic");
	if (!is_pow2(block) || block < SECTOR_SIZE)
		return err_set(err, -EINVAL, "Invalid block size %" PRIu32,
			       block);
	v->table = be64_at(h + VD_TABLE);
	v->entries = be32_at(h + VD_ENTRIES);
	img->unit = block;
	v->bitmap = (uint32_t)round_up(block / SECTOR_SIZE / 8 + !(block / 4096),
				       SECTOR_SIZE);
	if (image_size(img) > (uint64_t)v->entries * block)
		return err_set(err, -EINVAL, "Page table too small");
	if (v->entries > INT32_MAX / 4)
		return err_set(err, -EINVAL, "Max Table Entries too large (%d)",
			       (int)v->entries);
	if (v->table % SECTOR_SIZE || v->table < VF_LENGTH)
		return err_set(err, -EINVAL, "Invalid offset of the table of"
			       " blocks");
	if (add_overflows(v->table, 4 * (uint64_t)v->entries, &table_end) ||
	    table_end > v->file_end)
		return truncated(err);
	v->next = round_up(table_end, SECTOR_SIZE);
	return 0;
}

/* Where the last block ends. */
static int find_end(struct image *img, struct err *err)
{
	enum { PIECE = 16384 };
	struct vpc *v = vpc_of(img);
	autofree unsigned char *buf = malloc(4 * PIECE);
	uint64_t end = v->next;
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; !ret && i < v->entries; i += PIECE) {
		uint64_t n = min_u64(PIECE, v->entries - i);

		ret = file_read(img->file, buf, 4 * n, v->table + 4 * i);
		for (uint64_t k = 0; !ret && k < n; k++) {
			uint32_t e = be32_at(buf + 4 * k);

			if (e != VPC_FREE)
				end = max_u64(end, (uint64_t)e * SECTOR_SIZE +
					      vpc_stride(img));
		}
	}
	if (ret)
		return err_errno(err, ret, "Could not read the table");
	if (end <= v->file_end)
		v->next = end;
	else if (!(img->flags & IMAGE_CHECK))
		return truncated(err);
	else
		v->next = round_up(v->file_end, SECTOR_SIZE);
	return 0;
}

static int open_dynamic(struct image *img, struct err *err)
{
	struct vpc *v = vpc_of(img);
	unsigned char h[VD_LENGTH];
	uint64_t at = be64_at(v->footer + VF_DATA);
	int ret = at > INT64_MAX ? -EIO :
		  file_read(img->file, h, sizeof(h), at);

	if (ret)
		return err_set(err, ret, "Error reading dynamic VHD header");
	ret = take_header(img, h, err);
	if (!ret)
		ret = find_end(img, err);
	v->has_parent = be32_at(v->footer + VF_TYPE) == VPC_DIFFERENCING;
	if (!ret && v->has_parent && !json_get(img->node, "backing"))
		ret = vpc_find_parent(img, h, err);
	return ret;
}

static int open_fixed(struct image *img, struct err *err)
{
	struct vpc *v = vpc_of(img);

	img->unit = SECTOR_SIZE;
	if (image_size(img) > v->file_end - (VF_LENGTH - 1))
		return err_set(err, -EINVAL, "The disk is larger than the"
			       " file");
	return 0;
}

/*
 * What a crash has left behind the last block would not read as zeroes in a new
 * one: the footer goes where it belongs, then the rest is cut off.
 */
static int begin_writing(struct image *img, struct err *err)
{
	struct vpc *v = vpc_of(img);
	uint64_t end = v->next + VF_LENGTH;
	int ret;

	if (v->fixed || img->flags & IMAGE_REPAIR || v->file_end == end)
		return 0;
	ret = file_write(img->file, v->footer, VF_LENGTH, v->next);
	meta_forget(img, img->file, v->next, VF_LENGTH);
	if (!ret)
		ret = repair_barrier(img);
	if (!ret && v->file_end > end)
		ret = file_truncate(img->file, end);
	return ret ? err_errno(err, ret, "Could not write the footer") : 0;
}

/* Behind the last block may be bytes of a write that failed; and where several
 * did, nobody has written the footer there. */
static int vpc_clean(struct image *img)
{
	struct vpc *v = vpc_of(img);
	int ret;

	if (v->fixed || !spare_used(&v->spare, v->next))
		return 0;
	ret = file_write(img->file, v->footer, VF_LENGTH, v->next);
	return ret ? ret : file_truncate(img->file, v->next + VF_LENGTH);
}

static void vpc_close(struct image *img)
{
	pthread_mutex_destroy(&vpc_of(img)->lock);
}

static int vpc_open(struct image *img, struct err *err)
{
	struct vpc *v = vpc_of(img);
	int ret = read_footer(img, err);

	if (!ret)
		ret = take_size(img, err);
	if (ret)
		return ret;
	img->page = SECTOR_SIZE;
	img->align = 1;
	img->zero_tail_hole = true;
	pthread_mutex_init(&v->lock, NULL);
	ret = v->fixed ? open_fixed(img, err) : open_dynamic(img, err);
	if (!ret && img->want_write)
		ret = begin_writing(img, err);
	if (ret)
		vpc_close(img);
	return ret;
}

/* ---- mapping --------------------------------------------------------------- */

static bool bit_at(const unsigned char *bits, uint64_t i)
{
	return bits[i / 8] & 0x80 >> i % 8;
}

/* The sectors of a block that are here, and those that are the parent's. */
static int look_at_bits(struct image *img, uint64_t bitmap, uint64_t in,
			struct extent *ext)
{
	struct vpc *v = vpc_of(img);
	autofree unsigned char *bits = malloc(v->bitmap);
	uint64_t first = in / SECTOR_SIZE, all = img->unit / SECTOR_SIZE;
	uint64_t end = div_up(in + ext->len, SECTOR_SIZE), i = first;
	int ret = bits ? meta_peek(img, img->file, bits, v->bitmap, bitmap) :
		  -ENOMEM;
	bool here;

	if (ret)
		return ret;
	here = bit_at(bits, first);
	while (i < end && bit_at(bits, i) == here)
		i++;
	ext->len = min_u64(ext->len, i * SECTOR_SIZE - in);
	if (!here)
		ext->kind = EXT_HOLE;
	for (i = 0; i < all && bit_at(bits, i); i++)
		;
	if (i < all)
		ext->flags = EXT_SHARED;
	return 0;
}

static int map_block(struct image *img, uint32_t e, uint64_t in,
		     struct extent *ext)
{
	struct vpc *v = vpc_of(img);
	uint64_t at = (uint64_t)e * SECTOR_SIZE;

	if (!range_within(at, vpc_stride(img), atomic_load(&v->next))) {
		image_corrupt(img, "A block at sector %" PRIu32 " is beyond the"
			      " end of the file", e);
		return -EIO;
	}
	ext->kind = EXT_DATA;
	ext->host = at + v->bitmap + in;
	return v->has_parent ? look_at_bits(img, at, in, ext) : 0;
}

static int map_fixed(struct image *img, uint64_t off, uint64_t len,
		     struct extent *ext)
{
	*ext = (struct extent) {
		.kind = EXT_DATA, .off = off, .len = len, .file = img->file,
		.host = off,
	};
	return 0;
}

static int vpc_map(const struct view *view, uint64_t off, uint64_t len,
		   struct extent *ext)
{
	struct image *img = view->img;
	struct vpc *v = vpc_of(img);
	unsigned char entries[4 * LOOK];
	uint64_t i = off / img->unit, in = off % img->unit, free = 0;
	uint64_t n = min_u64(min_u64(LOOK, v->entries - i),
			     div_up(in + len, img->unit));
	struct extent found = {
		.kind = v->has_parent ? EXT_HOLE : EXT_ZERO, .off = off,
		.file = img->file,
	};
	int ret;

	if (v->fixed)
		return map_fixed(img, off, len, ext);
	ret = meta_peek(img, img->file, entries, 4 * n, v->table + 4 * i);
	if (ret)
		return ret;
	while (free < n && be32_at(entries + 4 * free) == VPC_FREE)
		free++;
	found.len = min_u64(len, max_u64(free, 1) * img->unit - in);
	if (!free)
		ret = map_block(img, be32_at(entries), in, &found);
	if (!ret)
		*ext = found;
	return ret;
}

/* ---- allocating ------------------------------------------------------------ */

enum { PIN_TABLE, PIN_BITMAP };
enum { COOKIE_SLOT, COOKIE_AT };

/* Where one block goes, bitmap first; *@last: it is where the footer is. */
static int take_block(struct image *img, uint64_t *at, bool *last)
{
	struct vpc *v = vpc_of(img);
	with_lock(&v->lock);

	*last = !spare_take(&v->spare, vpc_stride(img), SECTOR_SIZE, at);
	if (!*last)
		return 0;
	if (v->next / SECTOR_SIZE >= VPC_FREE)
		return -EFBIG;
	*at = v->next;
	v->next += vpc_stride(img);
	return 0;
}

/* Nothing leads there.  If it was the last one, the footer is there still. */
static void give_block(struct image *img, uint64_t at)
{
	struct vpc *v = vpc_of(img);
	with_lock(&v->lock);

	v->next = spare_give(&v->spare, at, vpc_stride(img), v->next);
}

/* The footer behind a new block, and the bitmap but for its first sector, which
 * is where the footer was. */
static int write_around(struct image *img, uint64_t at)
{
	struct vpc *v = vpc_of(img);
	size_t more = v->bitmap - SECTOR_SIZE;
	autofree void *ones = malloc(more + 1);
	int ret = ones ? 0 : -ENOMEM;

	if (ret)
		return ret;
	memset(ones, 0xff, more);
	if (more)
		ret = file_write(img->file, ones, more, at + SECTOR_SIZE);
	return ret ? ret : file_write(img->file, v->footer, VF_LENGTH,
				      at + vpc_stride(img));
}

static int vpc_reserve(struct image *img, struct reserve *res)
{
	struct vpc *v = vpc_of(img);
	uint64_t slot = v->table + 4 * (res->off / img->unit), at = 0;
	bool last = false;
	int ret;

	if (res->intent == STORE_PACKED || v->fixed)
		return -ENOTSUP;
	ret = meta_get(img, img->file, round_down(slot, img->page),
		       &res->pins[PIN_TABLE]);
	if (!ret)
		ret = take_block(img, &at, &last);
	res->fresh = last && !spare_used(&v->spare, at);
	if (!ret && last)
		ret = write_around(img, at);
	if (!ret && !res->fresh && res->intent == STORE_PREALLOC)
		ret = -ENOTSUP;
	if (!ret)
		ret = meta_get_new(img, img->file, at, &res->pins[PIN_BITMAP]);
	if (ret) {
		if (at)
			give_block(img, at);
		meta_put(res->pins[PIN_TABLE]);
		return ret;
	}
	res->cookie[COOKIE_SLOT] = slot;
	res->cookie[COOKIE_AT] = at;
	res->dst = (struct extent) {
		.kind = EXT_DATA, .off = res->off, .len = img->unit,
		.file = img->file, .host = at + v->bitmap,
	};
	return 0;
}

static void put_pins(const struct reserve *res)
{
	meta_put(res->pins[PIN_TABLE]);
	meta_put(res->pins[PIN_BITMAP]);
}

static void vpc_commit(struct image *img, const struct reserve *res)
{
	struct mpage *table = res->pins[PIN_TABLE];
	struct mpage *bits = res->pins[PIN_BITMAP];

	meta_wrlock(bits);
	memset(meta_bytes(bits), 0xff, SECTOR_SIZE);
	meta_dirty(bits, STAGE_SPACE_ROOT);
	meta_unlock(bits);
	meta_wrlock(table);
	be32_put((unsigned char *)meta_bytes(table) +
		 res->cookie[COOKIE_SLOT] % img->page,
		 (uint32_t)(res->cookie[COOKIE_AT] / SECTOR_SIZE));
	meta_dirty(table, STAGE_LINK);
	meta_unlock(table);
	put_pins(res);
}

static void vpc_abort(struct image *img, const struct reserve *res)
{
	give_block(img, res->cookie[COOKIE_AT]);
	put_pins(res);
}

/* ---- the rest --------------------------------------------------------------- */

static const struct format_admin vpc_admin = {
	.create_options = vpc_create_options,
	.create_check = vpc_create_check,
	.create = vpc_create,
	.info = vpc_info,
	.check = vpc_check,
	.repair = vpc_repair,
};

const struct format vpc_format = {
	.name = "vpc",
	.priv_size = sizeof(struct vpc),
	.supports_backing = true,
	.probe = vpc_probe,
	.open = vpc_open,
	.upgrade = begin_writing,
	.clean = vpc_clean,
	.close = vpc_close,
	.map = vpc_map,
	.reserve = vpc_reserve,
	.commit = vpc_commit,
	.abort = vpc_abort,
	.admin = &vpc_admin,
};
