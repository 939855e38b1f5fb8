/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-downgrade.c - from version 3 to version 2 (qcow2.md 12), which has no
 * flag for clusters of zeroes: they become holes, or data where something is
 * below; in snapshots too.
 *
 * Each cluster is changed by itself and reads as before; the header comes last.
 */
#include "qcow2-amend.h"

#include <inttypes.h>

#define ZERO_CHUNK (1 * MiB)

/* ---- every L2 entry of a root -------------------------------------------- */

struct visit {
	struct image *img;
	struct progress *progress;
	/* Pinned, not locked; @n counts the references to the table. */
	int (*entry)(struct visit *v, struct mpage *pg, uint64_t slot,
		     uint64_t n);
	bool found;
};

static int visit_page(struct visit *v, uint64_t host, uint64_t n)
{
	struct image *img = v->img;
	struct mpage *pg;
	int ret = meta_get(img, img->file, host, &pg);

	if (ret)
		return ret;
	for (uint32_t at = 0; !ret && at < img->page; at += 8)
		ret = v->entry(v, pg, at, n);
	meta_put(pg);
	return ret;
}

static int visit_table(struct visit *v, uint64_t table)
{
	struct image *img = v->img;
	uint64_t n;
	int ret = table % img->unit || !qcow2_inside(img, table) ? -EIO :
		  qcow2_refcount(img, table, &n);

	for (uint64_t at = 0; !ret && at < img->unit; at += img->page)
		ret = visit_page(v, table + at, n);
	return ret ? ret : progress_step(v->progress, 0);
}

static int visit_root(struct visit *v, uint64_t l1, uint64_t entries)
{
	int ret = l1 % 8 ? -EIO : 0;

	for (uint64_t i = 0; !ret && i < entries; i++) {
		uint64_t e;

		ret = qcow2_entry(v->img, l1 + 8 * i, &e);
		if (!ret && e & QL1_HOST)
			ret = visit_table(v, e & QL1_HOST);
	}
	return ret;
}

static int visit_snapshots(struct visit *v)
{
	struct qcow2_snapshots list = { NULL, 0, 0 };
	int ret = qcow2_snapshots_read(v->img, &list, NULL);

	for (size_t i = 0; !ret && i < list.n; i++)
		ret = visit_root(v, list.items[i].l1_offset,
				 list.items[i].l1_size);
	qcow2_snapshots_free(&list);
	return ret;
}

static uint64_t entry_get(struct mpage *pg, uint64_t slot)
{
	uint64_t e;

	meta_rdlock(pg);
	e = be64_at((unsigned char *)meta_bytes(pg) + slot);
	meta_unlock(pg);
	return e;
}

/* ---- may it be? ---------------------------------------------------------- */

static int look_for_packed(struct visit *v, struct mpage *pg, uint64_t slot,
			   uint64_t n)
{
	(void)n;
	v->found |= (entry_get(pg, slot) & QL2_COMPRESSED) != 0;
	return 0;
}

static int check_packed(struct image *img, struct progress *p, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct visit v = {
		.img = img, .progress = p, .entry = look_for_packed,
	};
	int ret;

	if (!q->compression)
		return 0;
	ret = visit_root(&v, q->l1_offset, q->l1_size);
	if (!ret)
		ret = visit_snapshots(&v);
	if (ret || !v.found)
		return ret;
	return err_set(err, -ENOTSUP, "Cannot downgrade an image with zstd"
		       " compression type and existing compressed clusters");
}

static int check_snapshots(struct image *img, uint64_t size, struct err *err)
{
	struct qcow2_snapshots list = { NULL, 0, 0 };
	int ret = qcow2_snapshots_read(img, &list, err);

	for (size_t i = 0; !ret && i < list.n; i++)
		if (list.items[i].info.disk_size != size ||
		    list.items[i].info.vm_state_size > UINT32_MAX)
			ret = err_set(err, -ENOTSUP, "Internal snapshots"
				      " prevent downgrade of image");
	qcow2_snapshots_free(&list);
	return ret;
}

int qcow2_downgrade_check(struct image *img, uint64_t size, unsigned order,
			  struct progress *p, struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t other = q->incompat &
			 ~(QINCOMPAT_DIRTY | QINCOMPAT_COMPRESSION);
	int ret;

	if (q->incompat & QINCOMPAT_DATA_FILE)
		return err_set(err, -ENOTSUP, "Cannot downgrade an image with a"
			       " data file");
	ret = check_snapshots(img, size, err);
	if (ret)
		return ret;
	if (order != 4)
		return err_set(err, -ENOTSUP, "compat=0.10 requires"
			       " refcount_bits=16");
	if (other)
		return err_set(err, -ENOTSUP, "Cannot downgrade an image with"
			       " incompatible features 0x%" PRIx64 " set",
			       other);
	return check_packed(img, p, err);
}

/* ---- zeroes of the disk -------------------------------------------------- */

static int store_zeroes(struct image *img, uint64_t off, uint64_t len)
{
	autofree void *zeroes = calloc(1, ZERO_CHUNK);
	int ret = zeroes ? 0 : -ENOMEM;

	while (!ret && len) {
		uint64_t n = min_u64(len, ZERO_CHUNK);

		ret = image_write(&img->live, zeroes, n, off);
		off += n;
		len -= n;
	}
	return ret;
}

static int expand_disk(struct image *img, struct progress *p)
{
	bool below = img->backing || img->backing_name;
	uint64_t size = image_size(img);
	int ret = 0;

	for (uint64_t at = 0, n; !ret && at < size; at += n) {
		struct extent ext;

		ret = image_map(&img->live, at, min_u64(size - at, 64 * MiB),
				&ext);
		n = ret ? 0 : ext.len;
		if (!ret && ext.kind == EXT_ZERO)
			ret = below ? store_zeroes(img, at, n) :
			      image_unmap(&img->live, at, n, UNMAP_HOLE);
		if (!ret)
			ret = progress_step(p, n);
	}
	return ret;
}

/* ---- zeroes of snapshots ------------------------------------------------- */

/* A cluster of zeroes with @n references. */
static int zero_cluster(struct image *img, uint64_t n, uint64_t *host)
{
	autofree void *zeroes = calloc(1, img->unit);
	struct qcow2_run run;
	int ret = zeroes ? qcow2_alloc(img, 1, &run) : -ENOMEM;

	if (!ret)
		ret = file_write(img->file, zeroes, img->unit, run.host);
	for (uint64_t i = 1; !ret && i < n; i++)
		ret = qcow2_refcount_add(img, run.host, img->unit, 1);
	*host = ret ? 0 : run.host;
	return ret;
}

static int expand_entry(struct visit *v, struct mpage *pg, uint64_t slot,
			uint64_t n)
{
	struct image *img = v->img;
	uint64_t e = entry_get(pg, slot), host = 0;
	int ret = 0;

	if (e & QL2_COMPRESSED || !(e & QL2_ZERO))
		return 0;
	if (img->backing || img->backing_name)
		ret = zero_cluster(img, n, &host);
	if (ret)
		return ret;
	change_begin(img);
	meta_wrlock(pg);
	be64_put((unsigned char *)meta_bytes(pg) + slot,
		 host | (host && n == 1 ? QCOPIED : 0));
	meta_dirty(pg, STAGE_LINK);
	meta_unlock(pg);
	/* Each root that leads here has a reference of its own. */
	for (uint64_t i = 0; e & QL2_HOST && i < n; i++)
		space_retire(img, img->file, e & QL2_HOST, img->unit);
	change_end(img);
	return 0;
}

/* ---- the whole ----------------------------------------------------------- */

/* Version 2 has none: they are lost. */
static int drop_bitmaps(struct image *img, struct err *err)
{
	struct bitmap_info *list;
	size_t n;
	int ret = bitmap_list(img, &list, &n, err);

	if (ret)
		return ret;
	for (size_t i = 0; !ret && i < n; i++)
		ret = bitmap_remove(img, list[i].name, err);
	bitmap_list_free(list, n);
	return ret;
}

static int header_down(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_header h;
	int ret;

	qcow2_header_get(img, &h);
	h.version = 2;
	h.incompat = h.compat = h.autoclear = 0;
	ret = qcow2_header_set(img, &h);
	if (ret)
		return ret;
	q->compression = 0;
	img->codec = &codec_deflate;
	return 0;
}

int qcow2_downgrade(struct image *img, struct progress *p, struct err *err)
{
	struct visit v = { .img = img, .progress = p, .entry = expand_entry };
	int ret = drop_bitmaps(img, err);

	if (!ret)
		ret = expand_disk(img, p);
	if (!ret)
		ret = image_flush(img);
	if (!ret)
		ret = visit_snapshots(&v);
	if (!ret)
		ret = image_flush(img);
	if (!ret)
		ret = header_down(img);
	return ret ? err_errno(err, ret, "Failed to turn zero into data"
			       " clusters") : 0;
}
