/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qed.c - QEMU's enhanced disk (qed.md): an L1, L2 tables of several clusters,
 * zero clusters, no reference counts; a bit in the header says that somebody
 * writes.
 *
 * Knows the header and what an entry means; tables.c does the rest.
 */
#include "tables.h"

#include <inttypes.h>

enum {
	H_MAGIC = 0,
	H_CLUSTER_SIZE = 4,
	H_TABLE_SIZE = 8,
	H_HEADER_SIZE = 12,
	H_FEATURES = 16,
	H_COMPAT = 24,
	H_AUTOCLEAR = 32,
	H_L1_OFFSET = 40,
	H_SIZE = 48,
	H_BACKING_OFFSET = 56,
	H_BACKING_LEN = 60,
	H_LENGTH = 64,
};

#define MAGIC 0x00444551u               /* little-endian */
#define F_BACKING UINT64_C(0x01)
#define F_NEED_CHECK UINT64_C(0x02)
#define F_BACKING_RAW UINT64_C(0x04)
#define F_KNOWN UINT64_C(0x07)

#define MIN_CLUSTER (4 * KiB)
#define MAX_CLUSTER (64 * MiB)
#define MAX_TABLE 16u                   /* clusters */
#define DEFAULT_CLUSTER (64 * KiB)
#define DEFAULT_TABLE 4u
#define MAX_BACKING_NAME 1023u
#define ZERO_ENTRY 1u

struct qed {
	struct tables t;
	uint32_t header_size;           /* bytes */
	uint64_t features, autoclear;
	bool unsound;                   /* a repair has left errors */
};

static struct qed *qed_of(const struct image *img)
{
	return img->priv;
}

/* ---- entries ------------------------------------------------------------- */

static void decode(const struct image *img, uint64_t e, struct entry *out)
{
	(void)img;
	*out = (struct entry) {
		.kind = !e ? EXT_HOLE : e == ZERO_ENTRY ? EXT_ZERO : EXT_DATA,
		.host = e,
	};
}

static uint64_t encode(const struct image *img, uint64_t host, uint32_t packed)
{
	(void)img;
	(void)packed;
	return host;
}

static const struct tables_kind qed_tables = {
	.little_endian = true,
	.table_align = MIN_CLUSTER,
	.zero = ZERO_ENTRY,
	.decode = decode,
	.encode = encode,
	.max_host = INT64_MAX,
	.whole_clusters = true,
};

/* ---- opening ------------------------------------------------------------- */

static int qed_probe(const struct probe *p)
{
	return p->head_len >= H_LENGTH && le32_at(p->head + H_MAGIC) == MAGIC ?
	       100 : 0;
}

static bool cluster_size_good(uint64_t n)
{
	return n >= MIN_CLUSTER && n <= MAX_CLUSTER && is_pow2(n);
}

static bool table_size_good(uint64_t n)
{
	return n >= 1 && n <= MAX_TABLE && is_pow2(n);
}

/* Guest bytes that fit; at most 2^57. */
static uint64_t max_size(uint64_t cluster, uint64_t table)
{
	uint64_t entries = table * cluster / 8, size;

	return mul_overflows(entries * entries, cluster, &size) ||
	       size > INT64_MAX ? round_down(INT64_MAX, SECTOR_SIZE) : size;
}

static int check_header(const unsigned char *h, uint64_t file,
			struct err *err)
{
	uint64_t cluster = le32_at(h + H_CLUSTER_SIZE);
	uint64_t table = le32_at(h + H_TABLE_SIZE);
	uint64_t header = le32_at(h + H_HEADER_SIZE);
	uint64_t unknown = le64_at(h + H_FEATURES) & ~F_KNOWN;
	uint64_t l1 = le64_at(h + H_L1_OFFSET), size = le64_at(h + H_SIZE);

	if (le32_at(h + H_MAGIC) != MAGIC)
		return err_set(err, -EINVAL, "Image not in QED format");
	if (unknown)
		return err_set(err, -ENOTSUP, "Unsupported QED features: %"
			       PRIx64, unknown);
	if (!cluster_size_good(cluster))
		return err_set(err, -EINVAL, "QED cluster size is invalid");
	if (!table_size_good(table))
		return err_set(err, -EINVAL, "QED table size is invalid");
	if (size % SECTOR_SIZE || size > max_size(cluster, table))
		return err_set(err, -EINVAL, "QED image size is invalid");
	if (!header || header * cluster > file)
		return err_set(err, -EINVAL, "QED table offset is invalid");
	if (l1 % cluster || l1 < header * cluster ||
	    !range_within(l1, table * cluster, round_up(file, cluster)))
		return err_set(err, -EINVAL, "QED table offset is invalid");
	return 0;
}

static int read_backing(struct image *img, const unsigned char *h,
			struct err *err)
{
	const struct qed *q = qed_of(img);
	uint32_t off = le32_at(h + H_BACKING_OFFSET);
	uint32_t len = le32_at(h + H_BACKING_LEN);
	int ret;

	if (!(q->features & F_BACKING))
		return 0;
	if (!range_within(off, len, q->header_size) || len > MAX_BACKING_NAME)
		return err_set(err, -EINVAL, "QED backing filename offset or"
			       " size is invalid");
	img->backing_name = calloc(1, len + 1);
	if (q->features & F_BACKING_RAW)
		img->backing_fmt = strdup("raw");
	if (!img->backing_name ||
	    (q->features & F_BACKING_RAW && !img->backing_fmt))
		return -ENOMEM;
	ret = file_read(img->file, img->backing_name, len, off);
	return ret ? err_errno(err, ret, "Failed to read backing filename") :
		     0;
}

static void take_header(struct image *img, const unsigned char *h)
{
	struct qed *q = qed_of(img);
	uint64_t cluster = le32_at(h + H_CLUSTER_SIZE);
	uint64_t table = le32_at(h + H_TABLE_SIZE) * cluster;

	q->features = le64_at(h + H_FEATURES);
	q->autoclear = le64_at(h + H_AUTOCLEAR);
	q->header_size = (uint32_t)min_u64(le32_at(h + H_HEADER_SIZE) *
					   cluster, UINT32_MAX);
	img->unit = (uint32_t)cluster;
	img->page = 4096;
	img->align = 1;
	atomic_store(&img->size, le64_at(h + H_SIZE));
	q->t.kind = &qed_tables;
	q->t.l1_offset = le64_at(h + H_L1_OFFSET);
	q->t.l2_entries = table / 8;
	q->t.l1_entries = div_up(le64_at(h + H_SIZE), table / 8 * cluster);
	q->t.start = q->t.l1_offset + table;
}

/*
 * Who wrote last did not finish.  The order of QEMU's writes, and of ours,
 * leaves no worse than clusters that nobody uses; but that is looked at before
 * anything is added.
 */
static int check_needed(struct image *img, struct err *err)
{
	struct check_result res = { 0 };
	int ret;

	if (!(qed_of(img)->features & F_NEED_CHECK))
		return 0;
	ret = tables_check(img, &res);
	if (ret)
		return err_errno(err, ret, "Could not check the image");
	if (!res.corruptions)
		return 0;
	return err_set(err, -EUCLEAN, "The image was not closed properly and"
		       " is corrupt; repair it with check -r all");
}

static int qed_upgrade(struct image *img, struct err *err)
{
	return img->flags & IMAGE_CHECK ? 0 : check_needed(img, err);
}

static int qed_open(struct image *img, struct err *err)
{
	unsigned char h[H_LENGTH];
	uint64_t file;
	int ret = file_size(img->file, &file);

	if (!ret)
		ret = file_read(img->file, h, sizeof(h), 0);
	if (ret)
		return err_errno(err, ret, "Failed to read QED header");
	ret = check_header(h, file, err);
	if (ret)
		return ret;
	take_header(img, h);
	ret = read_backing(img, h, err);
	if (ret)
		return ret;
	ret = tables_open(img);
	if (ret)
		return err_errno(err, ret, "Could not open the tables");
	ret = img->want_write ? qed_upgrade(img, err) : 0;
	if (ret)
		tables_close(img);
	return ret;
}

/* ---- the mark of who writes (rule 12) ------------------------------------ */

static int write_features(struct image *img, uint64_t features)
{
	struct qed *q = qed_of(img);
	unsigned char bytes[8];
	int ret;

	le64_put(bytes, features);
	ret = file_write(img->file, bytes, sizeof(bytes), H_FEATURES);
	if (!ret)
		q->features = features;
	return ret;
}

/* No autoclear bit is known: all speak of what we are about to make wrong. */
static int qed_dirty(struct image *img)
{
	struct qed *q = qed_of(img);
	const unsigned char none[8] = { 0 };
	int ret = 0;

	if (q->autoclear)
		ret = file_write(img->file, none, sizeof(none), H_AUTOCLEAR);
	if (ret)
		return ret;
	q->autoclear = 0;
	return write_features(img, q->features | F_NEED_CHECK);
}

static int qed_clean(struct image *img)
{
	int ret = tables_clean(img);

	if (qed_of(img)->unsound)
		return ret;
	return ret ? ret : write_features(img, qed_of(img)->features &
					       ~F_NEED_CHECK);
}

/* ---- create -------------------------------------------------------------- */

static const struct option_spec qed_create_options[] = {
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ "backing_file", OPTION_STRING, "File name of a base image", NULL },
	{ "backing_fmt", OPTION_STRING, "Image format of the base image",
	  NULL },
	{ "cluster_size", OPTION_SIZE, "Cluster size (in bytes)", "65536" },
	{ "table_size", OPTION_SIZE, "L1/L2 table size (in clusters)", NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

static uint64_t want_cluster(const struct options *o)
{
	return options_num(o, "cluster_size", DEFAULT_CLUSTER);
}

static uint64_t want_table(const struct options *o)
{
	return options_num(o, "table_size", DEFAULT_TABLE);
}

static int qed_create_check(const struct options *o, uint64_t size,
			    struct err *err)
{
	uint64_t cluster = want_cluster(o), table = want_table(o);
	const char *backing = options_str(o, "backing_file", "");

	if (!cluster_size_good(cluster))
		return err_set(err, -EINVAL, "QED cluster size must be within"
			       " range [%" PRIu64 ", %" PRIu64 "] and power of"
			       " 2", MIN_CLUSTER, MAX_CLUSTER);
	if (!table_size_good(table))
		return err_set(err, -EINVAL, "QED table size must be within"
			       " range [1, %u] and power of 2", MAX_TABLE);
	if (size > max_size(cluster, table))
		return err_set(err, -EINVAL, "QED image size must be a non-zero"
			       " multiple of cluster size and less than %"
			       PRIu64 " bytes", max_size(cluster, table));
	if (strlen(backing) > MAX_BACKING_NAME)
		return err_set(err, -EINVAL, "Backing file name too long");
	return 0;
}

static void put_backing(const struct options *o, unsigned char *h)
{
	const char *name = options_str(o, "backing_file", NULL);
	const char *fmt = options_str(o, "backing_fmt", "");

	if (!name)
		return;
	le64_put(h + H_FEATURES, F_BACKING |
		 (strcmp(fmt, "raw") ? 0 : F_BACKING_RAW));
	le32_put(h + H_BACKING_OFFSET, H_LENGTH);
	le32_put(h + H_BACKING_LEN, (uint32_t)strlen(name));
	memcpy(h + H_LENGTH, name, strlen(name));
}

static int qed_create(struct file *f, const struct options *o, uint64_t size,
		      struct err *err)
{
	uint64_t cluster = want_cluster(o), table = want_table(o);
	unsigned char h[H_LENGTH + MAX_BACKING_NAME + 1] = { 0 };
	int ret;

	le32_put(h + H_MAGIC, MAGIC);
	le32_put(h + H_CLUSTER_SIZE, (uint32_t)cluster);
	le32_put(h + H_TABLE_SIZE, (uint32_t)table);
	le32_put(h + H_HEADER_SIZE, 1);
	le64_put(h + H_L1_OFFSET, cluster);
	le64_put(h + H_SIZE, size);
	put_backing(o, h);
	ret = file_truncate(f, cluster + table * cluster);
	if (!ret)
		ret = file_write(f, h, sizeof(h), 0);
	return ret ? err_errno(err, ret, "Could not write the new image") : 0;
}

/* ---- another size -------------------------------------------------------- */

static uint64_t l1_entries(const struct image *img, uint64_t size)
{
	return div_up(size, tables_of(img)->l2_entries * img->unit);
}

static int qed_resize_check(struct image *img, uint64_t size,
			    enum preallocation mode, struct err *err)
{
	static const char *const names[] = { "off", "metadata", "falloc",
					     "full" };
	struct tables *t = tables_of(img);

	if (mode != PREALLOC_OFF)
		return err_set(err, -ENOTSUP, "Unsupported preallocation mode"
			       " '%s'", names[mode]);
	if (size % SECTOR_SIZE ||
	    size > max_size(img->unit, t->l2_entries * 8 / img->unit))
		return err_set(err, -EINVAL, "Invalid image size specified");
	if (size < image_size(img))
		return err_set(err, -ENOTSUP,
			       "Shrinking images is currently not supported");
	/* The table has room for the largest size; only looks go as far. */
	t->l1_entries = max_u64(t->l1_entries, l1_entries(img, size));
	return 0;
}

static int qed_resize(struct image *img, uint64_t size,
		      enum preallocation mode, struct err *err)
{
	unsigned char bytes[8];
	int ret = repair_barrier(img);

	(void)mode;
	(void)err;
	le64_put(bytes, size);
	return ret ? ret : file_write(img->file, bytes, sizeof(bytes), H_SIZE);
}

/* ---- another backing file ------------------------------------------------ */

/* Where the new name goes: sector 0 is written as a whole, and beyond it the
 * old name is not overwritten. */
static int place_name(const struct qed *q, const unsigned char *h, size_t len,
		      uint32_t *at)
{
	uint32_t old = le32_at(h + H_BACKING_OFFSET);
	uint32_t end = old + le32_at(h + H_BACKING_LEN);

	*at = H_LENGTH;
	if (H_LENGTH + len > SECTOR_SIZE && q->features & F_BACKING &&
	    old < H_LENGTH + len && end > H_LENGTH)
		*at = (uint32_t)round_up(end, SECTOR_SIZE);
	return range_within(*at, len, q->header_size) ? 0 : -ENOSPC;
}

static uint64_t backing_features(const struct qed *q, const char *name,
				 const char *format)
{
	uint64_t other = q->features & ~(F_BACKING | F_BACKING_RAW);

	if (!name)
		return other;
	return other | F_BACKING |
	       (format && !strcmp(format, "raw") ? F_BACKING_RAW : 0);
}

/* The name first, then the sector that leads to it. */
static int qed_change_backing(struct image *img, const char *name,
			      const char *format, struct err *err)
{
	struct qed *q = qed_of(img);
	uint64_t features = backing_features(q, name, format);
	size_t len = name ? strlen(name) : 0;
	unsigned char h[SECTOR_SIZE];
	uint32_t at = H_LENGTH;
	int ret = file_read(img->file, h, sizeof(h), 0);

	(void)err;      /* the reason says it all */
	if (len > MAX_BACKING_NAME)
		return -EINVAL;
	if (!ret && name)
		ret = place_name(q, h, len, &at);
	if (!ret && len && at + len > SECTOR_SIZE)
		ret = file_write(img->file, name, len, at);
	if (!ret)
		ret = repair_barrier(img);
	if (ret)
		return ret;
	if (at < SECTOR_SIZE)
		memcpy(h + at, name ? name : "", min_u64(len, SECTOR_SIZE - at));
	le64_put(h + H_FEATURES, features);
	le32_put(h + H_BACKING_OFFSET, at);
	le32_put(h + H_BACKING_LEN, (uint32_t)len);
	ret = file_write(img->file, h, sizeof(h), 0);
	if (!ret)
		q->features = features;
	return ret ? ret : repair_barrier(img);
}

/* ---- info, check --------------------------------------------------------- */

/* The bit of an unfinished writer is not shown, as QEMU. */
static int qed_info(struct image *img, struct image_info *info,
		    struct err *err)
{
	(void)err;
	info->cluster_size = img->unit;
	info->has_dirty = true;
	return 0;
}

static int qed_check(struct image *img, struct check_result *res)
{
	return tables_check(img, res);
}

/*
 * What is written marks the image, and the mark goes when it is closed: then
 * that of who did not finish is gone as well, unless something is left that
 * writing would make worse.
 */
static int qed_repair(struct image *img, unsigned fix,
		      struct check_result *res)
{
	struct qed *q = qed_of(img);
	unsigned char bytes[8];
	int ret = tables_repair(img, fix, res);

	q->unsound = ret || res->corruptions;
	if (ret || !(q->features & F_NEED_CHECK))
		return ret;
	le64_put(bytes, q->features);
	return repair_write(img, img->file, bytes, sizeof(bytes), H_FEATURES);
}

static const struct format_admin qed_admin = {
	.create_options = qed_create_options,
	.create_check = qed_create_check,
	.create = qed_create,
	.info = qed_info,
	.check = qed_check,
	.change_backing = qed_change_backing,
	.repair = qed_repair,
};

const struct format qed_format = {
	.name = "qed",
	.priv_size = sizeof(struct qed),
	.supports_backing = true,
	.probe = qed_probe,
	.open = qed_open,
	.upgrade = qed_upgrade,
	.dirty = qed_dirty,
	.clean = qed_clean,
	.close = tables_close,
	.map = tables_map,
	.reserve = tables_reserve,
	.commit = tables_commit,
	.abort = tables_abort,
	.unmap = tables_unmap,
	.resize_check = qed_resize_check,
	.resize = qed_resize,
	.admin = &qed_admin,
};
