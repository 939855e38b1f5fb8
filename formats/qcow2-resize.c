/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-resize.c - another virtual size for an image in use: a longer L1, the
 * size in the header, a raw data file of that length.
 *
 * A longer L1 is a copy in other clusters, which is written before the one
 * sector changes that leads there.  Whoever changes an L1 entry holds "tables";
 * who reads one may see the old table until the epochs are over.
 */
#include "qcow2.h"

/* ---- a longer L1 --------------------------------------------------------- */

static void l1_switch(struct image *img, struct mpage *head, uint64_t host,
		      uint32_t entries)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t old = q->l1_offset, len = 8ul * q->l1_size;
	unsigned char b[QH_REFTABLE_OFFSET - QH_L1_SIZE];

	be32_put(b, entries);
	be64_put(b + (QH_L1_OFFSET - QH_L1_SIZE), host);
	change_begin(img);
	qcow2_header_put(img, head, QH_L1_SIZE, b, sizeof(b));
	qcow2_l1_set(q, host, entries);
	if (len)
		space_retire(img, img->file, old, round_up(len, img->unit));
	change_end(img);
	if (len)        /* rule 17 */
		meta_forget(img, img->file, old, len);
}

/* The table as it is now, and empty entries behind it. */
static int l1_copy(struct image *img, uint64_t host, uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);
	autofree unsigned char *bytes = calloc(1, len);
	int ret = bytes ? 0 : -ENOMEM;

	if (!ret && q->l1_size)
		ret = meta_read(img, img->file, bytes, 8ul * q->l1_size,
				q->l1_offset);
	if (ret)
		return ret;
	meta_forget(img, img->file, host, len);
	return file_write(img->file, bytes, len, host);
}

static int l1_grow(struct image *img, uint64_t entries)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t n = div_up(8 * entries, img->unit);
	struct qcow2_run run;
	struct mpage *head;
	int ret;
	with_lock(&q->tables);

	ret = qcow2_alloc(img, n, &run);
	if (ret)
		return ret;
	ret = run.n < n ? -ENOSPC : qcow2_header_pin(img, &head);
	if (!ret) {
		ret = l1_copy(img, run.host, n * img->unit);
		if (!ret)
			l1_switch(img, head, run.host, (uint32_t)entries);
		meta_put(head);
	}
	if (ret)
		qcow2_unalloc(img, run.host, run.n);
	return ret;
}

/* ---- struct format ------------------------------------------------------- */

/* What a raw data file has behind the old end is nobody's. */
static int data_cut(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t size;
	int ret;

	if (!q->raw || !q->data->traits.grows)
		return 0;
	ret = file_size(q->data, &size);
	if (!ret && size > image_size(img))
		ret = file_truncate(q->data, image_size(img));
	return ret;
}

int qcow2_resize_check(struct image *img, uint64_t size,
		       enum preallocation mode, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t entries = div_up(size, qcow2_l2_cover(q));
	int ret = 0;

	(void)mode;
	if (size % SECTOR_SIZE)
		return err_set(err, -EINVAL,
			       "The new size must be a multiple of %u",
			       SECTOR_SIZE);
	if (q->nb_snapshots && q->version < 3)
		return err_set(err, -ENOTSUP, "Can't resize a v2 image which"
			       " has snapshots");
	if (entries > QCOW2_MAX_L1_BYTES / 8)
		ret = -EFBIG;
	else if (entries > q->l1_size)
		ret = l1_grow(img, entries);
	if (ret)
		return err_set(err, ret, "Failed to grow the L1 table: %s",
			       strerror(-ret));
	if (size > image_size(img))
		ret = data_cut(img);
	return ret ? err_errno(err, ret, "Could not resize the data file") : 0;
}

/*
 * A raw data file is as long as the disk, but never shorter than what a header
 * that is durable says.  Of another one nothing is left behind the end, where
 * QEMU expects zeroes.
 */
static int data_resize(struct image *img, uint64_t size)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t now;
	int ret;

	if (!q->data || !q->data->traits.grows)
		return 0;
	if (q->raw)
		return file_truncate(q->data, size);
	size = round_up(size, img->unit);
	ret = file_size(q->data, &now);
	return ret || now <= size ? ret : file_truncate(q->data, size);
}

int qcow2_resize(struct image *img, uint64_t size, enum preallocation mode,
		 struct err *err)
{
	bool smaller = size < image_size(img);
	unsigned char bytes[8];
	struct mpage *head;
	int ret = smaller ? 0 : data_resize(img, size);

	(void)mode;
	if (ret)
		return err_errno(err, ret, "Could not resize the data file");
	ret = qcow2_header_pin(img, &head);
	if (ret)
		return ret;
	if (smaller)
		qcow2_of(img)->shrunk = true;
	be64_put(bytes, size);
	change_begin(img);
	qcow2_header_put(img, head, QH_SIZE, bytes, sizeof(bytes));
	change_end(img);
	meta_put(head);
	if (!smaller || !qcow2_of(img)->data)
		return 0;
	ret = image_flush(img);
	return ret ? ret : data_resize(img, size);
}
