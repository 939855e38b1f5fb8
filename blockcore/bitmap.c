/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmap.c - the dirty bitmaps of an open image: recording what is written, and
 * when they are loaded, marked as in use and stored (bitmap.h).
 *
 * Writers read one pointer, to the bitmaps that record ("tracking"); it is NULL
 * where there are none.  They do so inside an epoch or under a claim, both of
 * which last until the guest's bytes are where they belong: who changes what is
 * recorded publishes that, waits for both, and then knows that every write that
 * recorded otherwise is over (bitmaps_settle()).
 *
 * The set's lock is outside of claims and flushes.  mark() runs without it:
 * whoever changes bitmaps has made the mark before he takes it.
 */
#include "bitmap-int.h"

#include <sched.h>

struct tracking {
	size_t n;
	struct bitmap *item[];
};

/* ---- recording ------------------------------------------------------------ */

void bitmaps_mark(struct engine *e, uint64_t off, uint64_t len)
{
	struct tracking *t = atomic_load_explicit(&e->bitmaps.tracking,
						  memory_order_acquire);

	if (!t || !len)
		return;
	for (size_t i = 0; i < t->n; i++) {
		const struct bitmap *b = t->item[i];
		uint64_t first = off >> b->shift;

		bits_set(atomic_load(&b->bits), first,
			 ((off + len - 1) >> b->shift) + 1 - first);
	}
}

/* Every write that began before this was called is over. */
void bitmaps_settle(struct image *img)
{
	struct claim all;

	image_wait_epochs(img);
	while (claim_take(img->eng, &all, 0, UINT64_MAX))
		sched_yield();          /* no memory: it comes back */
	claim_drop(img->eng, &all);
}

static bool records(const struct bitmap *b)
{
	return b->enabled && !b->inconsistent && atomic_load(&b->bits);
}

int bitmaps_track(struct image *img)
{
	struct bitmap_state *s = &img->eng->bitmaps;
	struct tracking *t, *old;
	size_t n = 0;

	t = malloc(sizeof(*t) + s->set.n * sizeof(t->item[0]));
	if (!t)
		return -ENOMEM;
	for (size_t i = 0; i < s->set.n; i++)
		if (records(s->set.item[i]))
			t->item[n++] = s->set.item[i];
	t->n = n;
	if (!n) {
		free(t);
		t = NULL;
	}
	old = atomic_exchange(&s->tracking, t);
	bitmaps_settle(img);
	free(old);
	return 0;
}

/* ---- the set -------------------------------------------------------------- */

struct bitmap *bitmap_found_take(struct bitmap_set *set, char *name,
				 unsigned shift)
{
	struct bitmap **grown = realloc(set->item,
					(set->n + 1) * sizeof(*grown));
	struct bitmap *b = calloc(1, sizeof(*b));

	if (grown)
		set->item = grown;
	if (!grown || !b || !name) {
		free(b);
		free(name);
		return NULL;
	}
	b->name = name;
	b->shift = shift;
	set->item[set->n++] = b;
	return b;
}

void bitmap_free(struct bitmap *b)
{
	bits_free(atomic_load(&b->bits));
	free(b->name);
	free(b);
}

static void drop_gone(struct bitmap_set *set)
{
	for (size_t i = 0; i < set->nr_gone; i++)
		bitmap_free(set->gone[i]);
	free(set->gone);
	set->gone = NULL;
	set->nr_gone = 0;
}

/* Nobody writes any more. */
static void drop_set(struct bitmap_state *s)
{
	free(atomic_exchange(&s->tracking, NULL));
	for (size_t i = 0; i < s->set.n; i++)
		bitmap_free(s->set.item[i]);
	free(s->set.item);
	drop_gone(&s->set);
	s->set = (struct bitmap_set) { 0 };
	s->listed = false;
}

void bitmaps_init(struct engine *e)
{
	pthread_mutex_init(&e->bitmaps.lock, NULL);
}

void bitmaps_destroy(struct engine *e)
{
	drop_set(&e->bitmaps);
	pthread_mutex_destroy(&e->bitmaps.lock);
}

/* With the lock.  What is in the file, if that is not known yet or (@again) may
 * have changed. */
int bitmaps_listed(struct image *img, bool again, struct err *err)
{
	struct bitmap_state *s = &img->eng->bitmaps;
	int ret = 0;

	if (s->listed && !(again && !img->writable))
		return 0;
	drop_set(s);
	if (img->fmt->bitmaps)
		ret = img->fmt->bitmaps->list(img, &s->set, err);
	if (ret)
		drop_set(s);
	s->listed = !ret;
	return ret;
}

uint64_t bitmap_bits(const struct bitmap *b, uint64_t size)
{
	return div_up(size, UINT64_C(1) << b->shift);
}

/* Its bits are in memory afterwards. */
int bitmap_load(struct image *img, struct bitmap *b, struct err *err)
{
	struct bits *bits;
	int ret;

	if (atomic_load(&b->bits))
		return 0;
	bits = bits_new(bitmap_bits(b, image_size(img)));
	if (!bits)
		return err_errno(err, -ENOMEM, "Could not read bitmap '%s'"
				 " from image", b->name);
	ret = img->fmt->bitmaps->load(img, b, bits, err);
	if (ret)
		bits_free(bits);
	else
		atomic_store(&b->bits, bits);
	return ret;
}

/* ---- from read-only to writable and back ---------------------------------- */

static int load_enabled(struct image *img, struct err *err)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	int ret = 0;

	for (size_t i = 0; i < set->n && !ret; i++)
		if (set->item[i]->enabled && !set->item[i]->inconsistent)
			ret = bitmap_load(img, set->item[i], err);
	return ret;
}

int bitmaps_begin(struct image *img, struct err *err)
{
	struct bitmap_state *s = &img->eng->bitmaps;
	int ret;
	with_lock(&s->lock);

	/* A repair changes nothing that the guest sees. */
	if (!img->fmt->bitmaps || img->flags & IMAGE_REPAIR)
		return 0;
	ret = bitmaps_listed(img, true, err);
	if (!ret)
		ret = load_enabled(img, err);
	if (!ret && s->set.n)
		ret = bitmaps_track(img);
	if (ret)
		drop_set(s);
	return ret;
}

void bitmaps_end(struct image *img)
{
	struct bitmap_state *s = &img->eng->bitmaps;
	with_lock(&s->lock);

	drop_set(s);
}

int bitmap_use(struct image *img, struct bitmap *b)
{
	int ret = 0;

	if (!b->fresh && !b->in_use && !knobs.no_bitmap_mark) {
		ret = img->fmt->bitmaps->use(img, b);
		if (ret)
			return ret;
	}
	b->in_use = true;
	return ret;
}

int bitmaps_use_tracked(struct image *img)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	int ret = 0;

	for (size_t i = 0; i < set->n && !ret; i++)
		if (records(set->item[i]))
			ret = bitmap_use(img, set->item[i]);
	return ret;
}

/* ---- storing -------------------------------------------------------------- */

static bool to_store(const struct bitmap_set *set)
{
	bool any = set->changed || set->nr_gone;

	for (size_t i = 0; i < set->n && !any; i++)
		any = set->item[i]->in_use;
	return any;
}

/* What is in the file counts, durably. */
static int publish(struct image *img, struct bitmap_set *set)
{
	int ret = img->fmt->bitmaps->publish(img, set);

	if (!ret)
		ret = sync_files(img);
	if (ret)
		return ret;
	for (size_t i = 0; i < set->n; i++)
		set->item[i]->fresh = false;
	drop_gone(set);
	set->changed = false;
	return 0;
}

/* What was replaced is given back, and that is written. */
static int give_back(struct image *img)
{
	int ret = 0;

	for (int i = 0; i < 2 && !ret && image_is_dirty(img); i++)
		ret = image_flush(img);
	return ret;
}

int bitmaps_place(struct image *img, bool *undo)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	int ret = img->fmt->bitmaps->place(img, set);

	if (!ret)
		ret = image_flush(img);
	*undo = ret != 0;
	if (!ret)
		ret = publish(img, set);
	if (!ret)       /* a failure is told by the next flush */
		(void)give_back(img);
	return ret;
}

void bitmaps_retire(struct image *img)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;

	if (img->fmt->bitmaps->retire)
		img->fmt->bitmaps->retire(img, set);
	drop_gone(set);
	(void)give_back(img);
}

/* What fails is tried again, or the image is closed: no step may be done twice
 * when it was done. */
static int store_and_publish(struct image *img, struct bitmap_set *set)
{
	int ret = img->fmt->bitmaps->store(img, set);

	if (!ret)
		ret = image_flush(img);
	if (!ret)
		ret = publish(img, set);
	for (size_t i = 0; i < set->n && !ret; i++)
		set->item[i]->in_use = false;
	return ret;
}

int bitmaps_store(struct image *img)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	int ret;
	with_lock(&img->eng->bitmaps.lock);

	if (!to_store(set))
		return 0;
	ret = store_and_publish(img, set);
	return ret ? ret : give_back(img);
}

/* The image is closed, and the host was full: will they be stored in a way that
 * needs no space? */
bool bitmaps_roughly(struct image *img, int ret)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	with_lock(&img->eng->bitmaps.lock);

	if ((ret != -ENOSPC && ret != -EDQUOT) || !to_store(set))
		return false;
	set->roughly = true;
	return true;
}

/* The image is closed, and they could not be stored. */
void bitmaps_lost(struct image *img, int ret)
{
	bool any;
	with_lock(&img->eng->bitmaps.lock);

	any = to_store(&img->eng->bitmaps.set);
	if (any)
		log_line("%s: Lost persistent bitmaps: %s", img->name ?
			 img->name : img->fmt->name, strerror(-ret));
}
