/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot.c - internal snapshots: which one is meant, one change at a time,
 * and the instant at which nobody writes (rule 15).
 *
 * Refuses to know how a format keeps them.
 */
#include "bitmap.h"
#include "engine-int.h"
#include "snapshot.h"

/* ---- the instant ----------------------------------------------------------- */

void image_freeze(struct image *img)
{
	struct engine *e = img->eng;

	/* First the long ways, which may take time: what is overwritten in
	 * place goes on as long. */
	claims_close(e);
	atomic_store(&e->frozen, true);
	image_wait_epochs(img);
}

void image_thaw(struct image *img)
{
	atomic_store(&img->eng->frozen, false);
	claims_open(img->eng);
}

/* ---- lists ----------------------------------------------------------------- */

static const struct format_snapshots *ops_of(const struct image *img)
{
	return img->fmt->admin ? img->fmt->admin->snapshots : NULL;
}

int image_snapshots(struct image *img, struct snapshot_list *list,
		    struct err *err)
{
	const struct format_snapshots *ops = ops_of(img);

	*list = (struct snapshot_list) { NULL, 0 };
	if (!ops)
		return -EOPNOTSUPP;
	return ops->list(img, &list->items, &list->n, err);
}

void snapshot_list_free(struct snapshot_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		free(list->items[i].id);
		free(list->items[i].name);
	}
	free(list->items);
	*list = (struct snapshot_list) { NULL, 0 };
}

static ssize_t find_by(const struct snapshot_list *list, const char *id,
		       const char *name)
{
	for (size_t i = 0; i < list->n; i++)
		if ((!id || !strcmp(list->items[i].id, id)) &&
		    (!name || !strcmp(list->items[i].name, name)))
			return (ssize_t)i;
	return -ENOENT;
}

ssize_t snapshot_find(const struct snapshot_list *list,
		      const struct snapshot_key *key)
{
	ssize_t i;

	if (!key->any)
		return key->id || key->name ?
		       find_by(list, key->id, key->name) : -ENOENT;
	i = key->name_first ? find_by(list, NULL, key->any) :
			      find_by(list, key->any, NULL);
	if (i >= 0)
		return i;
	return key->name_first ? find_by(list, key->any, NULL) :
				 find_by(list, NULL, key->any);
}

static const struct option_spec key_options[] = {
	{ "snapshot.id", OPTION_STRING, NULL, NULL },
	{ "snapshot.name", OPTION_STRING, NULL, NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

int snapshot_key_parse(const char *text, struct snapshot_key *key,
		       struct options **keep, struct err *err)
{
	struct options *o;
	int ret;

	*key = (struct snapshot_key) { .any = text };
	*keep = NULL;
	if (strncmp(text, "snapshot.", strlen("snapshot.")))
		return 0;
	o = options_new(key_options, NULL);
	ret = options_parse(o, text, err);
	if (ret) {
		options_free(o);
		return ret;
	}
	*key = (struct snapshot_key) {
		.id = options_str(o, "snapshot.id", NULL),
		.name = options_str(o, "snapshot.name", NULL),
	};
	*keep = o;
	return 0;
}

/* ---- views ----------------------------------------------------------------- */

int image_snapshot_view(struct image *img, const struct snapshot_key *key,
			struct view *v, struct err *err)
{
	struct view found = { .img = img };
	int ret;

	if (!ops_of(img))
		return -EOPNOTSUPP;
	ret = ops_of(img)->view(img, key, &found, err);
	if (!ret)
		*v = found;
	return ret;
}

void image_view_close(struct view *v)
{
	if (v->root)
		ops_of(v->img)->view_close(v);
	v->root = NULL;
}

int image_load_snapshot(struct image *img, const struct snapshot_key *key,
			struct err *err)
{
	struct view v;
	int ret;

	if (img->writable || img->live.root)
		return -EINVAL;
	ret = image_snapshot_view(img, key, &v, err);
	if (ret)
		return ret;
	img->live = v;
	atomic_store(&img->size, v.size);
	return 0;
}

/* ---- changes --------------------------------------------------------------- */

/* *@size, which may be NULL: of the disk, then. */
static int find(struct image *img, const struct snapshot_key *key, size_t *index,
		uint64_t *size, struct err *err)
{
	struct snapshot_list list;
	int ret = image_snapshots(img, &list, err);
	ssize_t i;

	if (ret)
		return ret;
	i = snapshot_find(&list, key);
	if (i >= 0 && size)
		*size = round_down(list.items[i].disk_size, SECTOR_SIZE);
	snapshot_list_free(&list);
	if (i < 0)
		return err_set(err, -ENOENT, "snapshot not found");
	*index = (size_t)i;
	return 0;
}

static int begin(struct image *img, struct err *err)
{
	int ret;

	if (!ops_of(img))
		return -EOPNOTSUPP;
	ret = engine_begin(img->eng);
	return ret ? err_set(err, ret, "%s", strerror(-ret)) : 0;
}

/* The newest one is the last of the list. */
static int tell_last(struct image *img, struct snapshot_info *made)
{
	struct snapshot_list list;
	int ret = image_snapshots(img, &list, NULL);

	if (ret || !list.n)
		return ret ? ret : -ENOENT;
	*made = list.items[list.n - 1];
	list.items[list.n - 1] = (struct snapshot_info) { NULL };
	snapshot_list_free(&list);
	return 0;
}

int image_snapshot_create(struct image *img, const char *name,
			  struct snapshot_info *made, struct progress *p,
			  struct err *err)
{
	int ret = begin(img, err);
	with_lock(&img->eng->resize_lock);

	if (!ret)
		ret = ops_of(img)->create(img, name, p, err);
	return ret || !made ? ret : tell_last(img, made);
}

int image_snapshot_delete(struct image *img, const struct snapshot_key *key,
			  struct progress *p, struct err *err)
{
	size_t index;
	int ret = begin(img, err);
	with_lock(&img->eng->resize_lock);

	if (!ret)
		ret = find(img, key, &index, NULL, err);
	return ret ? ret : ops_of(img)->remove(img, index, p, err);
}

/* Bitmaps as large as both disks; a part that only one of them has is new. */
static int bitmaps_prepare(struct image *img, uint64_t size, struct err *err)
{
	uint64_t old = image_size(img);
	int ret = bitmaps_resize_begin(img, err);

	if (ret || size <= old)
		return ret;
	ret = bitmaps_resize(img, size, err);
	return ret ? ret : bitmaps_touch(img, old, size - old);
}

static int apply(struct image *img, size_t index, uint64_t size,
		 struct progress *p, struct err *err)
{
	uint64_t old = image_size(img);
	bool any = bitmaps_any(img);
	int ret = any ? bitmaps_prepare(img, size, err) : 0;

	if (!ret)
		ret = ops_of(img)->apply(img, index, p, err);
	if (!ret)
		img->live.size = image_size(img);
	/* It fits what the disk is now. */
	if (any && old != size && (ret ? old < size : old > size))
		(void)bitmaps_resize(img, image_size(img), NULL);
	return ret;
}

int image_snapshot_apply(struct image *img, const struct snapshot_key *key,
			 struct progress *p, struct err *err)
{
	uint64_t size = 0;
	size_t index;
	int ret = begin(img, err);
	with_lock(&img->eng->resize_lock);

	if (!ret)
		ret = find(img, key, &index, &size, err);
	return ret ? ret : apply(img, index, size, p, err);
}

int image_snapshot_rename(struct image *img, const struct snapshot_key *key,
			  const char *name, struct err *err)
{
	size_t index;
	int ret = begin(img, err);
	with_lock(&img->eng->resize_lock);

	if (!ret)
		ret = find(img, key, &index, NULL, err);
	return ret ? ret : ops_of(img)->rename(img, index, name, err);
}
