/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * read.c - the guest's bytes, through the chain.
 *
 * A read enters an epoch, asks for an extent, moves the bytes, leaves: no lock
 * is taken and nothing shared is written (rules 1 and 18).
 */
#include "engine-int.h"

int image_map(const struct view *v, uint64_t off, uint64_t len,
	      struct extent *ext)
{
	struct engine *e = v->img->eng;
	int ret = len ? view_check(v, off, len) : -EINVAL;

	if (ret)
		return ret;
	epoch_enter(e);
	ret = v->img->fmt->map(v, off, len, ext);
	epoch_exit(e);
	return ret;
}

static int read_below(struct image *img, void *buf, size_t len, uint64_t off)
{
	struct image *below = img->backing;
	uint64_t size = below ? image_size(below) : 0, n = 0;
	int ret = 0;

	if (off < size) {
		n = min_u64(len, size - off);
		ret = image_read(&below->live, buf, n, off);
	}
	memset((char *)buf + n, 0, len - n);
	return ret;
}

/* In the epoch in which @ext was mapped. */
static int read_extent(const struct extent *ext, void *buf, size_t len)
{
	switch (ext->kind) {
	case EXT_DATA:
		return file_read(ext->file, buf, len, ext->host);
	case EXT_PACKED:
		return unit_read(ext, buf, len);
	default:
		memset(buf, 0, len);
		return 0;
	}
}

/* Reads what one extent covers: that many bytes, or an error. */
static ssize_t read_step(const struct view *v, void *buf, size_t len,
			 uint64_t off)
{
	struct image *img = v->img;
	struct extent ext;
	int ret;

	epoch_enter(img->eng);
	ret = img->fmt->map(v, off, len, &ext);
	if (!ret) {
		len = min_u64(len, ext.len);
		pause_point("read:mapped");
		if (ext.kind != EXT_HOLE)
			ret = read_extent(&ext, buf, len);
	}
	epoch_exit(img->eng);
	if (!ret && ext.kind == EXT_HOLE)
		ret = read_below(img, buf, len, off);
	return ret ? ret : (ssize_t)len;
}

int image_read(const struct view *v, void *buf, size_t len, uint64_t off)
{
	int ret = view_check(v, off, len);

	if (ret)
		return ret;
	while (len) {
		ssize_t n = read_step(v, buf, len, off);

		if (n < 0)
			return (int)n;
		buf = (char *)buf + n;
		off += (size_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int image_lend(const struct view *v, size_t len, uint64_t off,
	       struct file_loan *loan)
{
	struct extent ext;
	int ret = image_map(v, off, len, &ext);

	if (ret || ext.len < len || ext.cipher)
		return ret ? ret : -EOPNOTSUPP;
	if (ext.kind == EXT_DATA)
		return file_lend(ext.file, ext.host, len, loan);
	if (ext.kind != EXT_HOLE || !v->img->backing ||
	    !range_within(off, len, image_size(v->img->backing)))
		return -EOPNOTSUPP;
	return image_lend(&v->img->backing->live, len, off, loan);
}
