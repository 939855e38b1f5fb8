/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhdx-create.c - new VHDX images, laid out as QEMU does (vhdx.md, "Fixed
 * layout"): log, block table, metadata, and the first block 4 MiB behind
 * them.
 */
#include "vhdx.h"

#include <sys/random.h>

#define MAX_LOG (4 * GiB)
#define MIN_BLOCK MiB
#define MAX_BLOCK (256 * MiB)
#define MIN_GAP (5 * MiB)               /* metadata, and nothing */
#define CREATOR "QEMU v7.2.22"          /* what readers know */
#define QEMU_SECTOR 512u
#define CHUNK 65536u

const struct option_spec vhdx_create_options[] = {
	{ "size", OPTION_SIZE, "Virtual disk size; max of 64TB.", NULL },
	{ "log_size", OPTION_SIZE, "Log size; min 1MB.", "1048576" },
	{ "block_size", OPTION_SIZE, "Block Size; min 1MB, max 256MB. 0 means"
	  " auto-calculate based on image size.", "0" },
	{ "subformat", OPTION_STRING, "VHDX format type, can be either"
	  " 'dynamic' or 'fixed'. Default is 'dynamic'.", NULL },
	{ "block_state_zero", OPTION_BOOL, "Force use of payload blocks of"
	  " type 'ZERO'. Non-standard, but default.  Do not set to 'off' when"
	  " using 'qemu-img convert' with subformat=dynamic.", NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

struct layout {
	uint64_t size, block, log, bat, bat_len, meta, entries, ratio, end;
	bool fixed, zero;
};

/* ---- options ------------------------------------------------------------- */

static uint64_t auto_block(uint64_t size)
{
	return size > 32 * TiB ? 64 * MiB : size > 100 * GiB ? 32 * MiB :
	       size > GiB ? 16 * MiB : 8 * MiB;
}

/* As QEMU has it: what is rounded up to nothing is chosen for the size. */
static uint64_t want_block(const struct options *o, uint64_t size)
{
	uint64_t block = round_up(options_num(o, "block_size", 0), MIN_BLOCK);

	return block ? min_u64(block, MAX_BLOCK) : auto_block(size);
}

static uint64_t want_log(const struct options *o)
{
	return round_up(options_num(o, "log_size", MiB), MiB);
}

int vhdx_create_check(const struct options *o, uint64_t size, struct err *err)
{
	const char *sub = options_str(o, "subformat", "dynamic");

	if (size > VHDX_MAX_SIZE)
		return err_set(err, -EINVAL,
			       "Image size too large; max of 64TB");
	if (strcmp(sub, "dynamic") && strcmp(sub, "fixed"))
		return err_set(err, -EINVAL, "Parameter 'subformat' does not"
			       " accept value '%s'", sub);
	if (want_log(o) >= MAX_LOG)
		return err_set(err, -EINVAL,
			       "Log size must be smaller than 4 GB");
	if (!want_log(o))
		return err_set(err, -EINVAL,
			       "Log size must be a multiple of 1 MB");
	if (!is_pow2(want_block(o, size)))
		return err_set(err, -EINVAL,
			       "Block size must be a power of two");
	return 0;
}

static struct layout plan(const struct options *o, uint64_t size)
{
	struct layout l = { .size = size, .block = want_block(o, size) };
	uint64_t blocks = div_up(size, l.block);

	l.log = want_log(o);
	l.ratio = (UINT64_C(1) << 23) * QEMU_SECTOR / l.block;
	/* For no block at all QEMU reserves what this 32-bit sum says. */
	l.entries = blocks + (uint32_t)(blocks - 1) / l.ratio;
	l.bat = MiB + l.log;
	l.bat_len = round_up(8 * l.entries, MiB);
	l.meta = l.bat + l.bat_len;
	l.end = l.meta + MIN_GAP;
	if (!size)
		l.entries = 0;
	l.fixed = !strcmp(options_str(o, "subformat", "dynamic"), "fixed");
	l.zero = options_bool(o, "block_state_zero", true);
	return l;
}

/* ---- the parts ----------------------------------------------------------- */

static int write_id(struct file *f)
{
	unsigned char id[8 + 2 * sizeof(CREATOR)] = { 0 };

	memcpy(id, VHDX_SIGNATURE, 8);
	for (size_t i = 0; i < sizeof(CREATOR); i++)
		id[8 + 2 * i] = (unsigned char)CREATOR[i];
	return file_write(f, id, sizeof(id), 0);
}

static int write_headers(struct file *f, const struct layout *l)
{
	unsigned char h[VHDX_SECTOR] = "head";
	uint32_t seq;
	int ret = getrandom(&seq, sizeof(seq), 0) == sizeof(seq) ? 0 : -EIO;

	vhdx_guid_new(h + H_FILE_GUID);
	vhdx_guid_new(h + H_DATA_GUID);
	h[H_VERSION] = 1;
	le32_put(h + H_LOG_LENGTH, (uint32_t)l->log);
	le64_put(h + H_LOG_OFFSET, MiB);
	for (unsigned i = 0; !ret && i < 2; i++) {
		le64_put(h + H_SEQ, (uint64_t)seq + i);
		vhdx_seal(h, sizeof(h));
		ret = file_write(f, h, sizeof(h), VHDX_TABLE * (i + 1));
	}
	return ret;
}

static void put_region(unsigned char *e, const unsigned char *guid,
		       uint64_t at, uint64_t len)
{
	memcpy(e, guid, 16);
	le64_put(e + ENTRY_OFFSET, at);
	le32_put(e + R_ENTRY_LENGTH, (uint32_t)len);
}

static int write_regions(struct file *f, const struct layout *l)
{
	autofree unsigned char *t = calloc(1, VHDX_TABLE);
	int ret;

	if (!t)
		return -ENOMEM;
	memcpy(t, "regi", 4);
	le32_put(t + R_COUNT, 2);
	put_region(t + R_ENTRIES, vhdx_bat_guid, l->bat, l->bat_len);
	put_region(t + R_ENTRIES + ENTRY, vhdx_metadata_guid, l->meta, MiB);
	vhdx_seal(t, VHDX_TABLE);
	ret = file_write(f, t, VHDX_TABLE, VHDX_REGION_AT);
	if (!ret)
		ret = file_write(f, t, VHDX_TABLE,
				 VHDX_REGION_AT + VHDX_TABLE);
	return ret;
}

static int write_metadata(struct file *f, const struct layout *l)
{
	static const struct { unsigned char at, len, flags; } items[] = {
		[ITEM_PARAMS] = { 0, 8, 4 }, [ITEM_SIZE] = { 8, 8, 6 },
		[ITEM_PAGE83] = { 16, 16, 6 }, [ITEM_LOGICAL] = { 32, 4, 6 },
		[ITEM_PHYSICAL] = { 36, 4, 6 },
	};
	unsigned char t[M_ENTRIES + ENTRY * ITEM_PARENT] = "metadata";
	unsigned char values[40] = { 0 };
	int ret;

	t[M_COUNT] = ITEM_PARENT;
	for (unsigned i = 0; i < ITEM_PARENT; i++) {
		unsigned char *e = t + M_ENTRIES + ENTRY * i;

		memcpy(e, vhdx_item_guid[i], 16);
		le32_put(e + ENTRY_OFFSET, VHDX_TABLE + items[i].at);
		le32_put(e + M_ENTRY_LENGTH, items[i].len);
		le32_put(e + M_ENTRY_FLAGS, items[i].flags);
	}
	le32_put(values, (uint32_t)l->block);
	le32_put(values + 4, l->fixed);
	le64_put(values + 8, l->size);
	vhdx_guid_new(values + 16);
	le32_put(values + 32, QEMU_SECTOR);
	le32_put(values + 36, QEMU_SECTOR);
	ret = file_write(f, t, sizeof(t), l->meta);
	if (!ret)
		ret = file_write(f, values, sizeof(values),
				 l->meta + VHDX_TABLE);
	return ret;
}

/* The entry at @index, which may be a bitmap's. */
static uint64_t entry(const struct layout *l, uint64_t index)
{
	uint64_t block = index - index / (l->ratio + 1);

	if (index % (l->ratio + 1) == l->ratio)
		return 0;
	if (l->zero)
		return BLOCK_ZERO;
	return l->fixed ? (l->end + block * l->block) | BLOCK_PRESENT : 0;
}

static int write_bat(struct file *f, const struct layout *l)
{
	autofree unsigned char *buf = malloc(CHUNK);
	int ret = buf ? 0 : -ENOMEM;

	if (!ret && !l->zero && !l->fixed)
		return 0;
	for (uint64_t i = 0; !ret && i < l->entries; i += CHUNK / 8) {
		uint64_t n = min_u64(CHUNK / 8, l->entries - i);

		for (uint64_t k = 0; k < n; k++)
			le64_put(buf + 8 * k, entry(l, i + k));
		ret = file_write(f, buf, 8 * n, l->bat + 8 * i);
	}
	return ret;
}

/* The signature comes last: before it the file is no image. */
int vhdx_create(struct file *f, const struct options *o, uint64_t size,
		struct err *err)
{
	struct layout l = plan(o, size);
	int ret = file_truncate(f, l.end + (l.fixed ? size : 0));

	if (!ret)
		ret = write_headers(f, &l);
	if (!ret)
		ret = write_regions(f, &l);
	if (!ret)
		ret = write_bat(f, &l);
	if (!ret)
		ret = write_metadata(f, &l);
	if (!ret)
		ret = write_id(f);
	return ret ? err_errno(err, ret, "Could not write the new image") : 0;
}
