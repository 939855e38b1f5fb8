/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unit.c - encoded units: fetched, decoded once for many readers, kept within
 * what pages of metadata leave of the cache's bound (meta.c).
 *
 * Knows where an encoded unit lies and which codec opens it.  Refuses to know
 * formats.  A unit that is being decoded is in the table already: others who
 * want it wait for it instead of decoding it again.  Who wants a whole unit
 * that nobody has gets it decoded into his own buffer.
 *
 * A unit has up to 64 MiB, and as many again while it is being decoded: beside
 * others a load begins only if there is room for both.  One is always under way,
 * however small the bound.  A load that reads through an image below it (which
 * may have units, too) does not wait there: it would be waiting for itself.
 */
#include "engine-int.h"
#include "codec.h"

#define NR_BUCKETS 1024u

struct unit {
	struct unit *next;              /* bucket */
	struct unit *newer, *older;     /* by last use */
	uint64_t file_id, host;
	uint32_t packed, len;
	unsigned refs;
	bool loading, gone;
	int error;
	unsigned char data[];
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;         /* loaded, or given back */
	struct unit *bucket[NR_BUCKETS];
	struct unit *newest, *oldest;
	uint64_t leaving;               /* bytes of what is out of the table
					 * and still in use */
	unsigned users, waiting;        /* threads */
} cache = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
};
static _Atomic uint64_t unit_bytes;
static __thread unsigned depth;         /* of loads of this thread */

uint64_t unit_cache_used(void)
{
	return atomic_load_explicit(&unit_bytes, memory_order_relaxed);
}

/* ---- the table: all under cache.lock --------------------------------------- */

static struct unit **bucket_of(uint64_t file_id, uint64_t host)
{
	uint64_t h = (host ^ file_id << 48) * UINT64_C(0x9e3779b97f4a7c15);

	return &cache.bucket[(h >> 32) % NR_BUCKETS];
}

static struct unit *unit_find(const struct extent *ext)
{
	struct unit *u = *bucket_of(ext->file->id, ext->host);

	while (u && (u->file_id != ext->file->id || u->host != ext->host ||
		     u->packed != ext->unit.packed ||
		     u->len != ext->unit.len))
		u = u->next;
	return u;
}

static void list_del(struct unit *u)
{
	*(u->newer ? &u->newer->older : &cache.newest) = u->older;
	*(u->older ? &u->older->newer : &cache.oldest) = u->newer;
}

static void list_add(struct unit *u)
{
	u->newer = NULL;
	u->older = cache.newest;
	*(u->older ? &u->older->newer : &cache.oldest) = u;
	cache.newest = u;
}

static void unit_put(struct unit *u)
{
	if (--u->refs)
		return;
	cache.leaving -= sizeof(*u) + u->len;
	atomic_fetch_sub(&unit_bytes, sizeof(*u) + u->len);
	free(u);
}

/* What a thread has used. */
static void unit_give_back(struct unit *u)
{
	unit_put(u);
	cache.users--;
	if (cache.waiting)
		pthread_cond_broadcast(&cache.changed);
}

/* Out of the table, which had a reference. */
static void unit_remove(struct unit *u)
{
	struct unit **p = bucket_of(u->file_id, u->host);

	while (*p != u)
		p = &(*p)->next;
	*p = u->next;
	list_del(u);
	u->gone = true;
	cache.leaving += sizeof(*u) + u->len;
	unit_put(u);
}

/* What a unit costs while it is being decoded; later only its own bytes. */
static uint64_t load_cost(const struct extent *ext)
{
	return sizeof(struct unit) + ext->unit.len + ext->unit.packed;
}

/* The least recently used go first.  False: there will be room when those who
 * use what has gone, or load, are done. */
static bool make_room(uint64_t bytes)
{
	struct unit *u = cache.oldest, *newer;
	uint64_t bound = unit_cache_bound();

	for (; u && unit_cache_used() - cache.leaving + bytes > bound;
	     u = newer) {
		newer = u->newer;
		if (!u->loading)
			unit_remove(u);
	}
	return unit_cache_used() + bytes <= bound;
}

/* Under cache.lock, which is given up while others are to end first. */
static bool waits_for_room(const struct extent *ext)
{
	if (make_room(load_cost(ext)) || !cache.users || depth)
		return false;
	cache.waiting++;
	pthread_cond_wait(&cache.changed, &cache.lock);
	cache.waiting--;
	return true;
}

/* In the table and referenced by the caller; NULL: no memory. */
static struct unit *unit_add(const struct extent *ext)
{
	struct unit *u = malloc(sizeof(*u) + ext->unit.len);
	struct unit **head = bucket_of(ext->file->id, ext->host);

	if (!u)
		return NULL;
	*u = (struct unit) {
		.next = *head, .file_id = ext->file->id, .host = ext->host,
		.packed = ext->unit.packed, .len = ext->unit.len,
		.refs = 2, .loading = true,
	};
	*head = u;
	list_add(u);
	cache.users++;
	atomic_fetch_add(&unit_bytes, load_cost(ext));
	return u;
}

/* ---- decoding ------------------------------------------------------------- */

static int decode(const struct extent *ext, void *out)
{
	autofree unsigned char *in = malloc(ext->unit.packed);
	int ret;

	if (!in)
		return -ENOMEM;
	ret = file_read(ext->file, in, ext->unit.packed, ext->host);
	if (ret)
		return ret;
	return ext->unit.codec->decode(in, ext->unit.packed, out,
				       ext->unit.len);
}

/* The caller's reference, loaded; or NULL and an error. */
static struct unit *unit_load(struct unit *u, const struct extent *ext,
			      int *error)
{
	int ret;

	pthread_mutex_unlock(&cache.lock);
	pause_point("unit:load");
	depth++;
	ret = decode(ext, u->data);
	depth--;
	pthread_mutex_lock(&cache.lock);
	atomic_fetch_sub(&unit_bytes, u->packed);
	u->loading = false;
	u->error = ret;
	pthread_cond_broadcast(&cache.changed);
	if (!ret)
		return u;
	if (!u->gone)
		unit_remove(u);
	unit_give_back(u);
	*error = ret;
	return NULL;
}

static struct unit *unit_wait(struct unit *u, int *error)
{
	u->refs++;
	cache.users++;
	while (u->loading)
		pthread_cond_wait(&cache.changed, &cache.lock);
	if (!u->error) {
		if (!u->gone) {
			list_del(u);
			list_add(u);
		}
		return u;
	}
	*error = u->error;
	unit_give_back(u);
	return NULL;
}

/* Under cache.lock.  NULL and 0: decode it yourself. */
static struct unit *unit_get(const struct extent *ext, bool whole, int *error)
{
	struct unit *u;

	*error = 0;
	do
		u = unit_find(ext);
	while (!u && !whole && waits_for_room(ext));
	if (u)
		return unit_wait(u, error);
	if (whole)
		return NULL;
	u = unit_add(ext);
	if (u)
		return unit_load(u, ext, error);
	*error = -ENOMEM;
	return NULL;
}

int unit_read(const struct extent *ext, void *buf, size_t len)
{
	bool whole = !ext->unit.skip && len == ext->unit.len;
	struct unit *u;
	int ret;

	if (!ext->unit.codec)
		return -ENOTSUP;
	pthread_mutex_lock(&cache.lock);
	u = unit_get(ext, whole, &ret);
	pthread_mutex_unlock(&cache.lock);
	if (u) {
		memcpy(buf, u->data + ext->unit.skip, len);
		pthread_mutex_lock(&cache.lock);
		unit_give_back(u);
		pthread_mutex_unlock(&cache.lock);
		return 0;
	}
	return ret ? ret : decode(ext, buf);
}

void unit_trim(void)
{
	with_lock(&cache.lock);

	make_room(0);
}

void unit_forget(const struct file *f, uint64_t host, uint64_t len)
{
	struct unit *u, *next;
	with_lock(&cache.lock);

	for (u = cache.oldest; u; u = next) {
		next = u->newer;
		if (u->file_id == f->id && u->host < host + len &&
		    host < u->host + u->packed)
			unit_remove(u);
	}
}
