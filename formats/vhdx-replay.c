/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhdx-replay.c - the log applied: to the file, or, where the file may not be
 * written to, to what is read of it.
 *
 * Refuses to know how a log is written.
 */
#include "vhdx.h"

struct view_file {
	struct file f;
	struct file *base;
	struct vhdx_patch *data, *zero; /* data: by place; zero: by order */
	size_t nr_data, nr_zero;
	uint64_t size;
};

static struct view_file *of(struct file *f)
{
	return container_of(f, struct view_file, f);
}

/* ---- reading ------------------------------------------------------------- */

static bool overlaps(const struct vhdx_patch *p, uint64_t off, uint64_t len)
{
	return p->off < off + len && off < p->off + p->len;
}

/* Zeroes that were logged after it lie over it. */
static bool covered(const struct view_file *w, const struct vhdx_patch *p)
{
	for (size_t i = 0; i < w->nr_zero; i++)
		if (w->zero[i].order > p->order &&
		    overlaps(&w->zero[i], p->off, p->len))
			return true;
	return false;
}

static void lay(unsigned char *buf, uint64_t off, uint64_t len,
		const struct vhdx_patch *p, const unsigned char *sector)
{
	uint64_t from = max_u64(off, p->off);
	uint64_t end = min_u64(off + len, p->off + p->len);

	if (sector)
		memcpy(buf + (from - off), sector + (from - p->off),
		       end - from);
	else
		memset(buf + (from - off), 0, end - from);
}

/* The first data patch that ends behind @off. */
static size_t first_data(const struct view_file *w, uint64_t off)
{
	size_t low = 0, high = w->nr_data;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (w->data[mid].off + VHDX_SECTOR <= off)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static ssize_t view_preadv(struct file *f, const struct iovec *v, int n,
			   uint64_t off)
{
	struct view_file *w = of(f);
	unsigned char sector[VHDX_SECTOR];
	uint64_t len = n && off < w->size ?
		       min_u64(v->iov_len, w->size - off) : 0;
	int ret = len ? file_read(w->base, v->iov_base, len, off) : 0;

	for (size_t i = 0; !ret && len && i < w->nr_zero; i++)
		if (overlaps(&w->zero[i], off, len))
			lay(v->iov_base, off, len, &w->zero[i], NULL);
	for (size_t i = first_data(w, off); !ret && i < w->nr_data; i++) {
		if (!overlaps(&w->data[i], off, len))
			break;
		if (covered(w, &w->data[i]))
			continue;
		ret = vhdx_patch_read(w->base, &w->data[i], sector);
		if (!ret)
			lay(v->iov_base, off, len, &w->data[i], sector);
	}
	return ret ? ret : (ssize_t)len;
}

static ssize_t view_pwritev(struct file *f, const struct iovec *v, int n,
			    uint64_t off)
{
	(void)f;
	(void)v;
	(void)n;
	(void)off;
	return -EROFS;
}

static int view_sync(struct file *f)
{
	(void)f;
	return 0;
}

static int view_truncate(struct file *f, uint64_t size)
{
	(void)f;
	(void)size;
	return -EROFS;
}

static int view_size(struct file *f, uint64_t *size)
{
	*size = of(f)->size;
	return 0;
}

static int view_stat(struct file *f, struct stat *st)
{
	return file_stat(of(f)->base, st);
}

static void view_close(struct file *f)
{
	struct view_file *w = of(f);

	file_unref(w->base);
	free(w->data);
	free(w->zero);
	free(w);
}

static const struct file_ops view_ops = {
	.name = "vhdx-log",
	.preadv = view_preadv,
	.pwritev = view_pwritev,
	.sync = view_sync,
	.truncate = view_truncate,
	.size = view_size,
	.stat = view_stat,
	.close = view_close,
};

/* ---- making the view ----------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
	const struct vhdx_patch *x = a, *y = b;

	if (x->off != y->off)
		return x->off < y->off ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* By place, of each sector the newest. */
static void sort(struct view_file *w)
{
	size_t n = 0;

	if (w->nr_data)
		qsort(w->data, w->nr_data, sizeof(*w->data), by_place);
	for (size_t i = 0; i < w->nr_data; i++) {
		if (n && w->data[n - 1].off == w->data[i].off)
			n--;
		w->data[n++] = w->data[i];
	}
	w->nr_data = n;
}

static int split(struct view_file *w, const struct vhdx_patches *patches)
{
	w->data = calloc(patches->n + 1, sizeof(*w->data));
	w->zero = calloc(patches->n + 1, sizeof(*w->zero));
	if (!w->data || !w->zero)
		return -ENOMEM;
	for (size_t i = 0; i < patches->n; i++)
		if (patches->p[i].from)
			w->data[w->nr_data++] = patches->p[i];
		else
			w->zero[w->nr_zero++] = patches->p[i];
	sort(w);
	return 0;
}

int vhdx_replay_view(struct file *base, struct vhdx_patches *patches,
		     struct file **out)
{
	struct view_file *w = calloc(1, sizeof(*w));
	int ret = w ? split(w, patches) : -ENOMEM;
	uint64_t last = min_u64(patches->last, INT64_MAX / 2);

	free(patches->p);
	patches->p = NULL;
	if (!ret)
		ret = file_size(base, &w->size);
	if (ret) {
		if (w) {
			free(w->data);
			free(w->zero);
		}
		free(w);
		return ret;
	}
	w->size = max_u64(w->size, last);
	file_init(&w->f, &view_ops, base->name);
	w->f.traits.read_only = true;
	w->f.traits.grows = false;
	w->f.traits.seekable_holes = false;
	w->base = file_ref(base);
	*out = &w->f;
	return 0;
}

/* ---- into the file ------------------------------------------------------- */

int vhdx_replay(struct image *img, const struct vhdx_patches *patches)
{
	unsigned char sector[VHDX_SECTOR];
	uint64_t size;
	int ret = file_size(img->file, &size);

	for (size_t i = 0; !ret && i < patches->n; i++) {
		const struct vhdx_patch *p = &patches->p[i];

		if (!p->from) {
			if (p->off < size)
				ret = file_zero(img->file, p->off,
						min_u64(p->len,
							size - p->off), 0);
			continue;
		}
		ret = vhdx_patch_read(img->file, p, sector);
		if (!ret)
			ret = file_write(img->file, sector, sizeof(sector),
					 p->off);
	}
	if (!ret)
		ret = file_size(img->file, &size);
	if (!ret && size < patches->last && patches->last < INT64_MAX / 2 &&
	    img->file->traits.grows)
		ret = file_truncate(img->file, patches->last);
	return ret;
}
