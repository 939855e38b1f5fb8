/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-info.c - what info tells about a qcow2 image beyond its size: features,
 * snapshots, bitmaps, in qemu-img's order (qemu-img-cli.md 4 and 5).
 */
#include "qcow2.h"
#include "json.h"

static void set(struct json *obj, const char *key, struct json *v)
{
	json_set_take(obj, key, v);
}

static struct json *bitmap_json(const struct bitmap_info *b)
{
	struct json *flags = json_array(), *item = json_object();

	if (b->inconsistent)
		json_append_take(flags, json_string("in-use"));
	if (b->enabled)
		json_append_take(flags, json_string("auto"));
	set(item, "flags", flags);
	set(item, "name", json_string(b->name));
	set(item, "granularity", json_uint(b->granularity));
	return item;
}

/* Of an image that is written to as they are now. */
static int put_bitmaps(struct image *img, struct json *data, struct err *err)
{
	struct bitmap_info *list;
	struct json *array;
	size_t n;
	int ret = bitmap_list(img, &list, &n, err);

	if (ret)
		return ret;
	array = n ? json_array() : NULL;
	for (size_t i = 0; i < n; i++)
		json_append_take(array, bitmap_json(&list[i]));
	if (n)
		set(data, "bitmaps", array);
	bitmap_list_free(list, n);
	return 0;
}

/* Keys and slots of luks belong to who opens it. */
static struct json *encrypt_json(const struct qcow2 *q)
{
	struct json *obj = json_object();

	set(obj, "format", json_string(q->crypt_method == 1 ? "aes" : "luks"));
	return obj;
}

static int put_data(struct image *img, struct json *data, struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);
	bool v3 = q->version >= 3;
	int ret = 0;

	set(data, "compat", json_string(v3 ? "1.1" : "0.10"));
	set(data, "compression-type",
	    json_string(q->compression ? "zstd" : "zlib"));
	if (v3) {
		set(data, "lazy-refcounts",
		    json_bool(q->compat & QCOMPAT_LAZY_REFCOUNTS));
		ret = put_bitmaps(img, data, err);
	}
	set(data, "refcount-bits", json_int(1 << q->refcount_order));
	if (q->incompat & QINCOMPAT_DATA_FILE && q->data_file)
		set(data, "data-file", json_string(q->data_file));
	if (q->crypt_method)
		set(data, "encrypt", encrypt_json(q));
	if (q->incompat & QINCOMPAT_DATA_FILE)
		set(data, "data-file-raw",
		    json_bool(q->autoclear & QAUTOCLEAR_DATA_RAW));
	if (!v3)
		return ret;
	set(data, "corrupt", json_bool(q->incompat & QINCOMPAT_CORRUPT));
	set(data, "extended-l2", json_bool(q->incompat & QINCOMPAT_EXTL2));
	return ret;
}

int qcow2_info(struct image *img, struct image_info *info, struct err *err)
{
	const struct qcow2 *q = qcow2_of(img);
	struct json *data = json_object();
	int ret;

	info->cluster_size = img->unit;
	info->encrypted = q->crypt_method;
	info->has_dirty = true;
	info->dirty = q->incompat & QINCOMPAT_DIRTY;
	info->specific = json_object();
	set(info->specific, "type", json_string("qcow2"));
	set(info->specific, "data", data);
	ret = put_data(img, data, err);
	return ret ? ret : qcow2_snapshot_ops.list(img, &info->snapshots,
						   &info->nr_snapshots, err);
}
