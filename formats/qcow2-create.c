/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-create.c - new qcow2 images, byte for byte those that QEMU makes: the
 * options, the header with its extensions, L1, and what preallocation adds.
 *
 * Where clusters go is qcow2-layout.c's to say.  The header is written last:
 * before it the file is no image.
 */
#include "qcow2.h"
#include "qcow2-layout.h"

#include <inttypes.h>
#include <unistd.h>

#define SIZE_LIMIT (INT64_MAX - (int64_t)GiB + 1)  /* of any file */
#define COMPAT_HINT "compatibility level 1.1 and above (use version=v3 or " \
		    "greater)"

struct params {
	unsigned version, cluster_bits, refcount_order, compression;
	bool lazy, subs;
	unsigned l2_entry;      /* bytes */
	enum preallocation prealloc;
	const char *backing, *backing_fmt;
	const char *data_file;
	bool data_raw;
	enum preallocation data_prealloc;       /* of the data file */
	uint64_t size;
	uint64_t l1_size;       /* entries */
};

static const struct option_spec qcow2_create_options[] = {
	{ "encryption", OPTION_BOOL, "Encrypt the image with format 'aes'."
	  " (Deprecated in favor of encrypt.format=aes)", NULL },
	{ "encrypt.format", OPTION_STRING,
	  "Encrypt the image, format choices: 'aes', 'luks'", NULL },
	{ "encrypt.key-secret", OPTION_STRING,
	  "ID of secret providing qcow AES key or LUKS passphrase", NULL },
	{ "encrypt.cipher-alg", OPTION_STRING,
	  "Name of encryption cipher algorithm", NULL },
	{ "encrypt.cipher-mode", OPTION_STRING,
	  "Name of encryption cipher mode", NULL },
	{ "encrypt.ivgen-alg", OPTION_STRING,
	  "Name of IV generator algorithm", NULL },
	{ "encrypt.ivgen-hash-alg", OPTION_STRING,
	  "Name of IV generator hash algorithm", NULL },
	{ "encrypt.hash-alg", OPTION_STRING,
	  "Name of encryption hash algorithm", NULL },
	{ "encrypt.iter-time", OPTION_NUMBER,
	  "Time to spend in PBKDF in milliseconds", NULL },
	{ "cluster_size", OPTION_SIZE, "qcow2 cluster size", "65536" },
	{ "extended_l2", OPTION_BOOL, "Extended L2 tables", "off" },
	{ "preallocation", OPTION_STRING, "Preallocation mode (allowed values:"
	  " off, metadata, falloc, full)", NULL },
	{ "compression_type", OPTION_STRING,
	  "Compression method used for image cluster compression", "zlib" },
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ "compat", OPTION_STRING,
	  "Compatibility level (v2 [0.10] or v3 [1.1])", NULL },
	{ "backing_file", OPTION_STRING, "File name of a base image", NULL },
	{ "backing_fmt", OPTION_STRING, "Image format of the base image",
	  NULL },
	{ "data_file", OPTION_STRING, "File name of an external data file",
	  NULL },
	{ "data_file_raw", OPTION_BOOL, "The external data file must stay"
	  " valid as a raw image", NULL },
	{ "lazy_refcounts", OPTION_BOOL, "Postpone refcount updates", "off" },
	{ "refcount_bits", OPTION_NUMBER,
	  "Width of a reference count entry in bits", "16" },
	{ NULL, OPTION_STRING, NULL, NULL },
};

/* ---- options: each sentence in the order in which QEMU finds the fault ---- */

static int not_accepted(const char *name, const char *value, struct err *err)
{
	return err_set(err, -EINVAL, "Parameter '%s' does not accept value"
		       " '%s'", name, value);
}

static int parse_version(const struct options *o, struct params *p,
			 struct err *err)
{
	const char *compat = options_str(o, "compat", "v3");

	if (!strcmp(compat, "0.10") || !strcmp(compat, "v2"))
		p->version = 2;
	else if (!strcmp(compat, "1.1") || !strcmp(compat, "v3"))
		p->version = 3;
	else
		return not_accepted("version", compat, err);
	return 0;
}

static int parse_compression(const struct options *o, struct params *p,
			     struct err *err)
{
	const char *type = options_str(o, "compression_type", "zlib");

	if (strcmp(type, "zlib") && strcmp(type, "zstd"))
		return not_accepted("compression-type", type, err);
	p->compression = !strcmp(type, "zstd");
	return 0;
}

static bool crypt_alias(const struct options *o)
{
	return options_bool(o, "encryption", false);
}

static int parse_crypt_format(const struct options *o, struct err *err)
{
	static const char *const details[] = {
		"encrypt.key-secret", "encrypt.cipher-alg",
		"encrypt.cipher-mode", "encrypt.ivgen-alg",
		"encrypt.ivgen-hash-alg", "encrypt.hash-alg",
		"encrypt.iter-time",
	};
	const char *format = options_str(o, "encrypt.format", NULL);

	if (format && strcmp(format, "aes") && strcmp(format, "luks"))
		return not_accepted("format", format, err);
	for (size_t i = 0; i < ARRAY_SIZE(details); i++)
		if (options_has(o, details[i]) && !format && !crypt_alias(o))
			return err_set(err, -EINVAL, "Parameter"
				       " 'encrypt.format' is missing");
	return 0;
}

/* QEMU's drivers, whether or not this build has them: who makes an overlay may
 * have more than we do. */
static int parse_backing_fmt(const struct options *o, struct err *err)
{
	static const char *const drivers[] = {
		"blkdebug", "blklogwrites", "blkreplay", "blkverify", "bochs",
		"cloop", "compress", "copy-before-write", "copy-on-read",
		"dmg", "file", "ftp", "ftps", "gluster", "host_cdrom",
		"host_device", "http", "https", "iscsi", "luks", "nbd", "nfs",
		"null-aio", "null-co", "nvme", "parallels", "preallocate",
		"qcow", "qcow2", "qed", "quorum", "raw", "rbd", "replication",
		"snapshot-access", "ssh", "throttle", "vdi", "vhdx", "vmdk",
		"vpc", "vvfat",
	};
	const char *name = options_str(o, "backing_fmt", NULL);

	for (size_t i = 0; name && i < ARRAY_SIZE(drivers); i++)
		if (!strcmp(drivers[i], name))
			return 0;
	return name ? not_accepted("backing-fmt", name, err) : 0;
}

/* The words that are chosen from a list. */
static int parse_names(const struct options *o, struct params *p,
		       struct err *err)
{
	const char *prealloc = options_str(o, "preallocation", NULL);
	int ret;

	if (crypt_alias(o) && options_has(o, "encrypt.format"))
		return err_set(err, -EINVAL, "'encrypt.format' and its alias"
			       " 'encryption' can't be used at the same time");
	ret = parse_version(o, p, err);
	if (!ret)
		ret = parse_backing_fmt(o, err);
	if (!ret)
		ret = parse_crypt_format(o, err);
	if (ret)
		return ret;
	if (preallocation_parse(prealloc, &p->prealloc, NULL))
		return not_accepted("preallocation", prealloc, err);
	return parse_compression(o, p, err);
}

static int parse_cluster(const struct options *o, struct params *p,
			 struct err *err)
{
	uint64_t size = options_num(o, "cluster_size", 65536);

	if (p->version < 3 && options_bool(o, "extended_l2", false))
		return err_set(err, -EINVAL, "Extended L2 entries are only"
			       " supported with " COMPAT_HINT);
	if (!is_pow2(size) || size < 1u << QCOW2_MIN_CLUSTER_BITS ||
	    size > 1u << QCOW2_MAX_CLUSTER_BITS)
		return err_set(err, -EINVAL, "Cluster size must be a power of"
			       " two between 512 and 2048k");
	p->cluster_bits = log2_u64(size);
	return 0;
}

static int parse_refcount(const struct options *o, struct params *p,
			  struct err *err)
{
	uint64_t bits = options_num(o, "refcount_bits", 16);

	if (!is_pow2(bits) || bits > 64)
		return err_set(err, -EINVAL, "Refcount width must be a power"
			       " of two and may not exceed 64 bits");
	if (p->version < 3 && bits != 16)
		return err_set(err, -EINVAL, "Different refcount widths than"
			       " 16 bits require compatibility level 1.1 or"
			       " above (use version=v3 or greater)");
	p->refcount_order = log2_u64(bits);
	return 0;
}

static int parse_subclusters(const struct options *o, struct params *p,
			     struct err *err)
{
	p->l2_entry = 8;
	if (!options_bool(o, "extended_l2", false))
		return 0;
	if (p->cluster_bits < 14)
		return err_set(err, -EINVAL, "Extended L2 entries are only"
			       " supported with cluster sizes of at least"
			       " 16384 bytes");
	p->subs = true;
	p->l2_entry = 16;
	return 0;
}

static int parse_backing(const struct options *o, struct params *p,
			 struct err *err)
{
	p->backing = options_str(o, "backing_file", NULL);
	p->backing_fmt = options_str(o, "backing_fmt", NULL);
	if (p->backing && p->prealloc != PREALLOC_OFF && !p->subs)
		return err_set(err, -EINVAL, "Backing file and preallocation"
			       " can only be used at the same time if"
			       " extended_l2 is on");
	if (p->backing_fmt && !p->backing)
		return err_set(err, -EINVAL, "Backing format cannot be used"
			       " without backing file");
	return 0;
}

static int parse_data_file(const struct options *o, struct params *p,
			   struct err *err)
{
	const char *name = options_str(o, "data_file", NULL);
	bool raw = options_bool(o, "data_file_raw", false);

	if (raw && !name)
		return err_set(err, -EINVAL,
			       "data-file-raw requires data-file");
	if (raw && p->backing)
		return err_set(err, -EINVAL, "Backing file and data-file-raw"
			       " cannot be used at the same time");
	if (!name)
		return 0;
	if (p->version < 3)
		return err_set(err, -EINVAL, "External data files are only"
			       " supported with " COMPAT_HINT);
	if (!strncmp(name, "file:", 5))
		name += 5;
	p->data_file = name;
	p->data_raw = raw;
	p->data_prealloc = p->prealloc;
	/* Its entries are where the data is. */
	if (raw || p->prealloc != PREALLOC_OFF)
		p->prealloc = PREALLOC_METADATA;
	return qcow2_data_check(name, err);
}

static int parse_v3_only(const struct options *o, struct params *p,
			 struct err *err)
{
	p->lazy = options_bool(o, "lazy_refcounts", false);
	if (p->version < 3 && p->lazy)
		return err_set(err, -EINVAL, "Lazy refcounts only supported"
			       " with " COMPAT_HINT);
	return 0;
}

static int parse_zstd(const struct params *p, struct err *err)
{
	if (p->version < 3 && p->compression)
		return err_set(err, -EINVAL, "Non-zlib compression type is"
			       " only supported with " COMPAT_HINT);
	return 0;
}

static int parse_size(struct params *p, uint64_t size, struct err *err)
{
	uint64_t cover = (UINT64_C(1) << (2 * p->cluster_bits)) / p->l2_entry;

	if (size > INT64_MAX)
		return err_set(err, -EFBIG, "Could not resize image: Image"
			       " size cannot be negative");
	if (size > (uint64_t)SIZE_LIMIT)
		return err_set(err, -EFBIG, "Could not resize image: offset(%"
			       PRIu64 ") exceeds maximum(%" PRId64 ")", size,
			       (int64_t)SIZE_LIMIT);
	p->size = size;
	p->l1_size = div_up(size, cover);
	if (p->l1_size > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, -EFBIG, "The image size is too large for"
			       " file format 'qcow2' (try using a larger"
			       " cluster size)");
	return 0;
}

/* ---- the header ---------------------------------------------------------- */

static void put_fixed(const struct params *p, const struct layout *l,
		      uint64_t l1, unsigned char *h)
{
	be32_put(h + QH_MAGIC, QCOW2_MAGIC);
	be32_put(h + QH_VERSION, p->version);
	be32_put(h + QH_CLUSTER_BITS, p->cluster_bits);
	be64_put(h + QH_SIZE, p->size);
	be32_put(h + QH_L1_SIZE, (uint32_t)p->l1_size);
	be64_put(h + QH_L1_OFFSET, l1 << p->cluster_bits);
	be64_put(h + QH_REFTABLE_OFFSET, l->table << p->cluster_bits);
	be32_put(h + QH_REFTABLE_CLUSTERS, (uint32_t)l->table_clusters);
	if (p->version < 3)
		return;
	be64_put(h + QH_INCOMPAT,
		 (p->compression ? QINCOMPAT_COMPRESSION : 0) |
		 (p->data_file ? QINCOMPAT_DATA_FILE : 0) |
		 (p->subs ? QINCOMPAT_EXTL2 : 0));
	be64_put(h + QH_AUTOCLEAR, p->data_raw ? QAUTOCLEAR_DATA_RAW : 0);
	be64_put(h + QH_COMPAT, p->lazy ? QCOMPAT_LAZY_REFCOUNTS : 0);
	be32_put(h + QH_REFCOUNT_ORDER, p->refcount_order);
	be32_put(h + QH_HEADER_LENGTH, QH_V3_LENGTH);
	h[QH_COMPRESSION_TYPE] = (unsigned char)p->compression;
}

/* Into @h, if any: returns where the next one goes. */
static size_t put_ext(unsigned char *h, size_t at, uint32_t type,
		      const void *data, size_t len)
{
	if (h) {
		be32_put(h + at, type);
		be32_put(h + at + 4, (uint32_t)len);
		memcpy(h + at + 8, data, len);
	}
	return at + 8 + round_up(len, 8);
}

/*
 * The extensions and the name behind them (qcow2.md 1, last part); @h is a
 * cluster of zeroes, or NULL for the length alone.
 */
static size_t put_tail(const struct params *p, unsigned char *h)
{
	size_t at = p->version < 3 ? QH_V2_LENGTH : QH_V3_LENGTH;

	if (p->backing && p->backing_fmt)
		at = put_ext(h, at, QEXT_BACKING_FORMAT, p->backing_fmt,
			     strlen(p->backing_fmt));
	if (p->data_file)
		at = put_ext(h, at, QEXT_DATA_FILE, p->data_file,
			     strlen(p->data_file));
	if (qcow2_header_has_names(p->version, p->cluster_bits))
		at = put_ext(h, at, QEXT_FEATURES, qcow2_feature_names,
			     sizeof(qcow2_feature_names));
	at += 8;        /* QEXT_END */
	if (!p->backing)
		return at;
	if (h) {
		memcpy(h + at, p->backing, strlen(p->backing));
		be64_put(h + QH_BACKING_OFFSET, at);
		be32_put(h + QH_BACKING_SIZE, (uint32_t)strlen(p->backing));
	}
	return at + strlen(p->backing);
}

static int check_names_fit(const struct params *p, struct err *err)
{
	const char *why = NULL;

	if (p->backing && strlen(p->backing) > QCOW2_MAX_BACKING_NAME)
		why = strerror(EINVAL);
	else if (put_tail(p, NULL) > 1u << p->cluster_bits)
		why = strerror(ENOSPC);
	if (!why)
		return 0;
	return err_set(err, -EINVAL, "Could not assign backing file '%s' with"
		       " format '%s': %s", p->backing, p->backing_fmt, why);
}

static int refuse_encryption(const struct options *o, struct err *err)
{
	if (!crypt_alias(o) && !options_has(o, "encrypt.format"))
		return 0;
	if (!options_has(o, "encrypt.key-secret"))
		return err_set(err, -EINVAL, "Parameter 'encrypt.key-secret'"
			       " is required for cipher");
	return err_set(err, -ENOTSUP, "Encryption is not supported");
}

static int params_parse(const struct options *o, uint64_t size,
			struct params *p, struct err *err)
{
	int ret;

	*p = (struct params) { 0 };
	ret = parse_names(o, p, err);
	if (!ret)
		ret = parse_cluster(o, p, err);
	if (!ret)
		ret = parse_subclusters(o, p, err);
	if (!ret)
		ret = parse_backing(o, p, err);
	if (!ret)
		ret = parse_v3_only(o, p, err);
	if (!ret)
		ret = parse_refcount(o, p, err);
	if (!ret)
		ret = parse_data_file(o, p, err);
	if (!ret)
		ret = parse_zstd(p, err);
	if (!ret)
		ret = parse_size(p, size, err);
	if (!ret)
		ret = check_names_fit(p, err);
	return ret ? ret : refuse_encryption(o, err);
}

static int qcow2_create_check(const struct options *o, uint64_t size,
			      struct err *err)
{
	struct params p;

	return params_parse(o, size, &p, err);
}

/* ---- tables -------------------------------------------------------------- */

struct maker {
	const struct params *p;
	struct layout l;
	uint64_t l1;            /* cluster */
	unsigned char *l1_table;
	unsigned char *l2_table;        /* one cluster */
};

static uint64_t l2_entries(const struct params *p)
{
	return (UINT64_C(1) << p->cluster_bits) / p->l2_entry;
}

static uint64_t data_clusters(const struct params *p)
{
	return div_up(p->size, UINT64_C(1) << p->cluster_bits);
}

/* L2 table @index, in the first free cluster, leads to @n clusters from @data
 * on. */
static int l2_write(struct maker *m, uint64_t index, uint64_t at,
		    uint64_t data, uint64_t n)
{
	unsigned bits = m->p->cluster_bits, entry = m->p->l2_entry;

	/* Subclusters stay what they are without the space. */
	memset(m->l2_table, 0, UINT64_C(1) << bits);
	for (uint64_t i = 0; i < n; i++)
		be64_put(m->l2_table + entry * i,
			 QCOPIED | (data + i) << bits);
	be64_put(m->l1_table + 8 * index, QCOPIED | at << bits);
	return file_write(m->l.file, m->l2_table, UINT64_C(1) << bits,
			  at << bits);
}

/* What the last cluster, the one before @end, has behind the disk's end; of
 * subclusters the last one: the others are said to be empty. */
static int write_rest(struct maker *m, uint64_t end)
{
	uint64_t unit = UINT64_C(1) << m->p->cluster_bits;
	uint64_t all = round_up(m->p->size, unit) - m->p->size, n = all;
	uint64_t at = (end << m->p->cluster_bits) - all;
	int ret = 0;

	if (m->p->subs)
		n %= unit / QSUBS;
	if (n < all && end == layout_end(&m->l))
		ret = file_truncate(m->l.file, at + n);
	memset(m->l2_table, 0, unit);
	return ret || !n ? ret : file_write(m->l.file, m->l2_table, n, at);
}

/* The tables of a data file's clusters, which are where the guest has them. */
static int make_tables(struct maker *m, struct err *err)
{
	uint64_t left = data_clusters(m->p), at, n, data = 0;
	int ret = 0;

	for (uint64_t i = 0; left && !ret; i++, left -= n, data += n) {
		n = min_u64(left, l2_entries(m->p));
		ret = layout_alloc(&m->l, 1, &at);
		if (!ret)
			ret = l2_write(m, i, at, data, n);
	}
	return ret ? err_errno(err, ret, "Could not preallocate metadata") : 0;
}

/* Table after table, the data of each behind it. */
static int make_metadata(struct maker *m, struct err *err)
{
	uint64_t left = data_clusters(m->p), at, data = 0, n = 0;
	int ret = 0;

	if (m->p->data_file)
		return make_tables(m, err);

	for (uint64_t i = 0; left && !ret; i++, left -= n) {
		n = min_u64(left, l2_entries(m->p));
		ret = layout_alloc(&m->l, 1, &at);
		if (!ret)
			ret = layout_alloc(&m->l, n, &data);
		if (!ret)
			ret = l2_write(m, i, at, data, n);
	}
	if (!ret)
		ret = file_truncate(m->l.file,
				    layout_end(&m->l) << m->p->cluster_bits);
	if (!ret)
		ret = write_rest(m, data + n);
	return ret ? err_errno(err, ret, "Could not preallocate metadata") : 0;
}

/* All data in a row, then the tables. */
static int make_data(struct maker *m, struct err *err)
{
	unsigned bits = m->p->cluster_bits;
	uint64_t left = data_clusters(m->p), data, at, n;
	int ret = layout_area(&m->l, layout_end(&m->l), left + m->p->l1_size,
			      true, &data);

	if (!ret)
		ret = layout_take(&m->l, data, left);
	if (ret)
		return err_errno(err, ret, "Could not allocate refcount"
				 " structures");
	ret = preallocate(m->l.file, data << bits, left << bits,
			  m->p->prealloc, err);
	for (uint64_t i = 0; left && !ret; i++, left -= n, data += n) {
		n = min_u64(left, l2_entries(m->p));
		ret = layout_alloc(&m->l, 1, &at);
		if (!ret)
			ret = l2_write(m, i, at, data, n);
	}
	return ret;
}

static int make_l1(struct maker *m)
{
	uint64_t bytes = m->p->l1_size * 8;
	uint64_t unit = UINT64_C(1) << m->p->cluster_bits;

	if (!bytes)
		return 0;
	return layout_alloc(&m->l, div_up(bytes, unit), &m->l1);
}

static int write_header(struct maker *m)
{
	uint64_t unit = UINT64_C(1) << m->p->cluster_bits;
	autofree unsigned char *h = calloc(1, unit);

	if (!h)
		return -ENOMEM;
	put_fixed(m->p, &m->l, m->l1, h);
	put_tail(m->p, h);
	return file_write(m->l.file, h, unit, 0);
}

static int write_all(struct maker *m)
{
	int ret = 0;

	if (m->p->l1_size)
		ret = file_write(m->l.file, m->l1_table, m->p->l1_size * 8,
				 m->l1 << m->p->cluster_bits);
	if (!ret)
		ret = layout_write(&m->l);
	return ret ? ret : write_header(m);
}

static int make(struct maker *m, struct err *err)
{
	int ret = make_l1(m);

	if (!ret && m->p->size && m->p->prealloc == PREALLOC_METADATA)
		ret = make_metadata(m, err);
	else if (!ret && m->p->prealloc != PREALLOC_OFF &&
		 m->p->prealloc != PREALLOC_METADATA)
		ret = make_data(m, err);
	if (!ret)
		ret = write_all(m);
	return ret ? err_errno(err, ret, "Could not write the new image") : 0;
}

static int data_target(const struct options *o, uint64_t size,
		       struct file **data, const char **name, bool *created,
		       struct err *err)
{
	struct params p;
	int ret = params_parse(o, size, &p, err);

	if (ret || !p.data_file)
		return ret;
	*name = p.data_file;
	return qcow2_data_target(p.data_file, p.size, data, created, err);
}

/* The data file keeps what it holds until there is an image to use it. */
static int qcow2_create_with(struct file *f, struct file *data,
			     const struct options *o, uint64_t size,
			     struct err *err)
{
	struct params p;
	struct maker m = { .p = &p };
	autofree void *l1 = NULL;
	autofree void *l2 = NULL;
	int ret = params_parse(o, size, &p, err);

	if (ret)
		return ret;
	m.l1_table = l1 = calloc(p.l1_size + 1, 8);
	m.l2_table = l2 = malloc(UINT64_C(1) << p.cluster_bits);
	if (!l1 || !l2)
		return -ENOMEM;
	ret = layout_init(&m.l, f, p.cluster_bits, p.refcount_order);
	if (!ret)
		ret = make(&m, err);
	if (!ret && data)
		ret = qcow2_data_empty(data, p.data_file, o, p.size,
				       p.data_prealloc, err);
	layout_free(&m.l);
	return ret;
}

static int qcow2_create(struct file *f, const struct options *o, uint64_t size,
			struct err *err)
{
	return qcow2_create_with(f, NULL, o, size, err);
}

const struct format_admin qcow2_admin = {
	.create_options = qcow2_create_options,
	.create_check = qcow2_create_check,
	.create = qcow2_create,
	.create_open = data_target,
	.create_with = qcow2_create_with,
	.info = qcow2_info,
	.check = qcow2_check,
	.repair = qcow2_repair,
	.measure = qcow2_measure,
	.amend_options = qcow2_amend_options,
	.amend = qcow2_amend,
	.change_backing = qcow2_change_backing,
	.empty = qcow2_empty,
	.snapshots = &qcow2_snapshot_ops,
};
