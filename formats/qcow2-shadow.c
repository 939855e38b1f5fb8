/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-shadow.c - reference counts as they shall be, beside those that are.
 *
 * A count and the COPIED bit that depends on it lie in different sectors: no
 * order of writes changes both without a moment at which they contradict each
 * other.  Hence counts of a state to come are made in copies of the refcount
 * blocks, which nothing on the disk points to until one sector, the header,
 * names the new refcount table and the new L1 together (qcow2-switch.c).
 *
 * Knows blocks and counts.  Refuses to know why they change.  Everything here
 * runs under the lock "alloc".
 */
#include "qcow2-shadow.h"

#include <inttypes.h>

/* ---- held clusters ------------------------------------------------------- */

#define CHUNK_WORDS 1024u
#define CHUNK_BITS (CHUNK_WORDS * 64u)

struct qcow2_hold *qcow2_hold_new(void)
{
	struct qcow2_hold *h = calloc(1, sizeof(*h));

	if (h)
		h->lowest = UINT64_MAX;
	return h;
}

void qcow2_hold_free(struct qcow2_hold *h)
{
	if (!h)
		return;
	for (uint64_t i = 0; i < h->nr_chunks; i++)
		free(h->chunk[i]);
	free(h->chunk);
	free(h);
}

/* Clusters are those that some block counts: fewer than 2^44. */
static int hold_room(struct qcow2_hold *h, uint64_t chunk)
{
	uint64_t n = max_u64(chunk + 1, 2 * h->nr_chunks);
	uint64_t **grown;

	if (chunk < h->nr_chunks)
		return 0;
	grown = realloc(h->chunk, n * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	memset(grown + h->nr_chunks, 0,
	       (n - h->nr_chunks) * sizeof(*grown));
	h->chunk = grown;
	h->nr_chunks = n;
	return 0;
}

int qcow2_hold_add(struct qcow2_hold *h, uint64_t cluster)
{
	uint64_t chunk = cluster / CHUNK_BITS, bit = cluster % CHUNK_BITS;
	int ret = hold_room(h, chunk);

	if (ret)
		return ret;
	if (!h->chunk[chunk])
		h->chunk[chunk] = calloc(CHUNK_WORDS, sizeof(uint64_t));
	if (!h->chunk[chunk])
		return -ENOMEM;
	h->chunk[chunk][bit / 64] |= UINT64_C(1) << bit % 64;
	h->lowest = min_u64(h->lowest, cluster);
	return 0;
}

bool qcow2_hold_has(const struct qcow2_hold *h, uint64_t cluster)
{
	uint64_t chunk = cluster / CHUNK_BITS, bit = cluster % CHUNK_BITS;

	return chunk < h->nr_chunks && h->chunk[chunk] &&
	       h->chunk[chunk][bit / 64] >> bit % 64 & 1;
}

uint64_t qcow2_hold_run(const struct qcow2_hold *h, uint64_t from,
			uint64_t *first)
{
	uint64_t n = 0, end = h->nr_chunks * CHUNK_BITS;

	while (from < end && !qcow2_hold_has(h, from)) {
		if (!h->chunk[from / CHUNK_BITS])
			from = (from / CHUNK_BITS + 1) * CHUNK_BITS;
		else if (!(h->chunk[from / CHUNK_BITS]
			   [from % CHUNK_BITS / 64] >> from % 64))
			from = (from / 64 + 1) * 64;
		else
			from++;
	}
	while (from + n < end && qcow2_hold_has(h, from + n))
		n++;
	*first = from;
	return n;
}

/* ---- copies of blocks ---------------------------------------------------- */

static int shadow_room(struct qcow2_shadow *s, uint64_t b)
{
	uint64_t n = max_u64(b + 1, 2 * s->nr), *grown;

	if (b >= s->nr) {
		grown = realloc(s->copy, n * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		memset(grown + s->nr, 0, (n - s->nr) * sizeof(*grown));
		s->copy = grown;
		s->nr = n;
	}
	if (s->nr_was < s->room_was)
		return 0;
	n = s->room_was ? 2 * s->room_was : 16;
	grown = realloc(s->was, n * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	s->was = grown;
	s->room_was = n;
	return 0;
}

static int block_copy(struct image *img, uint64_t from, uint64_t to)
{
	autofree void *bytes = malloc(img->unit);
	int ret = bytes ? meta_read(img, img->file, bytes, img->unit, from) :
			  -ENOMEM;

	if (ret)
		return ret;
	meta_forget(img, img->file, to, img->unit);
	return file_write(img->file, bytes, img->unit, to);
}

/* Block @b, which is at @from, is copied to a new place. */
static int block_copy_new(struct image *img, uint64_t b, uint64_t *from,
			  uint64_t *to)
{
	struct qcow2_run run;
	uint64_t undone;
	int ret = qcow2_alloc_locked(img, 1, &run);

	if (ret)
		return ret;
	/* That may have changed what is copied now. */
	ret = qcow2_block_find(img, b, from);
	if (!ret && !*from)
		ret = -EIO;
	if (!ret)
		ret = block_copy(img, *from, run.host);
	if (ret)
		(void)qcow2_counts_add(img, run.host, img->unit, -1, &undone);
	else
		*to = run.host;
	return ret;
}

/* The copy of block @b, which there is from now on. */
static int shadow_block(struct image *img, uint64_t b, uint64_t *host)
{
	struct qcow2_shadow *s = qcow2_of(img)->shadow;
	uint64_t from;
	int ret = shadow_room(s, b);

	if (ret || s->copy[b]) {
		*host = ret ? 0 : s->copy[b];
		return ret;
	}
	ret = block_copy_new(img, b, &from, host);
	if (ret)
		return ret;
	s->copy[b] = *host;
	s->was[s->nr_was++] = from;
	return 0;
}

struct mpage *qcow2_shadow_pin(struct image *img, uint64_t cluster)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_shadow *s = q->shadow;
	uint64_t b = cluster / qcow2_refs_per_block(q);
	struct mpage *pg = NULL;
	int ret;

	if (!s || b >= s->nr || !s->copy[b])
		return NULL;
	ret = meta_get(img, img->file,
		       qcow2_counts_page(img, s->copy[b], cluster), &pg);
	if (ret)
		s->error = ret;
	return ret ? NULL : pg;
}

/* ---- changing ------------------------------------------------------------ */

static uint64_t base_count(struct image *img, struct mpage *base, uint64_t i)
{
	uint64_t count;

	meta_rdlock(base);
	count = qcow2_count_at(img, base, i);
	meta_unlock(base);
	return count;
}

/* Under the lock of @pg: the counts of [i, end), which lie in it.  *@done: how
 * many were changed; *@zeroes: how many became 0. */
static int counts_shift(struct image *img, struct mpage *pg, uint64_t i,
			uint64_t end, int delta, uint64_t *done,
			uint64_t *zeroes)
{
	unsigned order = qcow2_of(img)->refcount_order;
	uint64_t max = refcount_max(order), n = end - i;
	uint64_t first = i % qcow2_counts_per_page(img);
	void *bytes = meta_bytes(pg);

	for (*done = *zeroes = 0; *done < n; ++*done) {
		uint64_t count = refcount_get(bytes, order, first + *done);

		if (delta > 0 && count == max)
			return -EOVERFLOW;
		if (delta < 0 && !count)
			return -EIO;    /* it counts less than it uses */
		count += (uint64_t)delta;
		refcount_put(bytes, order, first + *done, count);
		*zeroes += !count;
	}
	return 0;
}

/* From @i on, before @end: where counts of @pg that are 0 (@zero), or that are
 * not, come to an end. */
static uint64_t counts_alike(struct image *img, struct mpage *pg, uint64_t i,
			     uint64_t end, bool zero)
{
	meta_rdlock(pg);
	while (i < end && !qcow2_count_at(img, pg, i) == zero)
		i++;
	meta_unlock(pg);
	return i;
}

/* Those of [i, end) that shall be free and are in use are held back. */
static int counts_hold(struct image *img, struct mpage *pg, struct mpage *base,
		       uint64_t i, uint64_t end)
{
	struct qcow2_hold *hold = qcow2_of(img)->hold;
	uint64_t stop;
	int ret = 0;

	for (; !ret && i < end; i = stop) {
		i = counts_alike(img, pg, i, end, false);
		stop = counts_alike(img, pg, i, end, true);
		meta_rdlock(base);
		for (uint64_t k = i; !ret && k < stop; k++)
			if (qcow2_count_at(img, base, k))
				ret = qcow2_hold_add(hold, k);
		meta_unlock(base);
	}
	return ret;
}

/* Inside the gate: a run at once, under one lock. */
static int counts_change(struct image *img, struct mpage *pg,
			 struct mpage *base, uint64_t i, uint64_t end,
			 int delta)
{
	uint64_t done, zeroes;
	int ret, held = 0;

	meta_wrlock(pg);
	ret = counts_shift(img, pg, i, end, delta, &done, &zeroes);
	meta_dirty(pg, STAGE_SPACE);
	meta_unlock(pg);
	if (zeroes)
		held = counts_hold(img, pg, base, i, i + done);
	return ret ? ret : held;
}

void qcow2_shadow_follow(struct image *img, struct mpage *pg,
			 struct mpage *base, uint64_t i, uint64_t end,
			 int delta)
{
	int ret = counts_change(img, pg, base, i, end, delta);

	if (ret)
		qcow2_of(img)->shadow->error = ret;
}

static int page_add(struct image *img, uint64_t i, uint64_t end, int delta)
{
	uint64_t b = i / qcow2_refs_per_block(qcow2_of(img)), host;
	struct mpage *pg, *base;
	int ret = shadow_block(img, b, &host);

	if (!ret)
		ret = qcow2_counts_get(img, i, &base);
	if (ret)
		return ret;
	ret = base ? meta_get(img, img->file,
			      qcow2_counts_page(img, host, i), &pg) : -EIO;
	if (!ret) {
		change_begin(img);
		ret = counts_change(img, pg, base, i, end, delta);
		change_end(img);
		meta_put(pg);
	}
	meta_put(base);
	return ret;
}

int qcow2_shadow_add(struct image *img, uint64_t host, uint64_t len, int delta)
{
	uint64_t i = host / img->unit, end = div_up(host + len, img->unit), n;
	uint64_t per = qcow2_counts_per_page(img);
	int ret = qcow2_of(img)->shadow->error;

	for (; !ret && i < end; i += n) {
		n = min_u64(end, (i / per + 1) * per) - i;
		ret = page_add(img, i, i + n, delta);
	}
	return ret;
}

/* The page that counts cluster @i, pinned; NULL: nothing counts it. */
static int page_of(struct image *img, uint64_t i, struct mpage **pg)
{
	int ret;

	*pg = qcow2_shadow_pin(img, i);
	ret = qcow2_of(img)->shadow->error;
	return *pg || ret ? ret : qcow2_counts_get(img, i, pg);
}

int qcow2_shadow_count(struct image *img, uint64_t host, uint64_t *count)
{
	uint64_t i = host / img->unit;
	struct mpage *pg;
	int ret = page_of(img, i, &pg);

	if (ret)
		return ret;
	*count = pg ? base_count(img, pg, i) : 0;
	meta_put(pg);
	return 0;
}

int qcow2_shadow_ones(struct image *img, uint64_t host, uint64_t max,
		      bool *one, uint64_t *n)
{
	uint64_t i = host / img->unit, per = qcow2_counts_per_page(img);
	struct mpage *pg;
	int ret = page_of(img, i, &pg);

	if (ret)
		return ret;
	max = min_u64(max, per - i % per);
	*one = false;
	*n = max;
	if (!pg)
		return 0;
	meta_rdlock(pg);
	*one = qcow2_count_at(img, pg, i) == 1;
	for (*n = 1; *n < max; ++*n)
		if ((qcow2_count_at(img, pg, i + *n) == 1) != *one)
			break;
	meta_unlock(pg);
	meta_put(pg);
	return 0;
}

/* Dropping one may copy another. */
int qcow2_shadow_settle(struct image *img)
{
	struct qcow2_shadow *s = qcow2_of(img)->shadow;
	int ret = s->error;

	while (!ret && s->settled < s->nr_was)
		ret = qcow2_shadow_add(img, s->was[s->settled++], img->unit,
				       -1);
	return ret;
}

void qcow2_shadow_drop(struct image *img, bool forget)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_shadow *s = q->shadow;

	if (!s)
		return;
	q->shadow = NULL;
	for (uint64_t b = 0; forget && b < s->nr; b++)
		if (s->copy[b])
			meta_forget(img, img->file, s->copy[b], img->unit);
	free(s->copy);
	free(s->was);
	free(s);
}
