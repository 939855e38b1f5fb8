/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vpc-info.c - what info says of a VHD beyond QEMU: where its size is from (vpc.md,
 * "Virtual size rule": the geometry, or the size that is stated, and programs do
 * not agree which), and whether it is what Azure takes: fixed, whole MiB, the
 * footer right behind.
 *
 * Under QEMU's name, and in the layout of 7.2, nothing of it is said.
 */
#include "vpc.h"

#include "json.h"

#include <stdio.h>

static void set(struct json *obj, const char *key, struct json *value)
{
	json_set_take(obj, key, value);
}

static bool azure_takes(const struct image *img)
{
	const struct vpc *v = vpc_of(img);
	uint64_t size = be64_at(v->footer + VF_SIZE);

	return v->fixed && size && size % MiB == 0 &&
	       size == image_size(img) && v->file_end == size + VF_LENGTH;
}

static struct json *geometry(const unsigned char *f)
{
	char text[32];

	snprintf(text, sizeof(text), "%u/%u/%u", be16_at(f + VF_CYLINDERS),
		 f[VF_HEADS], f[VF_SECTORS]);
	return json_string(text);
}

static struct json *creator(const unsigned char *f)
{
	char text[5] = { 0 };

	for (unsigned i = 0; i < 4; i++)
		text[i] = f[VF_APP + i] >= ' ' && f[VF_APP + i] < 127 ?
			  (char)f[VF_APP + i] : ' ';
	return json_string(text);
}

static struct json *details(const struct image *img)
{
	const struct vpc *v = vpc_of(img);
	const unsigned char *f = v->footer;
	struct json *data = json_object();
	uint64_t chs = (uint64_t)be16_at(f + VF_CYLINDERS) * f[VF_HEADS] *
		       f[VF_SECTORS] * SECTOR_SIZE;

	set(data, "subformat", json_string(v->fixed ? "fixed" :
					   v->has_parent ? "differencing" :
							   "dynamic"));
	set(data, "creator", creator(f));
	set(data, "geometry", geometry(f));
	set(data, "geometry-size", json_uint(chs));
	set(data, "stated-size", json_uint(be64_at(f + VF_SIZE)));
	set(data, "size-rule", json_string(v->stated ? "stated-size" :
						       "geometry-size"));
	set(data, "azure-ready", json_bool(azure_takes(img)));
	return data;
}

int vpc_info(struct image *img, struct image_info *info, struct err *err)
{
	(void)err;
	info->cluster_size = vpc_of(img)->fixed ? 0 : img->unit;
	info->has_dirty = true;
	if (probe_as_qemu || qemu_compat() < 100)
		return 0;
	info->specific = json_object();
	set(info->specific, "type", json_string("vpc"));
	set(info->specific, "data", details(img));
	return 0;
}
