/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * node.c - the inode table: which of our files the kernel knows by which number,
 * and for how long (lookup counts).
 *
 * A number says what it names, so that a file which was forgotten and is looked
 * up again has the number it had, and readdir need not make nodes:
 *
 *   bits 32..63  the image's base, counts up, never used twice in a mount (F23)
 *   bits 24..31  layer of the chain
 *   bits 18..23  kind
 *   bits  0..17  partition, job ...
 *
 * FUSE's root, 1, is the folder or the single image itself.
 */
#include "fs/bitmaps.h"

#define BASE_SHIFT  32
#define LAYER_SHIFT 24
#define KIND_SHIFT  18

_Static_assert(NR_NODE_KINDS <= 64, "a kind has six bits");
_Static_assert(NODE_NUMBER_MAX == 1 << KIND_SHIFT, "18 bits");
_Static_assert(CHAIN_MAX <= 256, "a layer has eight bits");

struct node_table {
	pthread_mutex_t lock;           /* guards all below, and in nodes:
					 * lookups, refs, hash_next */
	struct node **bucket;
	size_t nr_buckets, nr_nodes;    /* buckets: a power of two */
	uint64_t last_base;
};

struct node_table *node_table_new(void)
{
	struct node_table *t = calloc(1, sizeof(*t));

	BUG_ON(!t);
	t->nr_buckets = 256;
	t->bucket = calloc(t->nr_buckets, sizeof(*t->bucket));
	BUG_ON(!t->bucket);
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

static struct node **slot(const struct node_table *t, fuse_ino_t ino)
{
	uint64_t h = ino * UINT64_C(0x9e3779b97f4a7c15);

	return &t->bucket[(h >> 32) & (t->nr_buckets - 1)];
}

static void node_free(struct node *n)
{
	if (n->m)
		mimage_unref(n->m);
	free(n);
}

/* The kernel forgets everything when the mount ends, and says nothing. */
void node_table_free(struct node_table *t)
{
	struct node *n;

	if (!t)
		return;
	for (size_t i = 0; i < t->nr_buckets; i++)
		while ((n = t->bucket[i])) {
			t->bucket[i] = n->hash_next;
			node_free(n);
		}
	pthread_mutex_destroy(&t->lock);
	free(t->bucket);
	free(t);
}

uint64_t node_new_base(struct node_table *t)
{
	with_lock(&t->lock);
	return ++t->last_base;
}

fuse_ino_t node_ino(const struct mimage *m, enum node_kind kind,
		    unsigned layer, unsigned number)
{
	if (!m || (m->mnt->single && kind == NODE_IMAGE && !layer))
		return FUSE_ROOT_ID;
	return m->id_base << BASE_SHIFT | (uint64_t)layer << LAYER_SHIFT |
	       (uint64_t)kind << KIND_SHIFT | number;
}

static struct node *find(const struct node_table *t, fuse_ino_t ino)
{
	struct node *n;

	for (n = *slot(t, ino); n; n = n->hash_next)
		if (n->ino == ino)
			return n;
	return NULL;
}

/* Twice the buckets; if memory is short the chains grow instead. */
static void grow(struct node_table *t)
{
	struct node_table big = { .nr_buckets = 2 * t->nr_buckets };
	struct node *n, **s;

	big.bucket = calloc(big.nr_buckets, sizeof(*big.bucket));
	if (!big.bucket)
		return;
	for (size_t i = 0; i < t->nr_buckets; i++)
		while ((n = t->bucket[i])) {
			t->bucket[i] = n->hash_next;
			s = slot(&big, n->ino);
			n->hash_next = *s;
			*s = n;
		}
	free(t->bucket);
	t->bucket = big.bucket;
	t->nr_buckets = big.nr_buckets;
}

static const struct node_ops *ops_of(enum node_kind kind)
{
	static const struct node_ops *const ops[NR_NODE_KINDS] = {
		[NODE_DISK] = &disk_ops,
		[NODE_INFO] = &info_ops,
		[NODE_INFO_JSON] = &info_json_ops,
		[NODE_MAP] = &map_ops,
		[NODE_MAP_JSON] = &map_json_ops,
		[NODE_CHECK] = &check_ops,
		[NODE_CHECK_JSON] = &check_json_ops,
		[NODE_CTL] = &ctl_ops,
		[NODE_STATUS] = &status_ops,
		[NODE_TABLE] = &table_ops,
		[NODE_PARTITION] = &partition_ops,
		[NODE_JOB] = &job_ops,
		[NODE_BITMAP_INFO] = &bitmap_info_ops,
		[NODE_BITMAP_MAP] = &bitmap_map_ops,
		[NODE_BITMAP_ENABLED] = &bitmap_enabled_ops,
		[NODE_SNAPSHOT_DISK] = &snapshot_disk_ops,
		[NODE_SNAPSHOT_INFO] = &snapshot_info_ops,
	};

	return ops[kind];
}

static const struct dir_ops *dir_ops_of(enum node_kind kind)
{
	static const struct dir_ops *const ops[NR_NODE_KINDS] = {
		[NODE_JOBS] = &jobs_ops,
		[NODE_BITMAPS] = &bitmaps_ops,
		[NODE_BITMAP] = &bitmap_ops,
		[NODE_SNAPSHOTS] = &snapshots_ops,
		[NODE_SNAPSHOT] = &snapshot_ops,
	};

	return ops[kind];
}

bool node_is_dir(enum node_kind kind)
{
	return !ops_of(kind);
}

static struct node *node_new(struct mount *mnt, struct mimage *m,
			     enum node_kind kind, unsigned layer,
			     unsigned number)
{
	struct node *n = calloc(1, sizeof(*n));

	BUG_ON(!n);
	n->ino = node_ino(m, kind, layer, number);
	n->kind = kind;
	n->ops = ops_of(kind);
	n->dir = dir_ops_of(kind);
	n->mnt = mnt;
	n->m = m ? mimage_ref(m) : NULL;
	n->layer = layer;
	n->number = number;
	return n;
}

struct node *node_get(struct mount *mnt, struct mimage *m,
		      enum node_kind kind, unsigned layer, unsigned number)
{
	struct node_table *t = mnt->nodes;
	struct node *n, **s;

	with_lock(&t->lock);
	n = find(t, node_ino(m, kind, layer, number));
	if (!n) {
		if (t->nr_nodes >= t->nr_buckets)
			grow(t);
		n = node_new(mnt, m, kind, layer, number);
		s = slot(t, n->ino);
		n->hash_next = *s;
		*s = n;
		t->nr_nodes++;
	}
	n->refs++;
	return n;
}

struct node *node_find(struct mount *mnt, fuse_ino_t ino)
{
	struct node *n;

	with_lock(&mnt->nodes->lock);
	n = find(mnt->nodes, ino);
	if (n)
		n->refs++;
	return n;
}

struct node *node_ref(struct node *n)
{
	with_lock(&n->mnt->nodes->lock);
	n->refs++;
	return n;
}

/* Out of the table if nobody knows it: the caller frees it, outside of the lock
 * (freeing may be the end of its image). */
static bool unknown(struct node_table *t, struct node *n)
{
	struct node **p;

	if (n->refs || n->lookups)
		return false;
	for (p = slot(t, n->ino); *p != n; p = &(*p)->hash_next)
		;
	*p = n->hash_next;
	t->nr_nodes--;
	return true;
}

void node_unref(struct node *n)
{
	struct node_table *t = n->mnt->nodes;
	bool last;

	pthread_mutex_lock(&t->lock);
	BUG_ON(!n->refs);
	n->refs--;
	last = unknown(t, n);
	pthread_mutex_unlock(&t->lock);
	if (last)
		node_free(n);
}

void node_looked_up(struct node *n)
{
	with_lock(&n->mnt->nodes->lock);
	n->lookups++;
}

void node_forget(struct mount *mnt, fuse_ino_t ino, uint64_t count)
{
	struct node_table *t = mnt->nodes;
	struct node *n;
	bool last = false;

	pthread_mutex_lock(&t->lock);
	n = find(t, ino);
	if (n) {
		n->lookups -= min_u64(count, n->lookups);
		last = unknown(t, n);
	}
	pthread_mutex_unlock(&t->lock);
	if (last)
		node_free(n);
}

void node_each(struct mimage *m,
	       void (*fn)(const struct node *n, void *data), void *data)
{
	struct node_table *t = m->mnt->nodes;

	with_lock(&t->lock);
	for (size_t i = 0; i < t->nr_buckets; i++)
		for (struct node *n = t->bucket[i]; n; n = n->hash_next)
			if (n->m == m)
				fn(n, data);
}
