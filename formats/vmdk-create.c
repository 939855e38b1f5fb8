/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-create.c - new VMDK images in QEMU's layout (vmdk.md 2, 3): a descriptor
 * and its extents, which lie beside it and are called after it.
 *
 * Knows how an empty extent looks.  Refuses to know how one is read.
 */
#include "vmdk.h"

#include "spec.h"
#include "strbuf.h"

#include <inttypes.h>
#include <stdio.h>

#define KDMV 0x564d444bu
#define GRAIN 128u              /* sectors */
#define GTES 512u
#define DESC_AT 1u              /* sectors */
#define DESC_SECTORS 20u
#define PART (4194304u)         /* sectors of an extent of a split image */
#define MAX_TABLES (UINT64_C(128) << 20)

const struct option_spec vmdk_create_options[] = {
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ "adapter_type", OPTION_STRING, "Virtual adapter type, can be one of"
	  " ide (default), lsilogic, buslogic or legacyESX", NULL },
	{ "backing_file", OPTION_STRING, "File name of a base image", NULL },
	{ "backing_fmt", OPTION_STRING, "Must be 'vmdk' if present", NULL },
	{ "compat6", OPTION_BOOL, "VMDK version 6 image", "off" },
	{ "hwversion", OPTION_STRING, "VMDK hardware version", "undefined" },
	{ "toolsversion", OPTION_STRING, "VMware guest tools version", NULL },
	{ "subformat", OPTION_STRING, "VMDK flat extent format, can be one of"
	  " {monolithicSparse (default) | monolithicFlat |"
	  " twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
	  NULL },
	{ "zeroed_grain", OPTION_BOOL, "Enable efficient zero writes using the"
	  " zeroed-grain GTE feature", NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

/* ---- what is asked for --------------------------------------------------- */

static const struct subformat {
	const char *name;
	bool flat, split, packed;
} subformats[] = {
	{ "monolithicSparse", false, false, false },
	{ "monolithicFlat", true, false, false },
	{ "twoGbMaxExtentSparse", false, true, false },
	{ "twoGbMaxExtentFlat", true, true, false },
	{ "streamOptimized", false, false, true },
};

static const struct adapter {
	const char *name;
	unsigned heads;
} adapters[] = {
	{ "ide", 16 }, { "lsilogic", 255 }, { "buslogic", 255 },
	{ "legacyESX", 255 },
};

static const struct subformat *want_subformat(const struct options *o)
{
	const char *name = options_str(o, "subformat", subformats[0].name);

	for (size_t i = 0; i < ARRAY_SIZE(subformats); i++)
		if (!strcmp(name, subformats[i].name))
			return &subformats[i];
	return NULL;
}

static const struct adapter *want_adapter(const struct options *o)
{
	const char *name = options_str(o, "adapter_type", adapters[0].name);

	for (size_t i = 0; i < ARRAY_SIZE(adapters); i++)
		if (!strcmp(name, adapters[i].name))
			return &adapters[i];
	return NULL;
}

static bool has_hwversion(const struct options *o)
{
	return strcmp(options_str(o, "hwversion", "undefined"), "undefined");
}

/* What goes into the descriptor between quotes stays on its line. */
static int check_words(const struct options *o, struct err *err)
{
	static const char *const names[] = {
		"hwversion", "toolsversion", "backing_file",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strpbrk(options_str(o, names[i], ""), "\"\r\n"))
			return err_set(err, -EINVAL, "%s must not contain a"
				       " quotation mark or a new line",
				       names[i]);
	if (strlen(options_str(o, "backing_file", "")) > 1023)
		return err_set(err, -EINVAL, "Backing file name too long");
	return 0;
}

int vmdk_create_check(const struct options *o, uint64_t size, struct err *err)
{
	const struct subformat *sub = want_subformat(o);

	if (!want_adapter(o))
		return err_set(err, -EINVAL, "invalid parameter value: %s",
			       options_str(o, "adapter_type", ""));
	if (!sub)
		return err_set(err, -EINVAL, "invalid parameter value: %s",
			       options_str(o, "subformat", ""));
	if (options_bool(o, "compat6", false) && has_hwversion(o))
		return err_set(err, -EINVAL, "compat6 cannot be enabled with"
			       " hwversion set");
	if (strcmp(options_str(o, "backing_fmt", "vmdk"), "vmdk"))
		return err_set(err, -EINVAL,
			       "backing_file must be a vmdk image");
	if (sub->flat && options_has(o, "backing_file"))
		return err_set(err, -ENOTSUP, "Flat image can't have backing"
			       " file");
	if (sub->flat && options_bool(o, "zeroed_grain", false))
		return err_set(err, -ENOTSUP, "Flat image can't enable zeroed"
			       " grain");
	if (size > MAX_TABLES * GTES * GRAIN * SECTOR_SIZE)
		return err_set(err, -EFBIG, "The image size is too large for"
			       " file format 'vmdk'");
	return check_words(o, err);
}

/* ---- sparse extents ------------------------------------------------------ */

struct layout {
	uint64_t capacity, tables, gd_sectors, rgd, gd, overhead;
};

static struct layout layout_of(uint64_t sectors)
{
	struct layout l = { .capacity = sectors };

	l.tables = div_up(sectors, GTES * GRAIN);
	l.gd_sectors = div_up(l.tables * 4, SECTOR_SIZE);
	l.rgd = DESC_AT + DESC_SECTORS;
	l.gd = l.rgd + l.gd_sectors + l.tables * (GTES * 4 / SECTOR_SIZE);
	l.overhead = round_up(l.gd + l.gd - l.rgd, GRAIN);
	return l;
}

static void put_header(unsigned char *h, const struct layout *l, bool zeroes,
		       bool packed)
{
	le32_put(h, KDMV);
	le32_put(h + 4, packed ? 3 : zeroes ? 2 : 1);
	le32_put(h + 8, 3 | (zeroes ? 4 : 0) | (packed ? 0x30000 : 0));
	le64_put(h + 12, l->capacity);
	le64_put(h + 20, GRAIN);
	le64_put(h + 28, DESC_AT);
	le64_put(h + 36, DESC_SECTORS);
	le32_put(h + 44, GTES);
	le64_put(h + 48, l->rgd);
	le64_put(h + 56, l->gd);
	le64_put(h + 64, l->overhead);
	memcpy(h + 73, "\n \r\n", 4);
	h[77] = packed ? 1 : 0;
}

/* The directory at sector @gd; its tables follow it. */
static int write_directory(struct file *f, const struct layout *l, uint64_t gd)
{
	unsigned char buf[4096];
	uint64_t first = gd + l->gd_sectors;
	int ret = 0;

	for (uint64_t i = 0, n; !ret && i < l->tables; i += n) {
		n = min_u64(sizeof(buf) / 4, l->tables - i);
		for (uint64_t k = 0; k < n; k++)
			le32_put(buf + 4 * k, (uint32_t)(first + (i + k) *
				 (GTES * 4 / SECTOR_SIZE)));
		ret = file_write(f, buf, 4 * n, gd * SECTOR_SIZE + 4 * i);
	}
	return ret;
}

static int write_sparse(struct file *f, uint64_t sectors,
			const struct options *o, bool packed)
{
	struct layout l = layout_of(sectors);
	unsigned char h[SECTOR_SIZE] = { 0 };
	int ret = file_truncate(f, l.overhead * SECTOR_SIZE);

	put_header(h, &l, options_bool(o, "zeroed_grain", false), packed);
	if (!ret)
		ret = write_directory(f, &l, l.rgd);
	if (!ret)
		ret = write_directory(f, &l, l.gd);
	return ret ? ret : file_write(f, h, sizeof(h), 0);
}

/* ---- extents beside the descriptor --------------------------------------- */

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* "x.vmdk" -> "x-s001.vmdk", "x-flat.vmdk" */
static char *extent_path(const char *path, const struct subformat *sub,
			 unsigned number)
{
	const char *dot = strrchr(base_of(path), '.');
	size_t stem = dot ? (size_t)(dot - path) : strlen(path);
	struct strbuf sb = STRBUF_INIT;

	strbuf_add(&sb, path, stem);
	if (sub->split)
		strbuf_printf(&sb, "-%c%03u", sub->flat ? 'f' : 's', number);
	else
		strbuf_puts(&sb, "-flat");
	strbuf_puts(&sb, path + stem);
	return strbuf_take(&sb);
}

static int write_extent(struct file *f, const struct subformat *sub,
			uint64_t sectors, const struct options *o,
			struct err *err)
{
	const unsigned perms = PERM_WRITE | PERM_RESIZE;
	int ret = file_lock(f, perms, perms, err);

	if (!ret)
		ret = file_truncate(f, 0);
	if (!ret && sub->flat)
		ret = file_truncate(f, sectors * SECTOR_SIZE);
	else if (!ret)
		ret = write_sparse(f, sectors, o, false);
	return ret ? ret : file_sync(f);
}

/* An extent that was not there before goes again when it cannot be made. */
static int make_extent(const char *path, const struct subformat *sub,
		       uint64_t sectors, const struct options *o,
		       struct err *err)
{
	const unsigned flags = FILE_RDWR | FILE_CREATE;
	struct file *f;
	bool made = true;
	int ret = file_open_path(path, flags | FILE_EXCL, NULL, &f, NULL);

	if (ret == -EEXIST) {
		made = false;
		ret = file_open_path(path, flags, NULL, &f, NULL);
	}
	if (ret)
		return err_errno(err, ret, "Could not create '%s'", path);
	ret = write_extent(f, sub, sectors, o, err);
	file_unref(f);
	if (ret && made)
		unlink(path);
	return ret ? err_errno(err, ret, "Could not create '%s'", path) : 0;
}

static int make_extents(const char *path, const struct subformat *sub,
			uint64_t sectors, const struct options *o,
			struct strbuf *lines, struct err *err)
{
	uint64_t part = sub->split ? PART : sectors;
	unsigned number = 1;
	int ret = 0;

	for (uint64_t n; !ret && sectors; sectors -= n) {
		autofree char *name = extent_path(path, sub, number++);

		n = min_u64(part, sectors);
		ret = make_extent(name, sub, n, o, err);
		strbuf_printf(lines, "RW %" PRIu64 " %s \"%s\"%s\n", n,
			      sub->flat ? "FLAT" : "SPARSE", base_of(name),
			      sub->flat ? " 0" : "");
	}
	return ret;
}

/* ---- the descriptor ------------------------------------------------------ */

/* Children remember what their parent was like. */
static int parent_cid(const char *path, const struct options *o, uint32_t *cid,
		      struct err *err)
{
	const char *name = options_str(o, "backing_file", NULL);
	const char *fmt = options_str(o, "backing_fmt", NULL);
	struct image_args args = {
		.flags = IMAGE_NO_BACKING, .cache = CACHE_WRITEBACK,
	};
	autojson *node = NULL;
	struct image *img;
	int ret;

	*cid = VMDK_NO_PARENT;
	if (!name)
		return 0;
	ret = spec_parse_child(name, path, fmt, &node, err);
	args.node = node;
	if (!ret)
		ret = image_open(&args, &img, err);
	if (ret)
		return ret;
	if (strcmp(img->fmt->name, "vmdk"))
		ret = err_set(err, -EINVAL,
			      "backing_file must be a vmdk image");
	else
		*cid = vmdk_of(img)->cid;
	image_close(img);
	return ret;
}

static void describe(struct strbuf *sb, const struct options *o,
		     uint64_t sectors, uint32_t parent, const char *lines)
{
	const struct adapter *a = want_adapter(o);
	const char *hint = options_str(o, "backing_file", NULL);
	const char *hw = options_bool(o, "compat6", false) ? "6" :
			 has_hwversion(o) ? options_str(o, "hwversion", "") :
			 "4";

	strbuf_printf(sb, "# Disk DescriptorFile\nversion=1\nCID=%" PRIx32
		      "\nparentCID=%" PRIx32 "\ncreateType=\"%s\"\n",
		      vmdk_new_cid(), parent, want_subformat(o)->name);
	if (hint)
		strbuf_printf(sb, "parentFileNameHint=\"%s\"\n", hint);
	else
		strbuf_puts(sb, "\n");
	strbuf_printf(sb, "# Extent description\n%s\n", lines);
	strbuf_printf(sb, "# The Disk Data Base\n#DDB\n\n"
		      "ddb.virtualHWVersion = \"%s\"\n"
		      "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
		      "ddb.geometry.heads = \"%u\"\n"
		      "ddb.geometry.sectors = \"63\"\n"
		      "ddb.adapterType = \"%s\"\n"
		      "ddb.toolsVersion = \"%s\"\n", hw,
		      sectors / (63 * a->heads), a->heads, a->name,
		      options_str(o, "toolsversion", "2147483647"));
}

int vmdk_create(struct file *f, const struct options *o, uint64_t size,
		struct err *err)
{
	const struct subformat *sub = want_subformat(o);
	bool beside = sub->flat || sub->split;
	uint64_t sectors = size / SECTOR_SIZE;
	autostrbuf lines = STRBUF_INIT, text = STRBUF_INIT;
	uint32_t parent;
	int ret = parent_cid(f->name, o, &parent, err);

	if (ret)
		return ret;
	strbuf_puts(&lines, "");
	if (beside)
		ret = make_extents(f->name, sub, sectors, o, &lines, err);
	else
		strbuf_printf(&lines, "RW %" PRIu64 " SPARSE \"%s\"\n",
			      sectors, base_of(f->name));
	describe(&text, o, sectors, parent, lines.text);
	if (!ret && !beside && text.len > DESC_SECTORS * SECTOR_SIZE)
		return err_set(err, -EINVAL, "The descriptor is too long");
	if (!ret && !beside)
		ret = write_sparse(f, sectors, o, sub->packed);
	if (!ret)
		ret = file_write(f, text.text, text.len,
				 beside ? 0 : DESC_AT * SECTOR_SIZE);
	return ret ? err_errno(err, ret, "Could not write the new image") : 0;
}
