/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * power.c - a disk in memory that loses power; see testfile.h.
 *
 * Knows for every sector what the programs see and what is on the platter.
 * Both are one byte array until the sector is written, and again after a sync.
 * Refuses to know what is stored.
 *
 * Chunks of 64 KiB hang in a table of tables, so that a disk of terabytes costs
 * what is written to it.
 */
#include "testfile.h"

#include <fcntl.h>

#define CHUNK (64 * KiB)
#define SECTORS (CHUNK / SECTOR_SIZE)
#define FAN 4096u               /* chunks per table: 256 MiB */

struct chunk {
	unsigned char *now;             /* what is read */
	unsigned char *platter;         /* NULL: the same */
	uint64_t index;
	bool listed;                    /* in disk->dirty */
	bool risk[SECTORS];             /* now and platter may differ */
	bool doubt[SECTORS];            /* no sync makes it durable */
};

struct disk {
	struct file file;
	pthread_mutex_t lock;           /* guards all that follows */
	struct chunk ***top;
	uint64_t nr_top;
	struct chunk **dirty;
	size_t nr_dirty, cap_dirty;
	uint64_t size, platter_size;
	uint64_t chunks, max_chunks;    /* 0: no limit */
	uint64_t random;
	uint64_t ops, crash_at;         /* 0: never */
	uint64_t syncs, crash_sync;     /* the same of syncs alone */
	uint64_t writes, unknown_at;
	int unknown_error;
	uint64_t torn, torn_end;        /* sectors that may come back as noise */
	bool crashed;
};

static struct disk *to_disk(struct file *f)
{
	return container_of(f, struct disk, file);
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static bool coin(struct disk *d)
{
	d->random = mix(d->random);
	return d->random & 1;
}

static void *must(void *p)
{
	BUG_ON(!p);
	return p;
}

/* ---- chunks -------------------------------------------------------------- */

static struct chunk **slot(struct disk *d, uint64_t index, bool make)
{
	uint64_t t = index / FAN;

	if (t >= d->nr_top) {
		if (!make)
			return NULL;
		d->top = must(realloc(d->top, (t + 1) * sizeof(*d->top)));
		memset(d->top + d->nr_top, 0,
		       (t + 1 - d->nr_top) * sizeof(*d->top));
		d->nr_top = t + 1;
	}
	if (!d->top[t]) {
		if (!make)
			return NULL;
		d->top[t] = must(calloc(FAN, sizeof(*d->top[t])));
	}
	return &d->top[t][index % FAN];
}

static struct chunk *find(struct disk *d, uint64_t index)
{
	struct chunk **s = slot(d, index, false);

	return s ? *s : NULL;
}

static struct chunk *make_chunk(struct disk *d, uint64_t index)
{
	struct chunk **s = slot(d, index, true);

	if (*s || (d->max_chunks && d->chunks >= d->max_chunks))
		return *s;
	*s = must(calloc(1, sizeof(**s)));
	(*s)->now = must(calloc(1, CHUNK));
	(*s)->index = index;
	d->chunks++;
	return *s;
}

static void chunk_free(struct disk *d, struct chunk *c)
{
	*slot(d, c->index, false) = NULL;
	free(c->now);
	free(c->platter);
	free(c);
	d->chunks--;
}

/* The first chunk at or behind @index; skips empty tables. */
static struct chunk *next_chunk(struct disk *d, uint64_t index)
{
	for (; index / FAN < d->nr_top; index++) {
		if (!d->top[index / FAN])
			index = round_down(index, FAN) + FAN - 1;
		else if (d->top[index / FAN][index % FAN])
			return d->top[index / FAN][index % FAN];
	}
	return NULL;
}

/*
 * Before sector @s of @c changes.  Had it changed since the last sync already,
 * that content may have reached the platter meanwhile.
 */
static void at_risk(struct disk *d, struct chunk *c, unsigned s)
{
	size_t at = s * SECTOR_SIZE;

	if (!c->platter) {
		c->platter = must(malloc(CHUNK));
		memcpy(c->platter, c->now, CHUNK);
	}
	if (c->risk[s] && coin(d))
		memcpy(c->platter + at, c->now + at, SECTOR_SIZE);
	c->risk[s] = true;
	c->doubt[s] = false;
	if (c->listed)
		return;
	if (d->nr_dirty == d->cap_dirty) {
		d->cap_dirty = d->cap_dirty ? d->cap_dirty * 2 : 64;
		d->dirty = must(realloc(d->dirty, d->cap_dirty *
					sizeof(*d->dirty)));
	}
	d->dirty[d->nr_dirty++] = c;
	c->listed = true;
}

/* Part of one chunk; @from NULL: zeroes. */
static void put(struct disk *d, struct chunk *c, size_t at, const void *from,
		size_t n, bool doubt)
{
	unsigned s, last = (unsigned)((at + n - 1) / SECTOR_SIZE);

	for (s = (unsigned)(at / SECTOR_SIZE); s <= last; s++) {
		at_risk(d, c, s);
		c->doubt[s] = doubt;
	}
	if (from)
		memcpy(c->now + at, from, n);
	else
		memset(c->now + at, 0, n);
}

static void set_size(struct disk *d, uint64_t size)
{
	if (d->size != d->platter_size && coin(d))
		d->platter_size = d->size;
	d->size = size;
}

/* Only what exists has to be changed. */
static void clear(struct disk *d, uint64_t off, uint64_t end)
{
	struct chunk *c;

	for (c = next_chunk(d, off / CHUNK); c && c->index * CHUNK < end;
	     c = next_chunk(d, c->index + 1)) {
		uint64_t start = c->index * CHUNK;
		uint64_t from = max_u64(off, start);
		uint64_t to = min_u64(end, start + CHUNK);

		put(d, c, (size_t)(from - start), NULL, (size_t)(to - from),
		    false);
	}
}

/* ---- the driver ---------------------------------------------------------- */

/* Under the lock, for what changes or syncs: -EIO when the power is gone.
 * *@last: it fails in this very request. */
static int step(struct disk *d, bool *last)
{
	*last = false;
	if (d->crashed)
		return -EIO;
	if (++d->ops != d->crash_at)
		return 0;
	d->crashed = true;
	*last = true;
	return 0;
}

static void get(struct disk *d, unsigned char *to, size_t n, uint64_t off)
{
	while (n) {
		struct chunk *c = find(d, off / CHUNK);
		size_t at = (size_t)(off % CHUNK);
		size_t part = (size_t)min_u64(n, CHUNK - at);

		if (c)
			memcpy(to, c->now + at, part);
		else
			memset(to, 0, part);
		to += part;
		off += part;
		n -= part;
	}
}

static ssize_t power_preadv(struct file *f, const struct iovec *v, int n,
			    uint64_t off)
{
	struct disk *d = to_disk(f);
	size_t part, did = 0;

	with_lock(&d->lock);
	if (d->crashed)
		return -EIO;
	for (; n && off < d->size; n--, v++) {
		part = (size_t)min_u64(v->iov_len, d->size - off);
		get(d, v->iov_base, part, off);
		off += part;
		did += part;
	}
	return (ssize_t)did;
}

/* Returns how much got in: all, or less when the space is out. */
static size_t set(struct disk *d, const unsigned char *from, size_t n,
		  uint64_t off, bool doubt)
{
	size_t did = 0;

	while (did < n) {
		struct chunk *c = make_chunk(d, off / CHUNK);
		size_t at = (size_t)(off % CHUNK);
		size_t part = (size_t)min_u64(n - did, CHUNK - at);

		if (!c)
			break;
		put(d, c, at, from + did, part, doubt);
		did += part;
		off += part;
	}
	return did;
}

static ssize_t power_pwritev(struct file *f, const struct iovec *v, int n,
			     uint64_t off)
{
	struct disk *d = to_disk(f);
	size_t part, did = 0;
	bool last, doubt;
	int ret;

	with_lock(&d->lock);
	ret = step(d, &last);
	if (ret)
		return ret;
	doubt = ++d->writes == d->unknown_at;
	for (; n; n--, v++) {
		part = v->iov_len;
		if (!f->traits.grows)
			part = (size_t)min_u64(part, d->size > off + did ?
					       d->size - off - did : 0);
		part = set(d, v->iov_base, part, off + did, doubt);
		did += part;
		if (part < v->iov_len)
			break;
	}
	if (off + did > d->size && did)
		set_size(d, off + did);
	if (last)
		return -EIO;
	if (doubt)
		return d->unknown_error;
	return did || !n ? (ssize_t)did : -ENOSPC;
}

static void make_durable(struct chunk *c, bool *doubtful)
{
	unsigned s;

	*doubtful = false;
	for (s = 0; s < SECTORS; s++) {
		size_t at = s * SECTOR_SIZE;

		if (c->doubt[s]) {
			*doubtful = true;
			continue;
		}
		if (c->risk[s])
			memcpy(c->platter + at, c->now + at, SECTOR_SIZE);
		c->risk[s] = false;
	}
}

static bool is_empty(const unsigned char *p)
{
	return !p[0] && !memcmp(p, p + 1, CHUNK - 1);
}

static int power_sync(struct file *f)
{
	struct disk *d = to_disk(f);
	size_t i, kept = 0;
	bool last, doubtful;
	int ret;

	with_lock(&d->lock);
	ret = step(d, &last);
	if (!ret && ++d->syncs == d->crash_sync)
		d->crashed = last = true;
	if (ret || last)
		return -EIO;
	for (i = 0; i < d->nr_dirty; i++) {
		struct chunk *c = d->dirty[i];

		make_durable(c, &doubtful);
		if (doubtful) {
			d->dirty[kept++] = c;
			continue;
		}
		c->listed = false;
		free(c->platter);
		c->platter = NULL;
		if (is_empty(c->now))
			chunk_free(d, c);
	}
	d->nr_dirty = kept;
	d->platter_size = d->size;
	return 0;
}

static int power_zero(struct file *f, uint64_t off, uint64_t len, unsigned how)
{
	struct disk *d = to_disk(f);
	bool last;
	int ret;

	if (how & ZERO_ALLOCATE)
		return -EOPNOTSUPP;
	with_lock(&d->lock);
	ret = step(d, &last);
	if (ret)
		return ret;
	if (!f->traits.grows && off + len > d->size)
		return -ENOSPC;
	clear(d, off, off + len);
	if (off + len > d->size)
		set_size(d, off + len);
	return last ? -EIO : 0;
}

static int power_discard(struct file *f, uint64_t off, uint64_t len)
{
	struct disk *d = to_disk(f);
	bool last;
	int ret;

	with_lock(&d->lock);
	ret = step(d, &last);
	if (ret)
		return ret;
	clear(d, off, off + len);
	return last ? -EIO : 0;
}

static int power_truncate(struct file *f, uint64_t size)
{
	struct disk *d = to_disk(f);
	bool last;
	int ret;

	with_lock(&d->lock);
	ret = step(d, &last);
	if (ret)
		return ret;
	if (!f->traits.grows && size != d->size)
		return -ENOTSUP;
	if (size < d->size)
		clear(d, size, d->size);
	set_size(d, size);
	return last ? -EIO : 0;
}

static int power_size(struct file *f, uint64_t *size)
{
	struct disk *d = to_disk(f);

	with_lock(&d->lock);
	*size = d->size;
	return 0;
}

static int power_extent(struct file *f, uint64_t off, uint64_t len,
			enum file_kind *kind, uint64_t *run)
{
	struct disk *d = to_disk(f);
	uint64_t at = off / CHUNK, end = off + len;
	struct chunk *c;

	with_lock(&d->lock);
	if (find(d, at)) {
		*kind = FILE_DATA;
		while (at * CHUNK < end && find(d, at))
			at++;
	} else {
		c = next_chunk(d, at);
		*kind = FILE_ZERO;
		at = c ? c->index : div_up(end, CHUNK);
	}
	*run = min_u64(at * CHUNK, end) - off;
	return 0;
}

static int power_stat(struct file *f, struct stat *st)
{
	struct disk *d = to_disk(f);

	with_lock(&d->lock);
	memset(st, 0, sizeof(*st));
	st->st_mode = S_IFREG | 0600;
	st->st_size = (off_t)d->size;
	st->st_blocks = (blkcnt_t)(d->chunks * (CHUNK / 512));
	return 0;
}

static void power_close(struct file *f)
{
	struct disk *d = to_disk(f);
	struct chunk *c;
	uint64_t i;

	while ((c = next_chunk(d, 0)))
		chunk_free(d, c);
	for (i = 0; i < d->nr_top; i++)
		free(d->top[i]);
	free(d->top);
	free(d->dirty);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static const struct file_ops power_driver = {
	.name = "power",
	.preadv = power_preadv,
	.pwritev = power_pwritev,
	.sync = power_sync,
	.zero = power_zero,
	.discard = power_discard,
	.truncate = power_truncate,
	.size = power_size,
	.extent = power_extent,
	.stat = power_stat,
	.close = power_close,
};

struct file *power_new(const struct power_args *a)
{
	struct disk *d = must(calloc(1, sizeof(*d)));

	file_init(&d->file, &power_driver, "power");
	d->file.traits.grows = !a->fixed;
	d->file.traits.seekable_holes = true;
	pthread_mutex_init(&d->lock, NULL);
	d->size = d->platter_size = a->size;
	d->max_chunks = div_up(a->space, CHUNK);
	d->random = mix(a->seed);
	return &d->file;
}

/* ---- what tests call ----------------------------------------------------- */

void power_crash(struct file *f)
{
	with_lock(&to_disk(f)->lock);
	to_disk(f)->crashed = true;
}

void power_crash_after(struct file *f, uint64_t nth)
{
	struct disk *d = to_disk(f);

	with_lock(&d->lock);
	d->crash_at = nth ? d->ops + nth : 0;
}

void power_crash_sync(struct file *f, uint64_t nth)
{
	struct disk *d = to_disk(f);

	with_lock(&d->lock);
	d->crash_sync = nth ? d->syncs + nth : 0;
}

bool power_crashed(struct file *f)
{
	with_lock(&to_disk(f)->lock);
	return to_disk(f)->crashed;
}

uint64_t power_ops(struct file *f)
{
	with_lock(&to_disk(f)->lock);
	return to_disk(f)->ops;
}

void power_unknown_fate(struct file *f, uint64_t nth, int error)
{
	struct disk *d = to_disk(f);

	with_lock(&d->lock);
	d->unknown_at = d->writes + nth;
	d->unknown_error = error;
}

void power_tears(struct file *f, uint64_t off, uint64_t len)
{
	struct disk *d = to_disk(f);

	with_lock(&d->lock);
	d->torn = off / SECTOR_SIZE;
	d->torn_end = (off + len) / SECTOR_SIZE;
}

void power_space(struct file *f, uint64_t bytes)
{
	struct disk *d = to_disk(f);

	with_lock(&d->lock);
	d->max_chunks = div_up(bytes, CHUNK);
}

uint64_t power_at_risk(struct file *f)
{
	struct disk *d = to_disk(f);
	uint64_t n = 0;
	size_t i, s;

	with_lock(&d->lock);
	for (i = 0; i < d->nr_dirty; i++)
		for (s = 0; s < SECTORS; s++)
			n += d->dirty[i]->risk[s];
	return n;
}

/*
 * Seeds differ in how much survives, none to all in eighths, and in whether
 * sectors or pages of eight of them share their fate.
 */
static bool survives(uint64_t seed, uint64_t sector)
{
	uint64_t kind = mix(seed);

	if (seed <= 1)
		return seed;
	if (kind >> 8 & 1)
		sector /= 8;
	return mix(seed ^ mix(sector)) % 8 < kind % 9;
}

/* One in eight of those that were at risk, where that was asked for. */
static bool is_torn(const struct disk *d, uint64_t seed, uint64_t sector)
{
	return sector >= d->torn && sector < d->torn_end && seed > 1 &&
	       mix(mix(seed + 1) ^ sector) % 8 == 0;
}

static void noise(unsigned char *to, uint64_t seed, uint64_t sector)
{
	for (unsigned i = 0; i < SECTOR_SIZE; i += 8)
		le64_put(to + i, mix(mix(seed ^ sector) + i));
}

static void copy_survivors(const struct disk *d, struct disk *to,
			   const struct chunk *c, uint64_t seed)
{
	struct chunk *copy = make_chunk(to, c->index);

	memcpy(copy->now, c->now, CHUNK);
	for (unsigned s = 0; c->platter && s < SECTORS; s++) {
		uint64_t sector = c->index * SECTORS + s;
		size_t at = s * SECTOR_SIZE;

		if (c->risk[s] && is_torn(d, seed, sector))
			noise(copy->now + at, seed, sector);
		else if (c->risk[s] && !survives(seed, sector))
			memcpy(copy->now + at, c->platter + at, SECTOR_SIZE);
	}
}

/* Sectors cut off by the length are gone, and read as zeroes if it grows. */
static void cut(struct disk *d)
{
	struct chunk *c;
	uint64_t at = d->size / CHUNK;

	c = find(d, at);
	if (c)
		memset(c->now + d->size % CHUNK, 0, CHUNK - d->size % CHUNK);
	for (c = next_chunk(d, at + 1); c; c = next_chunk(d, at + 1))
		chunk_free(d, c);
}

struct file *power_after(struct file *f, uint64_t seed)
{
	struct disk *d = to_disk(f), *to;
	struct power_args a = { .seed = seed, .fixed = !f->traits.grows };
	struct chunk *c;

	with_lock(&d->lock);
	a.size = survives(seed, UINT64_MAX) ? d->size : d->platter_size;
	to = to_disk(power_new(&a));
	to->torn = d->torn;
	to->torn_end = d->torn_end;
	for (c = next_chunk(d, 0); c; c = next_chunk(d, c->index + 1))
		copy_survivors(d, to, c, seed);
	cut(to);
	return &to->file;
}

int power_save(struct file *f, const char *path)
{
	struct disk *d = to_disk(f);
	struct chunk *c;
	autoclose int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC,
				0644);

	if (fd < 0)
		return -errno;
	with_lock(&d->lock);
	for (c = next_chunk(d, 0); c; c = next_chunk(d, c->index + 1))
		if (pwrite(fd, c->now, CHUNK, (off_t)(c->index * CHUNK)) !=
		    (ssize_t)CHUNK)
			return -errno;
	return ftruncate(fd, (off_t)d->size) < 0 ? -errno : 0;
}
