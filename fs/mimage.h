/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mimage.h - what those share who open, watch and close the images of a mount:
 * mimage.c, life.c, facts.c, status.c, folder.c.  The ops of files need fs.h
 * only.
 */
#ifndef FS_MIMAGE_H
#define FS_MIMAGE_H

#include "fs/fs.h"

/* Listed by the mount until mimage_unref(); takes @node.  @path: the image file,
 * or NULL where the specification names none. */
struct mimage *mimage_new(struct mount *mnt, const char *name,
			  const char *path, struct json *node);
/* All images that someone knows of, each with a reference; the caller frees
 * the array.  @open_only: as far as one can tell without a lock. */
struct mimage **mount_images(struct mount *mnt, bool open_only, size_t *n);

/* The image if it is open, with the gate held shared; the user need not have
 * got it.  Waits while it is being opened.  NULL: it is closed. */
struct image *mimage_borrow(struct mimage *m);
void mimage_give_back(struct mimage *m);

/* As mimage_enter(), and nobody else is inside until mimage_leave(). */
void mimage_enter_alone(struct mimage *m);

/* Another chain below the image, whose caller is alone with it; the old one. */
struct image *mimage_swap_backing(struct mimage *m, struct image *backing);

/* For life.c: with no users, or @force; false: it is in use.  @ret: what closing
 * said. */
bool mimage_close(struct mimage *m, bool force, int *ret);
/* The last writer has gone: gives the write lock back. */
void mimage_downgrade(struct mimage *m);
/* share: closes and opens it again if its files changed. */
void mimage_read_anew(struct mimage *m);
/* Has a file of the chain another identity, size or time than when it was
 * opened?  Gate held. */
bool mimage_files_changed(struct mimage *m);

/* Is @m's file no longer what its path names?  -ESTALE, or 0. */
int mimage_check_path(struct mimage *m);

/* How to open it: flags for all, cache and policy of the mount. */
void mimage_args(const struct mimage *m, unsigned flags,
		 struct image_args *args);
/* image_open(); when descriptors run out, idle images make room. */
int mimage_open_with(struct mimage *m, const struct image_args *args,
		     struct image **img, struct err *err);

/* Under m->lock: remembers why it cannot be opened (logged once) or that it
 * can: NULL. */
void mimage_trouble(struct mimage *m, const char *sentence);
/* A sync or a close failed with @err: is this for good? */
void mimage_sync_failed(struct mimage *m, int err, bool broken);
/* It was tried again and is over.  Under the lock. */
void mimage_durable(struct mimage *m);

/* ---- chain-files.c ---- */

void file_id_of(const struct stat *st, struct file_id *id);
bool file_id_same_file(const struct file_id *a, const struct file_id *b);
bool file_id_equal(const struct file_id *a, const struct file_id *b);
/* Lists, in the same order. */
bool file_ids_equal(const struct file_id *a, unsigned na,
		    const struct file_id *b, unsigned nb);
/* References to the files of the whole chain, the image file first. */
struct file **chain_files(const struct image *img, unsigned *n);
/* What they are now; drops the references.  The caller frees the list. */
struct file_id *files_ids(struct file **files, unsigned n);
struct file_id *chain_ids(const struct image *img, unsigned *n);

/* ---- life.c ---- */

int life_start(struct mount *mnt);
/* Something ended: look whether there is work. */
void life_kick(struct mount *mnt);
void life_stop(struct mount *mnt);      /* no further work is begun */
void life_free(struct mount *mnt);
/* Closes the image that has been idle for longest; false: there is none. */
bool life_make_room(struct mount *mnt);

/* ---- facts.c ---- */

/* What is cached is old. */
void facts_drop(struct mimage *m);
/* As mimage_facts(), but partition tables of this instant too. */
struct facts *mimage_facts_now(struct mimage *m);
const struct partition *facts_partition(const struct facts *f, unsigned layer,
					unsigned number);

#endif
