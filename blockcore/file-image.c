/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file-image.c - an image as a file: qcow2 inside another format, a raw window
 * on a qcow2.
 *
 * Knows how the calls of a driver become calls of the engine.  The file has the
 * image's size and does not grow by writing.  Its locks are the image's, and
 * held already.
 */
#include "engine.h"

struct file_image {
	struct file file;
	struct image *img;
};

static struct image *image_of(struct file *f)
{
	return container_of(f, struct file_image, file)->img;
}

static ssize_t image_preadv(struct file *f, const struct iovec *v, int n,
			    uint64_t off)
{
	struct image *img = image_of(f);
	uint64_t size = image_size(img);
	size_t len, did = 0;
	int i, ret;

	for (i = 0; i < n && off < size; i++) {
		len = (size_t)min_u64(v[i].iov_len, size - off);
		ret = image_read(&img->live, v[i].iov_base, len, off);
		if (ret < 0)
			return did ? (ssize_t)did : ret;
		off += len;
		did += len;
	}
	return (ssize_t)did;
}

static ssize_t image_pwritev(struct file *f, const struct iovec *v, int n,
			     uint64_t off)
{
	struct image *img = image_of(f);
	uint64_t size = image_size(img);
	size_t len, did = 0;
	int i, ret;

	if (!img->writable)
		return -EROFS;
	for (i = 0; i < n && off < size; i++) {
		len = (size_t)min_u64(v[i].iov_len, size - off);
		ret = image_write(&img->live, v[i].iov_base, len, off);
		if (ret < 0)
			return did ? (ssize_t)did : ret;
		off += len;
		did += len;
	}
	return (ssize_t)did;
}

static int image_file_sync(struct file *f)
{
	return image_flush(image_of(f));
}

static int image_file_zero(struct file *f, uint64_t off, uint64_t len,
			   unsigned how)
{
	struct image *img = image_of(f);
	int ret;

	if (!img->writable)
		return -EROFS;
	if (!range_within(off, len, image_size(img)))
		return -ENOSPC;
	if (how & ZERO_MAY_UNMAP && !(how & ZERO_ALLOCATE))
		return image_unmap(&img->live, off, len, UNMAP_ZERO);
	ret = image_unmap(&img->live, off, len, UNMAP_ZERO_KEEP);
	if (!ret && how & ZERO_ALLOCATE)
		ret = image_allocate(&img->live, off, len);
	return ret;
}

static int image_file_discard(struct file *f, uint64_t off, uint64_t len)
{
	struct image *img = image_of(f);

	return img->writable ? image_unmap(&img->live, off, len, UNMAP_FREE) :
	       -EROFS;
}

static int image_file_allocate(struct file *f, uint64_t off, uint64_t len)
{
	struct image *img = image_of(f);

	if (!range_within(off, len, image_size(img)))
		return -ENOSPC;
	return image_allocate(&img->live, off, len);
}

static int image_file_truncate(struct file *f, uint64_t size)
{
	struct image *img = image_of(f);
	uint64_t have = image_size(img);

	if (size == have)
		return 0;
	return size > have ? image_grow(img, size, NULL, NULL) : -ENOTSUP;
}

static int image_file_size(struct file *f, uint64_t *size)
{
	*size = image_size(image_of(f));
	return 0;
}

static int image_file_extent(struct file *f, uint64_t off, uint64_t len,
			     enum file_kind *kind, uint64_t *run)
{
	struct image *img = image_of(f);
	struct run r;
	int ret = walk_run(&img->live, off, len, 0, MAP_EXACT, &r);

	if (ret)
		return ret;
	*kind = r.zero ? FILE_ZERO : FILE_DATA;
	*run = r.len;
	return 0;
}

static int image_file_stat(struct file *f, struct stat *st)
{
	return file_stat(image_of(f)->file, st);
}

static void image_file_close(struct file *f)
{
	struct file_image *fi = container_of(f, struct file_image, file);
	int ret = image_close(fi->img);

	if (ret)
		log_line("%s: closing failed: %s", f->name, strerror(-ret));
	free(fi);
}

static const struct file_ops image_driver = {
	.name = "image",
	.preadv = image_preadv,
	.pwritev = image_pwritev,
	.sync = image_file_sync,
	.zero = image_file_zero,
	.discard = image_file_discard,
	.allocate = image_file_allocate,
	.truncate = image_file_truncate,
	.size = image_file_size,
	.extent = image_file_extent,
	.stat = image_file_stat,
	.close = image_file_close,
};

struct image *image_of_file(struct file *f)
{
	return f->ops == &image_driver ? image_of(f) : NULL;
}

int file_from_image_take(struct image *img, struct file **f, struct err *err)
{
	struct file_image *fi = calloc(1, sizeof(*fi));

	if (!fi)
		return err_errno(err, -ENOMEM, "Could not open '%s'",
				 img->name);
	file_init(&fi->file, &image_driver, img->name);
	fi->img = img;
	fi->file.traits.min_io = img->align ? img->align : 1;
	fi->file.traits.pref_io = (uint32_t)max_u64(img->unit, 64 * KiB);
	fi->file.traits.grows = false;
	fi->file.traits.seekable_holes = true;
	fi->file.traits.read_only = !(img->writable ||
				      img->flags & IMAGE_RDWR_LATER);
	*f = &fi->file;
	return 0;
}
