/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parallels-extension.c - the Format Extension (parallels.md): one cluster with
 * a checksum and features, of which dirty bitmaps are known: each has a table of
 * where its bits are, a cluster of them per entry.
 *
 * Everything in it is an attacker's; it is only read, and by who cannot write:
 * the first write lets all of it go.
 */
#include "parallels.h"

#include "bitmap.h"
#include "json.h"

#include <inttypes.h>
#include <nettle/md5.h>
#include <stdio.h>

enum {
	XH_MAGIC = 0,
	XH_MD5 = 8,
	XH_FEATURES = 24,
	XF_MAGIC = 0,           /* of a feature */
	XF_FLAGS = 8,
	XF_SIZE = 16,
	XF_DATA = 24,
	XB_SIZE = 0,            /* of a dirty bitmap */
	XB_ID = 8,
	XB_GRANULARITY = 24,
	XB_L1_SIZE = 28,
	XB_L1 = 32,
};

#define EXTENSION_MAGIC UINT64_C(0xab234cef23dcea87)
#define BITMAP_MAGIC UINT64_C(0x20385fae252cb34a)
#define FLAG_NECESSARY 1u
#define STEP (1 * MiB)          /* that is read at once */
/* All of it is summed up whenever such an image is opened. */
#define EXTENSION_MAX (64 * MiB)
#define KEPT_MAX (16 * MiB)     /* features behind it are not looked for */
#define BITMAPS_MAX 65535       /* as many as a qcow2 may have */
#define ALL_CLEAR 0u            /* entries of a bitmap's table; else sectors */
#define ALL_SET 1u

/* ---- features ------------------------------------------------------------ */


static void put_name(const unsigned char *id, char *name)
{
	size_t at = 0;

	for (unsigned i = 0; i < 16; i++) {
		bool dash = i == 4 || i == 6 || i == 8 || i == 10;

		at += (size_t)snprintf(name + at, PARALLELS_BITMAP_NAME - at,
				       "%s%02x", dash ? "-" : "", id[i]);
	}
}

static int add_bitmap(struct parallels_bitmaps *all, const unsigned char *b)
{
	uint32_t n = le32_at(b + XB_L1_SIZE);
	struct parallels_bitmap *more, *m;

	more = reallocarray(all->item, all->n + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	all->item = more;
	m = &more[all->n];
	*m = (struct parallels_bitmap) {
		.sectors = le64_at(b + XB_SIZE),
		.granularity = le32_at(b + XB_GRANULARITY),
		.nr = n,
		.table = calloc((size_t)n + 1, sizeof(*m->table)),
	};
	if (!m->table)
		return -ENOMEM;
	put_name(b + XB_ID, m->name);
	for (uint32_t i = 0; i < n; i++)
		m->table[i] = le64_at(b + XB_L1 + 8 * (size_t)i);
	all->n++;
	return 0;
}

static int take_feature(struct parallels_bitmaps *all, const unsigned char *f,
			uint32_t len, struct err *err)
{
	uint64_t magic = le64_at(f + XF_MAGIC);
	const unsigned char *b = f + XF_DATA;

	if (magic != BITMAP_MAGIC)
		return le64_at(f + XF_FLAGS) & FLAG_NECESSARY ?
		       err_set(err, -ENOTSUP, "Unknown Parallels feature %#"
			       PRIx64, magic) : 0;
	if (len < XB_L1 || !is_pow2(le32_at(b + XB_GRANULARITY)) ||
	    (len - XB_L1) / 8 < le32_at(b + XB_L1_SIZE))
		return err_set(err, -EINVAL, "Broken dirty bitmap in the"
			       " Parallels Format Extension");
	if (all->n >= BITMAPS_MAX)
		return err_set(err, -EINVAL, "More than %d dirty bitmaps in the"
			       " Parallels Format Extension", BITMAPS_MAX);
	return add_bitmap(all, b);
}

static int take_features(struct parallels_bitmaps *all,
			 const unsigned char *x, uint64_t len, struct err *err)
{
	uint64_t at = XH_FEATURES;
	int ret = 0;

	while (!ret && range_within(at, XF_DATA, len)) {
		uint32_t n = le32_at(x + at + XF_SIZE);

		if (!le64_at(x + at + XF_MAGIC))
			return 0;
		if (!range_within(at + XF_DATA, n, len))
			break;
		ret = take_feature(all, x + at, n, err);
		at += round_up(XF_DATA + (uint64_t)n, 8);
	}
	return ret ? ret : err_set(err, -EINVAL, "The Parallels Format"
				   " Extension has no end");
}

/* ---- the cluster --------------------------------------------------------- */

/* All of it is summed up, its first @kept bytes are @x's. */
static int read_cluster(struct image *img, uint64_t kept, unsigned char *x,
			unsigned char *sum)
{
	uint64_t host = parallels_of(img)->extension * SECTOR_SIZE;
	autofree unsigned char *buf = malloc(STEP);
	struct md5_ctx md5;

	if (!buf)
		return -ENOMEM;
	md5_init(&md5);
	for (uint64_t at = 0; at < img->unit; at += STEP) {
		uint64_t n = min_u64(STEP, img->unit - at);
		uint64_t skip = at ? 0 : min_u64(n, XH_FEATURES);
		int ret = file_read(img->file, buf, n, host + at);

		if (ret)
			return ret;
		md5_update(&md5, n - skip, buf + skip);
		if (at < kept)
			memcpy(x + at, buf, min_u64(n, kept - at));
	}
	md5_digest(&md5, MD5_DIGEST_SIZE, sum);
	return 0;
}

static int read_features(struct image *img, struct parallels_bitmaps *all,
			 struct err *err)
{
	uint64_t kept = min_u64(img->unit, KEPT_MAX);
	unsigned char sum[MD5_DIGEST_SIZE];
	autofree unsigned char *x = malloc(kept);
	int ret;

	if (!x)
		return -ENOMEM;
	ret = read_cluster(img, kept, x, sum);
	if (ret)
		return err_errno(err, ret, "Failed to read Format Extension"
				 " cluster");
	if (kept < XH_FEATURES + XF_DATA ||
	    le64_at(x + XH_MAGIC) != EXTENSION_MAGIC)
		return err_set(err, -EINVAL, "Wrong parallels Format Extension"
			       " magic: 0x%" PRIx64 ", expected: 0x%" PRIx64,
			       le64_at(x + XH_MAGIC), EXTENSION_MAGIC);
	if (memcmp(sum, x + XH_MD5, sizeof(sum)))
		return err_set(err, -EINVAL, "Wrong checksum in Format Extension"
			       " header. Format extension is corrupted.");
	return take_features(all, x, kept, err);
}

int parallels_extension_read(struct image *img,
			     struct parallels_bitmaps *bitmaps,
			     struct err *err)
{
	struct parallels_bitmaps all = { NULL, 0 };
	int ret;

	if (!range_within(parallels_of(img)->extension, img->unit,
			  INT64_MAX / SECTOR_SIZE))
		return err_set(err, -EINVAL, "The Parallels Format Extension is"
			       " out of reach");
	if (img->unit > EXTENSION_MAX)
		return err_set(err, -EFBIG, "The Parallels Format Extension is"
			       " too large: a cluster of %" PRIu32 " bytes",
			       img->unit);
	ret = read_features(img, &all, err);
	if (ret)
		parallels_extension_free(&all);
	else
		*bitmaps = all;
	return ret;
}

void parallels_extension_free(struct parallels_bitmaps *bitmaps)
{
	for (size_t i = 0; i < bitmaps->n; i++)
		free(bitmaps->item[i].table);
	free(bitmaps->item);
	*bitmaps = (struct parallels_bitmaps) { NULL, 0 };
}

/* ---- the bitmaps --------------------------------------------------------- */

static size_t shown(const struct image *img)
{
	const struct parallels *p = parallels_of(img);

	return probe_as_qemu || !atomic_load(&p->extension) ? 0 :
	       p->bitmaps.n;
}

struct json *parallels_bitmaps_json(const struct image *img)
{
	const struct parallels_bitmap *m = parallels_of(img)->bitmaps.item;
	struct json *all = shown(img) ? json_array() : NULL;

	for (size_t i = 0; i < shown(img) && all; i++) {
		struct json *one = json_object();

		json_set_take(one, "name", json_string(m[i].name));
		json_set_take(one, "granularity", json_uint(
			(uint64_t)m[i].granularity * SECTOR_SIZE));
		json_append_take(all, one);
	}
	return all;
}

static bool bitmaps_never(const struct image *img)
{
	return !shown(img);
}

static bool is_listed(const struct bitmap_set *set, const char *name)
{
	for (size_t i = 0; i < set->n; i++)
		if (!strcmp(set->item[i]->name, name))
			return true;
	return false;
}

/* Who writes has none.  Of two with one name the first one counts. */
static int bitmaps_list(struct image *img, struct bitmap_set *set,
			struct err *err)
{
	const struct parallels_bitmap *m = parallels_of(img)->bitmaps.item;

	(void)err;
	for (size_t i = 0; !img->want_write && i < shown(img); i++) {
		unsigned shift = log2_u64((uint64_t)m[i].granularity *
					  SECTOR_SIZE);
		struct bitmap *b;
		char *name;

		if (shift > BITMAP_GRANULARITY_MAX ||
		    is_listed(set, m[i].name))
			continue;
		name = strdup(m[i].name);
		b = name ? bitmap_found_take(set, name, shift) : NULL;
		if (!b)
			return -ENOMEM;
		b->place[0] = i;
	}
	return 0;
}

static int load_cluster(struct image *img, uint64_t host, uint64_t first,
			struct bits *bits)
{
	uint64_t all = bits_number(bits) - first;
	uint64_t left = min_u64(div_up(all, 8), img->unit);
	autofree unsigned char *buf = malloc(STEP);
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	for (uint64_t at = 0; at < left && !ret; at += STEP) {
		uint64_t n = min_u64(STEP, left - at);

		ret = file_read(img->file, buf, n, host + at);
		if (!ret)
			bits_load(bits, first + 8 * at, buf, n);
	}
	return ret;
}

/* @i: of the table. */
static int load_entry(struct image *img, const struct parallels_bitmap *m,
		      uint32_t i, struct bits *bits, struct err *err)
{
	uint64_t per = 8 * (uint64_t)img->unit, e = m->table[i];
	int ret;

	if (e == ALL_SET)
		bits_set(bits, i * per, per);
	if (e == ALL_SET || e == ALL_CLEAR)
		return 0;
	if (e >= div_up(parallels_of(img)->end, SECTOR_SIZE))
		return err_set(err, -EINVAL, "Bitmap '%s' lies beyond the end"
			       " of the file", m->name);
	ret = load_cluster(img, e * SECTOR_SIZE, i * per, bits);
	return ret ? err_errno(err, ret, "Could not read bitmap '%s'",
			       m->name) : 0;
}

static int bitmaps_load(struct image *img, struct bitmap *b, struct bits *bits,
			struct err *err)
{
	const struct parallels_bitmap *m =
		&parallels_of(img)->bitmaps.item[b->place[0]];
	uint64_t need = div_up(bits_number(bits), 8 * (uint64_t)img->unit);
	int ret = 0;

	if (m->sectors != image_size(img) / SECTOR_SIZE || m->nr != need)
		return err_set(err, -EINVAL, "Bitmap '%s' is of a disk of"
			       " another size", m->name);
	for (uint32_t i = 0; i < m->nr && !ret; i++)
		ret = load_entry(img, m, i, bits, err);
	return ret;
}

const struct format_bitmaps parallels_bitmap_ops = {
	.never = bitmaps_never,
	.list = bitmaps_list,
	.load = bitmaps_load,
};
