/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-measure.c - how large a new qcow2 image would be (qemu-img-cli.md 9):
 * all metadata that the whole disk needs, and the clusters that hold something.
 */
#include "qcow2.h"

#include "bitmap.h"
#include "measure.h"

struct plan {
	unsigned cluster_bits, refcount_order, l2_entry, version;
	enum preallocation prealloc;
};

/* ---- options, in the order in which QEMU finds a fault ------------------- */

static int parse_cluster(const struct options *o, struct plan *p,
			 struct err *err)
{
	uint64_t size = options_num(o, "cluster_size", 65536);

	if (!is_pow2(size) || size < 1u << QCOW2_MIN_CLUSTER_BITS ||
	    size > 1u << QCOW2_MAX_CLUSTER_BITS)
		return err_set(err, -EINVAL, "Cluster size must be a power of"
			       " two between 512 and 2048k");
	p->cluster_bits = log2_u64(size);
	p->l2_entry = options_bool(o, "extended_l2", false) ? 16 : 8;
	if (p->l2_entry == 16 && p->cluster_bits < 14)
		return err_set(err, -EINVAL, "Extended L2 entries are only"
			       " supported with cluster sizes of at least"
			       " 16384 bytes");
	return 0;
}

static int parse_version(const struct options *o, struct plan *p,
			 struct err *err)
{
	const char *compat = options_str(o, "compat", "1.1");

	if (strcmp(compat, "0.10") && strcmp(compat, "1.1"))
		return err_set(err, -EINVAL,
			       "Invalid compatibility level: '%s'", compat);
	p->version = strcmp(compat, "1.1") ? 2 : 3;
	return 0;
}

static int parse_refcount(const struct options *o, struct plan *p,
			  struct err *err)
{
	uint64_t bits = options_num(o, "refcount_bits", 16);

	if (!is_pow2(bits) || bits > 64)
		return err_set(err, -EINVAL, "Refcount width must be a power"
			       " of two and may not exceed 64 bits");
	if (p->version < 3 && bits != 16)
		return err_set(err, -EINVAL, "Different refcount widths than"
			       " 16 bits require compatibility level 1.1 or"
			       " above (use compat=1.1 or greater)");
	p->refcount_order = log2_u64(bits);
	return 0;
}

static int parse(const struct options *o, struct plan *p, struct err *err)
{
	int ret = parse_cluster(o, p, err);

	if (!ret)
		ret = preallocation_parse(options_str(o, "preallocation",
						      NULL), &p->prealloc,
					  err);
	if (!ret)
		ret = parse_version(o, p, err);
	if (!ret)
		ret = parse_refcount(o, p, err);
	if (ret || strcmp(options_str(o, "encrypt.format", ""), "luks"))
		return ret;
	if (!options_has(o, "encrypt.key-secret"))
		return err_set(err, -EINVAL, "Parameter 'encrypt.key-secret'"
			       " is required for cipher");
	return err_set(err, -ENOTSUP, "Encryption is not supported");
}

/* ---- metadata ------------------------------------------------------------ */

/* Refcount blocks and table for @n clusters and themselves. */
static uint64_t refcount_clusters(const struct plan *p, uint64_t n)
{
	uint64_t unit = UINT64_C(1) << p->cluster_bits;
	uint64_t per = UINT64_C(8) << p->cluster_bits >> p->refcount_order;
	uint64_t blocks = 0, table = 0, last;

	do {
		last = blocks + table;
		blocks = div_up(n + last, per);
		table = div_up(8 * blocks, unit);
	} while (blocks + table != last);
	return last;
}

/* Clusters of an image with every guest cluster in it, but those. */
static uint64_t meta_clusters(const struct plan *p, uint64_t data)
{
	uint64_t unit = UINT64_C(1) << p->cluster_bits;
	uint64_t l2 = div_up(data * p->l2_entry, unit);
	uint64_t n = 1 + l2 + div_up(8 * l2, unit);

	return n + refcount_clusters(p, n + data);
}

/* ---- bitmaps ------------------------------------------------------------- */

static int bitmaps_size(struct image *img, const struct plan *p,
			struct measure *m, struct err *err)
{
	uint64_t unit = UINT64_C(1) << p->cluster_bits, clusters = 0, dir = 0;
	struct bitmap_info *list;
	size_t nr;
	int ret = bitmap_list(img, &list, &nr, err);

	if (ret)
		return ret;
	for (size_t i = 0; i < nr; i++) {
		uint64_t bits, n;

		if (list[i].inconsistent)
			continue;
		bits = div_up(image_size(img), list[i].granularity);
		n = div_up(div_up(bits, 8), unit);
		clusters += n + div_up(8 * n, unit);
		dir += round_up(QBD_FIXED + strlen(list[i].name), 8);
	}
	bitmap_list_free(list, nr);
	m->bitmaps = clusters * unit + round_up(dir, unit);
	return 0;
}

static bool has_bitmaps(const struct image *img)
{
	return img && img->fmt == &qcow2_format &&
	       qcow2_of(img)->version >= 3;
}

/* ---- the whole ----------------------------------------------------------- */

int qcow2_measure(const struct options *o, const struct measure_source *src,
		  struct measure *m, struct err *err)
{
	struct image *img = src->view ? src->view->img : NULL;
	struct plan p;
	uint64_t unit, meta, all, data;
	int ret = parse(o, &p, err);

	if (ret)
		return ret;
	unit = UINT64_C(1) << p.cluster_bits;
	all = round_up(src->size, unit);
	if (div_up(all / unit, unit / p.l2_entry) > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, -EFBIG, "The image size is too large (try"
			       " using a larger cluster size)");
	meta = meta_clusters(&p, all / unit) * unit;
	/* How much of another file is below nobody knows. */
	if (p.prealloc == PREALLOC_FALLOC || p.prealloc == PREALLOC_FULL ||
	    (img && options_str(o, "backing_file", NULL)))
		data = all;
	else
		ret = measure_data(src, unit, &data, err);
	if (ret)
		return ret;
	m->required = meta + data;
	m->full = meta + all;
	m->has_bitmaps = p.version >= 3 && has_bitmaps(img);
	return m->has_bitmaps ? bitmaps_size(img, &p, m, err) : 0;
}
