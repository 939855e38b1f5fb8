/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unit.c - encoded units: fetched, decoded once for many readers, kept within a
 * quarter of the cache's bound.
 *
 * Knows where an encoded unit lies and which codec opens it.  Refuses to know
 * formats.  A unit that is being decoded is in the table already: others who
 * want it wait for it instead of decoding it again.  Who wants a whole unit
 * that nobody has gets it decoded into his own buffer.
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
	pthread_cond_t loaded;
	struct unit *bucket[NR_BUCKETS];
	struct unit *newest, *oldest;
	size_t n;
} cache = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.loaded = PTHREAD_COND_INITIALIZER,
};
static _Atomic uint64_t unit_bytes;

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
	atomic_fetch_sub(&unit_bytes, sizeof(*u) + u->len);
	free(u);
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
	cache.n--;
	unit_put(u);
}

static void make_room(void)
{
	while (cache.oldest && unit_cache_used() > cache_bound() / 4) {
		struct unit *u = cache.oldest;

		while (u && u->refs > 1)
			u = u->newer;
		if (!u)
			return;
		unit_remove(u);
	}
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
	cache.n++;
	atomic_fetch_add(&unit_bytes, sizeof(*u) + u->len);
	make_room();
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
	ret = decode(ext, u->data);
	pthread_mutex_lock(&cache.lock);
	u->loading = false;
	u->error = ret;
	pthread_cond_broadcast(&cache.loaded);
	if (!ret)
		return u;
	if (!u->gone)
		unit_remove(u);
	unit_put(u);
	*error = ret;
	return NULL;
}

static struct unit *unit_wait(struct unit *u, int *error)
{
	u->refs++;
	while (u->loading)
		pthread_cond_wait(&cache.loaded, &cache.lock);
	if (!u->error) {
		if (!u->gone) {
			list_del(u);
			list_add(u);
		}
		return u;
	}
	*error = u->error;
	unit_put(u);
	return NULL;
}

/* Under cache.lock.  NULL and 0: decode it yourself. */
static struct unit *unit_get(const struct extent *ext, bool whole, int *error)
{
	struct unit *u = unit_find(ext);

	*error = 0;
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
		unit_put(u);
		pthread_mutex_unlock(&cache.lock);
		return 0;
	}
	return ret ? ret : decode(ext, buf);
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
