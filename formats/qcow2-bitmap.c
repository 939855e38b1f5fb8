/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-bitmap.c - reads the directory of persistent bitmaps (qcow2.md 8).
 *
 * Refuses to know which bits are set (qcow2-bitmap-store.c).
 */
#include "qcow2.h"

#include <inttypes.h>

#define GRANULARITY_MIN 9u      /* bits */
#define GRANULARITY_MAX 31u
#define TABLE_MAX 0x8000000u    /* entries */

void qcow2_bitmaps_free(struct qcow2_bitmaps *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->items[i].name);
	free(list->items);
	*list = (struct qcow2_bitmaps) { NULL, 0 };
}

uint64_t qcow2_bitmap_entries(const struct image *img, unsigned granularity)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t bits = div_up(image_size(img), UINT64_C(1) << granularity);

	return div_up(div_up(bits, 8), UINT64_C(1) << q->cluster_bits);
}

static bool entry_ok(const struct image *img, const unsigned char *e)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t unit = UINT64_C(1) << q->cluster_bits;
	uint64_t table = be64_at(e + QBD_TABLE_OFFSET);
	uint32_t entries = be32_at(e + QBD_TABLE_SIZE);
	uint32_t flags = be32_at(e + QBD_FLAGS);
	uint16_t name = be16_at(e + QBD_NAME_SIZE);
	unsigned bits = e[QBD_GRANULARITY_BITS];

	if (!entries || entries > TABLE_MAX || !table || table % unit)
		return false;
	if (flags & ~(uint32_t)QBITMAP_KNOWN || e[QBD_TYPE] != 1 ||
	    bits < GRANULARITY_MIN || bits > GRANULARITY_MAX)
		return false;
	if (!name || name > 1023 || be32_at(e + QBD_EXTRA_SIZE))
		return false;
	if ((uint64_t)entries << q->cluster_bits > QBITMAP_MAX_BYTES)
		return false;
	return flags & QBITMAP_IN_USE ||
	       qcow2_bitmap_entries(img, bits) == entries;
}

static int take_entry(const struct image *img, const unsigned char *dir,
		      uint64_t size, uint64_t *at, struct qcow2_bitmap *b,
		      struct err *err)
{
	const unsigned char *e = dir + *at;
	uint64_t bytes;

	if (size - *at < QBD_FIXED)
		return err_set(err, -EINVAL, "Broken bitmap directory");
	bytes = QBD_FIXED + (uint64_t)be32_at(e + QBD_EXTRA_SIZE) +
		be16_at(e + QBD_NAME_SIZE);
	if (bytes > size - *at)
		return err_set(err, -EINVAL, "Broken bitmap directory");
	b->name = strndup((const char *)e + bytes -
			  be16_at(e + QBD_NAME_SIZE),
			  be16_at(e + QBD_NAME_SIZE));
	if (!b->name)
		return -ENOMEM;
	b->table_offset = be64_at(e + QBD_TABLE_OFFSET);
	b->table_size = be32_at(e + QBD_TABLE_SIZE);
	b->flags = be32_at(e + QBD_FLAGS);
	b->granularity_bits = e[QBD_GRANULARITY_BITS];
	b->entry = qcow2_of(img)->bitmaps_offset + *at;
	*at += round_up(bytes, 8);
	if (!entry_ok(img, e))
		return err_set(err, -EINVAL, "Bitmap '%s' doesn't satisfy the"
			       " constraints", b->name);
	return 0;
}

static int take_all(const struct image *img, const unsigned char *dir,
		    struct qcow2_bitmaps *list, struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t at = 0;
	int ret = 0;

	while (at < q->bitmaps_size && list->n < q->nb_bitmaps && !ret)
		ret = take_entry(img, dir, q->bitmaps_size, &at,
				 &list->items[list->n++], err);
	if (!ret && (at < q->bitmaps_size || list->n < q->nb_bitmaps))
		ret = err_set(err, -EINVAL, "More bitmaps found than specified"
			      " in header extension");
	return ret;
}

int qcow2_bitmaps_read(struct image *img, struct qcow2_bitmaps *list,
		       struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);
	struct qcow2_bitmaps found = { NULL, 0 };
	autofree unsigned char *dir = NULL;
	int ret;

	*list = found;
	if (!q->has_bitmaps)
		return 0;
	/* At most 64 MiB (open checked it). */
	dir = malloc(q->bitmaps_size + 1);
	found.items = calloc(q->nb_bitmaps, sizeof(*found.items));
	if (!dir || !found.items) {
		free(found.items);
		return -ENOMEM;
	}
	ret = meta_read(img, img->file, dir, q->bitmaps_size,
			q->bitmaps_offset);
	if (ret)
		err_errno(err, ret, "Failed to read bitmap directory");
	else
		ret = take_all(img, dir, &found, err);
	if (ret)
		qcow2_bitmaps_free(&found);
	else
		*list = found;
	return ret;
}
