/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-layout.c - where the clusters of a new qcow2 image go; see
 * qcow2-layout.h.
 *
 * The order in which QEMU finds room for refcount blocks and for larger
 * refcount tables shows in every file that it makes; this is the same order,
 * learnt from such files:
 *   - a search for @n clusters takes the first gap behind the last search;
 *   - clusters whose refcount block is missing are given back, the block is
 *     made, in the first free cluster behind the search, and it all begins
 *     anew;
 *   - a block that is beyond the refcount table is followed by a larger table,
 *     which begins where the next block's counts begin.
 * Refuses to know what the clusters are for.
 */
#include "qcow2-layout.h"

#include "qcow2.h"

static uint64_t cluster_size(const struct layout *l)
{
	return UINT64_C(1) << l->cluster_bits;
}

/* ---- runs in use ------------------------------------------------------------- */

/* The first run that ends behind @at. */
static size_t run_find(const struct layout *l, uint64_t at)
{
	size_t lo = 0, hi = l->nr_used;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (l->used[mid].end > at)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static int run_insert(struct layout *l, size_t at, uint64_t first,
		      uint64_t end)
{
	if (l->nr_used == l->room) {
		size_t room = l->room ? 2 * l->room : 16;
		struct layout_run *grown = realloc(l->used,
						   room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		l->used = grown;
		l->room = room;
	}
	memmove(&l->used[at + 1], &l->used[at],
		(l->nr_used - at) * sizeof(*l->used));
	l->used[at] = (struct layout_run) { first, end };
	l->nr_used++;
	return 0;
}

/* @first .. are free now. */
static int run_add(struct layout *l, uint64_t first, uint64_t n)
{
	size_t i = run_find(l, first);
	bool before = i && l->used[i - 1].end == first;
	bool after = i < l->nr_used && l->used[i].first == first + n;

	if (!n)
		return 0;
	if (!before && !after)
		return run_insert(l, i, first, first + n);
	if (!before) {
		l->used[i].first = first;
		return 0;
	}
	l->used[i - 1].end = after ? l->used[i].end : first + n;
	if (after) {
		memmove(&l->used[i], &l->used[i + 1],
			(l->nr_used - i - 1) * sizeof(*l->used));
		l->nr_used--;
	}
	return 0;
}

/* One run in use holds them all; the next search may begin there. */
static int run_del(struct layout *l, uint64_t first, uint64_t n)
{
	size_t i = run_find(l, first);
	struct layout_run *r = &l->used[i];
	uint64_t end;

	if (first < l->free_index)
		l->free_index = first;
	if (!n)
		return 0;
	end = r->end;
	if (r->first < first) {
		r->end = first;
		return end > first + n ?
		       run_insert(l, i + 1, first + n, end) : 0;
	}
	r->first = first + n;
	if (r->first == r->end) {
		memmove(r, r + 1, (l->nr_used - i - 1) * sizeof(*r));
		l->nr_used--;
	}
	return 0;
}

/* The search of the comment above. */
static uint64_t free_find(struct layout *l, uint64_t n)
{
	uint64_t at = l->free_index;

	for (size_t i = run_find(l, at); i < l->nr_used; i++) {
		if (l->used[i].first >= at + n)
			break;
		at = max_u64(at, l->used[i].end);
	}
	l->free_index = at + n;
	return at;
}

uint64_t layout_end(const struct layout *l)
{
	return l->used[l->nr_used - 1].end;
}

/* ---- refcount table ------------------------------------------------------------ */

static int table_write(struct layout *l)
{
	uint64_t bytes = l->table_clusters << l->cluster_bits;
	autofree unsigned char *buf = calloc(1, bytes);

	if (!buf)
		return -ENOMEM;
	for (uint64_t i = 0; i < l->nr_blocks; i++)
		be64_put(buf + 8 * i, l->blocks[i] << l->cluster_bits);
	return file_write(l->file, buf, bytes, l->table << l->cluster_bits);
}

/*
 * Blocks and table clusters that an image of @n clusters needs, counting what
 * they need themselves.  With room for growth the table is half as large again.
 */
static uint64_t area_size(const struct layout *l, uint64_t n, bool exact,
			  uint64_t *table)
{
	uint64_t blocks = 0, last;

	*table = 0;
	do {
		last = blocks + *table;
		blocks = div_up(n + last, l->per_block);
		*table = div_up((exact ? blocks : blocks + (blocks + 1) / 2) *
				8, cluster_size(l));
	} while (blocks + *table != last);
	return blocks;
}

/* The new table's entries, with blocks for every @first.. that has none. */
static int area_blocks(struct layout *l, uint64_t first, uint64_t blocks,
		       uint64_t table_clusters, uint64_t *at)
{
	uint64_t room = (table_clusters << l->cluster_bits) / 8;
	uint64_t *grown = calloc(room, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	memcpy(grown, l->blocks, min_u64(room, l->nr_blocks) * 8);
	for (uint64_t i = first; i < blocks; i++)
		if (!grown[i])
			grown[i] = (*at)++;
	free(l->blocks);
	l->blocks = grown;
	l->nr_blocks = room;
	return 0;
}

int layout_area(struct layout *l, uint64_t first, uint64_t n, bool exact,
		uint64_t *end)
{
	uint64_t old = l->table, old_clusters = l->table_clusters;
	uint64_t table_clusters, at = first;
	uint64_t blocks = area_size(l, first + n, exact, &table_clusters);
	int ret;

	if (table_clusters << l->cluster_bits > QCOW2_MAX_REFTABLE_BYTES)
		return -EFBIG;
	/* Its bytes stay in the file when the table moves. */
	ret = table_write(l);
	if (!ret)
		ret = area_blocks(l, first / l->per_block, blocks,
				  table_clusters, &at);
	if (!ret)
		ret = run_add(l, first, at + table_clusters - first);
	if (ret)
		return ret;
	l->table = at;
	l->table_clusters = table_clusters;
	*end = at + table_clusters;
	return run_del(l, old, old_clusters);
}

/* ---- allocating ------------------------------------------------------------------ */

static int counts_set(struct layout *l, uint64_t first, uint64_t n);

/* -EAGAIN: the block is there now. */
static int block_add(struct layout *l, uint64_t index)
{
	uint64_t at = free_find(l, 1), start, end;
	int ret;

	/* It can count itself, or another block has to. */
	if (at / l->per_block == index)
		ret = run_add(l, at, 1);
	else
		ret = counts_set(l, at, 1);
	if (ret)
		return ret;
	if (index >= l->nr_blocks) {
		start = div_up(max_u64(index * l->per_block + 1, at),
			       l->per_block) * l->per_block;
		ret = layout_area(l, start, 0, false, &end);
	}
	if (ret)
		return ret;
	l->blocks[index] = at;
	return -EAGAIN;
}

/* -EAGAIN: a block had to be made, and nothing is taken. */
static int counts_set(struct layout *l, uint64_t first, uint64_t n)
{
	uint64_t at = first, end = first + n;
	int ret;

	while (at < end) {
		uint64_t i = at / l->per_block;

		if (i >= l->nr_blocks || !l->blocks[i])
			break;
		at = min_u64(end, (i + 1) * l->per_block);
	}
	ret = run_add(l, first, at - first);
	if (ret || at == end)
		return ret;
	ret = block_add(l, at / l->per_block);
	if (run_del(l, first, at - first))
		return -ENOMEM;
	return ret;
}

int layout_alloc(struct layout *l, uint64_t n, uint64_t *first)
{
	int ret;

	do {
		*first = free_find(l, n);
		ret = counts_set(l, *first, n);
	} while (ret == -EAGAIN);
	return ret;
}

int layout_take(struct layout *l, uint64_t first, uint64_t n)
{
	int ret;

	do
		ret = counts_set(l, first, n);
	while (ret == -EAGAIN);
	return ret;
}

/* ---- beginning and end ----------------------------------------------------------- */

int layout_init(struct layout *l, struct file *f, unsigned cluster_bits,
		unsigned refcount_order)
{
	*l = (struct layout) {
		.file = f,
		.cluster_bits = cluster_bits,
		.refcount_order = refcount_order,
		.per_block = UINT64_C(8) << cluster_bits >> refcount_order,
		.table = 1,
		.table_clusters = 1,
	};
	l->nr_blocks = cluster_size(l) / 8;
	l->blocks = calloc(l->nr_blocks, sizeof(*l->blocks));
	if (!l->blocks)
		return -ENOMEM;
	l->blocks[0] = 2;
	return run_add(l, 0, 3);
}

void layout_free(struct layout *l)
{
	free(l->blocks);
	free(l->used);
}

static void block_fill(const struct layout *l, uint64_t index,
		       unsigned char *buf)
{
	uint64_t first = index * l->per_block, end = first + l->per_block;

	memset(buf, 0, cluster_size(l));
	for (size_t i = run_find(l, first); i < l->nr_used; i++) {
		uint64_t at = max_u64(l->used[i].first, first);
		uint64_t stop = min_u64(l->used[i].end, end);

		for (; at < stop; at++)
			refcount_put(buf, l->refcount_order, at - first, 1);
		if (l->used[i].end >= end)
			break;
	}
}

int layout_write(struct layout *l)
{
	autofree unsigned char *buf = malloc(cluster_size(l));
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < l->nr_blocks && !ret; i++) {
		if (!l->blocks[i])
			continue;
		block_fill(l, i, buf);
		ret = file_write(l->file, buf, cluster_size(l),
				 l->blocks[i] << l->cluster_bits);
	}
	return ret ? ret : table_write(l);
}
