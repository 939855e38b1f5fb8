/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow.c - qcow version 1 (qcow1.md): an L1 behind the header, L2 tables,
 * clusters and raw deflate streams; no reference counts, no zero clusters.
 *
 * Knows the header and what an entry means; tables.c does the rest.
 */
#include "tables.h"

#include "codec.h"

#include <inttypes.h>

enum {
	H_MAGIC = 0,
	H_VERSION = 4,
	H_BACKING_OFFSET = 8,
	H_BACKING_LEN = 16,
	H_SIZE = 24,
	H_CLUSTER_BITS = 32,
	H_L2_BITS = 33,
	H_CRYPT = 36,
	H_L1_OFFSET = 40,
	H_LENGTH = 48,
};

#define MAGIC 0x514649fbu
#define PACKED (UINT64_C(1) << 63)
#define MAX_BACKING_NAME 1023u
#define MAX_L1 (INT32_MAX / 8)          /* entries, as QEMU */

struct qcow {
	struct tables t;
	unsigned cluster_bits;
	bool encrypted;
};

static const struct qcow *qcow_of(const struct image *img)
{
	return img->priv;
}

/* ---- entries ------------------------------------------------------------- */

/* Where the length of a stream begins in its entry. */
static unsigned length_shift(const struct image *img)
{
	return 63 - qcow_of(img)->cluster_bits;
}

static void decode(const struct image *img, uint64_t e, struct entry *out)
{
	unsigned shift = length_shift(img);

	*out = (struct entry) { .kind = EXT_HOLE };
	if (e & PACKED) {
		out->kind = EXT_PACKED;
		out->host = e & ((UINT64_C(1) << shift) - 1);
		out->packed = (uint32_t)((e & ~PACKED) >> shift);
	} else if (e) {
		out->kind = EXT_DATA;
		out->host = e;
	}
}

static uint64_t encode(const struct image *img, uint64_t host, uint32_t packed)
{
	return packed ? PACKED | (uint64_t)packed << length_shift(img) | host :
			host;
}

static const struct tables_kind qcow_tables = {
	.table_align = SECTOR_SIZE,
	.decode = decode,
	.encode = encode,
	/* What fits beside a length of 16 bits. */
	.max_host = UINT64_C(1) << 47,
};

/* ---- opening ------------------------------------------------------------- */

static int qcow_probe(const struct probe *p)
{
	return p->head_len >= 8 && be32_at(p->head + H_MAGIC) == MAGIC &&
	       be32_at(p->head + H_VERSION) == 1 ? 100 : 0;
}

static int check_magic(const unsigned char *h, struct err *err)
{
	uint32_t version = be32_at(h + H_VERSION);

	if (be32_at(h + H_MAGIC) != MAGIC)
		return err_set(err, -EINVAL, "Image not in qcow format");
	if (version == 1)
		return 0;
	err_set(err, -ENOTSUP, "qcow (v1) does not support qcow version %"
		PRIu32, version);
	if (version == 2 || version == 3)
		err_hint(err, "Try the 'qcow2' driver instead.\n");
	return -ENOTSUP;
}

static int check_geometry(const unsigned char *h, struct err *err)
{
	if (be64_at(h + H_SIZE) <= 1)
		return err_set(err, -EINVAL, "Image size is too small (must be"
			       " at least 2 bytes)");
	if (h[H_CLUSTER_BITS] < 9 || h[H_CLUSTER_BITS] > 16)
		return err_set(err, -EINVAL, "Cluster size must be between 512"
			       " and 64k");
	if (h[H_L2_BITS] < 6 || h[H_L2_BITS] > 13)
		return err_set(err, -EINVAL, "L2 table size must be between"
			       " 512 and 64k");
	if (be32_at(h + H_CRYPT) > 1)
		return err_set(err, -EINVAL, "invalid encryption method in"
			       " qcow header");
	return 0;
}

static int place_l1(struct image *img, const unsigned char *h, struct err *err)
{
	struct tables *t = tables_of(img);
	uint64_t size = be64_at(h + H_SIZE), file;
	unsigned bits = h[H_CLUSTER_BITS] + h[H_L2_BITS];
	int ret = file_size(img->file, &file);

	if (ret)
		return err_errno(err, ret, "Could not get the file's size");
	t->l1_offset = be64_at(h + H_L1_OFFSET);
	t->l1_entries = div_up(size, UINT64_C(1) << bits);
	if (size > INT64_MAX || t->l1_entries > MAX_L1)
		return err_set(err, -EINVAL, "Image too large");
	/* QEMU reads such a one; whoever mends it would change the header. */
	if (t->l1_offset < H_LENGTH)
		return err_set(err, -EINVAL, "The L1 table lies in the header");
	if (!range_within(t->l1_offset, 8 * t->l1_entries, file))
		return err_set(err, -EINVAL, "The L1 table goes beyond the end"
			       " of the file");
	t->l2_entries = UINT64_C(1) << h[H_L2_BITS];
	t->start = t->l1_offset + 8 * t->l1_entries;
	return 0;
}

static int read_backing(struct image *img, const unsigned char *h,
			struct err *err)
{
	uint64_t off = be64_at(h + H_BACKING_OFFSET);
	uint32_t len = be32_at(h + H_BACKING_LEN);
	int ret;

	if (!off)
		return 0;
	if (len > MAX_BACKING_NAME)
		return err_set(err, -EINVAL, "Backing file name too long");
	img->backing_name = calloc(1, len + 1);
	if (!img->backing_name)
		return -ENOMEM;
	ret = file_read(img->file, img->backing_name, len, off);
	return ret ? err_errno(err, ret, "Could not read the backing file's"
			       " name") : 0;
}

static int check_usable(struct image *img, struct err *err)
{
	if (!qcow_of(img)->encrypted ||
	    img->flags & (IMAGE_INFO | IMAGE_NO_BACKING))
		return 0;
	return err_set(err, -ENOTSUP, "qcow: encrypted images are not"
		       " supported");
}

/* What only writing minds. */
static int qcow_upgrade(struct image *img, struct err *err)
{
	if (tables_of(img)->l1_offset % 8)
		return err_set(err, -ENOTSUP, "The L1 table is not aligned:"
			       " read-only");
	return 0;
}

static int read_header(struct image *img, struct err *err)
{
	struct qcow *q = img->priv;
	unsigned char h[H_LENGTH];
	int ret = file_read(img->file, h, sizeof(h), 0);

	if (ret)
		return err_errno(err, ret, "Could not read the header");
	ret = check_magic(h, err);
	if (!ret)
		ret = check_geometry(h, err);
	if (ret)
		return ret;
	q->cluster_bits = h[H_CLUSTER_BITS];
	q->encrypted = be32_at(h + H_CRYPT);
	img->unit = 1u << q->cluster_bits;
	img->page = SECTOR_SIZE;
	img->align = 1;
	img->codec = &codec_deflate;
	atomic_store(&img->size, round_down(be64_at(h + H_SIZE),
					    SECTOR_SIZE));
	ret = place_l1(img, h, err);
	if (!ret)
		ret = read_backing(img, h, err);
	return ret ? ret : check_usable(img, err);
}

static int qcow_open(struct image *img, struct err *err)
{
	int ret;

	tables_of(img)->kind = &qcow_tables;
	ret = read_header(img, err);
	if (!ret && img->want_write)
		ret = qcow_upgrade(img, err);
	if (ret)
		return ret;
	ret = tables_open(img);
	return ret ? err_errno(err, ret, "Could not open the tables") : 0;
}

static int qcow_map(const struct view *v, uint64_t off, uint64_t len,
		    struct extent *ext)
{
	return qcow_of(v->img)->encrypted ? -ENOTSUP :
	       tables_map(v, off, len, ext);
}

/* ---- create -------------------------------------------------------------- */

static const struct option_spec qcow_create_options[] = {
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ "backing_file", OPTION_STRING, "File name of a base image", NULL },
	{ "backing_fmt", OPTION_STRING, "Format of the backing image", NULL },
	{ "encryption", OPTION_BOOL, "Encrypt the image with format 'aes'."
	  " (Deprecated in favor of encrypt.format=aes)", NULL },
	{ "encrypt.format", OPTION_STRING,
	  "Encrypt the image, format choices: 'aes'", NULL },
	{ "encrypt.key-secret", OPTION_STRING,
	  "ID of the secret that provides the AES encryption key", NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

static int check_crypt(const struct options *o, struct err *err)
{
	const char *format = options_str(o, "encrypt.format", NULL);

	if (format && strcmp(format, "aes"))
		return err_set(err, -EINVAL, "Unsupported encryption format");
	if (!format && !options_bool(o, "encryption", false))
		return 0;
	if (!options_has(o, "encrypt.key-secret"))
		return err_set(err, -EINVAL, "Parameter 'encrypt.key-secret' is"
			       " required for cipher");
	return err_set(err, -ENOTSUP, "qcow: encrypted images are not"
		       " supported");
}

/* QEMU's choice: small clusters over a backing file. */
static unsigned pick_cluster_bits(const struct options *o)
{
	return options_has(o, "backing_file") ? 9 : 12;
}

static unsigned pick_l2_bits(const struct options *o)
{
	return options_has(o, "backing_file") ? 12 : 9;
}

static uint64_t pick_l1(const struct options *o, uint64_t size)
{
	return div_up(size, UINT64_C(1) << (pick_cluster_bits(o) +
					    pick_l2_bits(o)));
}

static int qcow_create_check(const struct options *o, uint64_t size,
			     struct err *err)
{
	const char *backing = options_str(o, "backing_file", "");

	if (!size)
		return err_set(err, -EINVAL, "Image size is too small, cannot"
			       " be zero length");
	if (strlen(backing) > MAX_BACKING_NAME)
		return err_set(err, -EINVAL, "Backing file name too long");
	if (size > INT64_MAX || pick_l1(o, size) > MAX_L1)
		return err_set(err, -EFBIG, "The image size is too large for"
			       " file format 'qcow'");
	return check_crypt(o, err);
}

static int qcow_create(struct file *f, const struct options *o, uint64_t size,
		       struct err *err)
{
	const char *backing = options_str(o, "backing_file", "");
	unsigned char h[H_LENGTH + MAX_BACKING_NAME + 1] = { 0 };
	uint64_t len = strlen(backing), l1 = round_up(H_LENGTH + len, 8);
	int ret;

	be32_put(h + H_MAGIC, MAGIC);
	be32_put(h + H_VERSION, 1);
	be64_put(h + H_SIZE, size);
	h[H_CLUSTER_BITS] = (unsigned char)pick_cluster_bits(o);
	h[H_L2_BITS] = (unsigned char)pick_l2_bits(o);
	be64_put(h + H_L1_OFFSET, l1);
	if (len) {
		be64_put(h + H_BACKING_OFFSET, H_LENGTH);
		be32_put(h + H_BACKING_LEN, (uint32_t)len);
		memcpy(h + H_LENGTH, backing, len);
	}
	ret = file_truncate(f, l1 + round_up(8 * pick_l1(o, size),
					     SECTOR_SIZE));
	if (!ret)
		ret = file_write(f, h, H_LENGTH + len, 0);
	return ret ? err_errno(err, ret, "Could not write the new image") : 0;
}

/* ---- info, check --------------------------------------------------------- */

static int qcow_info(struct image *img, struct image_info *info,
		     struct err *err)
{
	(void)err;
	info->cluster_size = img->unit;
	info->encrypted = qcow_of(img)->encrypted;
	info->has_dirty = true;
	return 0;
}

/* Ours alone.  What a stream leaves within a cluster that others use is not
 * counted. */
static int qcow_check(struct image *img, struct check_result *res)
{
	return tables_check(img, res);
}

/* Space that nobody uses is no fault here: L1 first, then the file. */
static int qcow_empty(struct image *img)
{
	struct tables *t = tables_of(img);
	uint64_t len = 8 * t->l1_entries;
	autofree void *zeroes = calloc(1, len + 1);
	int ret = zeroes ? 0 : -ENOMEM;

	if (!ret)
		ret = repair_write(img, img->file, zeroes, len, t->l1_offset);
	if (!ret)
		ret = repair_barrier(img);
	if (ret || !img->file->traits.grows)
		return ret;
	return tables_cut(img, t->l1_offset + len);
}

static const struct format_admin qcow_admin = {
	.empty = qcow_empty,
	.create_options = qcow_create_options,
	.create_check = qcow_create_check,
	.create = qcow_create,
	.info = qcow_info,
	.check = qcow_check,
	.repair = tables_repair,
};

const struct format qcow_format = {
	.name = "qcow",
	.priv_size = sizeof(struct qcow),
	.supports_backing = true,
	.stores_packed = true,
	.probe = qcow_probe,
	.open = qcow_open,
	.upgrade = qcow_upgrade,
	.clean = tables_clean,
	.close = tables_close,
	.map = qcow_map,
	.reserve = tables_reserve,
	.commit = tables_commit,
	.abort = tables_abort,
	.unmap = tables_unmap,
	.admin = &qcow_admin,
};
