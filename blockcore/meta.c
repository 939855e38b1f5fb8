/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * meta.c - pages of metadata in memory, of all images of the process together,
 * within one bound (rule 13).
 *
 * Knows pages, pins and who is dirty.  Refuses to know what a page means and
 * when it is written (flush.c).
 *
 * The table is cut into shards, each with a lock that is never held across I/O:
 * a page is put into its table as "loading" and read outside of the lock; who
 * needs the same page waits for it, others pass (rule 18).  Each shard has a
 * clock hand; a page that is pinned, dirty or being written is never evicted,
 * hence what is read again is always what was written last.  Room for a new
 * page is found in its own shard first, and the evicted page's memory is used
 * for it: a full cache does not call malloc.
 */
#include "engine-int.h"

#include <inttypes.h>
#include <time.h>

#define NR_SHARDS 64u
#define NR_BUCKETS 1024u        /* of a shard */
#define DEFAULT_BOUND (256 * MiB)
#define AHEAD 16                /* pages that are read at once */

struct shard {
	pthread_mutex_t lock;
	pthread_cond_t loaded;
	struct mpage *hand;             /* in a ring of all its pages */
	size_t n;
	struct mpage *bucket[NR_BUCKETS];
};

static struct shard shards[NR_SHARDS] = {
	[0 ... NR_SHARDS - 1] = {
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.loaded = PTHREAD_COND_INITIALIZER,
	},
};

static _Atomic uint64_t bound = DEFAULT_BOUND;
static _Atomic uint64_t page_bytes;
_Atomic uint64_t cache_dirty_bytes;

/* ---- the bound ------------------------------------------------------------ */

void cache_set_bound(uint64_t bytes)
{
	atomic_store(&bound, max_u64(bytes, MiB));
	unit_trim();
}

uint64_t cache_bound(void)
{
	return atomic_load_explicit(&bound, memory_order_relaxed);
}

uint64_t cache_dirty_bound(void)
{
	return cache_bound() / 4;
}

uint64_t cache_used(void)
{
	return atomic_load(&page_bytes) + unit_cache_used();
}

/* Pages never have all of it: a quarter is left to decoded units, which have
 * whatever pages do not use. */
uint64_t unit_cache_bound(void)
{
	uint64_t pages = atomic_load_explicit(&page_bytes,
					      memory_order_relaxed);
	uint64_t all = cache_bound();

	return all - min_u64(pages, all - all / 4);
}

static bool over_bound(void)
{
	return atomic_load_explicit(&page_bytes, memory_order_relaxed) >
	       cache_bound() - cache_bound() / 4;
}

static uint64_t page_cost(uint32_t size)
{
	return sizeof(struct mpage) + size + 16;
}

/* ---- the table ------------------------------------------------------------ */

static uint64_t page_hash(const struct file *f, uint64_t host, uint32_t size)
{
	uint64_t h = host / size + f->id * UINT64_C(0x9e3779b97f4a7c15);

	h *= UINT64_C(0xff51afd7ed558ccd);
	return h ^ h >> 32;
}

static struct shard *shard_of(uint64_t hash)
{
	return &shards[hash % NR_SHARDS];
}

static struct mpage **bucket_of(struct shard *s, uint64_t hash)
{
	return &s->bucket[hash / NR_SHARDS % NR_BUCKETS];
}

static struct mpage *find(struct shard *s, uint64_t hash,
			  const struct file *f, uint64_t host)
{
	struct mpage *pg = *bucket_of(s, hash);

	while (pg && (pg->host != host || pg->file != f))
		pg = pg->hash_next;
	return pg;
}

static void ring_add(struct shard *s, struct mpage *pg)
{
	if (!s->hand) {
		pg->clock_next = pg->clock_prev = pg;
		s->hand = pg;
	} else {        /* just behind the hand: it comes here last */
		pg->clock_next = s->hand;
		pg->clock_prev = s->hand->clock_prev;
		pg->clock_prev->clock_next = pg;
		s->hand->clock_prev = pg;
	}
	s->n++;
}

static void ring_del(struct shard *s, struct mpage *pg)
{
	if (s->hand == pg)
		s->hand = pg->clock_next == pg ? NULL : pg->clock_next;
	pg->clock_prev->clock_next = pg->clock_next;
	pg->clock_next->clock_prev = pg->clock_prev;
	s->n--;
}

static void table_del(struct shard *s, struct mpage *pg)
{
	struct mpage **p = bucket_of(s, pg->hash);

	while (*p != pg)
		p = &(*p)->hash_next;
	*p = pg->hash_next;
	ring_del(s, pg);
	pg->gone = true;
}

static void page_free(struct mpage *pg)
{
	atomic_fetch_sub(&page_bytes, page_cost(pg->size));
	pthread_rwlock_destroy(&pg->lock);
	free(pg);
}

/* The table itself has one pin; who drops the last one frees the page. */
static void pin_drop(struct mpage *pg)
{
	if (atomic_fetch_sub(&pg->pins, 1) == 1)
		page_free(pg);
}

/* ---- eviction ------------------------------------------------------------- */

/* The order of the questions matters: a page that nobody has pinned cannot
 * become dirty, and one that stops being dirty is "being written" before. */
static bool evictable(const struct mpage *pg)
{
	return atomic_load(&pg->pins) == 1 && !atomic_load(&pg->is_dirty) &&
	       !atomic_load(&pg->writing) && !pg->loading;
}

/* Under the shard's lock: takes a page out, or NULL when none may go. */
static struct mpage *evict_one(struct shard *s)
{
	for (size_t tries = 2 * s->n; tries; tries--) {
		struct mpage *pg = s->hand;

		s->hand = pg->clock_next;
		if (!evictable(pg))
			continue;
		if (atomic_exchange(&pg->used, false))
			continue;
		table_del(s, pg);
		return pg;
	}
	return NULL;
}

/* Frees pages of all shards until the bound holds again. */
static void evict_elsewhere(void)
{
	static _Atomic unsigned next;

	for (unsigned i = 0; i < NR_SHARDS && over_bound(); i++) {
		struct shard *s = &shards[atomic_fetch_add(&next, 1) %
					  NR_SHARDS];
		struct mpage *pg;

		pthread_mutex_lock(&s->lock);
		pg = evict_one(s);
		pthread_mutex_unlock(&s->lock);
		if (pg)
			page_free(pg);
	}
}

/* After a page was added; no lock is held. */
static void keep_bound(void)
{
	if (over_bound())
		evict_elsewhere();
	if (unit_cache_used() > unit_cache_bound())
		unit_trim();
}

/* Memory for a page of @size, if possible that of an evicted one. */
static struct mpage *page_alloc(struct shard *s, uint32_t size)
{
	struct mpage *pg = over_bound() ? evict_one(s) : NULL;

	if (pg && pg->size == size)
		return pg;
	if (pg)
		page_free(pg);
	pg = malloc(sizeof(*pg) + size);
	if (!pg)
		return NULL;
	pthread_rwlock_init(&pg->lock, NULL);
	pg->size = size;
	atomic_fetch_add(&page_bytes, page_cost(size));
	return pg;
}

static struct mpage *page_add(struct shard *s, struct image *img,
			      struct file *f, uint64_t host, uint64_t hash)
{
	struct mpage *pg = page_alloc(s, img->page);
	struct mpage **head = bucket_of(s, hash);

	if (!pg)
		return NULL;
	pg->eng = img->eng;
	pg->file = f;
	pg->host = host;
	pg->hash = hash;
	atomic_store(&pg->pins, 2);     /* the table's and the caller's */
	atomic_store(&pg->used, true);
	atomic_store(&pg->is_dirty, false);
	atomic_store(&pg->writing, false);
	pg->loading = pg->gone = false;
	pg->error = 0;
	pg->hash_next = *head;
	*head = pg;
	ring_add(s, pg);
	return pg;
}

/* ---- getting pages -------------------------------------------------------- */

static int wait_loaded(struct shard *s, struct mpage *pg)
{
	int ret;

	while (pg->loading)
		pthread_cond_wait(&s->loaded, &s->lock);
	ret = pg->error;
	if (ret)
		pin_drop(pg);
	return ret;
}

/* What was read of @pg is told to those who wait; its loader's pin stays. */
static void loaded(struct mpage *pg, int error)
{
	struct shard *s = shard_of(pg->hash);
	with_lock(&s->lock);

	pg->loading = false;
	pg->error = error;
	if (error && !pg->gone) {
		table_del(s, pg);
		pin_drop(pg);
	}
	pthread_cond_broadcast(&s->loaded);
}

static int load(struct mpage *pg)
{
	int ret = file_read(pg->file, pg->data, pg->size, pg->host);

	loaded(pg, ret);
	if (ret)
		pin_drop(pg);
	return ret;
}

/* The page at @host, "loading", unless the table has one. */
static struct mpage *missing_page(struct image *img, struct file *f,
				  uint64_t host)
{
	uint64_t hash = page_hash(f, host, img->page);
	struct shard *s = shard_of(hash);
	struct mpage *pg = NULL;
	with_lock(&s->lock);

	if (!find(s, hash, f, host))
		pg = page_add(s, img, f, host, hash);
	if (pg)
		pg->loading = true;
	return pg;
}

/* Reads @first and those behind it, up to @end, that are not there, in one call.
 * If that fails each is read alone: who needs one gets that one's error. */
static int load_run(struct image *img, struct mpage *first, uint64_t end)
{
	struct iovec v[AHEAD];
	struct mpage *pg[AHEAD] = { first };
	uint64_t host = first->host;
	int n = 1, ret;

	while (n < AHEAD && host + (uint64_t)n * img->page < end &&
	       (pg[n] = missing_page(img, first->file,
				     host + (uint64_t)n * img->page)))
		n++;
	pause_point("meta:load");
	for (int i = 0; i < n; i++)
		v[i] = (struct iovec) { pg[i]->data, img->page };
	ret = n > 1 ? file_readv(first->file, v, n, host) : -EAGAIN;
	for (int i = n - 1; i > 0; i--) {
		if (!ret)
			loaded(pg[i], 0);
		if (!ret || !load(pg[i]))
			pin_drop(pg[i]);
	}
	if (ret)
		return load(first);
	loaded(first, 0);
	return 0;
}

int meta_get(struct image *img, struct file *f, uint64_t host,
	     struct mpage **out)
{
	return meta_get_run(img, f, host, host, out);
}

int meta_get_run(struct image *img, struct file *f, uint64_t host,
		 uint64_t end, struct mpage **out)
{
	uint64_t hash = page_hash(f, host, img->page);
	struct shard *s = shard_of(hash);
	struct mpage *pg;
	int ret = 0;

	BUG_ON(host % img->page);
	pthread_mutex_lock(&s->lock);
	pg = find(s, hash, f, host);
	if (pg) {
		atomic_fetch_add(&pg->pins, 1);
		atomic_store_explicit(&pg->used, true, memory_order_relaxed);
		if (pg->loading)
			ret = wait_loaded(s, pg);
		pthread_mutex_unlock(&s->lock);
		if (!ret)
			*out = pg;
		return ret;
	}
	pg = page_add(s, img, f, host, hash);
	if (pg)
		pg->loading = true;
	pthread_mutex_unlock(&s->lock);
	if (!pg)
		return -ENOMEM;
	ret = load_run(img, pg, end);
	if (!ret)
		*out = pg;
	keep_bound();
	return ret;
}

int meta_get_new(struct image *img, struct file *f, uint64_t host,
		 struct mpage **out)
{
	uint64_t hash = page_hash(f, host, img->page);
	struct shard *s = shard_of(hash);
	struct mpage *pg;

	BUG_ON(host % img->page);
	pthread_mutex_lock(&s->lock);
	pg = find(s, hash, f, host);
	if (pg) {
		atomic_fetch_add(&pg->pins, 1);
		while (pg->loading)     /* a reader of old metadata */
			pthread_cond_wait(&s->loaded, &s->lock);
	}
	if (!pg || pg->gone) {
		if (pg)
			pin_drop(pg);
		pg = page_add(s, img, f, host, hash);
	}
	pthread_mutex_unlock(&s->lock);
	if (!pg)
		return -ENOMEM;
	meta_wrlock(pg);
	memset(pg->data, 0, pg->size);
	meta_unlock(pg);
	*out = pg;
	keep_bound();
	return 0;
}

struct mpage *meta_dup(struct mpage *pg)
{
	atomic_fetch_add(&pg->pins, 1);
	return pg;
}

void meta_put(struct mpage *pg)
{
	if (pg)
		pin_drop(pg);
}

void meta_rdlock(struct mpage *pg)
{
	pthread_rwlock_rdlock(&pg->lock);
}

void meta_wrlock(struct mpage *pg)
{
	pthread_rwlock_wrlock(&pg->lock);
}

void meta_unlock(struct mpage *pg)
{
	pthread_rwlock_unlock(&pg->lock);
}

void *meta_bytes(struct mpage *pg)
{
	return pg->data;
}

int meta_peek(struct image *img, struct file *f, void *buf, size_t len,
	      uint64_t host)
{
	unsigned char *p = buf;

	while (len) {
		size_t in = host % img->page;
		size_t n = min_u64(len, img->page - in);
		struct mpage *pg;
		int ret = meta_get(img, f, host - in, &pg);

		if (ret)
			return ret;
		meta_rdlock(pg);
		memcpy(p, pg->data + in, n);
		meta_unlock(pg);
		meta_put(pg);
		p += n;
		host += n;
		len -= n;
	}
	return 0;
}

/* ---- dirty pages ---------------------------------------------------------- */

static void dirty_link(struct engine *e, struct mpage *pg)
{
	struct mpage **head = &e->dirty[pg->stage];

	pg->dirty_prev = NULL;
	pg->dirty_next = *head;
	if (*head)
		(*head)->dirty_prev = pg;
	*head = pg;
	atomic_store(&pg->is_dirty, true);
	atomic_fetch_add(&e->nr_dirty, 1);
	atomic_fetch_add(&cache_dirty_bytes, pg->size);
}

static void dirty_unlink(struct engine *e, struct mpage *pg)
{
	if (pg->dirty_prev)
		pg->dirty_prev->dirty_next = pg->dirty_next;
	else
		e->dirty[pg->stage] = pg->dirty_next;
	if (pg->dirty_next)
		pg->dirty_next->dirty_prev = pg->dirty_prev;
	atomic_store(&pg->is_dirty, false);
	atomic_fetch_sub(&e->nr_dirty, 1);
	atomic_fetch_sub(&cache_dirty_bytes, pg->size);
}

/* Rule 7.  A format that keeps it can still be led by an image whose tables
 * overlap to change one page for two purposes: such an image is broken. */
void meta_dirty(struct mpage *pg, enum stage stage)
{
	struct engine *e = pg->eng;
	with_lock(&e->dirty_lock);

	if (pg->gone)
		return;
	if (atomic_load(&pg->is_dirty)) {
		if (pg->stage != stage)
			image_corrupt(e->img, "metadata overlaps at offset %#"
				      PRIx64, pg->host);
		return;
	}
	pg->stage = stage;
	dirty_link(e, pg);
}

bool meta_is_dirty(const struct mpage *pg)
{
	return atomic_load(&pg->is_dirty);
}

size_t meta_collect(struct engine *e, struct mpage **out, size_t max)
{
	size_t n = 0;
	with_lock(&e->dirty_lock);

	for (int stage = 0; stage < NR_STAGES; stage++)
		while (e->dirty[stage] && n < max) {
			struct mpage *pg = e->dirty[stage];

			meta_dup(pg);
			atomic_store(&pg->writing, true);
			dirty_unlink(e, pg);
			out[n++] = pg;
		}
	return n;
}

void meta_written(struct engine *e, struct mpage **pages, size_t n,
		  bool redirty)
{
	pthread_mutex_lock(&e->dirty_lock);
	for (size_t i = 0; i < n; i++) {
		if (redirty && !atomic_load(&pages[i]->is_dirty) &&
		    !pages[i]->gone)
			dirty_link(e, pages[i]);
		atomic_store(&pages[i]->writing, false);
	}
	pthread_mutex_unlock(&e->dirty_lock);
	for (size_t i = 0; i < n; i++)
		meta_put(pages[i]);
}

/* ---- dropping pages ------------------------------------------------------- */

/* A copy of the page that a flush is writing would come after what is put
 * there next: it is waited for. */
static void wait_written(struct mpage *pg)
{
	struct timespec nap = { .tv_nsec = 50000 };

	while (atomic_load(&pg->writing))
		nanosleep(&nap, NULL);
}

static void forget_page(struct image *img, struct file *f, uint64_t host)
{
	struct engine *e = img->eng;
	uint64_t hash = page_hash(f, host, img->page);
	struct shard *s = shard_of(hash);
	struct mpage *pg;

	pthread_mutex_lock(&s->lock);
	pg = find(s, hash, f, host);
	if (pg) {
		atomic_fetch_add(&pg->pins, 1);
		pthread_mutex_lock(&e->dirty_lock);
		table_del(s, pg);
		if (atomic_load(&pg->is_dirty))
			dirty_unlink(e, pg);
		pthread_mutex_unlock(&e->dirty_lock);
	}
	pthread_mutex_unlock(&s->lock);
	if (!pg)
		return;
	wait_written(pg);
	pin_drop(pg);           /* the table's */
	pin_drop(pg);
}

void meta_forget(struct image *img, struct file *f, uint64_t host,
		 uint64_t len)
{
	uint64_t end = round_up(host + len, img->page);

	if (knobs.no_forget)
		return;
	for (host = round_down(host, img->page); host < end; host += img->page)
		forget_page(img, f, host);
}

static void drop_from_shard(struct shard *s, struct engine *e)
{
	struct mpage *pg, *next;
	with_lock(&s->lock);

	pg = s->hand;
	for (size_t n = s->n; n; n--, pg = next) {
		next = pg->clock_next;
		if (pg->eng != e)
			continue;
		BUG_ON(atomic_load(&pg->pins) != 1);
		table_del(s, pg);
		if (atomic_load(&pg->is_dirty))
			dirty_unlink(e, pg);
		page_free(pg);
	}
}

void meta_drop_all(struct engine *e)
{
	for (unsigned i = 0; i < NR_SHARDS; i++)
		drop_from_shard(&shards[i], e);
}

/* ---- bytes as they are now ------------------------------------------------ */

/* What the cache knows of the page at @host replaces what was read. */
static void overlay(struct image *img, struct file *f, uint64_t host,
		    unsigned char *buf, uint64_t from, size_t len)
{
	uint64_t hash = page_hash(f, host, img->page);
	struct shard *s = shard_of(hash);
	uint64_t begin = max_u64(host, from);
	uint64_t end = min_u64(host + img->page, from + len);
	struct mpage *pg;

	pthread_mutex_lock(&s->lock);
	pg = find(s, hash, f, host);
	if (pg && !pg->loading)
		atomic_fetch_add(&pg->pins, 1);
	else
		pg = NULL;
	pthread_mutex_unlock(&s->lock);
	if (!pg)
		return;
	meta_rdlock(pg);
	memcpy(buf + (begin - from), pg->data + (begin - host), end - begin);
	meta_unlock(pg);
	meta_put(pg);
}

/* A page that was dirty when the file was read may have been written and
 * evicted before the cache was asked: that takes a whole flush. */
int meta_read(struct image *img, struct file *f, void *buf, size_t len,
	      uint64_t host)
{
	struct engine *e = img->eng;
	uint64_t flushes;
	int ret;

	do {
		flushes = atomic_load(&e->flushes);
		ret = file_read(f, buf, len, host);
		if (ret)
			return ret;
		for (uint64_t at = round_down(host, img->page);
		     at < host + len; at += img->page)
			overlay(img, f, at, buf, host, len);
	} while (flushes != atomic_load(&e->flushes));
	return 0;
}
