/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parallels-states.c - the older states of a Parallels .hdd bundle, as internal
 * snapshots that can be read: each is a chain of images of its own for every
 * storage.
 *
 * The descriptor gives them no names but their GUIDs, and no dates.  Nothing is
 * changed: such images are never opened for writing.
 */
#include "parallels-bundle.h"
#include "snapshot.h"

#include <stdio.h>

static bool is_top(const struct bundle *b, unsigned shot)
{
	return !strcmp(b->shots[shot].guid, b->top);
}

/* Is it the first one of that GUID?  Only that one has a meaning. */
static bool is_first(const struct bundle *b, unsigned shot)
{
	for (unsigned i = 0; i < shot; i++)
		if (!strcmp(b->shots[i].guid, b->shots[shot].guid))
			return false;
	return b->shots[shot].guid[0];
}

static int put(const struct image *img, unsigned shot,
	       struct snapshot_info *info)
{
	char id[16];

	snprintf(id, sizeof(id), "%u", shot + 1);
	*info = (struct snapshot_info) {
		.id = strdup(id),
		.name = strdup(bundle_of(img)->shots[shot].guid),
		.icount = -1,
		.disk_size = image_size(img),
	};
	return info->id && info->name ? 0 : -ENOMEM;
}

static int states_list(struct image *img, struct snapshot_info **items,
		       size_t *n, struct err *err)
{
	const struct bundle *b = bundle_of(img);
	struct snapshot_list list = {
		.items = calloc(b->nr_shots + 1, sizeof(*list.items)),
	};
	int ret = list.items ? 0 : -ENOMEM;

	(void)err;
	for (unsigned i = 0; !ret && i < b->nr_shots; i++)
		if (!is_top(b, i) && is_first(b, i))
			ret = put(img, i, &list.items[list.n++]);
	if (ret) {
		snapshot_list_free(&list);
		return ret;
	}
	*items = list.items;
	*n = list.n;
	return 0;
}

static int check_files(const struct bundle *b, const struct bundle_state *state,
		       struct err *err)
{
	for (unsigned s = 0; s < b->nr_storages; s++)
		for (unsigned i = 0; i < state->chain[s].n; i++) {
			const struct bundle_image *image =
				&b->images[state->chain[s].image[i]];

			if (!image->file)
				return err_set(err, -EIO, "Could not open '%s'"
					       " of the snapshot", image->name);
		}
	return 0;
}

static int view_state(struct image *img, const char *guid, struct view *v,
		      struct err *err)
{
	const struct bundle *b = bundle_of(img);
	struct bundle_state *state = calloc(1, sizeof(*state));
	int ret = state ? bundle_state_make(b, guid, state, err) : -ENOMEM;

	if (!ret) {
		ret = check_files(b, state, err);
		if (ret)
			bundle_state_free(b, state);
	}
	if (ret) {
		free(state);
		return ret;
	}
	v->root = state;
	v->size = image_size(img);
	return 0;
}

static int states_view(struct image *img, const struct snapshot_key *key,
		       struct view *v, struct err *err)
{
	struct snapshot_list list = { NULL, 0 };
	int ret = states_list(img, &list.items, &list.n, err);
	ssize_t i = ret ? ret : snapshot_find(&list, key);

	ret = i < 0 ? err_set(err, -ENOENT, "Can't find snapshot") :
	      view_state(img, list.items[i].name, v, err);
	snapshot_list_free(&list);
	return ret;
}

static void states_view_close(struct view *v)
{
	bundle_state_free(bundle_of(v->img), v->root);
	free(v->root);
}

const struct format_snapshots bundle_snapshots = {
	.list = states_list,
	.view = states_view,
	.view_close = states_view_close,
};
