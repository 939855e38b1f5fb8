/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk.c - VMware's disks (vmdk.md): a descriptor, alone or inside a sparse
 * file, and the extents that it names, each a file of its own.
 *
 * Knows how extents follow each other and how a layer finds its parent.  Other
 * files than the image's are only reached through child_open().
 */
#include "vmdk.h"

#include "codec.h"
#include "json.h"

#include <inttypes.h>
#include <stdio.h>

#define KDMV 0x564d444bu        /* little-endian */
#define COWD 0x44574f43u
#define TEXT_MAX (1 * MiB)
#define DEFAULT_UNIT 65536u

/* ---- probing ------------------------------------------------------------- */

/* raw.md: the first line that is no comment is "version=N". */
static bool is_descriptor(const unsigned char *p, size_t len)
{
	size_t at = 0;

	while (at < len && p[at] == '#') {
		while (at < len && p[at] != '\n')
			at++;
		at++;
	}
	if (at >= len || len - at < 10 || memcmp(p + at, "version=", 8) ||
	    p[at + 8] < '1' || p[at + 8] > '3')
		return false;
	at += 9;
	return p[at] == '\n' || (p[at] == '\r' && at + 1 < len &&
				 p[at + 1] == '\n');
}

static int vmdk_probe(const struct probe *p)
{
	uint32_t magic = p->head_len >= 4 ? le32_at(p->head) : 0;

	return magic == KDMV || magic == COWD ||
	       is_descriptor(p->head, min_u64(p->head_len, p->size)) ? 100 : 0;
}

/* ---- opening ------------------------------------------------------------- */

static int read_text(struct file *f, uint64_t off, uint64_t len, char **out,
		     struct err *err)
{
	char *text;
	int ret;

	if (len > TEXT_MAX)
		return err_set(err, -EFBIG, "The VMDK descriptor is too large");
	text = calloc(1, len + 1);
	if (!text)
		return -ENOMEM;
	ret = file_read(f, text, len, off);
	if (ret) {
		free(text);
		return err_errno(err, ret, "Could not read the descriptor");
	}
	*out = text;
	return 0;
}

/* An extent of another image, without a descriptor: QEMU's words. */
static int no_descriptor(const struct image *img, struct err *err)
{
	return err_set(err, -EINVAL, "Could not open '%s': %s", img->name,
		       strerror(EINVAL));
}

/* *@alone: the file is its own only extent. */
static int read_descriptor(struct image *img, bool *alone, struct err *err)
{
	struct vmdk *v = vmdk_of(img);
	unsigned char head[SECTOR_SIZE] = { 0 };
	uint64_t size;
	int ret = file_size(img->file, &size);

	if (!ret && !size)
		return err_set(err, -EINVAL, "File is too small, not a valid"
			       " image");
	if (!ret)
		ret = file_read(img->file, head, sizeof(head), 0);
	if (ret)
		return err_errno(err, ret, "Could not read the image");
	if (le32_at(head) == COWD)
		return no_descriptor(img, err);
	*alone = le32_at(head) == KDMV;
	if (!*alone && !is_descriptor(head, min_u64(size, sizeof(head))))
		return err_set(err, -EINVAL, "invalid VMDK image descriptor");
	v->text_room = size;
	if (*alone)
		ret = vmdk_embedded(img->file, &v->text_at, &v->text_room,
				    err);
	if (!ret)
		ret = read_text(img->file, v->text_at,
				min_u64(v->text_room, size), &v->text, err);
	return !ret && *alone && !*v->text ? no_descriptor(img, err) : ret;
}

static bool type_is_one_of(const char *type, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(type, *list))
			return true;
	return false;
}

static int check_type(const struct vmdk *v, bool alone, struct err *err)
{
	static const char *const inside[] = {
		"monolithicSparse", "streamOptimized", NULL,
	};
	static const char *const beside[] = {
		"monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
		"vmfs", "vmfsSparse", "seSparse", NULL,
	};

	if (type_is_one_of(v->create_type, alone ? inside : beside))
		return 0;
	return err_set(err, -ENOTSUP, "Unsupported image type '%s'",
		       v->create_type);
}

/* The file itself; what its descriptor calls it does not matter. */
static int open_alone(struct image *img, struct err *err)
{
	struct vmdk *v = vmdk_of(img);
	struct vmdk_extent *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	for (unsigned i = 0; i < v->nr; i++) {
		free(v->extents[i].type);
		free(v->extents[i].name);
	}
	free(v->extents);
	v->extents = x;
	v->nr = 1;
	x->store = VMDK_SPARSE;
	x->type = strdup("");
	x->file = file_ref(img->file);
	return x->type ? vmdk_sparse_open(x, v->text_at, strlen(v->text) + 1,
					  err) : -ENOMEM;
}

static int open_extent(struct image *img, unsigned i, struct err *err)
{
	struct vmdk_extent *x = &vmdk_of(img)->extents[i];
	char role[32];
	int ret;

	if (x->store == VMDK_ZERO)
		return 0;
	snprintf(role, sizeof(role), "extents.%u", i);
	ret = child_open(img, role, x->name, 0, &x->file, err);
	if (ret)
		return err_errno(err, ret, "Could not open '%s'", x->name);
	if (x->store == VMDK_SESPARSE)
		return vmdk_sesparse_open(x, err);
	return x->store == VMDK_SPARSE ? vmdk_sparse_open(x, 0, 0, err) :
	       file_size(x->file, &x->file_end);
}

static int open_extents(struct image *img, bool alone, struct err *err)
{
	const struct vmdk *v = vmdk_of(img);
	const struct vmdk_extent *last;
	int ret = 0;

	if (alone)
		ret = open_alone(img, err);
	for (unsigned i = 0; !alone && !ret && i < v->nr; i++)
		ret = open_extent(img, i, err);
	if (ret)
		return ret;
	if (!v->nr)
		return err_set(err, -EINVAL, "The VMDK descriptor names no"
			       " extent");
	last = &v->extents[v->nr - 1];
	atomic_store(&img->size, last->start + last->size);
	return 0;
}

static int find_parent(struct image *img)
{
	const struct vmdk *v = vmdk_of(img);

	if (!v->parent || !*v->parent)
		return 0;
	img->backing_name = strdup(v->parent);
	img->backing_fmt = strdup("vmdk");
	return img->backing_name && img->backing_fmt ? 0 : -ENOMEM;
}

static void vmdk_close(struct image *img)
{
	vmdk_free(vmdk_of(img));
	pthread_mutex_destroy(&vmdk_of(img)->space);
	pthread_mutex_destroy(&vmdk_of(img)->lock);
}

static int open_all(struct image *img, struct err *err)
{
	struct vmdk *v = vmdk_of(img);
	bool alone = false;
	int ret = read_descriptor(img, &alone, err);

	if (ret)
		return ret;
	v->parent_cid = VMDK_NO_PARENT;
	ret = vmdk_parse(v, v->text, err);
	if (!ret)
		ret = check_type(v, alone, err);
	if (!ret)
		ret = open_extents(img, alone, err);
	if (!ret)
		ret = find_parent(img);
	return ret;
}

static int vmdk_open(struct image *img, struct err *err)
{
	struct vmdk *v = vmdk_of(img);
	int ret;

	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->space, NULL);
	img->unit = DEFAULT_UNIT;
	img->page = SECTOR_SIZE;
	img->align = 1;
	ret = open_all(img, err);
	for (unsigned i = 0; !ret && i < v->nr; i++)
		if (v->extents[i].grain) {
			img->unit = (uint32_t)v->extents[i].grain;
			break;
		}
	if (!ret && v->extents[0].packed) {
		img->codec = &codec_zlib;
		img->packed_only = "streamOptimized";
	}
	if (!ret && img->want_write)
		ret = vmdk_writable(img, err);
	if (!ret)
		return 0;
	vmdk_close(img);
	memset(v, 0, sizeof(*v));
	return err_errno(err, ret, "Could not open the VMDK image");
}

/* ---- mapping ------------------------------------------------------------- */

struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, uint64_t off)
{
	unsigned low = 0, high = v->nr;

	while (high - low > 1) {
		unsigned mid = low + (high - low) / 2;

		if (v->extents[mid].start <= off)
			low = mid;
		else
			high = mid;
	}
	return &v->extents[low];
}

/* A parent that was written to since says something else now (vmdk.md 5). */
static bool parent_changed(const struct image *img)
{
	const struct image *parent = img->backing;

	return parent && parent->fmt == img->fmt &&
	       vmdk_of(parent)->cid != vmdk_of(img)->parent_cid;
}

static int vmdk_map(const struct view *view, uint64_t off, uint64_t len,
		    struct extent *ext)
{
	struct image *img = view->img;
	const struct vmdk_extent *x = vmdk_extent_at(vmdk_of(img), off);
	uint64_t in = off - x->start;
	struct extent found = { .kind = EXT_ZERO, .off = off };
	int ret = 0;

	len = min_u64(len, x->size - in);
	found.len = len;
	found.file = x->file;
	if (x->store == VMDK_FLAT) {
		found.kind = EXT_DATA;
		found.host = x->offset + in;
	} else if (x->store == VMDK_SPARSE) {
		ret = vmdk_sparse_map(img, x, in, len, &found);
	} else if (x->store == VMDK_SESPARSE) {
		ret = vmdk_sesparse_map(img, x, in, len, &found);
	}
	if (!ret && found.kind == EXT_HOLE && parent_changed(img))
		ret = -EINVAL;
	if (!ret)
		*ext = found;
	return ret;
}

/* ---- info ---------------------------------------------------------------- */

static struct json *extent_json(const struct image *img,
				const struct vmdk_extent *x)
{
	struct json *obj = json_object();

	if (x->packed)
		json_set_take(obj, "compressed", json_bool(true));
	json_set_take(obj, "virtual-size", json_uint(x->size));
	json_set_take(obj, "filename", json_string(
		x->file == img->file ? img->name : x->file ? x->file->name :
		""));
	if (x->grain)
		json_set_take(obj, "cluster-size", json_uint(x->grain));
	json_set_take(obj, "format", json_string(x->type));
	return obj;
}

static int vmdk_info(struct image *img, struct image_info *info,
		     struct err *err)
{
	const struct vmdk *v = vmdk_of(img);
	struct json *data = json_object(), *list = json_array();

	(void)err;
	for (unsigned i = 0; i < v->nr; i++)
		json_append_take(list, extent_json(img, &v->extents[i]));
	json_set_take(data, "cid", json_uint(v->cid));
	json_set_take(data, "parent-cid", json_uint(v->parent_cid));
	json_set_take(data, "create-type", json_string(v->create_type));
	json_set_take(data, "extents", list);
	info->cluster_size = (uint32_t)v->extents[0].grain;
	info->has_dirty = true;
	info->specific = json_object();
	json_set_take(info->specific, "type", json_string("vmdk"));
	json_set_take(info->specific, "data", data);
	return 0;
}

static const struct format_admin vmdk_admin = {
	.create_options = vmdk_create_options,
	.create_check = vmdk_create_check,
	.create = vmdk_create,
	.info = vmdk_info,
	.check = vmdk_check,
	.repair = vmdk_repair,
};

const struct format vmdk_format = {
	.name = "vmdk",
	.priv_size = sizeof(struct vmdk),
	.supports_backing = true,
	.stores_packed = true,
	.probe = vmdk_probe,
	.open = vmdk_open,
	.upgrade = vmdk_upgrade,
	.dirty = vmdk_dirty,
	.clean = vmdk_clean,
	.close = vmdk_close,
	.map = vmdk_map,
	.reserve = vmdk_reserve,
	.commit = vmdk_commit,
	.abort = vmdk_abort,
	.unmap = vmdk_unmap,
	.admin = &vmdk_admin,
};
