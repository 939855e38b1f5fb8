/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize.c - another virtual size for an image in use.
 *
 * Whenever the power fails the image has the old size and content or the new:
 *
 *   larger   the format makes room in its tables; what will be seen of the new
 *            part reads as zeroes; that durable, the header says the new size
 *   smaller  the header says the new size; that durable, what is behind it is
 *            dropped
 *
 * An image that became smaller without the second step (a crash, another
 * program) has something behind its end: growing drops that first.
 *
 * Knows pieces of the guest's disk.  Refuses to know headers and tables.
 */
#include "bitmap.h"
#include "engine-int.h"
#include "job.h"

#define FULL_CHUNK (1 * MiB)
#define CANCEL_LOOK 50000000    /* ns between two looks at a cancel */

/* Formats whose disk is the file itself have nothing to drop: a file that
 * became longer reads as zeroes. */
static bool is_mapped(const struct image *img)
{
	return img->fmt->unmap || img->fmt->reserve;
}

/* ---- what is behind the end ---------------------------------------------- */

/* Whole units of one kind, or a unit that has something; *@len bytes. */
static bool is_empty(struct image *img, const struct extent *ext,
		     uint64_t end, uint64_t *len)
{
	bool empty = ext->kind == EXT_HOLE && !(ext->flags & EXT_PREALLOC);

	*len = round_down(ext->len, img->unit);
	if (!empty || !*len)    /* a unit may be of several kinds */
		*len = min_u64(round_up(ext->len, img->unit), end - ext->off);
	return empty && *len <= ext->len;
}

/* What this layer has at [off, end), both multiples of the unit or the disk's
 * end. */
static int drop(struct image *img, uint64_t off, uint64_t end,
		struct progress *p)
{
	int ret = 0;

	while (!ret && off < end) {
		struct extent ext;
		uint64_t len = 0;

		ret = image_map(&img->live, off, end - off, &ext);
		if (!ret && !is_empty(img, &ext, end, &len))
			ret = image_unmap(&img->live, off, len, UNMAP_HOLE);
		if (!ret)
			ret = progress_step(p, 0);
		off += len;
	}
	return ret;
}

/* The part of [off, end) where layers below would show through. */
static int hide_below(struct image *img, uint64_t off, uint64_t end)
{
	if (!img->backing || off >= image_size(img->backing))
		return 0;
	end = min_u64(end, round_up(image_size(img->backing), img->unit));
	return image_unmap(&img->live, off, end - off, UNMAP_ZERO);
}

/* [off, end) reads as zeroes: the rest of a unit as bytes, others as what has
 * no place. */
static int clear_new(struct image *img, uint64_t off, uint64_t end,
		     struct progress *p)
{
	uint64_t first = min_u64(round_up(off, img->unit), end);
	int ret = 0;

	if (!is_mapped(img))
		return 0;
	if (first > off)
		ret = image_unmap(&img->live, off, first - off, UNMAP_ZERO);
	if (!ret)
		ret = drop(img, first, end, p);
	return ret ? ret : hide_below(img, first, end);
}

/* ---- host space ---------------------------------------------------------- */

static int fill(struct image *img, uint64_t off, uint64_t end,
		struct progress *p)
{
	autofree void *zeroes = calloc(1, FULL_CHUNK);
	int ret = zeroes ? 0 : -ENOMEM;

	while (!ret && off < end) {
		size_t n = min_u64(end - off, FULL_CHUNK);

		ret = image_write(&img->live, zeroes, n, off);
		if (!ret)
			ret = progress_step(p, n);
		off += n;
	}
	return ret;
}

static int take_space(struct image *img, uint64_t off, uint64_t end,
		      const struct resize_args *a)
{
	int ret = 0;

	if (a->prealloc == PREALLOC_OFF || !is_mapped(img))
		return 0;
	if (a->prealloc == PREALLOC_FULL)
		return fill(img, off, end, a->progress);
	while (!ret && off < end) {
		uint64_t n = min_u64(end - off, 64 * MiB);

		ret = allocate_range(img, off, n,
				     a->prealloc == PREALLOC_FALLOC);
		if (!ret)
			ret = progress_step(a->progress, n);
		off += n;
	}
	return ret;
}

/* ---- larger, smaller ----------------------------------------------------- */

static void size_set(struct image *img, uint64_t size)
{
	atomic_store(&img->size, round_up(size, SECTOR_SIZE));
	img->live.size = image_size(img);
}

/* Everything that there will be behind the old end; the old size is in force
 * for the file. */
static int fill_new(struct image *img, uint64_t old, uint64_t end,
		    const struct resize_args *a)
{
	uint64_t changes = image_changes(img);
	int ret = clear_new(img, old, end, a->progress);

	if (!ret)
		ret = take_space(img, old, end, a);
	/* Entries have their turn in a flush after the header. */
	if (!ret && (changes != image_changes(img) ||
		     a->prealloc != PREALLOC_OFF))
		ret = image_flush(img);
	return ret;
}

static int grow(struct image *img, uint64_t size, const struct resize_args *a,
		struct err *err)
{
	uint64_t old = image_size(img);
	int ret = bitmaps_resize_begin(img, err);

	if (!ret)
		ret = bitmaps_resize(img, round_up(size, SECTOR_SIZE), err);
	if (ret)
		return ret;
	size_set(img, size);
	ret = fill_new(img, old, image_size(img), a);
	if (!ret)
		ret = img->fmt->resize(img, size, a->prealloc, err);
	if (!ret)
		return 0;
	if (is_mapped(img))
		(void)drop(img, min_u64(round_up(old, img->unit),
					image_size(img)), image_size(img),
			   NULL);
	size_set(img, old);
	(void)bitmaps_resize(img, old, NULL);
	return ret;
}

/* Nothing of what follows the header may fail the command: it is done. */
static int shrink(struct image *img, uint64_t size,
		  const struct resize_args *a, struct err *err)
{
	uint64_t old = image_size(img);
	uint64_t end = round_up(size, SECTOR_SIZE);
	int ret = bitmaps_resize_begin(img, err);

	if (!ret)
		ret = image_flush(img);
	if (!ret)
		ret = img->fmt->resize(img, size, PREALLOC_OFF, err);
	if (!ret)
		ret = image_flush(img);
	if (ret)
		return ret;
	/* QEMU, growing it again, would show the rest of the last unit.  (A
	 * data file has been cut off already.) */
	if (is_mapped(img) && !img->nr_children)
		(void)clear_new(img, end, old, a->progress);
	else if (is_mapped(img))
		(void)drop(img, min_u64(round_up(end, img->unit), old), old,
			   a->progress);
	size_set(img, size);
	return bitmaps_resize(img, end, err);
}

/* ---- the calls ----------------------------------------------------------- */

/* The mark comes first: resize_check() may change the tables, and the header
 * with them. */
static int check(struct image *img, uint64_t size, const struct resize_args *a,
		 struct err *err)
{
	int ret;

	if (!img->writable)
		return err_set(err, -EROFS, "Image is read-only");
	if (!img->fmt->resize)
		return err_set(err, -EOPNOTSUPP,
			       "Image format driver does not support resize");
	if (a->prealloc != PREALLOC_OFF && size < image_size(img))
		return err_set(err, -EINVAL, "Preallocation can only be used"
			       " for growing images");
	if (size > INT64_MAX)
		return err_set(err, -EINVAL,
			       "Image size cannot be negative");
	ret = engine_begin(img->eng);
	return ret ? ret : img->fmt->resize_check(img, size, a->prealloc, err);
}

int image_resize(struct image *img, uint64_t size, const struct resize_args *a,
		 struct err *err)
{
	int ret;
	with_lock(&img->eng->resize_lock);

	ret = check(img, size, a, err);
	if (!ret)
		ret = size < image_size(img) ? shrink(img, size, a, err) :
					       grow(img, size, a, err);
	if (!ret)
		ret = image_flush(img);
	return ret ? err_errno(err, ret, "Could not resize the image") : 0;
}

/* ... unless *@cancel. */
static int size_lock(struct engine *e, const _Atomic bool *cancel)
{
	struct timespec until;
	int ret = ETIMEDOUT;

	while (ret == ETIMEDOUT) {
		if (cancel && atomic_load(cancel))
			return -EINTR;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += CANCEL_LOOK;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		ret = pthread_mutex_timedlock(&e->resize_lock, &until);
	}
	return -ret;
}

static int grow_locked(struct image *img, uint64_t size, struct err *err)
{
	const struct resize_args a = { .prealloc = PREALLOC_OFF };
	int ret;

	if (size <= image_size(img))
		return 0;
	if (is_mapped(img))
		size = round_up(size, SECTOR_SIZE);
	ret = check(img, size, &a, err);
	return ret ? ret : grow(img, size, &a, err);
}

int image_grow(struct image *img, uint64_t size, const _Atomic bool *cancel,
	       struct err *err)
{
	int ret = size_lock(img->eng, cancel);

	if (ret)
		return ret;
	ret = grow_locked(img, size, err);
	pthread_mutex_unlock(&img->eng->resize_lock);
	return ret;
}
