/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot.h - internal snapshots as tools/ and fs/ see them.
 *
 * A snapshot is a further root of an image: a struct view that is read like the
 * live disk.  What changes the set of snapshots of an image runs one at a time
 * (image_snapshot_*() see to that), beside readers and writers.
 */
#ifndef BLOCKCORE_SNAPSHOT_H
#define BLOCKCORE_SNAPSHOT_H

#include "blockcore.h"

struct progress;

/* One moment's list, in the order of the image's table. */
struct snapshot_list {
	struct snapshot_info *items;
	size_t n;
};

/* -EOPNOTSUPP: the format has no snapshots. */
int image_snapshots(struct image *img, struct snapshot_list *list,
		    struct err *err);
void snapshot_list_free(struct snapshot_list *list);

/* Which snapshot is meant. */
struct snapshot_key {
	const char *id, *name;  /* those given must match */
	const char *any;        /* or: an ID, else a name ... */
	bool name_first;        /* ... or the other way round */
};
/* Its index, or -ENOENT. */
ssize_t snapshot_find(const struct snapshot_list *list,
		      const struct snapshot_key *key);
/* The value of -l: "snapshot.id=,snapshot.name=", or an ID or name.  @text is
 * kept by @key. */
int snapshot_key_parse(const char *text, struct snapshot_key *key,
		       struct options **keep, struct err *err);

/*
 * The snapshot as a view, to be given back by image_view_close().  The caller
 * sees to it that the snapshot is not deleted meanwhile.
 */
int image_snapshot_view(struct image *img, const struct snapshot_key *key,
			struct view *v, struct err *err);
void image_view_close(struct view *v);
/* Until it is closed a read-only image shows the snapshot in place of its disk:
 * size, content, map. */
int image_load_snapshot(struct image *img, const struct snapshot_key *key,
			struct err *err);

/*
 * The disk as it is at one instant during the call, durable on return.  What
 * @made says besides name and numbers (id, dates, size) is filled in; its
 * strings are the caller's to free.
 */
int image_snapshot_create(struct image *img, const char *name,
			  struct snapshot_info *made, struct progress *p,
			  struct err *err);
int image_snapshot_delete(struct image *img, const struct snapshot_key *key,
			  struct progress *p, struct err *err);
/* The live disk becomes what the snapshot holds, its size too, at one instant
 * during the call; what was read before may be in other caches than ours.
 * Bitmaps that are enabled have what is different in them then; nobody changes
 * them meanwhile.  Cancelled, some may have too much. */
int image_snapshot_apply(struct image *img, const struct snapshot_key *key,
			 struct progress *p, struct err *err);
int image_snapshot_rename(struct image *img, const struct snapshot_key *key,
			  const char *name, struct err *err);

#endif
