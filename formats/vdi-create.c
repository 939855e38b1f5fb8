/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdi-create.c - new VDI images, dynamic and static (vdi.md).
 *
 * Knows the header and the first map.  A static image has all its blocks, in
 * order, in a file of full length; how much of that takes space is the
 * protocol's option.
 */
#include "vdi.h"

#include <inttypes.h>
#include <sys/random.h>

static const char text[] = "<<< QEMU VM Virtual Disk Image >>>\n";

const struct option_spec vdi_create_options[] = {
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ "static", OPTION_BOOL, "VDI static (pre-allocated) image", "off" },
	{ NULL, OPTION_STRING, NULL, NULL },
};

int vdi_create_check(const struct options *o, uint64_t size, struct err *err)
{
	enum preallocation mode;
	int ret;

	ret = preallocation_parse(options_str(o, "preallocation", NULL),
				  &mode, err);
	if (ret)
		return ret;
	if (mode == PREALLOC_METADATA)
		return err_set(err, -ENOTSUP, "Unsupported preallocation mode:"
			       " metadata");
	if (size > VDI_SIZE_MAX)
		return err_set(err, -ENOTSUP, "Unsupported VDI image size (size"
			       " is 0x%" PRIx64 ", max supported is 0x%" PRIx64
			       ")", size, VDI_SIZE_MAX);
	return 0;
}

static int put_header(struct file *f, uint64_t size, bool is_static,
		      uint64_t data)
{
	uint32_t blocks = (uint32_t)div_up(size, VDI_BLOCK);
	unsigned char h[VH_LENGTH] = { 0 };

	memcpy(h + VH_TEXT, text, sizeof(text) - 1);
	le32_put(h + VH_SIGNATURE, VDI_SIGNATURE);
	le32_put(h + VH_VERSION, VDI_VERSION_1_1);
	le32_put(h + VH_HEADER_SIZE, 0x180);
	le32_put(h + VH_TYPE, is_static ? VDI_STATIC : VDI_DYNAMIC);
	le32_put(h + VH_MAP, VH_LENGTH);
	le32_put(h + VH_DATA, (uint32_t)data);
	le32_put(h + VH_SECTOR, SECTOR_SIZE);
	le64_put(h + VH_DISK, size);
	le32_put(h + VH_BLOCK, VDI_BLOCK);
	le32_put(h + VH_BLOCKS, blocks);
	le32_put(h + VH_ALLOCATED, is_static ? blocks : 0);
	if (getrandom(h + VH_UUID, 2 * VDI_UUID, 0) != 2 * VDI_UUID)
		return -EIO;
	/* Version 4, variant 1 of both. */
	for (unsigned i = 0; i < 2; i++) {
		unsigned char *uuid = h + VH_UUID + i * VDI_UUID;

		uuid[7] = (uuid[7] & 0x0f) | 0x40;
		uuid[8] = (uuid[8] & 0x3f) | 0x80;
	}
	return file_write(f, h, sizeof(h), 0);
}

/* The map in pieces: of the largest disk it is 2 GiB. */
static int put_map(struct file *f, uint32_t blocks, bool is_static,
		   uint64_t data)
{
	enum { PIECE = 64 * 1024 };
	autofree unsigned char *buf = malloc(PIECE);
	uint64_t i = 0;
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t at = VH_LENGTH; !ret && at < data; at += PIECE) {
		size_t n = min_u64(PIECE, data - at);

		memset(buf, 0, n);
		for (size_t k = 0; k < n && i < blocks; k += 4, i++)
			le32_put(buf + k, is_static ? (uint32_t)i : VDI_FREE);
		ret = file_write(f, buf, n, at);
	}
	return ret;
}

int vdi_create(struct file *f, const struct options *o, uint64_t size,
	       struct err *err)
{
	bool is_static = options_bool(o, "static", false);
	uint32_t blocks = (uint32_t)div_up(size, VDI_BLOCK);
	uint64_t data = VH_LENGTH + round_up(4 * (uint64_t)blocks, SECTOR_SIZE);
	int ret = put_map(f, blocks, is_static, data);

	if (!ret && is_static)
		ret = file_truncate(f, data + (uint64_t)blocks * VDI_BLOCK);
	if (!ret)
		ret = put_header(f, size, is_static, data);
	return ret ? err_errno(err, ret, "Could not write the image") : 0;
}
