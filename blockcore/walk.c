/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * walk.c - extents through the chain: the one walk that map, info, convert,
 * compare, SEEK_HOLE and st_blocks share, so that they cannot disagree.
 *
 * Depth counts layers from the top.  Where nobody has stored anything the layer
 * answers at which the search ended: the last one, or the one whose backing
 * image is too short (observed with qemu-img map).
 */
#include "engine-int.h"

/* Is the format's answer the file itself (raw)? */
static bool is_identity(const struct image *img)
{
	return img->fmt->probed_guard;
}

/*
 * Host holes below allocated units: a raw file is asked always.  Other formats'
 * files only when a tenth of them or more takes no space, as qemu-img does: it
 * costs a call for each extent, and a file that is not sparse has none.
 */
static bool look_whether_sparse(struct file *f)
{
	uint64_t size, used;

	return !file_size(f, &size) && !file_disk_usage(f, &used) &&
	       used / 9 < size / 10;
}

/* What nobody writes to is asked once: there may be millions of extents. */
static bool file_is_sparse(struct image *img, struct file *f)
{
	enum file_sparse known;

	if (is_identity(img))
		return true;
	if (img->writable)
		return look_whether_sparse(f);
	known = atomic_load_explicit(&f->sparse, memory_order_relaxed);
	if (known == SPARSE_UNKNOWN) {
		known = look_whether_sparse(f) ? SPARSE_YES : SPARSE_NO;
		atomic_store_explicit(&f->sparse, known, memory_order_relaxed);
	}
	return known == SPARSE_YES;
}

/* What a file said last: one hole may lie below many extents. */
struct below {
	struct file *file;
	uint64_t from, to;
	enum file_kind kind;
};

#define BELOW_MAX (64 * GiB)    /* asked for at once */

/* Of a file that may change under us only as much is asked as is told, so that
 * extents and holes are of one time. */
static int ask_below(struct image *img, const struct extent *ext, uint64_t len,
		     struct below *b)
{
	uint64_t n;
	int ret;

	if (!img->writable && !is_identity(img) && !image_of_file(ext->file))
		len = max_u64(len, BELOW_MAX);
	ret = file_extent(ext->file, ext->host, len, &b->kind, &n);
	b->file = ret || img->writable ? NULL : ext->file;
	b->from = ext->host;
	b->to = ret ? 0 : ext->host + n;
	return ret;
}

static void look_below(struct image *img, const struct extent *ext,
		       struct run *run, struct below *b)
{
	bool known = b->file == ext->file && b->from <= ext->host &&
		     ext->host < b->to;

	if (!file_is_sparse(img, ext->file) ||
	    (!known && ask_below(img, ext, run->len, b)))
		return;
	run->len = min_u64(run->len, b->to - ext->host);
	if (b->kind != FILE_ZERO)
		return;
	run->zero = true;
	if (is_identity(img))
		run->data = false;
}

/* A raw window on an image of another format says what that image says. */
static bool look_through(struct image *img, const struct extent *ext,
			 unsigned flags, struct run *run)
{
	struct image *in = is_identity(img) ? image_of_file(ext->file) : NULL;
	struct run r;

	if (!in || ext->host >= image_size(in) ||
	    walk_step(&in->live, ext->host,
		      min_u64(run->len, image_size(in) - ext->host), 0, flags,
		      &r))
		return false;
	r.off = run->off;
	r.depth = run->depth;
	*run = r;
	return true;
}

static void fill_run(struct image *img, const struct extent *ext,
		     unsigned flags, struct run *run, struct below *b)
{
	if (ext->kind == EXT_DATA && look_through(img, ext, flags, run))
		return;
	run->present = true;
	run->zero = ext->kind == EXT_ZERO;
	run->data = ext->kind != EXT_ZERO;
	run->compressed = ext->kind == EXT_PACKED;
	run->encrypted = ext->cipher != NULL;
	run->file = ext->file;
	run->filename = ext->file ? ext->file->name : img->file->name;
	run->has_host = ext->kind == EXT_DATA || ext->flags & EXT_PREALLOC;
	run->host = run->has_host ? ext->host : 0;
	if (flags & MAP_AS_QEMU && ext->flags & EXT_OPAQUE)
		return;
	if (ext->kind == EXT_DATA && flags & MAP_EXACT && !ext->cipher)
		look_below(img, ext, run, b);
}

static int step(const struct view *v, uint64_t off, uint64_t len,
		unsigned layers, unsigned flags, struct run *out,
		struct below *b)
{
	struct run run = { .off = off };
	struct image *img = v->img;
	struct extent ext;

	for (;;) {
		struct image *below = img->backing;
		int ret = image_map(v, off, len, &ext);

		if (ret)
			return ret;
		len = run.len = ext.len;
		if (ext.kind != EXT_HOLE) {
			fill_run(img, &ext, flags, &run, b);
			break;
		}
		run.zero = !below || off >= image_size(below);
		run.filename = img->file->name;
		if (run.zero && ext.flags & EXT_PREALLOC) {
			run.has_host = true;
			run.host = ext.host;
			run.file = ext.file;
		}
		if (run.zero || run.depth + 1 == layers)
			break;
		len = min_u64(len, image_size(below) - off);
		run.depth++;
		img = below;
		v = &below->live;
	}
	*out = run;
	return 0;
}

int walk_step(const struct view *v, uint64_t off, uint64_t len,
	      unsigned layers, unsigned flags, struct run *out)
{
	struct below b = { NULL, 0, 0, FILE_DATA };

	return step(v, off, len, layers, flags, out, &b);
}

static bool same_kind(const struct run *a, const struct run *b)
{
	if (a->depth != b->depth || a->present != b->present ||
	    a->zero != b->zero || a->data != b->data ||
	    a->compressed != b->compressed || a->has_host != b->has_host ||
	    a->encrypted != b->encrypted)
		return false;
	return !a->has_host ||
	       (a->file == b->file && a->host + a->len == b->host);
}

int walk_run(const struct view *v, uint64_t off, uint64_t len,
	     unsigned layers, unsigned flags, struct run *out)
{
	struct below b = { NULL, 0, 0, FILE_DATA };
	struct run run, next;
	int ret = step(v, off, len, layers, flags, &run, &b);

	if (ret)
		return ret;
	/* An error behind the first step is told when somebody asks there. */
	while (run.len < len &&
	       !step(v, off + run.len, len - run.len, layers, flags, &next,
		     &b) && same_kind(&run, &next))
		run.len += next.len;
	*out = run;
	return 0;
}

int below_is_zero(struct image *img, uint64_t off, uint64_t len)
{
	struct image *below = img->backing;
	uint64_t end = min_u64(off + len, below ? image_size(below) : 0);

	while (off < end) {
		struct run run;
		int ret = walk_step(&below->live, off, end - off, 0, 0, &run);

		if (ret)
			return ret;
		if (!run.zero)
			return 0;
		off += run.len;
	}
	return 1;
}
