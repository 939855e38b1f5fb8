/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dmg.c - Apple's disk images (UDIF, dmg.md), read-only.
 *
 * Knows the trailer and how chunks follow each other; dmg-tables.c reads them,
 * the engine decodes each once and keeps it.
 */
#include "dmg.h"

#include "codec.h"

#include <inttypes.h>
#include <zlib.h>

enum {
	K_FORK = 24,
	K_FORK_LEN = 32,
	K_RSRC = 40,
	K_RSRC_LEN = 48,
	K_SUM_TYPE = 80,
	K_SUM = 88,
	K_PLIST = 216,
	K_PLIST_LEN = 224,
	K_MASTER_TYPE = 352,
	K_MASTER = 360,
	K_SECTORS = 492,
	K_LENGTH = 512,
};

#define SUM_CRC32 2u
#define PADDING 511u            /* bytes that may follow the trailer */
#define SUM_STEP (1 * MiB)

/* ---- opening ------------------------------------------------------------- */

/* Only by the name: a guest could write a trailer to the end of its raw disk. */
static int dmg_probe(const struct probe *p)
{
	size_t n = p->name ? strlen(p->name) : 0;

	return n >= 4 && !strcmp(p->name + n - 4, ".dmg") ? 2 : 0;
}

const struct codec *dmg_codec(uint32_t type, const char **library)
{
	*library = NULL;
	switch (type) {
	case DMG_TYPE_ADC:
		return &codec_adc;
	case DMG_TYPE_ZLIB:
		return &codec_zlib;
	case DMG_TYPE_BZIP2:
		*library = "libbz2";
		return codec_bzip2;
	case DMG_TYPE_LZFSE:
		*library = "liblzfse";
		return codec_lzfse;
	case DMG_TYPE_LZMA:
		*library = "liblzma";
		return codec_lzma;
	default:
		return NULL;
	}
}

/* The trailer is the last 512 bytes, but for some padding. */
static int find_trailer(struct image *img, unsigned char *koly,
			struct err *err)
{
	unsigned char tail[K_LENGTH + PADDING];
	uint64_t size = dmg_of(img)->file_end;
	size_t n = min_u64(size, sizeof(tail));
	int ret;

	if (size < K_LENGTH)
		return err_set(err, -EINVAL, "dmg file must be at least 512"
			       " bytes long");
	ret = file_read(img->file, tail, n, size - n);
	if (ret)
		return err_errno(err, ret, "Could not read the trailer");
	for (size_t at = n - K_LENGTH + 1; at--;)
		if (!memcmp(tail + at, "koly", 4)) {
			memcpy(koly, tail + at, K_LENGTH);
			return 0;
		}
	return err_set(err, -EINVAL, "Could not locate UDIF trailer in dmg"
		       " file");
}

static int take_trailer(struct image *img, const unsigned char *koly,
			struct err *err)
{
	struct dmg *d = dmg_of(img);
	uint64_t sectors = be64_at(koly + K_SECTORS);

	if (sectors > INT64_MAX / SECTOR_SIZE)
		return err_set(err, -EFBIG, "The disk is too large");
	d->fork = be64_at(koly + K_FORK);
	d->fork_len = be64_at(koly + K_FORK_LEN);
	d->rsrc = be64_at(koly + K_RSRC);
	d->rsrc_len = be64_at(koly + K_RSRC_LEN);
	d->plist = be64_at(koly + K_PLIST);
	d->plist_len = be64_at(koly + K_PLIST_LEN);
	d->crc = be32_at(koly + K_SUM);
	d->has_crc = be32_at(koly + K_SUM_TYPE) == SUM_CRC32 && d->crc;
	d->master = be32_at(koly + K_MASTER);
	d->has_master = be32_at(koly + K_MASTER_TYPE) == SUM_CRC32 && d->master;
	atomic_store(&img->size, sectors * SECTOR_SIZE);
	return 0;
}

static int by_sector(const void *a, const void *b)
{
	const struct dmg_chunk *x = a, *y = b;

	return x->sector < y->sector ? -1 : x->sector > y->sector;
}

static bool readable(const struct dmg_chunk *c)
{
	const char *library;

	return c->type <= DMG_TYPE_IGNORE || dmg_codec(c->type, &library);
}

/* One line for the first chunk that cannot be read. */
static void warn_about(const struct dmg *d)
{
	const char *library;

	for (size_t i = 0; i < d->nr; i++) {
		const struct dmg_chunk *c = &d->chunks[i];

		if (readable(c))
			continue;
		(void)dmg_codec(c->type, &library);
		if (library)
			warn("this program was built without %s: some chunks"
			     " cannot be read", library);
		else
			warn("Image contains chunks of unknown type %08" PRIx32
			     ", accessing them will result in I/O errors",
			     c->type);
		return;
	}
}

static int sort(struct dmg *d, struct err *err)
{
	if (d->nr)
		qsort(d->chunks, d->nr, sizeof(*d->chunks), by_sector);
	for (size_t i = 1; i < d->nr; i++)
		if (d->chunks[i - 1].sector + d->chunks[i - 1].sectors >
		    d->chunks[i].sector)
			return err_set(err, -EINVAL, "Two chunks claim sector"
				       " %" PRIu64, d->chunks[i].sector);
	return 0;
}

static int refuse_writing(struct image *img, struct err *err)
{
	(void)img;
	return err_set(err, -EROFS, "Image is read-only");
}

static void dmg_close(struct image *img)
{
	free(dmg_of(img)->chunks);
	free(dmg_of(img)->tables);
}

static int dmg_open(struct image *img, struct err *err)
{
	struct dmg *d = dmg_of(img);
	unsigned char koly[K_LENGTH] = { 0 };
	int ret = img->want_write ? refuse_writing(img, err) :
				    file_size(img->file, &d->file_end);

	if (!ret)
		ret = find_trailer(img, koly, err);
	if (!ret)
		ret = take_trailer(img, koly, err);
	if (!ret)
		ret = dmg_tables_read(img, err);
	if (!ret)
		ret = sort(d, err);
	if (ret) {
		dmg_close(img);
		return err_errno(err, ret, "Could not open the dmg image");
	}
	img->unit = SECTOR_SIZE;
	img->page = SECTOR_SIZE;
	img->align = 1;
	warn_about(d);
	return 0;
}

/* ---- mapping ------------------------------------------------------------- */

static const struct dmg_chunk *chunk_at(const struct dmg *d, uint64_t sector)
{
	size_t low = 0, high = d->nr;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (d->chunks[mid].sector + d->chunks[mid].sectors <= sector)
			low = mid + 1;
		else
			high = mid;
	}
	return low < d->nr && d->chunks[low].sector <= sector ?
	       &d->chunks[low] : NULL;
}

/* What was stored short ends with zeroes. */
static void map_raw(const struct dmg_chunk *c, uint64_t in,
		    struct extent *ext)
{
	if (in >= c->len) {
		ext->kind = EXT_ZERO;
		return;
	}
	ext->kind = EXT_DATA;
	ext->host = c->host + in;
	ext->len = min_u64(ext->len, c->len - in);
}

static int map_packed(const struct dmg_chunk *c, uint64_t in,
		      struct extent *ext)
{
	const char *library;

	ext->kind = EXT_PACKED;
	ext->host = c->host;
	ext->flags = EXT_SHARED;
	ext->unit.codec = dmg_codec(c->type, &library);
	ext->unit.packed = c->len;
	ext->unit.len = (uint32_t)(c->sectors * SECTOR_SIZE);
	ext->unit.skip = (uint32_t)in;
	return ext->unit.codec && c->len ? 0 : -EIO;
}

static int dmg_map(const struct view *v, uint64_t off, uint64_t len,
		   struct extent *ext)
{
	struct image *img = v->img;
	const struct dmg_chunk *c = chunk_at(dmg_of(img), off / SECTOR_SIZE);
	struct extent found = {
		.kind = EXT_ZERO, .off = off, .file = img->file,
	};
	uint64_t in;
	int ret = 0;

	if (!c)         /* what no chunk speaks of is not known to be zero */
		return -EIO;
	in = off - c->sector * SECTOR_SIZE;
	found.len = min_u64(len, c->sectors * SECTOR_SIZE - in);
	if (c->type == DMG_TYPE_RAW)
		map_raw(c, in, &found);
	else if (c->type != DMG_TYPE_ZERO && c->type != DMG_TYPE_IGNORE)
		ret = map_packed(c, in, &found);
	if (!ret)
		*ext = found;
	return ret;
}

/* ---- check: every chunk decodes, and the checksums agree ------------------ */

static int check_fork(struct image *img, struct check_result *res)
{
	const struct dmg *d = dmg_of(img);
	autofree void *buf = malloc(SUM_STEP);
	uLong crc = crc32(0, NULL, 0);
	uint64_t left = d->fork_len, at = d->fork;

	if (!buf)
		return -ENOMEM;
	if (!range_within(at, left, d->file_end)) {
		check_say(res, "ERROR: the data fork goes beyond the end of"
			  " the file");
		res->corruptions++;
		return 0;
	}
	if (!d->has_crc)
		return 0;
	while (left) {
		uint64_t n = min_u64(left, SUM_STEP);
		int ret = file_read(img->file, buf, n, at);

		if (ret)
			return ret;
		crc = crc32(crc, buf, (uInt)n);
		at += n;
		left -= n;
	}
	if (crc == d->crc)
		return 0;
	check_say(res, "ERROR: the data fork's checksum is %08lx, not %08"
		  PRIx32, crc, d->crc);
	res->corruptions++;
	return 0;
}

/* The guest's bytes of one chunk, a piece at a time. */
static int sum_chunk(struct image *img, const struct dmg_chunk *c, void *buf,
		     uLong *crc)
{
	uint64_t off = c->sector * SECTOR_SIZE;
	uint64_t left = c->sectors * SECTOR_SIZE;
	int ret = 0;

	if (!range_within(off, left, image_size(img)))
		return -EIO;
	while (left && !ret) {
		uint64_t n = min_u64(left, SUM_STEP);

		ret = image_read(&img->live, buf, n, off);
		*crc = crc32(*crc, buf, (uInt)n);
		off += n;
		left -= n;
	}
	return ret;
}

/* It is not said what a space without content counts as. */
static int check_chunk(struct image *img, const struct dmg_chunk *c, void *buf,
		       uLong *crc, struct check_result *res)
{
	struct dmg_table *t = &dmg_of(img)->tables[c->table];
	int ret;

	res->total_clusters++;
	if (c->type == DMG_TYPE_IGNORE)
		t->has_crc = false;
	if (c->type == DMG_TYPE_IGNORE ||
	    (c->type == DMG_TYPE_ZERO && !t->has_crc))
		return 0;
	if (c->type != DMG_TYPE_ZERO) {
		res->allocated_clusters++;
		res->compressed_clusters += c->type != DMG_TYPE_RAW;
		res->image_end_offset = max_u64(res->image_end_offset,
						c->host + c->len);
	}
	ret = sum_chunk(img, c, buf, crc);
	if (!ret || ret == -ENOMEM)
		return ret;
	check_say(res, "ERROR: the chunk at sector %" PRIu64 " cannot be"
		  " decoded", c->sector);
	res->corruptions++;
	t->has_crc = false;
	return 0;
}

static void compare_sums(const struct dmg *d, const uLong *crc,
			 struct check_result *res)
{
	for (size_t i = 0; i < d->nr_tables; i++) {
		if (!d->tables[i].has_crc || crc[i] == d->tables[i].crc)
			continue;
		check_say(res, "ERROR: the checksum of table %zu is %08lx, not"
			  " %08" PRIx32, i, crc[i], d->tables[i].crc);
		res->corruptions++;
	}
}

/* The trailer's sum of the tables' sums, as they are stored: no table is left
 * out or exchanged.  In a resource fork their order is another one. */
static void check_master(const struct dmg *d, struct check_result *res)
{
	uLong crc = crc32(0, NULL, 0);
	unsigned char sum[4];

	if (!d->has_master || !d->plist_len)
		return;
	for (size_t i = 0; i < d->nr_tables; i++) {
		if (!d->tables[i].is_crc)
			return;
		be32_put(sum, d->tables[i].crc);
		crc = crc32(crc, sum, sizeof(sum));
	}
	if (crc == d->master)
		return;
	check_say(res, "ERROR: the checksum of all tables is %08lx, not %08"
		  PRIx32, crc, d->master);
	res->corruptions++;
}

static int dmg_check(struct image *img, struct check_result *res)
{
	const struct dmg *d = dmg_of(img);
	autofree uLong *crc = calloc(d->nr_tables + 1, sizeof(*crc));
	autofree void *buf = malloc(SUM_STEP);
	int ret = crc && buf ? check_fork(img, res) : -ENOMEM;

	for (size_t i = 0; !ret && i < d->nr; i++) {
		if (res->cancel && atomic_load(res->cancel))
			return -EINTR;
		ret = check_chunk(img, &d->chunks[i], buf,
				  &crc[d->chunks[i].table], res);
	}
	if (!ret)
		compare_sums(d, crc, res);
	if (!ret)
		check_master(d, res);
	return ret;
}

const struct format_admin dmg_admin = {
	.check = dmg_check,
};

const struct format dmg_format = {
	.name = "dmg",
	.priv_size = sizeof(struct dmg),
	.probe = dmg_probe,
	.open = dmg_open,
	.upgrade = refuse_writing,
	.close = dmg_close,
	.map = dmg_map,
	.admin = &dmg_admin,
};
