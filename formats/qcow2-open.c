/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-open.c - the header of a qcow2 image and its extensions: what they may
 * say (qcow2.md 1-3), in the order and in the words in which QEMU refuses
 * them, and what forbids writing.
 *
 * Refuses to know about L1, L2 and reference counts beyond where they are.
 * Nothing is read that the first cluster does not hold, and no table is.
 */
#include "qcow2.h"
#include "qcow2-shadow.h"
#include "strbuf.h"

#include <inttypes.h>

#define HEAD_BYTES 512          /* covers every fixed field */
#define NAME_MAX_BYTES 1023     /* backing file name */
#define EXT_FORMAT_MAX (QCOW2_MAX_BACKING_FMT + 1)
#define BITMAP_DIR_MAX UINT64_C(67107840)

static int qcow2_probe(const struct probe *p)
{
	return p->head_len >= 8 && be32_at(p->head + QH_MAGIC) == QCOW2_MAGIC &&
	       be32_at(p->head + QH_VERSION) >= 2 ? 100 : 0;
}

/* ---- the fixed fields ---------------------------------------------------- */

static int parse_v3(struct qcow2 *q, const unsigned char *h, struct err *err)
{
	q->incompat = be64_at(h + QH_INCOMPAT);
	q->compat = be64_at(h + QH_COMPAT);
	q->autoclear = be64_at(h + QH_AUTOCLEAR);
	q->refcount_order = be32_at(h + QH_REFCOUNT_ORDER);
	q->header_length = be32_at(h + QH_HEADER_LENGTH);
	if (q->header_length < QH_V3_MIN_LENGTH)
		return err_set(err, -EINVAL, "qcow2 header too short");
	if (q->header_length > 1u << q->cluster_bits)
		return err_set(err, -EINVAL,
			       "qcow2 header exceeds cluster size");
	if (q->header_length > QH_COMPRESSION_TYPE)
		q->compression = h[QH_COMPRESSION_TYPE];
	return 0;
}

static int check_compression(const struct qcow2 *q, struct err *err)
{
	bool bit = q->incompat & QINCOMPAT_COMPRESSION;

	if (q->compression > 1)
		return err_set(err, -ENOTSUP,
			       "qcow2: unknown compression type: %u",
			       q->compression);
	if (q->compression && !bit)
		return err_set(err, -EINVAL, "qcow2: Compression type"
			       " incompatible feature bit must be set");
	if (!q->compression && bit)
		return err_set(err, -EINVAL, "qcow2: Compression type"
			       " incompatible feature bit must not be set");
	return 0;
}

static int parse_fixed(struct image *img, const unsigned char *h,
		       struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t backing = be64_at(h + QH_BACKING_OFFSET);
	int ret = 0;

	if (be32_at(h + QH_MAGIC) != QCOW2_MAGIC)
		return err_set(err, -EINVAL, "Image is not in qcow2 format");
	q->version = be32_at(h + QH_VERSION);
	if (q->version < 2 || q->version > 3)
		return err_set(err, -ENOTSUP, "Unsupported qcow2 version %"
			       PRIu32, q->version);
	q->cluster_bits = be32_at(h + QH_CLUSTER_BITS);
	if (q->cluster_bits < QCOW2_MIN_CLUSTER_BITS ||
	    q->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return err_set(err, -EINVAL, "Unsupported cluster size: 2^%"
			       PRIu32, q->cluster_bits);
	q->refcount_order = 4;
	q->header_length = QH_V2_LENGTH;
	q->crypt_method = be32_at(h + QH_CRYPT_METHOD);
	q->l1_size = be32_at(h + QH_L1_SIZE);
	q->l1_offset = be64_at(h + QH_L1_OFFSET);
	q->nb_snapshots = be32_at(h + QH_NB_SNAPSHOTS);
	q->snapshots_offset = be64_at(h + QH_SNAPSHOTS_OFFSET);
	if (q->version == 3)
		ret = parse_v3(q, h, err);
	if (ret)
		return ret;
	if (backing > 1u << q->cluster_bits)
		return err_set(err, -EINVAL, "Invalid backing file offset");
	return check_compression(q, err);
}

/* ---- header extensions --------------------------------------------------- */

static int ext_add(struct qcow2 *q, uint32_t type, unsigned char *data,
		   uint32_t len)
{
	struct qcow2_ext *grown;

	/* One more per doubling: at most 262144 fit into a cluster. */
	if (is_pow2(q->nr_exts) || !q->nr_exts) {
		size_t room = q->nr_exts ? 2 * q->nr_exts : 1;

		grown = realloc(q->exts, room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		q->exts = grown;
	}
	q->exts[q->nr_exts++] = (struct qcow2_ext) {
		.type = type, .len = len, .data = data,
	};
	return 0;
}

/* Keeps every extension; says nothing about what they mean. */
static int exts_read(struct image *img, uint64_t off, uint64_t end,
		     struct err *err)
{
	struct qcow2 *q = qcow2_of(img);

	while (off < end) {
		unsigned char head[8];
		unsigned char *data;
		uint32_t type, len;
		int ret = file_read(img->file, head, sizeof(head), off);

		if (ret)
			return err_errno(err, ret, "qcow2_read_extension:"
					 " ERROR: pread fail from offset %"
					 PRIu64, off);
		type = be32_at(head);
		len = be32_at(head + 4);
		off += sizeof(head);
		if (off > end || len > end - off)
			return err_set(err, -EINVAL,
				       "Header extension too large");
		if (type == QEXT_END)
			return 0;
		data = calloc(1, (size_t)len + 1);
		if (!data)
			return -ENOMEM;
		ret = file_read(img->file, data, len, off);
		if (!ret)
			ret = ext_add(q, type, data, len);
		if (ret) {
			free(data);
			return err_errno(err, ret,
					 "Could not read header extension");
		}
		off += round_up(len, 8);
	}
	return 0;
}

static int ext_bitmaps(struct qcow2 *q, const struct qcow2_ext *x,
		       struct err *err)
{
	const unsigned char *d = x->data;

	if (x->len != QB_LENGTH)
		return err_set(err, -EINVAL,
			       "bitmaps_ext: Invalid extension length");
	/* Stale without its autoclear bit: then nothing of it counts. */
	if (!(q->autoclear & QAUTOCLEAR_BITMAPS))
		return 0;
	if (be32_at(d + QB_RESERVED))
		return err_set(err, -EINVAL,
			       "bitmaps_ext: Reserved field is not zero");
	q->nb_bitmaps = be32_at(d + QB_COUNT);
	q->bitmaps_size = be64_at(d + QB_DIR_SIZE);
	q->bitmaps_offset = be64_at(d + QB_DIR_OFFSET);
	if (q->nb_bitmaps > QCOW2_MAX_BITMAPS)
		return err_set(err, -EINVAL, "bitmaps_ext: Image has %" PRIu32
			       " bitmaps, exceeding the QEMU supported maximum"
			       " of %d", q->nb_bitmaps, QCOW2_MAX_BITMAPS);
	if (!q->nb_bitmaps)
		return err_set(err, -EINVAL,
			       "found bitmaps extension with zero bitmaps");
	if (q->bitmaps_offset % (1u << q->cluster_bits))
		return err_set(err, -EINVAL,
			       "bitmaps_ext: invalid bitmap directory offset");
	if (q->bitmaps_size > BITMAP_DIR_MAX)
		return err_set(err, -EINVAL, "bitmaps_ext: bitmap directory"
			       " size (%" PRIu64 ") exceeds the maximum"
			       " supported size (%" PRIu64 ")",
			       q->bitmaps_size, BITMAP_DIR_MAX);
	q->has_bitmaps = true;
	return 0;
}

static int ext_luks(struct qcow2 *q, const struct qcow2_ext *x,
		    struct err *err)
{
	uint64_t unit = UINT64_C(1) << q->cluster_bits;

	if (q->crypt_method != 2)
		return err_set(err, -EINVAL, "CRYPTO header extension only"
			       " expected with LUKS encryption method");
	if (x->len != 16)
		return err_set(err, -EINVAL, "CRYPTO header extension size %"
			       PRIu32 ", but expected size 16", x->len);
	q->luks_offset = be64_at(x->data);
	q->luks_length = be64_at(x->data + 8);
	if (q->luks_offset % unit)
		return err_set(err, -EINVAL, "Encryption header offset '%"
			       PRIu64 "' is not a multiple of cluster size '%"
			       PRIu64 "'", q->luks_offset, unit);
	q->has_luks = true;
	return 0;
}

static int ext_backing_format(struct image *img, const struct qcow2_ext *x,
			      struct err *err)
{
	if (x->len >= EXT_FORMAT_MAX)
		return err_set(err, -EINVAL, "ERROR: ext_backing_format: len=%"
			       PRIu32 " too large (>=%d)", x->len,
			       EXT_FORMAT_MAX);
	free(img->backing_fmt);
	img->backing_fmt = strdup((char *)x->data);
	return img->backing_fmt ? 0 : -ENOMEM;
}

static int ext_parse(struct image *img, const struct qcow2_ext *x,
		     struct err *err)
{
	struct qcow2 *q = qcow2_of(img);

	switch (x->type) {
	case QEXT_BACKING_FORMAT:
		return ext_backing_format(img, x, err);
	case QEXT_BITMAPS:
		return ext_bitmaps(q, x, err);
	case QEXT_LUKS:
		return ext_luks(q, x, err);
	case QEXT_DATA_FILE:
		free(q->data_file);
		q->data_file = strdup((char *)x->data);
		return q->data_file ? 0 : -ENOMEM;
	default:
		return 0;
	}
}

static int exts_parse(struct image *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int ret = 0;

	for (size_t i = 0; !ret && i < q->nr_exts; i++)
		ret = ext_parse(img, &q->exts[i], err);
	return ret;
}

/* ---- features ------------------------------------------------------------ */

const char *qcow2_feature_name(const struct qcow2 *q, unsigned type,
			       unsigned bit, size_t *len)
{
	for (size_t i = 0; i < q->nr_exts; i++) {
		const struct qcow2_ext *x = &q->exts[i];

		if (x->type != QEXT_FEATURES)
			continue;
		for (uint32_t at = 0; at + QFEATURE_ENTRY <= x->len;
		     at += QFEATURE_ENTRY) {
			const unsigned char *e = x->data + at;

			if (e[0] != type || e[1] != bit)
				continue;
			*len = strnlen((const char *)e + 2, 46);
			return (const char *)e + 2;
		}
	}
	return NULL;
}

static int refuse_features(const struct qcow2 *q, struct err *err)
{
	uint64_t unknown = q->incompat & ~QINCOMPAT_KNOWN, nameless = 0;
	autostrbuf list = STRBUF_INIT;

	for (unsigned bit = 0; bit < 64; bit++) {
		const char *name;
		size_t len;

		if (!(unknown >> bit & 1))
			continue;
		name = qcow2_feature_name(q, 0, bit, &len);
		if (!name) {
			nameless |= UINT64_C(1) << bit;
			continue;
		}
		strbuf_puts(&list, list.len ? ", " : "");
		strbuf_add(&list, name, len);
	}
	if (nameless)
		strbuf_printf(&list, "%sUnknown incompatible feature: %" PRIx64,
			      list.len ? ", " : "", nameless);
	return err_set(err, -ENOTSUP, "Unsupported qcow2 feature(s): %s",
		       list.text);
}

/* ---- where the tables are ------------------------------------------------ */

/* Is a table of @bytes at @off a place that it can be at? */
static bool table_offset_ok(const struct qcow2 *q, uint64_t off,
			    uint64_t bytes)
{
	uint64_t end;

	return !(off % (UINT64_C(1) << q->cluster_bits)) &&
	       !add_overflows(off, bytes, &end) && end <= INT64_MAX;
}

static int check_reftable(const struct image *img, uint64_t off, uint32_t n,
			  struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t bytes = (uint64_t)n << q->cluster_bits;

	if (!n && !(img->flags & IMAGE_CHECK))
		return err_set(err, -EINVAL, "Image does not contain a"
			       " reference count table");
	if (bytes > QCOW2_MAX_REFTABLE_BYTES)
		return err_set(err, -EFBIG,
			       "Reference count table too large");
	if (!table_offset_ok(q, off, bytes))
		return err_set(err, -EINVAL,
			       "Reference count table offset invalid");
	return 0;
}

static int check_tables(const struct image *img, struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);
	int ret = 0;

	/* A wrong one is for check to find. */
	if (!(img->flags & IMAGE_CHECK))
		ret = qcow2_snapshots_placed(q, err);
	if (ret)
		return ret;
	if (q->l1_size > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, -EFBIG, "Active L1 table too large");
	if (!table_offset_ok(q, q->l1_offset, (uint64_t)q->l1_size * 8))
		return err_set(err, -EINVAL, "Active L1 table offset invalid");
	return 0;
}

static int check_size(const struct qcow2 *q, uint64_t size, struct err *err)
{
	uint64_t cover = qcow2_l2_cover(q), tables = (size + cover - 1) / cover;

	/* The sum wraps for QEMU as well: hence the third sentence. */
	if (tables > INT32_MAX)
		return err_set(err, -EFBIG, "Image is too big");
	if (tables > q->l1_size)
		return err_set(err, -EINVAL, "L1 table is too small");
	if (size > INT64_MAX)
		return err_set(err, -EFBIG, "Could not refresh total sector"
			       " count: File too large");
	return 0;
}

static int backing_name_read(struct image *img, const unsigned char *h,
			     struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t off = be64_at(h + QH_BACKING_OFFSET);
	uint32_t len = be32_at(h + QH_BACKING_SIZE);
	uint64_t room = min_u64((UINT64_C(1) << q->cluster_bits) - off,
				NAME_MAX_BYTES);
	int ret;

	if (!off)
		return 0;
	if (len > room)
		return err_set(err, -EINVAL, "Backing file name too long");
	if (!len)
		return 0;
	img->backing_name = calloc(1, (size_t)len + 1);
	if (!img->backing_name)
		return -ENOMEM;
	ret = file_read(img->file, img->backing_name, len, off);
	if (ret)
		return err_errno(err, ret, "Could not read backing file name");
	if (!*img->backing_name) {
		free(img->backing_name);
		img->backing_name = NULL;
	}
	return 0;
}

/* ---- what forbids opening or writing ------------------------------------- */

/* Features of later work: info may look at such an image, nobody else. */
static int check_usable(struct image *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	const char *what = q->crypt_method ? "encrypted images" : NULL;

	q->usable = !what;
	if (img->flags & IMAGE_INFO)
		return 0;
	if (q->autoclear & QAUTOCLEAR_DATA_RAW &&
	    !(q->incompat & QINCOMPAT_DATA_FILE))
		return err_set(err, -EINVAL,
			       "data-file-raw requires a data file");
	return q->usable ? 0 : err_set(err, -ENOTSUP, "qcow2: %s are not supported", what);
}

static int check_writable(const struct image *img, struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);

	/* What is in the way of others is what a repair is for. */
	if (img->flags & IMAGE_REPAIR)
		return 0;
	if (q->incompat & QINCOMPAT_CORRUPT)
		return err_set(err, -EUCLEAN, "qcow2: Image is corrupt; cannot"
			       " be opened read/write");
	if (!q->usable)
		return err_set(err, -ENOTSUP, "qcow2: Image has features that"
			       " cannot be written");
	return 0;
}

static int read_tables_and_names(struct image *img, const unsigned char *h,
				 struct err *ext_err, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t reftable = be64_at(h + QH_REFTABLE_OFFSET);
	uint32_t clusters = be32_at(h + QH_REFTABLE_CLUSTERS);
	uint64_t size = be64_at(h + QH_SIZE);
	int ret = check_reftable(img, reftable, clusters, err);

	if (!ret)
		ret = check_tables(img, err);
	if (!ret)
		ret = check_size(q, size, err);
	if (!ret)
		ret = exts_parse(img, err);
	if (!ret && ext_err->code) {
		ret = ext_err->code;
		err_move(err, ext_err);
	}
	if (!ret)
		ret = backing_name_read(img, h, err);
	if (!ret)
		ret = check_usable(img, err);
	if (!ret && img->want_write)
		ret = check_writable(img, err);
	if (!ret)
		ret = qcow2_alloc_init(img, reftable, clusters);
	if (ret)
		return ret;
	atomic_store(&img->size, round_down(size, SECTOR_SIZE));
	return 0;
}

static int check_features(struct image *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);

	if (q->incompat & ~QINCOMPAT_KNOWN)
		return refuse_features(q, err);
	if (img->want_write && q->incompat & QINCOMPAT_CORRUPT &&
	    !(img->flags & IMAGE_REPAIR))
		return check_writable(img, err);
	if (q->refcount_order > 6)
		return err_set(err, -EINVAL, "Reference count entry width too"
			       " large; may not exceed 64 bits");
	if (q->crypt_method > 2)
		return err_set(err, -EINVAL, "Unsupported encryption method %"
			       PRId32, (int32_t)q->crypt_method);
	if (q->incompat & QINCOMPAT_EXTL2 && q->cluster_bits < 14)
		return err_set(err, -EINVAL, "qcow2: Extended L2 entries are"
			       " only supported with cluster sizes of at least"
			       " 16384 bytes");
	q->l2_entry = q->incompat & QINCOMPAT_EXTL2 ? 16 : 8;
	return 0;
}

static int header_read(struct image *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned char h[HEAD_BYTES];
	autoerr ext_err = ERR_INIT;
	uint64_t ext_end;
	int ret = file_read(img->file, h, sizeof(h), 0);

	if (ret)
		return err_errno(err, ret, "Could not read qcow2 header");
	ret = parse_fixed(img, h, err);
	if (ret)
		return ret;
	ext_end = be64_at(h + QH_BACKING_OFFSET);
	if (!ext_end)
		ext_end = UINT64_C(1) << q->cluster_bits;
	/* Unknown features are named by a table among the extensions. */
	ret = exts_read(img, q->header_length, ext_end, &ext_err);
	if (ret == -ENOMEM)
		return ret;
	ret = check_features(img, err);
	return ret ? ret : read_tables_and_names(img, h, &ext_err, err);
}

/* ---- entries of struct format -------------------------------------------- */

static void qcow2_close(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);

	for (size_t i = 0; i < q->nr_exts; i++)
		free(q->exts[i].data);
	free(q->exts);
	free(q->data_file);
	qcow2_data_close(img);
	pthread_mutex_destroy(&q->header);
	qcow2_hold_free(q->hold);
	pthread_mutex_destroy(&q->turn);
	pthread_mutex_destroy(&q->tables);
	pthread_mutex_destroy(&q->alloc);
}

/* Tables of unknown length: read for what they must not say. */
static int look_at_tables(struct image *img, struct err *err)
{
	struct qcow2_snapshots snapshots = { NULL, 0, 0 };
	struct qcow2_bitmaps bitmaps;
	int ret = 0;

	if (!(img->flags & IMAGE_CHECK))
		ret = qcow2_snapshots_read(img, &snapshots, err);
	qcow2_snapshots_free(&snapshots);
	if (ret)
		return ret;
	ret = qcow2_bitmaps_read(img, &bitmaps, err);
	qcow2_bitmaps_free(&bitmaps);
	return ret;
}

/* For writing: what has to be put right before anything is changed. */
static int make_writable(struct image *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int ret = qcow2_replay(img, err);

	return ret ? ret : qcow2_alloc_init(img, q->reftable_offset,
					    q->reftable_clusters);
}

static int qcow2_open(struct image *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int ret;

	pthread_mutex_init(&q->tables, NULL);
	pthread_mutex_init(&q->alloc, NULL);
	pthread_mutex_init(&q->turn, NULL);
	pthread_mutex_init(&q->header, NULL);
	ret = header_read(img, err);
	if (!ret) {
		img->unit = 1u << q->cluster_bits;
		img->piece = qcow2_has_subs(q) ? img->unit / QSUBS : img->unit;
		/* Rule 7: tables and data never share a page. */
		img->page = (uint32_t)min_u64(img->unit, 4096);
		ret = look_at_tables(img, err);
	}
	if (!ret)
		ret = qcow2_data_open(img, err);
	if (ret) {
		qcow2_close(img);
		return err_errno(err, ret, "Could not open qcow2 image");
	}
	img->align = 1;
	img->codec = q->compression ? &codec_zstd : &codec_deflate;
	img->zero_tail_hole = true;
	ret = img->want_write ? make_writable(img, err) : 0;
	if (ret)
		qcow2_close(img);
	return ret;
}

static int qcow2_upgrade(struct image *img, struct err *err)
{
	int ret = check_writable(img, err);

	return ret ? ret : make_writable(img, err);
}

/* The header's page is clean: nothing has changed yet, or all is written. */
static int set_mark(struct image *img, uint64_t incompat)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned char bytes[8];
	int ret;

	if (incompat == q->incompat)
		return 0;
	be64_put(bytes, incompat);
	ret = file_write(img->file, bytes, sizeof(bytes), QH_INCOMPAT);
	if (ret)
		return ret;
	meta_forget(img, img->file, 0, SECTOR_SIZE);
	q->incompat = incompat;
	return 0;
}

/* Rule 12.  Autoclear bits that we do not know speak of what we are about to
 * make wrong; so does that of bitmaps where there are none. */
int qcow2_dirty(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	unsigned char bytes[8];
	uint64_t keep = q->autoclear & QAUTOCLEAR_KNOWN;
	int ret = 0;

	if (!q->has_bitmaps)
		keep &= ~QAUTOCLEAR_BITMAPS;
	/* A repair changes nothing that the guest sees, and allocates by
	 * itself. */
	if (img->flags & IMAGE_REPAIR)
		keep = q->autoclear & QAUTOCLEAR_KNOWN;
	else
		ret = qcow2_alloc_begin(img);
	if (!ret && q->compat & QCOMPAT_LAZY_REFCOUNTS &&
	    !(img->flags & IMAGE_REPAIR))
		ret = set_mark(img, q->incompat | QINCOMPAT_DIRTY);
	if (ret || q->version < 3 || keep == q->autoclear)
		return ret;
	be64_put(bytes, keep);
	ret = file_write(img->file, bytes, sizeof(bytes), QH_AUTOCLEAR);
	if (ret)
		return ret;
	/* The page is clean: nothing has changed yet. */
	meta_forget(img, img->file, 0, SECTOR_SIZE);
	q->autoclear = keep;
	return 0;
}

/* A cluster that was filled only in part may lack its end (QEMU's files end
 * with whole clusters), a compressed one the rest of its last sector. */
/*
 * The file ends with a cluster that is used: a whole one, and of an image that
 * was made smaller the last one (where more follows, QEMU refuses to grow it
 * with preallocation).
 */
static int file_end_set(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t size, end, count = 0;
	int ret = file_size(img->file, &size);

	if (ret || !img->file->traits.grows)
		return ret;
	if (size < q->used_end)
		return file_truncate(img->file, q->used_end);
	if (!q->shrunk)
		return 0;
	for (end = round_up(size, img->unit); end; end -= img->unit)
		if (qcow2_refcount(img, end - img->unit, &count) || count)
			break;
	if (end && end < size) {
		ret = file_truncate(img->file, end);
		q->used_end = min_u64(q->used_end, end);
	}
	return ret;
}

static int qcow2_clean(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	int ret;

	if (img->flags & IMAGE_REPAIR)
		return 0;
	ret = file_end_set(img);
	return ret ? ret : set_mark(img, q->incompat & ~QINCOMPAT_DIRTY);
}

const struct format qcow2_format = {
	.name = "qcow2",
	.priv_size = sizeof(struct qcow2),
	.supports_backing = true,
	.stores_packed = true,
	.probe = qcow2_probe,
	.open = qcow2_open,
	.upgrade = qcow2_upgrade,
	.close = qcow2_close,
	.map = qcow2_map,
	.dirty = qcow2_dirty,
	.clean = qcow2_clean,
	.reserve = qcow2_reserve,
	.commit = qcow2_commit,
	.abort = qcow2_abort,
	.unmap = qcow2_unmap,
	.resize_check = qcow2_resize_check,
	.resize = qcow2_resize,
	.release_probe = qcow2_release_probe,
	.release = qcow2_release,
	.bitmaps = &qcow2_format_bitmaps,
	.admin = &qcow2_admin,
};
