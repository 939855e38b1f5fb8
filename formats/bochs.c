/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bochs.c - redologs of the Bochs emulator (bochs.md): "Growing" disks, and the
 * "Undoable" and "Volatile" layers over a flat disk.  Read-only.
 *
 * Knows the catalog of extents and the bitmap of sectors in front of each one.
 * A layer does not name the disk below it: Bochs finds it by the file's name,
 * which is the disk's with ".redolog" behind it, and so do we.
 */
#include "blockcore.h"
#include "json.h"

#include <inttypes.h>

enum {
	BH_MAGIC = 0,
	BH_TYPE = 32,
	BH_SUBTYPE = 48,
	BH_VERSION = 64,
	BH_HEADER = 68,
	BH_CATALOG = 72,
	BH_BITMAP = 76,
	BH_EXTENT = 80,
	BH_V1_DISK = 84,
	BH_V2_DISK = 88,
	BH_LENGTH = 512,
};

#define VERSION_1 0x00010000u
#define VERSION_2 0x00020000u
#define NOT_THERE UINT32_C(0xffffffff)
#define MAX_CATALOG 0x100000u
#define MAX_EXTENT 0x800000u
#define SUFFIX ".redolog"

enum { LOOK_BYTES = 64 };       /* of a bitmap, LOOK_BYTES / 4 entries */

struct bochs {
	uint64_t catalog;       /* host offset */
	uint32_t entries;
	uint64_t data;          /* host offset of the first extent */
	uint64_t bitmap;        /* bytes of a bitmap, whole sectors */
	uint64_t stride;        /* from one extent to the next */
	uint64_t end;           /* of the file */
	enum extent_kind absent;        /* what is not stored here */
};

/* ---- opening ------------------------------------------------------------- */

static bool text_is(const unsigned char *field, size_t len, const char *text)
{
	return !strncmp((const char *)field, text, len);
}

/* Over a flat disk? */
static bool is_layer(const unsigned char *h)
{
	return text_is(h + BH_SUBTYPE, 16, "Undoable") ||
	       text_is(h + BH_SUBTYPE, 16, "Volatile");
}

static bool is_bochs(const unsigned char *h)
{
	uint32_t version = le32_at(h + BH_VERSION);

	return text_is(h + BH_MAGIC, 32, "Bochs Virtual HD Image") &&
	       text_is(h + BH_TYPE, 16, "Redolog") &&
	       (text_is(h + BH_SUBTYPE, 16, "Growing") || is_layer(h)) &&
	       (version == VERSION_1 || version == VERSION_2);
}

static int bochs_probe(const struct probe *p)
{
	return p->head_len >= BH_LENGTH && is_bochs(p->head) ? 100 : 0;
}

static int check_extent(uint32_t extent, struct err *err)
{
	if (extent < SECTOR_SIZE)
		return err_set(err, -EINVAL,
			       "Extent size must be at least 512");
	if (!is_pow2(extent))
		return err_set(err, -EINVAL, "Extent size %" PRIu32
			       " is not a power of two", extent);
	if (extent > MAX_EXTENT)
		return err_set(err, -EINVAL, "Extent size %" PRIu32
			       " is too large", extent);
	return 0;
}

static int parse(struct image *img, const unsigned char *h, struct err *err)
{
	struct bochs *b = img->priv;
	bool v1 = le32_at(h + BH_VERSION) == VERSION_1;
	uint64_t size = le64_at(h + (v1 ? BH_V1_DISK : BH_V2_DISK));
	uint32_t extent = le32_at(h + BH_EXTENT);
	int ret;

	b->catalog = le32_at(h + BH_HEADER);
	b->entries = le32_at(h + BH_CATALOG);
	if (b->entries > MAX_CATALOG)
		return err_set(err, -EFBIG, "Catalog size is too large");
	ret = check_extent(extent, err);
	if (ret)
		return ret;
	size = round_down(size, SECTOR_SIZE);
	if (div_up(size, extent) > b->entries)
		return err_set(err, -EINVAL, "Catalog size is too small for"
			       " this disk size");
	b->data = b->catalog + 4 * (uint64_t)b->entries;
	/* At least one sector of it, even if it claims to be empty. */
	b->bitmap = round_up(max_u64(le32_at(h + BH_BITMAP), 1), SECTOR_SIZE);
	b->stride = b->bitmap + extent;
	b->absent = is_layer(h) ? EXT_HOLE : EXT_ZERO;
	img->unit = extent;
	img->align = 1;
	img->page = SECTOR_SIZE;
	atomic_store(&img->size, size);
	return 0;
}

/* The disk that the layer lies over, beside it. */
static int find_base(struct image *img, struct err *err)
{
	const char *slash = strrchr(img->file->name, '/');
	const char *name = slash ? slash + 1 : img->file->name;
	const char *end = NULL, *at = name;

	while ((at = strstr(at, SUFFIX)))
		end = at++;
	if (!end || end == name) {
		if (img->flags & IMAGE_NO_BACKING || json_get(img->node,
							      "backing"))
			return 0;
		return err_set(err, -EINVAL, "A layer of Bochs must be called"
			       " as the disk below it, with '" SUFFIX "' at"
			       " the end");
	}
	img->backing_name = strndup(name, (size_t)(end - name));
	img->backing_fmt = strdup("raw");
	return img->backing_name && img->backing_fmt ? 0 : -ENOMEM;
}

static int refuse_writing(struct image *img, struct err *err)
{
	(void)img;
	return err_set(err, -EROFS, "Image is read-only");
}

static int bochs_open(struct image *img, struct err *err)
{
	unsigned char h[BH_LENGTH];
	struct bochs *b = img->priv;
	int ret;

	if (img->want_write)
		return refuse_writing(img, err);
	ret = file_read(img->file, h, sizeof(h), 0);
	if (!ret)
		ret = file_size(img->file, &b->end);
	if (ret)
		return err_errno(err, ret, "Could not read the header");
	if (!is_bochs(h))
		return err_set(err, -EINVAL, "Image not in Bochs format");
	ret = parse(img, h, err);
	return !ret && is_layer(h) ? find_base(img, err) : ret;
}

/* ---- mapping ------------------------------------------------------------- */

/* How many entries from the first one on are not there, of at most @n. */
static uint64_t absent(const unsigned char *entries, uint64_t n)
{
	uint64_t i = 0;

	while (i < n && le32_at(entries + 4 * i) == NOT_THERE)
		i++;
	return i;
}

/* The extent's place in the file, bitmap first. */
static int extent_host(struct image *img, uint32_t entry, uint64_t *host)
{
	const struct bochs *b = img->priv;

	*host = b->data + entry * b->stride;
	if (range_within(*host, b->bitmap, b->end))
		return 0;
	image_corrupt(img, "Extent %" PRIu32 " is beyond the end of the file",
		      entry);
	return -EIO;
}

static bool bit_at(const unsigned char *bits, uint64_t i)
{
	return bits[i / 8] >> i % 8 & 1;
}

/* Sectors from @s on that are alike, as far as is cheap to see. */
static int sector_run(struct image *img, uint64_t bitmap, uint64_t s,
		      uint64_t max, bool *there, uint64_t *n)
{
	const struct bochs *b = img->priv;
	unsigned char bits[LOOK_BYTES];
	uint64_t from = s / 8, shift = s % 8, i = 1;
	size_t bytes;
	int ret;

	*there = false;
	*n = max;
	if (from >= b->bitmap)          /* no bit, no sector */
		return 0;
	bytes = min_u64(sizeof(bits), b->bitmap - from);
	ret = meta_peek(img, img->file, bits, bytes, bitmap + from);
	if (ret)
		return ret;
	max = min_u64(max, 8 * bytes - shift);
	*there = bit_at(bits, shift);
	while (i < max && bit_at(bits, shift + i) == *there)
		i++;
	*n = i;
	return 0;
}

static int map_extent(struct image *img, uint32_t entry, uint64_t in,
		      uint64_t len, struct extent *ext)
{
	const struct bochs *b = img->priv;
	uint64_t host, n, s = in / SECTOR_SIZE, skip = in % SECTOR_SIZE;
	uint64_t last = min_u64(in + len, img->unit);
	bool there;
	int ret = extent_host(img, entry, &host);

	if (!ret)
		ret = sector_run(img, host, s, div_up(last, SECTOR_SIZE) - s,
				 &there, &n);
	if (ret)
		return ret;
	ext->len = min_u64(n * SECTOR_SIZE - skip, last - in);
	if (!there)
		return 0;
	ext->kind = EXT_DATA;
	ext->host = host + b->bitmap + in;
	if (ext->host < b->end)
		return 0;
	image_corrupt(img, "Sector %" PRIu64 " is beyond the end of the file",
		      ext->off / SECTOR_SIZE);
	return -EIO;
}

static int bochs_map(const struct view *v, uint64_t off, uint64_t len,
		     struct extent *ext)
{
	struct image *img = v->img;
	const struct bochs *b = img->priv;
	unsigned char entries[LOOK_BYTES];
	uint64_t i = off / img->unit, in = off % img->unit;
	uint64_t n = min_u64(LOOK_BYTES / 4, b->entries - i), gone;
	struct extent found = {
		.kind = b->absent, .off = off, .file = img->file,
	};
	int ret = meta_peek(img, img->file, entries, 4 * n,
			    b->catalog + 4 * i);

	if (ret)
		return ret;
	gone = absent(entries, n);
	if (gone)
		found.len = min_u64(len, gone * img->unit - in);
	else
		ret = map_extent(img, le32_at(entries), in, len, &found);
	if (!ret)
		*ext = found;
	return ret;
}

/* ---- check --------------------------------------------------------------- */

#define EXTENTS_MAX (UINT64_C(1) << 28)

struct seen {
	unsigned char *bits;    /* a bit per extent of the file */
	uint64_t n;
};

static void check_entry(struct image *img, uint64_t i, uint32_t entry,
			struct seen *seen, struct check_result *res)
{
	const struct bochs *b = img->priv;

	if (entry == NOT_THERE)
		return;
	res->allocated_clusters++;
	if (entry >= seen->n) {
		check_say(res, "ERROR: extent %" PRIu64 " is beyond the end of"
			  " the file", i);
		res->corruptions++;
	} else if (bit_at(seen->bits, entry)) {
		check_say(res, "ERROR: extent %" PRIu64 " is used twice", i);
		res->corruptions++;
	} else {
		seen->bits[entry / 8] |= (unsigned char)(1u << entry % 8);
		res->image_end_offset = max_u64(res->image_end_offset,
			b->data + (entry + UINT64_C(1)) * b->stride);
	}
}

static int bochs_check(struct image *img, struct check_result *res)
{
	const struct bochs *b = img->priv;
	uint64_t used = div_up(image_size(img), img->unit);
	uint64_t room = b->end > b->data ?
			div_up(b->end - b->data, b->stride) : 0;
	/* Extents that nobody could name do not count. */
	struct seen seen = { .n = min_u64(room, EXTENTS_MAX) };
	autofree unsigned char *catalog = malloc(4 * used + 1);
	autofree unsigned char *bits = calloc(1, seen.n / 8 + 1);
	int ret;

	if (!catalog || !bits)
		return -ENOMEM;
	seen.bits = bits;
	ret = meta_read(img, img->file, catalog, 4 * used, b->catalog);
	if (ret)
		return ret;
	res->total_clusters = used;
	for (uint64_t i = 0; i < used; i++)
		check_entry(img, i, le32_at(catalog + 4 * i), &seen, res);
	return 0;
}

static const struct format_admin bochs_admin = {
	.check = bochs_check,
};

const struct format bochs_format = {
	.name = "bochs",
	.priv_size = sizeof(struct bochs),
	.supports_backing = true,
	.probe = bochs_probe,
	.open = bochs_open,
	.upgrade = refuse_writing,
	.map = bochs_map,
	.admin = &bochs_admin,
};
