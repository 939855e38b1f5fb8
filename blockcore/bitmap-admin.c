/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmap-admin.c - what people do with dirty bitmaps: list, add, remove, clear,
 * enable, merge, look (bitmap.h), in QEMU's sentences; and what other
 * operations owe to them.
 *
 * Each operation is one thread's at a time (the set's lock), beside any number
 * of writers.
 */
#include "bitmap-int.h"

#define NODE "#block0"  /* QEMU gives each open image another number */

/* ---- listing -------------------------------------------------------------- */

void bitmap_list_free(struct bitmap_info *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i].name);
	free(list);
}

static int copy_list(const struct bitmap_set *set, struct bitmap_info **out)
{
	struct bitmap_info *list = calloc(set->n + 1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < set->n; i++) {
		const struct bitmap *b = set->item[i];

		list[i] = (struct bitmap_info) {
			.name = strdup(b->name),
			.granularity = UINT64_C(1) << b->shift,
			.enabled = b->enabled,
			.inconsistent = b->inconsistent,
		};
		if (!list[i].name) {
			bitmap_list_free(list, i);
			return -ENOMEM;
		}
	}
	*out = list;
	return 0;
}

int bitmap_list(struct image *img, struct bitmap_info **list, size_t *n,
		struct err *err)
{
	struct bitmap_state *s = &img->eng->bitmaps;
	int ret;
	with_lock(&s->lock);

	ret = bitmaps_listed(img, true, err);
	if (!ret)
		ret = copy_list(&s->set, list);
	if (!ret)
		*n = s->set.n;
	return ret;
}

bool bitmaps_any(struct image *img)
{
	struct bitmap_state *s = &img->eng->bitmaps;
	with_lock(&s->lock);

	return !bitmaps_listed(img, false, NULL) && s->set.n;
}

/* ---- finding one ---------------------------------------------------------- */

static struct bitmap *lookup(const struct bitmap_set *set, const char *name)
{
	for (size_t i = 0; i < set->n; i++)
		if (!strcmp(set->item[i]->name, name))
			return set->item[i];
	return NULL;
}

static int find_any(struct image *img, const char *name, struct bitmap **b,
		    struct err *err)
{
	int ret = bitmaps_listed(img, false, err);
	struct bitmap *found = NULL;

	if (ret)
		return ret;
	found = lookup(&img->eng->bitmaps.set, name);
	if (!found)
		return err_set(err, -ENOENT, "Dirty bitmap '%s' not found",
			       name);
	*b = found;
	return 0;
}

static int refuse_inconsistent(const struct bitmap *b, struct err *err)
{
	int ret = err_set(err, -EUCLEAN, "Bitmap '%s' is inconsistent and"
			  " cannot be used", b->name);

	err_hint(err, "Try block-dirty-bitmap-remove to delete this bitmap"
		 " from disk\n");
	return ret;
}

/* One that can be used, with its bits. */
static int find(struct image *img, const char *name, struct bitmap **b,
		struct err *err)
{
	struct bitmap *found = NULL;
	int ret = find_any(img, name, &found, err);

	if (ret)
		return ret;
	if (found->inconsistent)
		return refuse_inconsistent(found, err);
	ret = bitmap_load(img, found, err);
	if (!ret)
		*b = found;
	return ret;
}

/* Before the lock: the image may be changed, and its marks say so. */
static int begin(struct image *img, struct err *err)
{
	int ret = engine_begin(img->eng);

	return ret ? err_errno(err, ret, "Could not change '%s'", img->name) :
		     0;
}

/* One that is about to be changed, so marked in the file. */
static int find_to_change(struct image *img, const char *name,
			  struct bitmap **b, struct err *err)
{
	struct bitmap *found = NULL;
	int ret = find(img, name, &found, err);

	if (ret)
		return ret;
	ret = bitmap_use(img, found);
	if (!ret)
		ret = sync_files(img);
	if (ret)
		return err_errno(err, ret, "Could not mark bitmap '%s' as in"
				 " use", name);
	*b = found;
	return 0;
}

/* ---- adding and removing -------------------------------------------------- */

static int check_granularity(uint64_t granularity, struct err *err)
{
	if (is_pow2(granularity) &&
	    granularity >= UINT64_C(1) << BITMAP_GRANULARITY_MIN &&
	    granularity <= UINT64_C(1) << BITMAP_GRANULARITY_MAX)
		return 0;
	return err_set(err, -EINVAL, "Granularity must be power of 2 and at"
		       " least 512");
}

static int check_storable(struct image *img, const struct bitmap *b,
			  struct err *err)
{
	const struct format_bitmaps *fb = img->fmt->bitmaps;
	int ret;

	if (!fb || !fb->store)
		return err_set(err, -EOPNOTSUPP, "Can't store persistent"
			       " bitmaps to " NODE ": Operation not supported");
	ret = fb->check(img, &img->eng->bitmaps.set, b, err);
	if (ret)
		err_prefix(err, "Can't make bitmap '%s' persistent in '" NODE
			   "': ", b->name);
	return ret;
}

/* The set has no @b any more; what it has in the file is given back when the
 * others are stored. */
static int let_go(struct bitmap_set *set, struct bitmap *b)
{
	struct bitmap **grown = realloc(set->gone, (set->nr_gone + 1) *
					sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	set->gone = grown;
	set->gone[set->nr_gone++] = b;
	return 0;
}

/* The last one, which could not be made. */
static void undo_append(struct bitmap_set *set, bool changed)
{
	struct bitmap *b = set->item[--set->n];

	set->changed = changed;
	bits_free(atomic_exchange(&b->bits, NULL));
	if (let_go(set, b))
		bitmap_free(b);         /* its space leaks */
}

static int fresh_take(struct image *img, const char *name, unsigned shift,
		      struct bits *bits)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	bool was = set->changed, undo = true;
	struct bitmap *b = bitmap_found_take(set, strdup(name), shift);
	int ret;

	if (!b) {
		bits_free(bits);
		return -ENOMEM;
	}
	b->enabled = b->fresh = b->in_use = set->changed = true;
	ret = bitmaps_place(img, &undo);
	if (ret && undo) {
		bits_free(bits);
		undo_append(set, was);
		return ret;
	}
	atomic_store(&b->bits, bits);
	return ret;
}

/* A clean one behind the others. */
static int append(struct image *img, const char *name, unsigned shift,
		  struct err *err)
{
	struct bitmap probe = { .name = (char *)name, .shift = shift };
	struct bits *bits;
	int ret = check_storable(img, &probe, err), tracked;

	if (ret)
		return ret;
	bits = bits_new(bitmap_bits(&probe, image_size(img)));
	if (!bits)
		return -ENOMEM;
	ret = fresh_take(img, name, shift, bits);
	tracked = bitmaps_track(img);
	if (tracked)    /* it misses what is written */
		lookup(&img->eng->bitmaps.set, name)->inconsistent = true;
	return ret ? err_errno(err, ret, "Could not store bitmap '%s'", name) :
		     tracked;
}

static int check_new(struct image *img, const char *name, uint64_t granularity,
		     struct err *err)
{
	int ret;

	if (!*name)
		return err_set(err, -EINVAL, "Bitmap name cannot be empty");
	ret = check_granularity(granularity, err);
	if (!ret)
		ret = bitmaps_listed(img, false, err);
	if (!ret && lookup(&img->eng->bitmaps.set, name))
		ret = err_set(err, -EEXIST, "Bitmap already exists: %s", name);
	return ret;
}

int bitmap_add(struct image *img, const char *name, uint64_t granularity,
	       struct err *err)
{
	int ret;
	with_lock(&img->eng->bitmaps.lock);

	if (!granularity)
		granularity = max_u64(4 * KiB, min_u64(64 * KiB, img->unit));
	ret = check_new(img, name, granularity, err);
	/* No mark is made where there is nothing to add to. */
	if (!ret && img->fmt->bitmaps && img->fmt->bitmaps->store)
		ret = begin(img, err);
	return ret ? ret : append(img, name, log2_u64(granularity), err);
}

/* Where it was. */
static size_t take_out(struct bitmap_set *set, const struct bitmap *b)
{
	size_t i = 0;

	while (set->item[i] != b)
		i++;
	memmove(set->item + i, set->item + i + 1,
		(--set->n - i) * sizeof(*set->item));
	return i;
}

/* There was room for it. */
static void put_in(struct bitmap_set *set, struct bitmap *b, size_t i)
{
	memmove(set->item + i + 1, set->item + i,
		(set->n++ - i) * sizeof(*set->item));
	set->item[i] = b;
}

/* It records until the list without it is in the file. */
static int remove_found(struct image *img, struct bitmap *b, struct err *err)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	bool was = set->changed, undo;
	size_t i = take_out(set, b);
	int ret;

	set->changed = true;
	ret = bitmaps_place(img, &undo);
	if (ret && undo) {
		put_in(set, b, i);
		set->changed = was;
	} else if (!bitmaps_track(img) && !let_go(set, b) && !ret) {
		bitmaps_retire(img);
	}       /* else nobody may free it, or the next list gives it back */
	return ret ? err_errno(err, ret, "Could not store the list of bitmaps") :
		     0;
}

int bitmap_remove(struct image *img, const char *name, struct err *err)
{
	struct bitmap *b = NULL;
	int ret;
	with_lock(&img->eng->bitmaps.lock);

	ret = find_any(img, name, &b, err);
	if (!ret)
		ret = begin(img, err);
	return ret ? ret : remove_found(img, b, err);
}

/* ---- changing one --------------------------------------------------------- */

/* New bits, which old writes do not know and (@keep) what the old ones say. */
static int replace_bits(struct image *img, struct bitmap *b, uint64_t size,
			bool keep)
{
	struct bits *bits = bits_new(bitmap_bits(b, size)), *old;

	if (!bits)
		return -ENOMEM;
	old = atomic_exchange(&b->bits, bits);
	bitmaps_settle(img);
	if (keep)
		bits_merge(bits, b->shift, old, b->shift);
	bits_free(old);
	return 0;
}

int bitmap_clear(struct image *img, const char *name, struct err *err)
{
	struct bitmap *b = NULL;
	int ret;
	with_lock(&img->eng->bitmaps.lock);

	ret = find(img, name, &b, err);
	if (!ret)
		ret = begin(img, err);
	if (!ret)
		ret = find_to_change(img, name, &b, err);
	return ret ? ret : replace_bits(img, b, image_size(img), false);
}

int bitmap_enable(struct image *img, const char *name, bool on,
		  struct err *err)
{
	struct bitmap *b = NULL;
	bool was;
	int ret;
	with_lock(&img->eng->bitmaps.lock);

	ret = find(img, name, &b, err);
	if (!ret)
		ret = begin(img, err);
	if (!ret)
		ret = find_to_change(img, name, &b, err);
	if (ret || b->enabled == on)
		return ret;
	was = b->enabled;
	b->enabled = on;
	ret = bitmaps_track(img);
	if (ret)
		b->enabled = was;
	return ret;
}

/* The bits of another image, which is read-only. */
static int bits_of_other(struct image *src, const char *from,
			 struct bitmap **b, struct err *err)
{
	with_lock(&src->eng->bitmaps.lock);

	return find(src, from, b, err);
}

static int check_merge(struct image *img, struct image *src, struct err *err)
{
	if (image_size(img) == image_size(src))
		return 0;
	return err_set(err, -EINVAL, "Bitmaps are of different sizes"
		       " (destination size is %llu, source size is %llu) and"
		       " can't be merged", (unsigned long long)image_size(img),
		       (unsigned long long)image_size(src));
}

int bitmap_merge(struct image *img, const char *name, struct image *src,
		 const char *from, struct err *err)
{
	struct bitmap *to, *b;
	int ret;
	with_lock(&img->eng->bitmaps.lock);

	ret = find(img, name, &to, err);
	if (!ret && src == img)
		ret = find(img, from, &b, err);
	else if (!ret)
		ret = bits_of_other(src, from, &b, err);
	if (!ret)
		ret = check_merge(img, src, err);
	if (!ret)
		ret = begin(img, err);
	if (!ret)
		ret = find_to_change(img, name, &to, err);
	if (!ret && b != to)
		bits_merge(atomic_load(&to->bits), to->shift,
			   atomic_load(&b->bits), b->shift);
	return ret;
}

/* ---- looking -------------------------------------------------------------- */

int bitmap_run(struct image *img, const char *name, uint64_t off,
	       uint64_t *len, bool *dirty, struct err *err)
{
	struct bitmap *b = NULL;
	uint64_t n, end;
	int ret;
	with_lock(&img->eng->bitmaps.lock);

	ret = find(img, name, &b, err);
	if (ret)
		return ret;
	if (off >= image_size(img) ||
	    off >> b->shift >= bits_number(atomic_load(&b->bits)))
		return -EINVAL;
	n = bits_next(atomic_load(&b->bits), off >> b->shift, UINT64_MAX,
		      dirty);
	end = min_u64(((off >> b->shift) + n) << b->shift, image_size(img));
	*len = end - off;
	return 0;
}

int bitmap_count(struct image *img, const char *name, uint64_t *bytes,
		 struct err *err)
{
	uint64_t total = 0, len, size = image_size(img);
	bool dirty;

	for (uint64_t off = 0; off < size; off += len) {
		int ret = bitmap_run(img, name, off, &len, &dirty, err);

		if (ret)
			return ret;
		total += dirty ? len : 0;
	}
	*bytes = total;
	return 0;
}

/* ---- what others owe ------------------------------------------------------ */

int bitmaps_touch(struct image *img, uint64_t off, uint64_t len)
{
	int ret = engine_begin(img->eng);
	with_lock(&img->eng->bitmaps.lock);

	if (!ret)
		bitmaps_mark(img->eng, off, len);
	return ret;
}

/* Those that are only in the file are loaded: their tables change. */
static int resize_one(struct image *img, struct bitmap *b, uint64_t size,
		      struct err *err)
{
	int ret;

	ret = find_to_change(img, b->name, &b, err);
	return ret ? ret : replace_bits(img, b, size, true);
}

static int check_resized(struct image *img, struct err *err)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	int ret = bitmaps_listed(img, false, err);

	for (size_t i = 0; i < set->n && !ret; i++)
		if (set->item[i]->inconsistent)
			ret = refuse_inconsistent(set->item[i], err);
	return ret;
}

int bitmaps_resize_begin(struct image *img, struct err *err)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	struct bitmap *b = NULL;
	int ret = engine_begin(img->eng);
	with_lock(&img->eng->bitmaps.lock);

	if (!ret)
		ret = check_resized(img, err);
	for (size_t i = 0; i < set->n && !ret; i++)
		ret = find_to_change(img, set->item[i]->name, &b, err);
	return ret;
}

int bitmaps_resize(struct image *img, uint64_t size, struct err *err)
{
	struct bitmap_set *set = &img->eng->bitmaps.set;
	int ret = engine_begin(img->eng);
	with_lock(&img->eng->bitmaps.lock);

	if (!ret)
		ret = check_resized(img, err);
	for (size_t i = 0; i < set->n && !ret; i++)
		ret = resize_one(img, set->item[i], size, err);
	return ret;
}
