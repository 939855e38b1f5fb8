/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blocks.c - st_blocks of a disk: how much of the guest's bytes is data (F14).
 *
 * tar and cp believe it: with no blocks a file is empty, with as many as its
 * size has it has no holes.  So a number is exact or says "some data, some
 * holes".  The disk is cut into regions that are counted one by one; a change
 * makes its region unknown, and only that is walked again.  While somebody keeps
 * changing what has been counted nothing is counted in the background: it would
 * never end, and the host's look for holes keeps its writers waiting.
 *
 * Knows regions and the walk.  Refuses to know which format changes what.
 */
#include "fs/disk.h"

enum {
	REGIONS    = 1024,
	STAT_STEPS = 512,       /* of the map, while stat(2) waits */
	SLICE_STEPS = 4096,     /* ... in the background, at a time */
};
#define REGION_MIN (16 * MiB)

struct region {
	_Atomic bool stale;
	uint64_t data;          /* bytes; under counting */
};

/* One window of one layer; freed when the image is forgotten. */
struct blocks {
	struct blocks *next;    /* constant, as are: */
	struct mimage *m;
	fuse_ino_t ino;
	unsigned layer;
	uint64_t start, len;    /* the window; len UINT64_MAX: to the end */
	uint64_t region_size;   /* the last one goes on to the end */
	unsigned nr;

	_Atomic bool queued;    /* counting goes on in the background */
	_Atomic bool disturbed; /* what was counted there is not so any more */
	struct long_work use;   /* of the image, there */
	struct work work;

	pthread_mutex_t counting;       /* who holds it walks; guards: */
	uint64_t size;          /* bytes of the window */
	bool walking;           /* region @at_region, as far as @at: @data */
	unsigned at_region;
	uint64_t at, data;
	uint64_t told;          /* what stat was told last: blocks */
	struct region region[];
};

/* ---- the list of an image: only ever grows at its head ---------------------- */

static struct blocks *first(struct mimage *m)
{
	return __atomic_load_n((struct blocks **)&m->disk, __ATOMIC_ACQUIRE);
}

static void all_stale(struct blocks *b)
{
	for (unsigned i = 0; i < b->nr; i++)
		atomic_store(&b->region[i].stale, true);
	b->walking = false;
	b->told = UINT64_MAX;
}

static struct blocks *blocks_new(const struct node *n, uint64_t start,
				 uint64_t len, uint64_t size)
{
	uint64_t each = max_u64(div_up(size, REGIONS), REGION_MIN);
	unsigned nr = (unsigned)div_up(size, each);
	struct blocks *b = calloc(1, sizeof(*b) + nr * sizeof(b->region[0]));

	if (!b)
		return NULL;
	pthread_mutex_init(&b->counting, NULL);
	b->m = n->m;
	b->ino = n->ino;
	b->layer = n->layer;
	b->start = start;
	b->len = len;
	b->size = size;
	b->region_size = each;
	b->nr = nr;
	all_stale(b);
	return b;
}

static struct blocks *blocks_find(const struct node *n, uint64_t start,
				  uint64_t len)
{
	struct blocks *b = first(n->m);

	while (b && (b->layer != n->layer || b->start != start ||
		     b->len != len))
		b = b->next;
	return b;
}

static struct blocks *blocks_get(const struct node *n, uint64_t start,
				 uint64_t len, uint64_t size)
{
	struct blocks *b = blocks_find(n, start, len);

	if (b)
		return b;
	with_lock(&n->m->lock);
	b = blocks_find(n, start, len);
	if (b)
		return b;
	b = blocks_new(n, start, len, size);
	if (!b)
		return NULL;
	b->next = first(n->m);
	__atomic_store_n((struct blocks **)&n->m->disk, b, __ATOMIC_RELEASE);
	return b;
}

static uint64_t region_at(const struct blocks *b, uint64_t off)
{
	return off <= b->start ? 0 :
		min_u64((off - b->start) / b->region_size, b->nr - 1);
}

void blocks_changed(struct mimage *m, uint64_t off, uint64_t len)
{
	for (struct blocks *b = first(m); b && len; b = b->next) {
		if (b->layer || off + len <= b->start ||
		    (off > b->start && off - b->start >= b->len))
			continue;
		for (uint64_t i = region_at(b, off);
		     i <= region_at(b, off + len - 1); i++)
			if (!atomic_load_explicit(&b->region[i].stale,
						  memory_order_relaxed)) {
				atomic_store(&b->region[i].stale, true);
				atomic_store(&b->disturbed, true);
			}
	}
}

void blocks_anew(struct mimage *m)
{
	for (struct blocks *b = first(m); b; b = b->next)
		for (unsigned i = 0; i < b->nr; i++)
			atomic_store(&b->region[i].stale, true);
}

/* ---- counting ------------------------------------------------------------------ */

/* Begins with the next stale region.  False: there is none. */
static bool walk_begin(struct blocks *b)
{
	for (unsigned i = 0; i < b->nr; i++) {
		/* Cleared before the walk: a change during it stays seen. */
		if (!atomic_exchange(&b->region[i].stale, false))
			continue;
		b->walking = true;
		b->at_region = i;
		b->at = i * b->region_size;
		b->data = 0;
		return true;
	}
	return false;
}

static int walk_some(struct blocks *b, struct image *img, unsigned *steps)
{
	uint64_t end = b->size;
	struct run r;
	int ret;

	if (b->at_region + 1 < b->nr)
		end = min_u64(end, (b->at_region + 1) * b->region_size);
	for (; b->at < end; b->at += r.len) {
		if (!*steps || atomic_load(&b->use.cancel))
			return 1;
		--*steps;
		ret = walk_step(&img->live, b->start + b->at, end - b->at, 0,
				MAP_EXACT, &r);
		if (ret)
			return ret;
		if (!r.zero)
			b->data += r.len;
	}
	b->region[b->at_region].data = b->data;
	b->walking = false;
	return 0;
}

/* 0: all is known; 1: not yet, go on; negative errno. */
static int count(struct blocks *b, struct image *img, unsigned steps)
{
	int ret = 0;

	while (!ret && (b->walking || walk_begin(b)))
		ret = walk_some(b, img, &steps);
	if (ret < 0) {
		atomic_store(&b->region[b->at_region].stale, true);
		b->walking = false;
	}
	return ret;
}

static uint64_t total(const struct blocks *b)
{
	uint64_t data = 0;

	for (unsigned i = 0; i < b->nr; i++)
		data += b->region[i].data;
	return data;
}

/* ---- what stat says ------------------------------------------------------------------ */

uint64_t blocks_unknown(uint64_t size)
{
	uint64_t all = div_up(size, SECTOR_SIZE);

	return all > 8 ? all - 8 : min_u64(all, 1);
}

static uint64_t blocks_known(uint64_t data, uint64_t size)
{
	if (data >= size)
		return div_up(size, SECTOR_SIZE);
	if (!data)
		return 0;
	return min_u64(div_up(data, SECTOR_SIZE), blocks_unknown(size));
}

/* ---- in the background ------------------------------------------------------------ */

/* Is a file of the image open, but for @ours? */
static bool in_use(struct mimage *m, unsigned ours)
{
	with_lock(&m->lock);

	return m->readers + m->writers > ours;
}

static void count_later(struct work *w);

/* Takes a user of the image along; count_later() gives it back. */
static void queue(struct blocks *b)
{
	if (atomic_exchange(&b->queued, true))
		return;
	if (!mimage_get_fast(b->m, MIMAGE_READ)) {
		atomic_store(&b->queued, false);
		return;
	}
	mimage_ref(b->m);
	atomic_store(&b->disturbed, false);
	b->work.run = count_later;
	work_submit(b->m->mnt->housework, &b->work);
}

/* In slices: whoever wants to change the image, and other housework, shall not
 * wait for us. */
static int count_slice(struct blocks *b)
{
	struct image *img;
	int ret = 0;

	atomic_store(&b->use.cancel, false);
	mimage_enter_long(b->m, &b->use);
	img = mimage_layer(b->m, b->layer);
	pthread_mutex_lock(&b->counting);
	if (img && b->start + b->size <= image_size(img))
		ret = count(b, img, SLICE_STEPS);
	/* The kernel keeps what it was told (F23). */
	if (!ret && b->told != blocks_known(total(b), b->size))
		notify_inode(b->m->mnt, b->ino, false);
	pthread_mutex_unlock(&b->counting);
	mimage_leave_long(b->m, &b->use);
	return ret;
}

static void count_later(struct work *w)
{
	struct blocks *b = container_of(w, struct blocks, work);
	struct mimage *m = b->m;

	pause_point("fs-blocks");
	if (count_slice(b) == 1 && !atomic_load(&b->disturbed) &&
	    in_use(m, 1)) {
		work_submit(m->mnt->housework, w);
		return;
	}
	atomic_store(&b->use.cancel, false);
	atomic_store(&b->queued, false);
	mimage_put(m, MIMAGE_READ);
	mimage_unref(m);
}

/* ---- for disk.c ---------------------------------------------------------------------- */

/* The window's length may have grown with the image. */
static void set_size(struct blocks *b, uint64_t size)
{
	if (b->size == size)
		return;
	b->size = size;
	all_stale(b);
}

uint64_t blocks_of(const struct node *n, struct image *img, uint64_t start,
		   uint64_t len, uint64_t size)
{
	uint64_t blocks = blocks_unknown(size);
	/* No table is read for an `ls -l` of images that nobody uses. */
	bool used = in_use(n->m, 0);
	struct blocks *b;
	int ret;

	if (!size)
		return 0;
	b = used ? blocks_get(n, start, len, size) :
		blocks_find(n, start, len);
	if (!b || pthread_mutex_trylock(&b->counting))
		return blocks;
	set_size(b, size);
	ret = count(b, img, used ? STAT_STEPS : 0);
	if (!ret)
		blocks = blocks_known(total(b), size);
	b->told = blocks;
	pthread_mutex_unlock(&b->counting);
	if (ret == 1 && used)
		queue(b);
	return blocks;
}

void blocks_begin(const struct node *n, uint64_t start, uint64_t len,
		  uint64_t size)
{
	struct blocks *b = size ? blocks_get(n, start, len, size) : NULL;
	bool known = false;

	if (!b || pthread_mutex_trylock(&b->counting))
		return;
	if (b->size == size && !b->walking) {
		known = true;
		for (unsigned i = 0; i < b->nr && known; i++)
			known = !atomic_load(&b->region[i].stale);
	}
	set_size(b, size);
	pthread_mutex_unlock(&b->counting);
	if (!known)
		queue(b);
}

/* ---- with the image --------------------------------------------------------------------- */

/* Nobody is inside: the caller holds the gate. */
void disk_closed(struct mimage *m)
{
	for (struct blocks *b = first(m); b; b = b->next)
		all_stale(b);
}

void disk_forget(struct mimage *m)
{
	struct blocks *b;

	while ((b = m->disk)) {
		m->disk = b->next;
		pthread_mutex_destroy(&b->counting);
		free(b);
	}
}
