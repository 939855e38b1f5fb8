/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmaps.c - bitmaps/ and bitmaps/NAME/: which there are, and which command
 * mkdir and rmdir are.
 *
 * A bitmap has no number of its own, but nodes need one: each name that was
 * seen gets one, for as long as the image is known.
 */
#include "fs/bitmaps.h"

#include "fs/ctl.h"
#include "fs/escape.h"
#include "fs/tree.h"

/* Guarded by m->lock. */
struct bitmap_names {
	char **name;
	unsigned nr;
};

static const struct {
	enum node_kind kind;
	const char *name;
} children[] = {
	{ NODE_BITMAP_INFO, "info.json" },
	{ NODE_BITMAP_MAP, "map.json" },
	{ NODE_BITMAP_ENABLED, "enabled" },
};

/* ---- numbers of names --------------------------------------------------------- */

void bitmaps_forget(struct mimage *m)
{
	struct bitmap_names *names = m->bitmap_names;

	for (unsigned i = 0; names && i < names->nr; i++)
		free(names->name[i]);
	if (names)
		free(names->name);
	free(names);
	m->bitmap_names = NULL;
}

static int append(struct bitmap_names *names, const char *name)
{
	char **grown;

	if (names->nr >= NODE_NUMBER_MAX - 1)
		return -ENFILE;
	grown = reallocarray(names->name, names->nr + 1, sizeof(*grown));
	BUG_ON(!grown);
	names->name = grown;
	names->name[names->nr] = strdup(name);
	BUG_ON(!names->name[names->nr]);
	names->nr++;
	return 0;
}

static int number_of(struct mimage *m, const char *name, unsigned *number)
{
	struct bitmap_names *names;
	int ret = 0;
	with_lock(&m->lock);

	if (!m->bitmap_names)
		m->bitmap_names = calloc(1, sizeof(*names));
	names = m->bitmap_names;
	BUG_ON(!names);
	for (*number = 0; *number < names->nr; ++*number)
		if (!strcmp(names->name[*number], name))
			return 0;
	ret = append(names, name);
	return ret;
}

char *bitmap_name(const struct node *n)
{
	struct bitmap_names *names;
	char *copy;
	with_lock(&n->m->lock);

	names = n->m->bitmap_names;
	BUG_ON(!names || n->number >= names->nr);
	copy = strdup(names->name[n->number]);
	BUG_ON(!copy);
	return copy;
}

/* ---- what is being made --------------------------------------------------------- */

int bitmap_wait(const struct node *n, const char *name, _Atomic bool *cancel)
{
	autofree char *shown = name_shown(name);
	int ret;

	if (n->layer || !ctl_pending(n->m, NODE_BITMAPS, shown))
		return 0;
	ret = ctl_wait(n->m, NODE_BITMAPS, shown, cancel);
	return ret == -ENOENT ? 0 : ret;        /* it has ended meanwhile */
}

/* -ENOENT: nobody makes it. */
static int pending_number(const struct node *dir, const char *shown,
			  unsigned *number)
{
	autofree char *exact = NULL;

	if (dir->layer || !ctl_pending(dir->m, NODE_BITMAPS, shown) ||
	    name_meant(shown, &exact))
		return -ENOENT;
	return number_of(dir->m, exact, number);
}

/* ---- what there is ------------------------------------------------------------- */

static int read_list(struct node *dir, struct bitmap_info **list, size_t *n)
{
	autoerr err = ERR_INIT;
	struct image *img;
	int ret = mimage_info_begin(dir->m, dir->layer, &img, &err);

	if (ret)
		return ret;
	ret = bitmap_list(img, list, n, &err);
	mimage_info_end(dir->m, img);
	return ret;
}

int bitmap_look(struct image *img, const char *name, struct bitmap_info *found)
{
	struct bitmap_info *list;
	size_t n, i = 0;
	int ret = bitmap_list(img, &list, &n, NULL);

	if (ret)
		return ret;
	while (i < n && strcmp(list[i].name, name))
		i++;
	if (i < n) {
		*found = list[i];
		list[i].name = NULL;
	}
	bitmap_list_free(list, n);
	return i < n ? 0 : -ENOENT;
}

static int bitmaps_list_dir(struct node *dir, enum patience p,
			    struct listing *l)
{
	struct bitmap_info *list;
	unsigned number;
	size_t n;
	int ret;

	if (p == AT_ONCE)
		return -EAGAIN;
	ret = read_list(dir, &list, &n);
	if (ret)
		return ret;
	for (size_t i = 0; i < n && !ret; i++) {
		autofree char *shown = name_shown(list[i].name);

		ret = number_of(dir->m, list[i].name, &number);
		if (!ret)
			listing_add(l, shown, node_get(dir->mnt, dir->m,
						       NODE_BITMAP, dir->layer,
						       number));
	}
	bitmap_list_free(list, n);
	if (!ret)
		listing_add_pending(l, dir, NODE_BITMAP, pending_number);
	return ret;
}

/* The exact name of what is shown as @shown.  -ENOENT. */
static int find_shown(const struct bitmap_info *list, size_t n,
		      const char *shown, const char **exact)
{
	for (size_t i = 0; i < n; i++) {
		autofree char *name = name_shown(list[i].name);

		if (!strcmp(name, shown)) {
			*exact = list[i].name;
			return 0;
		}
	}
	return -ENOENT;
}

static int bitmaps_lookup(struct node *dir, const char *name, enum patience p,
			  struct node **child)
{
	struct bitmap_info *list;
	const char *exact;
	unsigned number;
	bool pending;
	size_t n;
	int ret;

	if (p == AT_ONCE)
		return -EAGAIN;
	/* First: what ends meanwhile is in the list then. */
	pending = !pending_number(dir, name, &number);
	ret = read_list(dir, &list, &n);
	if (ret)
		return ret;
	ret = find_shown(list, n, name, &exact);
	if (!ret)
		ret = number_of(dir->m, exact, &number);
	else if (pending)
		ret = 0;
	if (!ret)
		*child = node_get(dir->mnt, dir->m, NODE_BITMAP, dir->layer,
				  number);
	bitmap_list_free(list, n);
	return ret;
}

/* ---- commands ------------------------------------------------------------------- */

static void put_words(struct words *w, const char *action, const char *name)
{
	words_add(w, "bitmap");
	words_add(w, action);
	words_add(w, "--");
	words_add(w, name);
}

static int bitmaps_make(struct node *dir, const char *name, struct words *w,
			struct err *err)
{
	autofree char *exact = NULL;
	int ret = name_meant(name, &exact);

	(void)dir;
	if (ret)
		return err_set(err, ret, "'%s' is not the name of a bitmap",
			       name);
	put_words(w, "--add", exact);
	return 0;
}

static int bitmaps_remove(struct node *dir, const char *name, struct words *w,
			  struct err *err)
{
	struct bitmap_info *list;
	const char *exact;
	size_t n;
	int ret = read_list(dir, &list, &n);

	if (ret)
		return err_errno(err, ret, "Could not read the bitmaps");
	ret = find_shown(list, n, name, &exact);
	if (!ret)
		put_words(w, "--remove", exact);
	bitmap_list_free(list, n);
	return ret;
}

const struct dir_ops bitmaps_ops = {
	.lookup = bitmaps_lookup,
	.list = bitmaps_list_dir,
	.make = bitmaps_make,
	.remove = bitmaps_remove,
};

/* ---- the directory of one ---------------------------------------------------------- */

static int bitmap_lookup(struct node *dir, const char *name, enum patience p,
			 struct node **child)
{
	(void)p;
	for (size_t i = 0; i < ARRAY_SIZE(children); i++)
		if (!strcmp(children[i].name, name)) {
			*child = node_get(dir->mnt, dir->m, children[i].kind,
					  dir->layer, dir->number);
			return 0;
		}
	return -ENOENT;
}

static int bitmap_list_dir(struct node *dir, enum patience p,
			   struct listing *l)
{
	(void)p;
	for (size_t i = 0; i < ARRAY_SIZE(children); i++)
		listing_add(l, children[i].name,
			    node_get(dir->mnt, dir->m, children[i].kind,
				     dir->layer, dir->number));
	return 0;
}

const struct dir_ops bitmap_ops = {
	.lookup = bitmap_lookup,
	.list = bitmap_list_dir,
};
