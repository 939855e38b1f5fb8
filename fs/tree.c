/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree.c - which files a directory of ours holds, and what stat says of each.
 *
 * Knows names, owners, modes and times.  What an image is it learns from
 * facts.c, which images there are from folder.c.
 */
#include "fs/ctl.h"
#include "fs/tree.h"
#include "fs/folder.h"
#include "fs/partitions.h"

#include <stdio.h>

/* ---- names ------------------------------------------------------------------- */

/* The files of an image's directory, in the order in which they are listed. */
static const struct child_kind {
	enum node_kind kind;
	const char *name;
	bool top_only;          /* not in backing/ */
} image_children[] = {
	{ NODE_DISK, "disk", false },
	{ NODE_INFO, "info", false },
	{ NODE_INFO_JSON, "info.json", false },
	{ NODE_MAP, "map", false },
	{ NODE_MAP_JSON, "map.json", false },
	{ NODE_CHECK, "check", false },
	{ NODE_CHECK_JSON, "check.json", false },
	{ NODE_CTL, "ctl", true },
	{ NODE_STATUS, "status", true },
	{ NODE_JOBS, "jobs", true },
	{ NODE_BITMAPS, "bitmaps", false },
	{ NODE_SNAPSHOTS, "snapshots", false },
	{ NODE_PARTITIONS, "partitions", false },
	{ NODE_IMAGE, "backing", false },
};

/* Is there such a file in the directory of layer @layer? */
static bool has_child(const struct facts *f, unsigned layer,
		      const struct child_kind *c)
{
	if (c->top_only)
		return !layer;
	if (c->kind == NODE_PARTITIONS)
		return layer < f->nr && f->layers[layer].parts;
	if (c->kind == NODE_BITMAPS)
		return layer < f->nr && f->layers[layer].has_bitmaps;
	if (c->kind == NODE_IMAGE)
		return layer < f->nr && f->layers[layer].has_backing;
	if (c->kind == NODE_SNAPSHOTS)
		return layer < f->nr && f->layers[layer].has_snapshots;
	return true;
}

static unsigned child_layer(const struct node *dir, const struct child_kind *c)
{
	return dir->layer + (c->kind == NODE_IMAGE);
}

/* ---- facts --------------------------------------------------------------------- */

/* -EAGAIN, or what is known of the image, with a reference. */
static int get_facts(struct node *n, enum patience p, struct facts **f)
{
	*f = mimage_facts_fast(n->m);
	if (!*f && p == AT_ONCE)
		return -EAGAIN;
	if (!*f)
		*f = mimage_facts(n->m);
	return 0;
}

/* The same with partition tables as they are now. */
static int get_facts_now(struct node *n, enum patience p, struct facts **f)
{
	if (p == AT_ONCE)
		return -EAGAIN;
	*f = mimage_facts_now(n->m);
	return 0;
}

/* ---- attributes ------------------------------------------------------------------ */

/* Read bits of the host's file give what may be searched. */
static mode_t dir_mode(mode_t file)
{
	mode_t r = file & 0444;

	return S_IFDIR | r | r >> 2;
}

/* Do names come to a directory, or go from it, by commands? */
static bool may_change(const struct node *n)
{
	if (!n->dir || n->layer)
		return false;
	return n->dir->unlink || (n->dir->make && n->mnt->opt->rw);
}

static mode_t mode_of(const struct node *n, mode_t host)
{
	const struct fs_options *o = n->mnt->opt;

	if (o->has_umask)
		host = 0777 & ~o->umask;
	/* Of what may be done, not of what may be read: his who owns it. */
	if (!n->ops)
		return dir_mode(host) | (may_change(n) ? 0200 : 0);
	if (n->ops->control)
		return S_IFREG | n->ops->mode;
	if (!o->rw || n->layer)
		host &= ~(mode_t)0222;
	return S_IFREG | (host & n->ops->mode & 0666);
}

static void host_attr(const struct node *n, const struct stat *host,
		      struct stat *st)
{
	const struct fs_options *o = n->mnt->opt;

	memset(st, 0, sizeof(*st));
	st->st_ino = n->ino;
	st->st_mode = mode_of(n, host->st_mode);
	st->st_nlink = n->ops ? 1 : 2;
	st->st_uid = o->has_uid ? o->uid : host->st_uid;
	st->st_gid = o->has_gid ? o->gid : host->st_gid;
	st->st_atim = host->st_atim;
	st->st_mtim = host->st_mtim;
	st->st_ctim = host->st_ctim;
	st->st_blksize = 4096;
}

/* A SOURCE that has no file (json: of something else). */
static void no_host(struct stat *host)
{
	memset(host, 0, sizeof(*host));
	host->st_mode = 0600;
	host->st_uid = geteuid();
	host->st_gid = getegid();
}

/* The image file of layer 0, as it is now. */
static int top_stat(struct node *n, struct stat *host)
{
	int ret;

	if (!n->m->path || stat(n->m->path, host)) {
		ret = mimage_check_path(n->m);
		if (ret)
			return ret;
		no_host(host);
	}
	return mimage_check_path(n->m);
}

static int host_stat(struct node *n, const struct facts *f, struct stat *host)
{
	if (!n->layer)
		return top_stat(n, host);
	if (n->layer < f->nr && f->layers[n->layer].has_stat)
		*host = f->layers[n->layer].st;
	else
		no_host(host);
	return n->m->gone ? -ESTALE : 0;
}

/* A folder is a directory that images come to and go from. */
static int folder_attr(struct node *n, struct stat *st, double *timeout)
{
	const char *path = folders_path(n->mnt);
	struct stat host;

	if (!path || stat(path, &host)) {
		no_host(&host);
		host.st_mode = 0755;
	}
	host_attr(n, &host, st);
	*timeout = 1.0;
	return 0;
}

static double timeout_of(const struct node *n)
{
	if (n->ops && n->kind != NODE_DISK && n->kind != NODE_PARTITION)
		return 0;
	return mimage_timeout(n->m);
}

/* Only the directory of an image is known without looking into it. */
static bool needs_facts(const struct node *n)
{
	return n->layer || n->kind != NODE_IMAGE;
}

int tree_attr(struct node *n, enum patience p, struct stat *st,
	      double *timeout)
{
	struct facts *f = NULL;
	struct stat host;
	int ret = 0;

	if (n->kind == NODE_FOLDER)
		return folder_attr(n, st, timeout);
	/* Before the attributes are: a change meanwhile shortens nothing. */
	*timeout = timeout_of(n);
	if (needs_facts(n))
		ret = get_facts(n, p, &f);
	if (ret)
		return ret;
	ret = host_stat(n, f, &host);
	if (!ret) {
		host_attr(n, &host, st);
		if (n->ops && n->ops->attr)
			n->ops->attr(n, f, st);
	}
	facts_unref(f);
	return ret;
}

/* ---- lookup -------------------------------------------------------------------------- */

static int lookup_image(struct node *dir, const char *name, enum patience p,
			struct node **child)
{
	struct mimage *m;
	int ret = folders_lookup(dir->mnt, name, p == AT_ONCE, &m);

	if (ret)
		return ret;
	if (!m)
		return -ENOENT;
	*child = node_get(dir->mnt, m, NODE_IMAGE, 0, 0);
	mimage_unref(m);
	return 0;
}

static const struct child_kind *kind_named(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(image_children); i++)
		if (!strcmp(image_children[i].name, name))
			return &image_children[i];
	return NULL;
}

static int lookup_file(struct node *dir, const char *name, enum patience p,
		       struct node **child)
{
	const struct child_kind *c = kind_named(name);
	struct facts *f;
	bool there;
	int ret;

	if (!c)
		return -ENOENT;
	ret = mimage_check_path(dir->m);
	if (ret)
		return ret;
	ret = get_facts(dir, p, &f);
	if (ret)
		return ret;
	there = has_child(f, dir->layer, c);
	facts_unref(f);
	/* A table may have been written meanwhile. */
	if (!there && c->kind == NODE_PARTITIONS) {
		ret = get_facts_now(dir, p, &f);
		if (ret)
			return ret;
		there = has_child(f, dir->layer, c);
		facts_unref(f);
	}
	if (!there)
		return -ENOENT;
	*child = node_get(dir->mnt, dir->m, c->kind, child_layer(dir, c), 0);
	return 0;
}

/* A decimal number without zeroes in front; 0: it is none. */
static unsigned partition_number(const char *name)
{
	unsigned n = 0;

	if (*name < '1' || *name > '9' || strlen(name) > 3)
		return 0;
	for (; *name >= '0' && *name <= '9'; name++)
		n = 10 * n + (unsigned)(*name - '0');
	return *name ? 0 : n;
}

static int lookup_partition(struct node *dir, const char *name,
			    enum patience p, struct node **child)
{
	unsigned number = partition_number(name);
	struct facts *f;
	bool there;
	int ret;

	if (!strcmp(name, "table.json")) {
		*child = node_get(dir->mnt, dir->m, NODE_TABLE, dir->layer, 0);
		return 0;
	}
	ret = number ? get_facts_now(dir, p, &f) : -ENOENT;
	if (ret)
		return ret;
	there = facts_partition(f, dir->layer, number);
	facts_unref(f);
	if (!there)
		return -ENOENT;
	*child = node_get(dir->mnt, dir->m, NODE_PARTITION, dir->layer, number);
	return 0;
}

int tree_lookup(struct node *dir, const char *name, enum patience p,
		struct node **child)
{
	switch (dir->kind) {
	case NODE_FOLDER:
		return lookup_image(dir, name, p, child);
	case NODE_IMAGE:
		return lookup_file(dir, name, p, child);
	case NODE_PARTITIONS:
		return lookup_partition(dir, name, p, child);
	default:
		return dir->dir ? dir->dir->lookup(dir, name, p, child) :
				  -ENOTDIR;
	}
}

/* An image's own directory is asked for again soon: another file may have taken
 * its name. */
static double name_timeout(const struct node *dir, const struct node *n)
{
	if (dir->dir)
		return 0;
	return n->kind == NODE_IMAGE && !n->layer ? 1.0 : mimage_timeout(n->m);
}

double tree_no_entry_timeout(const struct node *dir)
{
	return dir->dir ? 0 : 1.0;
}

int tree_entry(const struct node *dir, struct node *child, enum patience p,
	       struct fuse_entry_param *e)
{
	int ret;

	memset(e, 0, sizeof(*e));
	e->ino = child->ino;
	e->generation = 1 + (child->kind == NODE_DISK && !child->layer ?
			     atomic_load(&child->m->resized) : 0);
	e->entry_timeout = name_timeout(dir, child);
	ret = tree_attr(child, p, &e->attr, &e->attr_timeout);
	if (!ret)
		node_looked_up(child);
	return ret;
}

/* ---- listing ----------------------------------------------------------------------------- */

void listing_add(struct listing *l, const char *name, struct node *node)
{
	struct listed *grown;

	if (!(l->nr & (l->nr - 1))) {   /* 0, or a power of two: full */
		grown = reallocarray(l->list, l->nr ? 2 * l->nr : 1,
				     sizeof(*grown));
		BUG_ON(!grown);
		l->list = grown;
	}
	l->list[l->nr].name = strdup(name);
	l->list[l->nr].node = node;
	BUG_ON(!l->list[l->nr].name);
	l->nr++;
}

static bool is_listed(const struct listing *l, const char *name)
{
	for (size_t i = 0; i < l->nr; i++)
		if (!strcmp(l->list[i].name, name))
			return true;
	return false;
}

void listing_add_pending(struct listing *l, struct node *dir,
			 enum node_kind child,
			 int (*number_of)(const struct node *dir,
					  const char *name, unsigned *number))
{
	char *names[CTL_IN_TURN];
	size_t n = dir->layer ? 0 : ctl_pending_names(dir->m, dir->kind, names);
	unsigned number;

	while (n--) {
		if (!is_listed(l, names[n]) &&
		    !number_of(dir, names[n], &number))
			listing_add(l, names[n], node_get(dir->mnt, dir->m,
							  child, 0, number));
		free(names[n]);
	}
}

static void list_images(struct node *dir, struct listing *l)
{
	size_t n;
	autofree struct mimage **images = folders_list(dir->mnt, &n);

	for (size_t i = 0; i < n; i++) {
		listing_add(l, images[i]->name,
			 node_get(dir->mnt, images[i], NODE_IMAGE, 0, 0));
		mimage_unref(images[i]);
	}
}

static void list_files(struct node *dir, const struct facts *f,
		       struct listing *l)
{
	for (size_t i = 0; i < ARRAY_SIZE(image_children); i++) {
		const struct child_kind *c = &image_children[i];

		if (has_child(f, dir->layer, c))
			listing_add(l, c->name, node_get(dir->mnt, dir->m, c->kind,
						      child_layer(dir, c), 0));
	}
}

static void list_partitions(struct node *dir, const struct facts *f,
			    struct listing *l)
{
	const struct partition_table *t = NULL;
	char name[16];

	if (dir->layer < f->nr)
		t = f->layers[dir->layer].parts;
	for (unsigned i = 0; t && i < t->nr; i++) {
		if (t->list[i].container)
			continue;
		snprintf(name, sizeof(name), "%u", t->list[i].number);
		listing_add(l, name, node_get(dir->mnt, dir->m, NODE_PARTITION,
					   dir->layer, t->list[i].number));
	}
	listing_add(l, "table.json", node_get(dir->mnt, dir->m, NODE_TABLE,
					   dir->layer, 0));
}

int tree_list(struct node *dir, enum patience p, struct listing *l)
{
	struct facts *f;
	int ret;

	memset(l, 0, sizeof(*l));
	if (dir->kind == NODE_FOLDER) {
		if (p == AT_ONCE)
			return -EAGAIN;
		list_images(dir, l);
		return 0;
	}
	ret = mimage_check_path(dir->m);
	if (!ret && dir->dir)
		return dir->dir->list(dir, p, l);
	if (!ret)
		ret = get_facts_now(dir, p, &f);
	if (ret)
		return ret;
	if (dir->kind == NODE_PARTITIONS)
		list_partitions(dir, f, l);
	else
		list_files(dir, f, l);
	facts_unref(f);
	return 0;
}

void listing_free(struct listing *l)
{
	for (size_t i = 0; i < l->nr; i++) {
		free(l->list[i].name);
		node_unref(l->list[i].node);
	}
	free(l->list);
	memset(l, 0, sizeof(*l));
}

/* ---- statfs ---------------------------------------------------------------------------------- */

const char *tree_host_path(const struct node *n)
{
	return n->m ? n->m->path : folders_path(n->mnt);
}

uint32_t tree_unit(struct node *n)
{
	struct facts *f = n->m ? mimage_facts_fast(n->m) : NULL;
	uint32_t unit = 0;

	if (f && n->layer < f->nr)
		unit = f->layers[n->layer].unit;
	facts_unref(f);
	return unit;
}
