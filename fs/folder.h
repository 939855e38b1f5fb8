/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* folder.h - the images of a mount's folders; see folder.c and peek.c. */
#ifndef FS_FOLDER_H
#define FS_FOLDER_H

#include "fs/mimage.h"

/* ---- peek.c: what one file is ------------------------------------------------ */

struct peek {
	bool image;             /* is to be listed */
	char **extents;         /* files that it names as parts of itself */
	unsigned nr_extents;
};

/* Reads the first 64 KiB and the last sector of @fd. */
int peek_file(int fd, const char *name, bool list_raw, struct peek *p);
void peek_free(struct peek *p);

/* ---- folder.c ------------------------------------------------------------------ */

struct folders *folders_new(void);
/* A SOURCE that is a folder. */
int folders_add(struct mount *mnt, const char *path, struct err *err);
/* A SOURCE that is an image beside others: always listed.  Takes the
 * reference. */
void folders_add_image(struct mount *mnt, struct mimage *m);
void folders_free(struct mount *mnt);

/* Looks at all folders anew; the images in order, a reference each.  The caller
 * frees the array. */
struct mimage **folders_list(struct mount *mnt, size_t *n);
/*
 * The image of this name with a reference, or NULL.  Looks anew only if the
 * folder is not as it was; with @fast it then says -EAGAIN instead.
 */
int folders_lookup(struct mount *mnt, const char *name, bool fast,
		   struct mimage **m);
/* A name for an image that no other has: @want, or @want~2 ... */
char *folders_new_name(struct mount *mnt, const char *want);
/* The first folder, for attributes of the root; NULL: there are only images. */
const char *folders_path(const struct mount *mnt);

#endif
