/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdi.c - VirtualBox disk images (vdi.md): dynamic, static, differencing.
 *
 * Knows the header, the map of blocks of 1 MiB and how new ones are appended:
 * the header's count is durable before the entry (SPACE, LINK), for QEMU takes
 * it for the next free block.  A block once given stays: what is discarded is
 * punched where it lies, because the count must equal the number of blocks in
 * use and the index behind the last of them.
 */
#include "vdi.h"

#include "json.h"

#include <inttypes.h>

enum { LOOK = 64 };             /* entries that one map() looks at */

/* ---- header -------------------------------------------------------------- */

static int vdi_probe(const struct probe *p)
{
	return p->head_len >= VH_LENGTH &&
	       le32_at(p->head + VH_SIGNATURE) == VDI_SIGNATURE ? 100 : 0;
}

#define UNSUPPORTED(err, fmt, ...) \
	err_set(err, -ENOTSUP, "unsupported VDI image (" fmt ")", __VA_ARGS__)

static int check_layout(const unsigned char *h, struct err *err)
{
	uint32_t version = le32_at(h + VH_VERSION);

	if (version != VDI_VERSION_1_1)
		return UNSUPPORTED(err, "version %u.%u", version >> 16,
				   version & 0xffff);
	if (le32_at(h + VH_MAP) % SECTOR_SIZE)
		return UNSUPPORTED(err, "unaligned block map offset 0x%x",
				   le32_at(h + VH_MAP));
	/* xmount's begins at any byte. */
	if (probe_as_qemu && le32_at(h + VH_DATA) % SECTOR_SIZE)
		return UNSUPPORTED(err, "unaligned data offset 0x%x",
				   le32_at(h + VH_DATA));
	if (le32_at(h + VH_SECTOR) != SECTOR_SIZE)
		return UNSUPPORTED(err, "sector size %u is not %u",
				   le32_at(h + VH_SECTOR), SECTOR_SIZE);
	if (le32_at(h + VH_BLOCK) != VDI_BLOCK)
		return UNSUPPORTED(err, "block size %u is not %u",
				   le32_at(h + VH_BLOCK), VDI_BLOCK);
	return 0;
}

int vdi_check_header(const unsigned char *h, struct err *err)
{
	uint64_t size = le64_at(h + VH_DISK);
	uint32_t blocks = le32_at(h + VH_BLOCKS);
	int ret;

	if (size > VDI_SIZE_MAX)
		return err_set(err, -ENOTSUP, "Unsupported VDI image size (size"
			       " is 0x%" PRIx64 ", max supported is 0x%" PRIx64
			       ")", size, VDI_SIZE_MAX);
	if (le32_at(h + VH_SIGNATURE) != VDI_SIGNATURE)
		return err_set(err, -EINVAL, "Image not in VDI format (bad"
			       " signature %08x)", le32_at(h + VH_SIGNATURE));
	ret = check_layout(h, err);
	if (ret)
		return ret;
	size = round_up(size, SECTOR_SIZE);
	if (size > (uint64_t)blocks * VDI_BLOCK)
		return UNSUPPORTED(err, "disk size %" PRIu64 ", image bitmap"
				   " has room for %" PRIu64, size,
				   (uint64_t)blocks * VDI_BLOCK);
	if (blocks > VDI_BLOCKS_MAX)
		return UNSUPPORTED(err, "too many blocks %u, max is %u",
				   blocks, VDI_BLOCKS_MAX);
	return 0;
}

static bool is_null(const unsigned char *uuid)
{
	static const unsigned char none[VDI_UUID];

	return !memcmp(uuid, none, sizeof(none));
}

static int take_header(struct image *img, const unsigned char *h,
		       struct err *err)
{
	struct vdi *v = vdi_of(img);
	int ret = vdi_check_header(h, err);
	uint64_t end;

	if (!ret)
		ret = file_size(img->file, &end);
	if (ret)
		return ret;
	v->map = le32_at(h + VH_MAP);
	v->data = le32_at(h + VH_DATA);
	v->blocks = le32_at(h + VH_BLOCKS);
	v->there = (uint32_t)min_u64(v->blocks, end > v->map ?
					       (end - v->map) / 4 : 0);
	v->has_parent = !is_null(h + VH_UUID_PARENT);
	memcpy(v->parent, h + VH_UUID_PARENT, VDI_UUID);
	atomic_store(&v->room, end > v->data ? div_up(end - v->data, VDI_BLOCK)
					     : 0);
	img->unit = VDI_BLOCK;
	img->align = 1;
	img->page = SECTOR_SIZE;
	img->zero_tail_hole = true;
	atomic_store(&img->size, round_up(le64_at(h + VH_DISK), SECTOR_SIZE));
	return 0;
}

/* Rule 14: header, map and data may not lie in each other. */
static int begin_writing(struct image *img, struct err *err)
{
	struct vdi *v = vdi_of(img);
	uint64_t map_len = 4 * (uint64_t)v->blocks;
	int ret;

	if (v->map < VH_LENGTH || v->data < v->map + map_len)
		return err_set(err, -EUCLEAN, "The map of blocks overlaps with"
			       " the header or the data");
	if (v->there < v->blocks && !(img->flags & IMAGE_REPAIR))
		return err_set(err, -EUCLEAN, "The map of blocks is cut off by"
			       " the end of the file");
	if (img->flags & IMAGE_REPAIR)
		return 0;
	ret = vdi_settle(img);
	return ret ? err_errno(err, ret, "Could not make the count of blocks"
			       " true") : 0;
}

static void vdi_close(struct image *img)
{
	free(vdi_of(img)->spare);
	pthread_mutex_destroy(&vdi_of(img)->lock);
	pthread_mutex_destroy(&vdi_of(img)->extending);
}

static int vdi_open(struct image *img, struct err *err)
{
	unsigned char h[VH_LENGTH];
	struct vdi *v = vdi_of(img);
	int ret = file_read(img->file, h, sizeof(h), 0);

	if (ret)
		return err_errno(err, ret, "Could not read the header");
	ret = take_header(img, h, err);
	if (!ret && v->has_parent && !json_get(img->node, "backing"))
		ret = vdi_find_parent(img, err);
	if (ret)
		return ret;
	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->extending, NULL);
	if (img->want_write)
		ret = begin_writing(img, err);
	if (ret)
		vdi_close(img);
	return ret;
}

/* ---- mapping ------------------------------------------------------------- */

/* How many of @n entries go on as the first one begins: the same nothing, or
 * blocks side by side. */
static uint64_t alike(const unsigned char *entries, uint64_t n)
{
	uint32_t first = le32_at(entries);
	uint64_t i = 1;

	while (i < n && le32_at(entries + 4 * i) ==
			(vdi_is_block(first) ? first + i : first))
		i++;
	return i;
}

static int vdi_map(const struct view *view, uint64_t off, uint64_t len,
		   struct extent *ext)
{
	struct image *img = view->img;
	const struct vdi *v = vdi_of(img);
	unsigned char entries[4 * LOOK];
	uint64_t i = off / VDI_BLOCK, in = off % VDI_BLOCK, room;
	uint64_t n = min_u64(min_u64(LOOK, v->blocks - i),
			     div_up(in + len, VDI_BLOCK));
	uint32_t first;
	int ret = meta_peek(img, img->file, entries, 4 * n, v->map + 4 * i);

	if (ret)
		return ret;
	first = le32_at(entries);
	n = alike(entries, n);
	room = atomic_load(&v->room);
	if (vdi_is_block(first) && first >= room) {
		image_corrupt(img, "Block %" PRIu64 " is beyond the end of the"
			      " file", i);
		return -EIO;
	}
	if (vdi_is_block(first))
		n = min_u64(n, room - first);
	*ext = (struct extent) {
		.kind = vdi_is_block(first) ? EXT_DATA :
			first == VDI_FREE && v->has_parent ? EXT_HOLE :
			EXT_ZERO,
		.off = off,
		.len = min_u64(len, n * VDI_BLOCK - in),
		.file = img->file,
		.host = v->data + (uint64_t)first * VDI_BLOCK + in,
	};
	return 0;
}

/* ---- allocating ---------------------------------------------------------- */

/* What commit() needs, in res->cookie; pins: the map's page, the header. */
enum { COOKIE_SLOT, COOKIE_FIRST, COOKIE_N };

/* Spare blocks go first: they are holes in what the count counts. */
static int take_blocks(struct vdi *v, uint64_t *n, uint64_t *first,
		       bool *fresh)
{
	with_lock(&v->lock);

	if (v->nr_spare) {
		*first = v->spare[--v->nr_spare];
		*fresh = false;
		*n = 1;
		return 0;
	}
	if (v->next >= VDI_BLOCKS_MAX)
		return -EFBIG;
	*n = min_u64(*n, VDI_BLOCKS_MAX - v->next);
	*first = v->next;
	*fresh = v->next >= v->fresh;
	v->next += *n;
	atomic_store(&v->room, max_u64(atomic_load(&v->room), v->next));
	return 0;
}

/* Blocks that nobody will use.  Out of memory they are lost until the next
 * opening for writing. */
static void spare_blocks(struct vdi *v, uint64_t first, uint64_t n)
{
	with_lock(&v->lock);

	if (v->nr_spare + n > v->spare_room) {
		size_t room = 2 * (v->nr_spare + n);
		uint32_t *grown = realloc(v->spare, room * sizeof(*grown));

		if (!grown)
			return;
		v->spare = grown;
		v->spare_room = room;
	}
	while (n)
		v->spare[v->nr_spare++] = (uint32_t)(first + --n);
}

/* The file has whole blocks, also where the last one is written in part.  One
 * at a time: a length must not fall back. */
static int extend(struct image *img, uint64_t end)
{
	struct vdi *v = vdi_of(img);
	uint64_t now;
	int ret;
	with_lock(&v->extending);

	ret = file_size(img->file, &now);
	if (!ret && now < end)
		ret = file_truncate(img->file, end);
	return ret;
}

static void put_pins(const struct reserve *res)
{
	meta_put(res->pins[0]);
	meta_put(res->pins[1]);
}

/* Blocks for what lies in one page of the map. */
static int vdi_reserve(struct image *img, struct reserve *res)
{
	struct vdi *v = vdi_of(img);
	uint64_t slot = v->map + 4 * (res->off / VDI_BLOCK), first;
	uint64_t n = min_u64(div_up(res->len, VDI_BLOCK),
			     (img->page - slot % img->page) / 4);
	int ret;

	if (res->intent == STORE_PACKED)
		return -ENOTSUP;
	ret = meta_get(img, img->file, round_down(slot, img->page),
		       &res->pins[0]);
	if (!ret)
		ret = meta_get(img, img->file, 0, &res->pins[1]);
	if (!ret)
		ret = take_blocks(v, &n, &first, &res->fresh);
	if (ret) {
		put_pins(res);
		return ret;
	}
	if (res->intent == STORE_PREALLOC && !res->fresh)
		ret = -ENOTSUP;
	else if (res->fresh)
		ret = extend(img, v->data + (first + n) * VDI_BLOCK);
	if (ret) {
		spare_blocks(v, first, n);
		put_pins(res);
		return ret;
	}
	res->cookie[COOKIE_SLOT] = slot;
	res->cookie[COOKIE_FIRST] = first;
	res->cookie[COOKIE_N] = n;
	res->dst = (struct extent) {
		.kind = EXT_DATA, .off = res->off, .len = n * VDI_BLOCK,
		.file = img->file, .host = v->data + first * VDI_BLOCK,
	};
	return 0;
}

static void count_to(struct mpage *header, uint64_t count)
{
	unsigned char *at = (unsigned char *)meta_bytes(header) + VH_ALLOCATED;

	meta_wrlock(header);
	if (le32_at(at) < count) {
		le32_put(at, (uint32_t)count);
		meta_dirty(header, STAGE_SPACE);
	}
	meta_unlock(header);
}

static void vdi_commit(struct image *img, const struct reserve *res)
{
	struct mpage *pg = res->pins[0];
	uint64_t first = res->cookie[COOKIE_FIRST], n = res->cookie[COOKIE_N];
	unsigned char *at = (unsigned char *)meta_bytes(pg) +
			    res->cookie[COOKIE_SLOT] % img->page;

	count_to(res->pins[1], first + n);
	meta_wrlock(pg);
	for (uint64_t i = 0; i < n; i++)
		le32_put(at + 4 * i, (uint32_t)(first + i));
	meta_dirty(pg, STAGE_LINK);
	meta_unlock(pg);
	put_pins(res);
}

static void vdi_abort(struct image *img, const struct reserve *res)
{
	spare_blocks(vdi_of(img), res->cookie[COOKIE_FIRST],
		     res->cookie[COOKIE_N]);
	put_pins(res);
}

/* ---- the rest ------------------------------------------------------------ */

static int vdi_info(struct image *img, struct image_info *info,
		    struct err *err)
{
	(void)err;
	info->cluster_size = img->unit;
	info->has_dirty = true;
	return 0;
}

static const struct format_admin vdi_admin = {
	.create_options = vdi_create_options,
	.create_check = vdi_create_check,
	.create = vdi_create,
	.info = vdi_info,
	.check = vdi_check,
	.repair = vdi_repair,
};

const struct format vdi_format = {
	.name = "vdi",
	.priv_size = sizeof(struct vdi),
	.supports_backing = true,
	.probe = vdi_probe,
	.open = vdi_open,
	.upgrade = begin_writing,
	.close = vdi_close,
	.map = vdi_map,
	.reserve = vdi_reserve,
	.commit = vdi_commit,
	.abort = vdi_abort,
	.admin = &vdi_admin,
};
