/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * facts.c - what an image is: sizes, chain, partitions, read as `-U` would and
 * closed again, so that ls and stat take no lock; from the open image when there
 * is one.
 *
 * Knows when what it read is old: another identity, size or time of a file, or
 * another opening of the image.
 */
#include "fs/mimage.h"
#include "fs/partitions.h"
#include "bitmap.h"
#include "json.h"
#include "spec.h"

#include <time.h>

/* ---- memory ------------------------------------------------------------------ */

static void layer_free(struct layer *l)
{
	free(l->name);
	if (l->parts)
		partition_table_free(l->parts);
	free(l->parts);
}

void facts_unref(struct facts *f)
{
	if (!f || --f->refs)
		return;
	for (unsigned i = 0; i < f->nr; i++)
		layer_free(&f->layers[i]);
	free(f->layers);
	free(f->sentence);
	free(f);
}

static struct facts *facts_new(void)
{
	struct facts *f = calloc(1, sizeof(*f));

	BUG_ON(!f);
	f->refs = 1;
	clock_gettime(CLOCK_MONOTONIC, &f->when);
	return f;
}

void facts_drop(struct mimage *m)
{
	struct facts *f;

	pthread_mutex_lock(&m->lock);
	f = m->facts;
	m->facts = NULL;
	pthread_mutex_unlock(&m->lock);
	facts_unref(f);
}

/* Takes a reference for the caller; the image keeps another. */
static void facts_keep(struct mimage *m, struct facts *f)
{
	struct facts *old;

	f->refs++;
	pthread_mutex_lock(&m->lock);
	old = m->facts;
	m->facts = f;
	pthread_mutex_unlock(&m->lock);
	facts_unref(old);
}

/* ---- reading ------------------------------------------------------------------- */

static struct partition_table *read_partitions(const struct image *img)
{
	struct partition_table *t = calloc(1, sizeof(*t));

	BUG_ON(!t);
	if (partition_table_read(&img->live, t) ||
	    t->scheme == PARTITION_NONE) {
		partition_table_free(t);
		free(t);
		return NULL;
	}
	return t;
}

static void layer_read(struct layer *l, const struct image *img, bool data)
{
	l->name = strdup(img->name);
	BUG_ON(!l->name);
	l->size = image_size(img);
	l->unit = img->unit;
	l->has_backing = img->backing_name || img->backing;
	l->has_bitmaps = img->fmt->bitmaps && !img->fmt->bitmaps->never(img);
	l->has_snapshots = img->fmt->admin && img->fmt->admin->snapshots;
	l->has_stat = !file_stat(img->file, &l->st);
	if (data)
		l->parts = read_partitions(img);
}

/* @data: the chain is there, so that the guest's bytes can be read. */
static void chain_read(struct facts *f, const struct image *img, bool data)
{
	unsigned nr = 0;

	for (const struct image *l = img; l; l = l->backing)
		nr++;
	f->layers = calloc(nr, sizeof(*f->layers));
	BUG_ON(!f->layers);
	for (const struct image *l = img; l; l = l->backing)
		layer_read(&f->layers[f->nr++], l, data);
	if (f->layers[0].has_stat)
		file_id_of(&f->layers[0].st, &f->id);
}

static void trouble(struct facts *f, const struct err *err)
{
	if (f->error)
		return;
	f->error = err->code ? err->code : -EIO;
	f->sentence = strdup(err_text(err));
}

/* As `info -U` would: the header alone. */
static void header_read(struct mimage *m, struct facts *f)
{
	struct image_args args;
	struct image *img;

	mimage_args(m, IMAGE_SHARE | IMAGE_NO_LOCK | IMAGE_INFO |
		    IMAGE_NO_BACKING, &args);
	if (mimage_open_with(m, &args, &img, NULL))
		return;
	chain_read(f, img, false);
	image_close(img);
}

static struct facts *read_closed(struct mimage *m)
{
	struct facts *f = facts_new();
	autoerr err = ERR_INIT;
	struct image_args args;
	struct image *img;

	pause_point("facts");
	mimage_args(m, IMAGE_SHARE | IMAGE_NO_LOCK, &args);
	if (mimage_open_with(m, &args, &img, &err)) {
		err_prefix(&err, "Could not open '%s': ", m->title);
		trouble(f, &err);
		header_read(m, f);
		return f;
	}
	chain_read(f, img, true);
	image_close(img);
	return f;
}

static struct facts *read_anyhow(struct mimage *m)
{
	struct image *img = mimage_borrow(m);
	struct facts *f;

	if (!img)
		return read_closed(m);
	f = facts_new();
	f->opened = m->opened;
	f->changes = m->changes;
	chain_read(f, img, true);
	mimage_give_back(m);
	return f;
}

/* ---- old or fresh ----------------------------------------------------------------- */

static bool younger_than_second(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - t->tv_sec < (now.tv_nsec < t->tv_nsec ? 2 : 1);
}

static bool layer_unchanged(const char *path, const struct layer *l)
{
	struct file_id then, now;
	struct stat st;

	if (!path || !l->has_stat || stat(path, &st))
		return false;
	file_id_of(&l->st, &then);
	file_id_of(&st, &now);
	return file_id_equal(&then, &now);
}

static bool is_fresh(struct mimage *m, const struct facts *f)
{
	if (f->error || !f->nr)
		return younger_than_second(&f->when);
	for (unsigned i = 0; i < f->nr; i++)
		if (!layer_unchanged(i ? f->layers[i].name : m->path,
				     &f->layers[i]))
			return younger_than_second(&f->when) && i;
	return true;
}

/* The cached facts with a reference, and whether they are beyond doubt: those
 * of an open image that nobody else may change. */
static struct facts *cached(struct mimage *m, bool *sure)
{
	struct facts *f;

	with_lock(&m->lock);
	f = m->facts;
	if (f)
		f->refs++;
	*sure = f && m->image && f->opened == m->opened &&
		!m->mnt->opt->share;
	return f;
}

struct facts *mimage_facts_fast(struct mimage *m)
{
	bool sure;
	struct facts *f = cached(m, &sure);

	if (f && (sure || is_fresh(m, f)))
		return f;
	facts_unref(f);
	return NULL;
}

struct facts *mimage_facts(struct mimage *m)
{
	struct facts *f = mimage_facts_fast(m);

	if (f)
		return f;
	f = read_anyhow(m);
	facts_keep(m, f);
	return f;
}

struct facts *mimage_facts_now(struct mimage *m)
{
	struct facts *f = mimage_facts(m);

	if (!f->opened || f->changes == m->changes)
		return f;
	facts_unref(f);
	f = read_anyhow(m);
	facts_keep(m, f);
	return f;
}

const struct partition *facts_partition(const struct facts *f, unsigned layer,
					unsigned number)
{
	const struct partition_table *t;

	if (layer >= f->nr || !f->layers[layer].parts)
		return NULL;
	t = f->layers[layer].parts;
	for (unsigned i = 0; i < t->nr; i++)
		if (t->list[i].number == number && !t->list[i].container)
			return &t->list[i];
	return NULL;
}

/* ---- info --------------------------------------------------------------------------- */

/* The image below @img, which is closed. */
static int below(struct mimage *m, struct image *img, struct image **next,
		 struct err *err)
{
	struct image_args args;
	autojson *node = NULL;
	int ret;

	mimage_args(m, IMAGE_SHARE | IMAGE_NO_LOCK | IMAGE_INFO |
		    IMAGE_NO_BACKING, &args);
	args.self_policy = args.policy;
	if (!img->backing_name)
		ret = err_set(err, -ENOENT, "There is no backing file");
	else
		ret = spec_parse_child(img->backing_name, img->name,
				       img->backing_fmt, &node, err);
	args.node = node;
	if (!ret)
		ret = mimage_open_with(m, &args, next, err);
	image_close(img);
	return ret;
}

int mimage_info_begin(struct mimage *m, unsigned layer, struct image **img,
		      struct err *err)
{
	struct image_args args;
	int ret;

	if (mimage_borrow(m)) {
		*img = mimage_layer(m, layer);
		if (*img)
			return 0;
		mimage_give_back(m);
		return err_set(err, -ENOENT, "There is no backing file");
	}
	mimage_args(m, IMAGE_SHARE | IMAGE_NO_LOCK | IMAGE_INFO |
		    IMAGE_NO_BACKING, &args);
	ret = mimage_open_with(m, &args, img, err);
	while (!ret && layer--)
		ret = below(m, *img, img, err);
	return ret;
}

static bool is_ours(const struct mimage *m, const struct image *img)
{
	const struct image *l = m->image;

	while (l && l != img)
		l = l->backing;
	return l != NULL;
}

/* Only who has borrowed may look at the open image. */
void mimage_info_end(struct mimage *m, struct image *img)
{
	if (img->flags & IMAGE_NO_LOCK) {
		image_close(img);
		return;
	}
	BUG_ON(!is_ours(m, img));
	mimage_give_back(m);
}
