/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine.c - birth and death of an image's engine, and the marks that an image
 * carries while it is being changed (rule 12) or after it was found corrupt.
 */
#include "engine-int.h"

#include <stdarg.h>

struct knobs knobs;

static void gate_init(pthread_rwlock_t *gate)
{
	pthread_rwlockattr_t attr;

	/* A flush must not wait for ever behind a stream of changes. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr,
		PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(gate, &attr);
	pthread_rwlockattr_destroy(&attr);
}

struct engine *engine_new(struct image *img)
{
	struct engine *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	if (epochs_init(&e->epochs)) {
		free(e);
		return NULL;
	}
	e->img = img;
	claims_init(&e->claims);
	gate_init(&e->gate);
	pthread_mutex_init(&e->flush_lock, NULL);
	pthread_mutex_init(&e->dirty_lock, NULL);
	pthread_mutex_init(&e->mark_lock, NULL);
	pthread_mutex_init(&e->retired_lock, NULL);
	bitmaps_init(e);
	pthread_mutex_init(&e->resize_lock, NULL);
	pthread_mutex_init(&e->strings_lock, NULL);
	return e;
}

/* Its files will have other numbers when they are opened again. */
static void forget_units(const struct image *img)
{
	if (img->file)
		unit_forget(img->file, 0, UINT64_MAX);
	for (unsigned i = 0; i < img->nr_children; i++)
		unit_forget(img->children[i].file, 0, UINT64_MAX);
}

void engine_free(struct engine *e)
{
	if (!e)
		return;
	bitmaps_destroy(e);
	meta_drop_all(e);
	forget_units(e->img);
	space_drop_all(e);
	for (size_t i = 0; i < e->nr_strings; i++)
		free(e->strings[i]);
	free(e->strings);
	epochs_destroy(&e->epochs);
	claims_destroy(&e->claims);
	pthread_rwlock_destroy(&e->gate);
	pthread_mutex_destroy(&e->flush_lock);
	pthread_mutex_destroy(&e->dirty_lock);
	pthread_mutex_destroy(&e->mark_lock);
	pthread_mutex_destroy(&e->retired_lock);
	pthread_mutex_destroy(&e->resize_lock);
	pthread_mutex_destroy(&e->strings_lock);
	free(e);
}

/* ---- marks ---------------------------------------------------------------- */

/* The mark is durable before what it speaks of. */
static int mark(struct engine *e)
{
	struct image *img = e->img;
	int ret = 0;
	with_lock(&e->mark_lock);

	if (atomic_load(&e->marked))
		return 0;
	if (img->fmt->dirty && !knobs.no_dirty_mark)
		ret = img->fmt->dirty(img);
	if (!ret)
		ret = bitmaps_use_tracked(img);
	if (!ret && img->fmt->dirty)
		ret = sync_files(img);
	if (!ret)
		atomic_store(&e->marked, true);
	return ret;
}

int engine_begin(struct engine *e)
{
	int broken = atomic_load_explicit(&e->broken, memory_order_relaxed);

	if (!e->img->writable)
		return -EROFS;
	if (broken)
		return broken;
	if (atomic_load_explicit(&e->corrupt, memory_order_relaxed))
		return -EUCLEAN;
	if (atomic_load_explicit(&e->marked, memory_order_acquire))
		return 0;
	return mark(e);
}

int engine_clean(struct image *img)
{
	struct engine *e = img->eng;
	int ret = image_flush(img), lost;

	/* What the first flush dropped is given back and written by another. */
	if (!ret && image_is_dirty(img))
		ret = image_flush(img);
	if (ret)
		return ret;
	/* Marks go one by one: who changes something after half of this has
	 * failed makes them all again. */
	e->unclean |= atomic_exchange(&e->marked, false);
	if (!e->unclean)
		return 0;
	lost = bitmaps_store(img);
	if (img->fmt->clean)
		ret = img->fmt->clean(img);
	if (!ret)
		ret = sync_files(img);
	if (!ret)
		ret = lost;
	e->unclean = ret != 0;
	return ret;
}

void image_corrupt(struct image *img, const char *fmt, ...)
{
	autostrbuf text = STRBUF_INIT;
	va_list ap;

	if (atomic_exchange(&img->eng->corrupt, true))
		return;
	va_start(ap, fmt);
	strbuf_vprintf(&text, fmt, ap);
	va_end(ap);
	log_line("%s: Image is corrupt: %s; further non-fatal corruption"
		 " events will be suppressed", log_names && img->name ?
		 img->name : img->fmt->name, text.text);
}
