/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vpc-create.c - new VHDs, dynamic and fixed (vpc.md).
 *
 * Knows Microsoft's geometry and how QEMU rounds a size up to it, unless
 * force_size asks for the exact one.  Beyond QEMU: subformat=azure is a fixed
 * image of whole MiB, which that cloud asks for.
 */
#include "vpc.h"

#include <inttypes.h>
#include <sys/random.h>
#include <time.h>

#define EPOCH_2000 946684800
#define BLOCK 0x200000u
#define TABLE 1536u

const struct option_spec vpc_create_options[] = {
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ "subformat", OPTION_STRING, "Type of virtual hard disk format."
	  " Supported formats are {dynamic (default) | fixed} ", NULL },
	{ "force_size", OPTION_BOOL, "Force disk size calculation to use the"
	  " actual size specified, rather than using the nearest CHS-based"
	  " calculation", NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

struct geometry {
	uint64_t cylinders;
	unsigned heads, sectors;
	uint64_t total;         /* sectors of the disk */
};

static void geometry_of(uint64_t total, struct geometry *g)
{
	uint64_t t = min_u64(total, VPC_CHS_MAX), per;

	if (t >= (uint64_t)65535 * 16 * 63) {
		g->sectors = 255;
		g->heads = 16;
	} else {
		per = t / 17;
		g->sectors = 17;
		g->heads = (unsigned)max_u64(4, div_up(per, 1024));
		if (per >= g->heads * UINT64_C(1024) || g->heads > 16) {
			g->sectors = 31;
			g->heads = 16;
			per = t / 31;
		}
		if (per >= 16 * 1024) {
			g->sectors = 63;
			g->heads = 16;
		}
	}
	g->cylinders = t / g->sectors / g->heads;
	g->total = g->cylinders * g->heads * g->sectors;
}

static int choose(uint64_t sectors, bool force, struct geometry *g,
		  struct err *err)
{
	*g = (struct geometry) { 65535, 16, 255, sectors };
	if (sectors > VPC_SECTORS_MAX)
		return err_set(err, -EFBIG, "The image size is too large for"
			       " file format 'vpc'");
	if (force || sectors > VPC_CHS_MAX)
		return 0;
	if (!sectors)
		*g = (struct geometry) { 0, 0, 0, 0 };
	for (uint64_t i = 0; sectors; i++) {
		geometry_of(sectors + i, g);
		if (g->total >= sectors)
			return 0;
	}
	return 0;
}

static bool is_azure(const struct options *o)
{
	return !probe_as_qemu &&
	       !strcmp(options_str(o, "subformat", "dynamic"), "azure");
}

static bool is_fixed(const struct options *o)
{
	return !strcmp(options_str(o, "subformat", "dynamic"), "fixed") ||
	       is_azure(o);
}

static int choose_by(const struct options *o, uint64_t size,
		     struct geometry *g, struct err *err)
{
	if (is_azure(o))
		size = round_up(size, MiB);
	return choose(size / SECTOR_SIZE, is_azure(o) ||
		      options_bool(o, "force_size", false), g, err);
}

int vpc_create_check(const struct options *o, uint64_t size, struct err *err)
{
	const char *sub = options_str(o, "subformat", "dynamic");
	struct geometry g;

	if (!is_fixed(o) && strcmp(sub, "dynamic"))
		return err_set(err, -EINVAL, "Parameter 'subformat' does not"
			       " accept value '%s'", sub);
	return choose_by(o, size, &g, err);
}

static int fill_footer(unsigned char *f, const struct geometry *g, bool fixed,
		       bool force)
{
	memset(f, 0, VF_LENGTH);
	memcpy(f + VF_COOKIE, "conectix", 8);
	be32_put(f + VF_FEATURES, 2);
	be32_put(f + VF_VERSION, 0x10000);
	be64_put(f + VF_DATA, fixed ? UINT64_MAX : VF_LENGTH);
	be32_put(f + VF_TIME, (uint32_t)(time(NULL) - EPOCH_2000));
	memcpy(f + VF_APP, force ? "qem2" : "qemu", 4);
	be32_put(f + VF_APP_VERSION, 0x50003);
	memcpy(f + VF_OS, "Wi2k", 4);
	be64_put(f + VF_ORIGINAL, g->total * SECTOR_SIZE);
	be64_put(f + VF_SIZE, g->total * SECTOR_SIZE);
	be16_put(f + VF_CYLINDERS, (uint16_t)g->cylinders);
	f[VF_HEADS] = (unsigned char)g->heads;
	f[VF_SECTORS] = (unsigned char)g->sectors;
	be32_put(f + VF_TYPE, fixed ? VPC_FIXED : VPC_DYNAMIC);
	if (getrandom(f + VF_UUID, VPC_UUID, 0) != VPC_UUID)
		return -EIO;
	f[VF_UUID + 6] = (f[VF_UUID + 6] & 0x0f) | 0x40;
	f[VF_UUID + 8] = (f[VF_UUID + 8] & 0x3f) | 0x80;
	vpc_seal_footer(f);
	return 0;
}

static int put_dynamic(struct file *f, const unsigned char *footer,
		       uint64_t size)
{
	uint32_t entries = (uint32_t)div_up(size, BLOCK);
	size_t len = round_up(4 * (uint64_t)entries, SECTOR_SIZE);
	autofree unsigned char *table = malloc(len + 1);
	unsigned char h[VD_LENGTH] = { 0 };
	int ret = table ? 0 : -ENOMEM;

	if (ret)
		return ret;
	memset(table, 0xff, len);
	memcpy(h + VD_COOKIE, "cxsparse", 8);
	be64_put(h + VD_DATA, UINT64_MAX);
	be64_put(h + VD_TABLE, TABLE);
	be32_put(h + VD_VERSION, 0x10000);
	be32_put(h + VD_ENTRIES, entries);
	be32_put(h + VD_BLOCK, BLOCK);
	be32_put(h + VD_CHECKSUM, vpc_checksum(h, VD_LENGTH, VD_CHECKSUM));
	ret = file_write(f, h, sizeof(h), VF_LENGTH);
	if (!ret)
		ret = file_write(f, table, len, TABLE);
	if (!ret)
		ret = file_write(f, footer, VF_LENGTH, TABLE + len);
	return ret ? ret : file_write(f, footer, VF_LENGTH, 0);
}

int vpc_create(struct file *f, const struct options *o, uint64_t size,
	       struct err *err)
{
	bool force = options_bool(o, "force_size", false) || is_azure(o);
	bool fixed = is_fixed(o);
	unsigned char footer[VF_LENGTH];
	struct geometry g;
	int ret = choose_by(o, size, &g, err);

	if (ret)
		return ret;
	size = g.total * SECTOR_SIZE;
	ret = fill_footer(footer, &g, fixed, force);
	if (!ret && !fixed)
		ret = put_dynamic(f, footer, size);
	if (!ret && fixed)
		ret = file_write(f, footer, VF_LENGTH, size);
	return ret ? err_errno(err, ret, "Unable to create or write VHD"
			       " header") : 0;
}
