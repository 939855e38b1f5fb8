/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bitmaps.h - dirty bitmaps as directories: bitmaps.c the directories,
 * bitmap-files.c the files in them. */
#ifndef FS_BITMAPS_H
#define FS_BITMAPS_H

#include "fs/fs.h"

#include "bitmap.h"

extern const struct dir_ops bitmaps_ops, bitmap_ops;
extern const struct node_ops bitmap_info_ops, bitmap_map_ops,
	bitmap_enabled_ops;

/* The exact name of the bitmap that a node belongs to; allocated. */
char *bitmap_name(const struct node *n);
/* What the image says of it; found->name is the caller's to free.  -ENOENT. */
int bitmap_look(struct image *img, const char *name,
		struct bitmap_info *found);
/* Waits for one that is still being made (F21): its errno, 0 also if nobody makes
 * it.  -EINTR when *@cancel becomes true. */
int bitmap_wait(const struct node *n, const char *name, _Atomic bool *cancel);
/* When the image is forgotten. */
void bitmaps_forget(struct mimage *m);

#endif
