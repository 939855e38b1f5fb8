/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * raw.c - the guest's disk stored one to one (raw.md).
 *
 * Knows the window that the options "offset" and "size" cut out of the file,
 * how a file's length becomes a virtual size, and what a new raw image looks
 * like.  Refuses to know about holes: they are the file's, and the engine asks
 * it about them.
 */
#include "blockcore.h"
#include "json.h"
#include "measure.h"

#include <inttypes.h>

#define CREATE_CLEAR 4096u      /* bytes that a create overwrites */

struct raw {
	uint64_t offset;        /* where the disk begins in the file */
	bool fixed;             /* "size" was given */
};

/* ---- opening ------------------------------------------------------------- */

static int bad_number(const char *key, struct err *err)
{
	err_set(err, -EINVAL, "Parameter '%s' expects a non-negative number"
		" below 2^64", key);
	err_hint(err, "Optional suffix k, M, G, T, P or E means kilo-, mega-,"
		 " giga-, tera-, peta-\nand exabytes, respectively.\n");
	return -EINVAL;
}

static int size_from_text(const char *key, const char *text, uint64_t *out,
			  struct err *err)
{
	switch (size_parse(text, out)) {
	case SIZE_OK:
		return 0;
	case SIZE_RANGE:
		return err_set(err, -EINVAL, "Value '%s' is out of range for"
			       " parameter '%s'", text, key);
	default:
		return bad_number(key, err);
	}
}

/* The size at @key of the node.  1: given, 0: not given, or an error. */
static int node_size(const struct json *node, const char *key, uint64_t *out,
		     struct err *err)
{
	const struct json *v = json_get(node, key);
	int ret = 0;

	/* QEMU takes null and empty containers for "not given". */
	if (!v || v->type == JSON_NULL ||
	    ((v->type == JSON_ARRAY || v->type == JSON_OBJECT) && !v->n))
		return 0;
	if (v->type == JSON_STRING)
		ret = size_from_text(key, v->s, out, err);
	else if (v->type == JSON_INT && v->i >= 0)
		*out = (uint64_t)v->i;
	else if (v->type == JSON_UINT)
		*out = v->u;
	else
		ret = bad_number(key, err);
	return ret ? ret : 1;
}

/* Virtual sizes and file lengths are whole sectors, rounded up. */
static uint64_t whole_sectors(uint64_t bytes)
{
	return bytes > UINT64_MAX - SECTOR_SIZE ?
	       round_down(UINT64_MAX, SECTOR_SIZE) :
	       round_up(bytes, SECTOR_SIZE);
}

static int window_check(uint64_t offset, bool has_size, uint64_t size,
			uint64_t length, struct err *err)
{
	if (offset > length)
		return err_set(err, -EINVAL, "Offset (%" PRIu64 ") cannot be"
			       " greater than size of the containing file (%"
			       PRIu64 ")", offset, length);
	if (!has_size)
		return 0;
	if (size > length - offset)
		return err_set(err, -EINVAL, "The sum of offset (%" PRIu64
			       ") and size (%" PRIu64 ") has to be smaller or"
			       " equal to the  actual size of the containing"
			       " file (%" PRIu64 ")", offset, size, length);
	if (size % SECTOR_SIZE)
		return err_set(err, -EINVAL, "Specified size is not multiple"
			       " of %u", SECTOR_SIZE);
	return 0;
}

static int raw_open(struct image *img, struct err *err)
{
	struct raw *raw = img->priv;
	uint64_t offset = 0, size = 0, length;
	int has_size, ret;

	ret = node_size(img->node, "offset", &offset, err);
	if (ret < 0)
		return ret;
	has_size = node_size(img->node, "size", &size, err);
	if (has_size < 0)
		return has_size;
	ret = file_size(img->file, &length);
	if (ret)
		return err_errno(err, ret, "Could not get image size");
	length = whole_sectors(length);
	ret = window_check(offset, has_size, size, length, err);
	if (ret)
		return ret;
	raw->offset = offset;
	raw->fixed = has_size;
	atomic_store(&img->size, has_size ? size :
		     whole_sectors(length - offset));
	img->unit = SECTOR_SIZE;
	img->page = SECTOR_SIZE;
	img->align = 1;
	return 0;
}

/* Last in the table: what nobody else knows is raw. */
static int raw_probe(const struct probe *p)
{
	(void)p;
	return 1;
}

static int raw_map(const struct view *v, uint64_t off, uint64_t len,
		   struct extent *ext)
{
	const struct raw *raw = v->img->priv;

	*ext = (struct extent) {
		.kind = EXT_DATA,
		.off = off,
		.len = len,
		.file = v->img->file,
		.host = raw->offset + off,
	};
	return 0;
}

/* ---- creating ------------------------------------------------------------ */

static const struct option_spec raw_create_options[] = {
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

/* The mode itself is the file protocol's option (protocol.c). */
static int raw_create_check(const struct options *o, uint64_t size,
			    struct err *err)
{
	enum preallocation mode;
	int ret = preallocation_parse(options_str(o, "preallocation", NULL),
				      &mode, err);

	(void)size;
	if (ret)
		return ret;
	if (mode == PREALLOC_METADATA)
		return err_set(err, -ENOTSUP, "Unsupported preallocation mode:"
			       " metadata");
	return 0;
}

static int raw_grow_failed(int ret, struct err *err)
{
	if (ret == -EFBIG)
		return err_set(err, ret, "The image size is too large for file"
			       " format 'raw'");
	return err_errno(err, ret, "Could not resize file");
}

static int raw_resize_check(struct image *img, uint64_t size,
			    enum preallocation mode, struct err *err)
{
	const struct raw *raw = img->priv;

	if (mode == PREALLOC_METADATA)
		return err_set(err, -ENOTSUP, "Unsupported preallocation mode:"
			       " metadata");
	if (raw->fixed)
		return err_set(err, -ENOTSUP,
			       "Cannot resize fixed-size raw disks");
	if (size > INT64_MAX - raw->offset)
		return err_errno(err, -EFBIG, "Could not resize file");
	return 0;
}

static int raw_resize(struct image *img, uint64_t size,
		      enum preallocation mode, struct err *err)
{
	const struct raw *raw = img->priv;
	uint64_t old;
	int ret = file_size(img->file, &old);

	if (!ret)
		ret = file_truncate(img->file, raw->offset + size);
	if (ret)
		return err_errno(err, ret, "Could not resize file");
	if (raw->offset + size <= old)
		return 0;
	ret = preallocate(img->file, old, raw->offset + size - old, mode, err);
	if (ret)
		(void)file_truncate(img->file, old);
	return ret;
}

/* The head is overwritten, so that no old signature of a block device is left
 * for probing. */
static int clear_head(struct file *f, uint64_t size, struct err *err)
{
	static const char zeroes[CREATE_CLEAR];
	int ret = file_write(f, zeroes, min_u64(size, CREATE_CLEAR), 0);

	return ret ? err_errno(err, ret, "Could not clear the new image's"
			       " first sector") : 0;
}

static int raw_create(struct file *f, const struct options *o, uint64_t size,
		      struct err *err)
{
	enum preallocation mode;
	int ret;

	ret = preallocation_parse(options_str(o, "preallocation", NULL),
				  &mode, err);
	if (ret)
		return ret;
	ret = file_truncate(f, size);
	if (ret)
		return raw_grow_failed(ret, err);
	if (!size)
		return 0;
	ret = preallocate(f, 0, size, mode, err);
	return ret ? ret : clear_head(f, size, err);
}

static int raw_measure(const struct options *o,
		       const struct measure_source *src, struct measure *m,
		       struct err *err)
{
	(void)o;
	(void)err;
	m->required = m->full = src->size;
	return 0;
}

/* It is never left half-written. */
static int raw_info(struct image *img, struct image_info *info,
		    struct err *err)
{
	(void)img;
	(void)err;
	info->has_dirty = true;
	return 0;
}

static const struct format_admin raw_admin = {
	.create_options = raw_create_options,
	.create_check = raw_create_check,
	.create = raw_create,
	.info = raw_info,
	.measure = raw_measure,
};

const struct format raw_format = {
	.name = "raw",
	.priv_size = sizeof(struct raw),
	.probed_guard = true,
	.no_snapshot_of_size = true,
	.probe = raw_probe,
	.open = raw_open,
	.map = raw_map,
	.resize_check = raw_resize_check,
	.resize = raw_resize,
	.admin = &raw_admin,
};
