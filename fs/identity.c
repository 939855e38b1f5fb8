/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * identity.c - what a node of a mount is, for programs that meet it by a path
 * (F12): imgctl asks any file for its image, and a mount's root for the image
 * files that are open there.
 */
#include "fs/session.h"
#include "fs/mimage.h"

#include <stdio.h>

_Static_assert(NODE_FOLDER == (int)IMGFS_KIND_FOLDER &&
	       NODE_IMAGE == (int)IMGFS_KIND_IMAGE &&
	       NODE_DISK == (int)IMGFS_KIND_DISK, "numbers that others know");

static void copy_name(char *to, size_t size, const char *name)
{
	snprintf(to, size, "%s", name);
}

static void image_part(struct mimage *m, struct imgfs_identity *id)
{
	with_lock(&m->lock);
	if (m->image)
		id->flags |= IMGFS_IS_OPEN;
	if (m->image && m->writable)
		id->flags |= IMGFS_IS_WRITABLE;
	id->dev = m->id.dev;
	id->ino = m->id.ino;
	copy_name(id->name, sizeof(id->name), m->name);
}

static void open_part(struct mount *mnt, struct imgfs_identity *id)
{
	size_t n;
	autofree struct mimage **list = mount_images(mnt, true, &n);

	id->nr_open = (uint32_t)n;
	for (size_t i = 0; i < n; i++) {
		struct mimage *m = list[i];

		if (i < ARRAY_SIZE(id->open)) {
			pthread_mutex_lock(&m->lock);
			id->open[i].dev = m->id.dev;
			id->open[i].ino = m->id.ino;
			pthread_mutex_unlock(&m->lock);
			copy_name(id->open[i].name, sizeof(id->open[i].name),
				  m->name);
		}
		mimage_unref(m);
	}
}

void identity_of(struct node *n, struct imgfs_identity *id)
{
	memset(id, 0, sizeof(*id));
	id->version = 1;
	id->pid = (uint32_t)getpid();
	id->kind = n->kind;
	id->layer = n->layer;
	id->number = n->number;
	if (n->mnt->opt->rw)
		id->flags |= IMGFS_MOUNT_RW;
	if (n->m)
		image_part(n->m, id);
	if (n->ino == FUSE_ROOT_ID)
		open_part(n->mnt, id);
}
