/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * chain-files.c - which files an image consists of, and whether they are still
 * the same with the same times: what is remembered of an image is true as long
 * as they are.
 *
 * Knows struct stat and the layers of a chain, which can be exchanged; neither
 * users nor state.
 */
#include "fs/mimage.h"

void file_id_of(const struct stat *st, struct file_id *id)
{
	id->dev = st->st_dev;
	id->ino = st->st_ino;
	id->size = (uint64_t)st->st_size;
	id->mtime = st->st_mtim;
}

bool file_id_same_file(const struct file_id *a, const struct file_id *b)
{
	return a->dev == b->dev && a->ino == b->ino;
}

bool file_id_equal(const struct file_id *a, const struct file_id *b)
{
	return file_id_same_file(a, b) && a->ino && a->size == b->size &&
	       a->mtime.tv_sec == b->mtime.tv_sec &&
	       a->mtime.tv_nsec == b->mtime.tv_nsec;
}

struct file **chain_files(const struct image *img, unsigned *n)
{
	struct file **list = NULL;
	unsigned nr = 0, at = 0;

	for (const struct image *l = img; l; l = l->backing)
		nr += 1 + l->nr_children;
	list = calloc(nr, sizeof(struct file *));
	BUG_ON(!list);
	for (const struct image *l = img; l; l = l->backing) {
		list[at++] = file_ref(l->file);
		for (unsigned i = 0; i < l->nr_children; i++)
			list[at++] = file_ref(l->children[i].file);
	}
	*n = nr;
	return list;
}

struct file_id *files_ids(struct file **files, unsigned n)
{
	struct file_id *ids = calloc(n, sizeof(*ids)); /* zero equals nothing */
	struct stat st;

	BUG_ON(!ids);
	for (unsigned i = 0; i < n; i++) {
		if (!file_stat(files[i], &st))
			file_id_of(&st, &ids[i]);
		file_unref(files[i]);
	}
	free(files);
	return ids;
}

struct file_id *chain_ids(const struct image *img, unsigned *n)
{
	struct file **files = chain_files(img, n);

	return files_ids(files, *n);
}

bool file_ids_equal(const struct file_id *a, unsigned na,
		    const struct file_id *b, unsigned nb)
{
	if (na != nb)
		return false;
	for (unsigned i = 0; i < na; i++)
		if (!file_id_equal(&a[i], &b[i]))
			return false;
	return true;
}

bool mimage_files_changed(struct mimage *m)
{
	unsigned n;
	autofree struct file_id *now = chain_ids(m->image, &n);

	return !file_ids_equal(now, n, m->files, m->nr_files);
}

/* ---- another chain below the image ----------------------------------------- */

static void tell_backing(struct mimage *m, unsigned layers)
{
	for (unsigned i = 0; i < layers; i++)
		notify_entry(m->mnt, node_ino(m, NODE_IMAGE, i, 0), "backing");
}

static unsigned chain_length(const struct image *img)
{
	unsigned n = 0;

	for (; img; img = img->backing)
		n++;
	return n;
}

struct image *mimage_swap_backing(struct mimage *m, struct image *backing)
{
	struct image *old = m->image->backing;
	unsigned n, layers = chain_length(m->image);
	struct file_id *files;

	m->image->backing = backing;
	files = chain_ids(m->image, &n);
	pthread_mutex_lock(&m->lock);
	m->opened++;
	free(m->files);
	m->files = files;
	m->nr_files = n;
	pthread_mutex_unlock(&m->lock);
	tell_backing(m, layers > chain_length(m->image) ? layers :
		     chain_length(m->image));
	return old;
}
