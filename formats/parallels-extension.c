/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parallels-extension.c - the Format Extension (parallels.md): one cluster with
 * a checksum and features, of which dirty bitmaps are known.
 *
 * Everything in it is an attacker's; it is only read.
 */
#include "parallels.h"

#include "json.h"

#include <inttypes.h>
#include <nettle/md5.h>
#include <stdio.h>

enum {
	XH_MAGIC = 0,
	XH_MD5 = 8,
	XH_FEATURES = 24,
	XF_MAGIC = 0,           /* of a feature */
	XF_FLAGS = 8,
	XF_SIZE = 16,
	XF_DATA = 24,
	XB_SIZE = 0,            /* of a dirty bitmap */
	XB_ID = 8,
	XB_GRANULARITY = 24,
	XB_L1_SIZE = 28,
	XB_L1 = 32,
};

#define EXTENSION_MAGIC UINT64_C(0xab234cef23dcea87)
#define BITMAP_MAGIC UINT64_C(0x20385fae252cb34a)
#define FLAG_NECESSARY 1u

static struct json *bitmap_json(const unsigned char *b)
{
	struct json *obj = json_object();
	char name[40];
	size_t at = 0;

	for (unsigned i = 0; i < 16; i++) {
		bool dash = i == 4 || i == 6 || i == 8 || i == 10;

		at += (size_t)snprintf(name + at, sizeof(name) - at, "%s%02x",
				       dash ? "-" : "", b[XB_ID + i]);
	}
	json_set_take(obj, "name", json_string(name));
	json_set_take(obj, "granularity", json_uint(
		(uint64_t)le32_at(b + XB_GRANULARITY) * SECTOR_SIZE));
	return obj;
}

static int take_feature(struct parallels *p, const unsigned char *f,
			uint32_t len, struct err *err)
{
	uint64_t magic = le64_at(f + XF_MAGIC);
	const unsigned char *b = f + XF_DATA;

	if (magic != BITMAP_MAGIC)
		return le64_at(f + XF_FLAGS) & FLAG_NECESSARY ?
		       err_set(err, -ENOTSUP, "Unknown Parallels feature %#"
			       PRIx64, magic) : 0;
	if (len < XB_L1 || !is_pow2(le32_at(b + XB_GRANULARITY)) ||
	    (len - XB_L1) / 8 < le32_at(b + XB_L1_SIZE))
		return err_set(err, -EINVAL, "Broken dirty bitmap in the"
			       " Parallels Format Extension");
	if (!p->bitmaps)
		p->bitmaps = json_array();
	json_append_take(p->bitmaps, bitmap_json(b));
	return 0;
}

static int take_features(struct parallels *p, const unsigned char *x,
			 uint64_t len, struct err *err)
{
	uint64_t at = XH_FEATURES;
	int ret = 0;

	while (!ret && range_within(at, XF_DATA, len)) {
		uint32_t n = le32_at(x + at + XF_SIZE);

		if (!le64_at(x + at + XF_MAGIC))
			return 0;
		if (!range_within(at + XF_DATA, n, len))
			break;
		ret = take_feature(p, x + at, n, err);
		at += round_up(XF_DATA + (uint64_t)n, 8);
	}
	return ret ? ret : err_set(err, -EINVAL, "The Parallels Format"
				   " Extension has no end");
}

static int check_sum(const unsigned char *x, uint64_t len, struct err *err)
{
	unsigned char sum[MD5_DIGEST_SIZE];
	struct md5_ctx md5;

	md5_init(&md5);
	md5_update(&md5, len - XH_FEATURES, x + XH_FEATURES);
	md5_digest(&md5, sizeof(sum), sum);
	return memcmp(sum, x + XH_MD5, sizeof(sum)) ?
	       err_set(err, -EINVAL, "Wrong checksum in Format Extension"
		       " header. Format extension is corrupted.") : 0;
}

int parallels_extension_open(struct image *img, struct err *err)
{
	struct parallels *p = parallels_of(img);
	autofree unsigned char *x = NULL;
	int ret;

	if (p->extension > INT64_MAX / SECTOR_SIZE)
		return err_set(err, -EINVAL, "The Parallels Format Extension is"
			       " out of reach");
	x = malloc(img->unit);
	if (!x)
		return -ENOMEM;
	ret = file_read(img->file, x, img->unit, p->extension * SECTOR_SIZE);
	if (ret)
		return err_errno(err, ret, "Failed to read Format Extension"
				 " cluster");
	if (img->unit < XH_FEATURES + XF_DATA ||
	    le64_at(x + XH_MAGIC) != EXTENSION_MAGIC)
		return err_set(err, -EINVAL, "Wrong parallels Format Extension"
			       " magic: 0x%" PRIx64 ", expected: 0x%" PRIx64,
			       le64_at(x + XH_MAGIC), EXTENSION_MAGIC);
	ret = check_sum(x, img->unit, err);
	return ret ? ret : take_features(p, x, img->unit, err);
}

void parallels_extension_free(struct image *img)
{
	json_free(parallels_of(img)->bitmaps);
	parallels_of(img)->bitmaps = NULL;
}
