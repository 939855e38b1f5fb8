/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tree.h - directories and attributes; see tree.c. */
#ifndef FS_TREE_H
#define FS_TREE_H

#include "fs/mimage.h"

/* All return 0 or an errno; -EAGAIN only AT_ONCE: ask again on a worker. */

/* Attributes of @n and for how long they hold. */
int tree_attr(struct node *n, enum patience p, struct stat *st,
	      double *timeout);
/* The child of @dir; counted.  -ENOENT. */
int tree_lookup(struct node *dir, const char *name, enum patience p,
		struct node **child);
/* An entry of @dir for the kernel; @e's node has been counted by node_looked_up(). */
int tree_entry(const struct node *dir, struct node *child, enum patience p,
	       struct fuse_entry_param *e);
/* How long a name is known not to be there, seconds. */
double tree_no_entry_timeout(const struct node *dir);

/* What a directory holds, at one instant. */
struct listing {
	struct listed {
		char *name;
		struct node *node;      /* counted */
	} *list;
	size_t nr;
};
int tree_list(struct node *dir, enum patience p, struct listing *l);
/* Takes @node. */
void listing_add(struct listing *l, const char *name, struct node *node);
/* Those of @dir that are still being made, unless they are there already. */
void listing_add_pending(struct listing *l, struct node *dir,
			 enum node_kind child,
			 int (*number_of)(const struct node *dir,
					  const char *name, unsigned *number));
void listing_free(struct listing *l);

/* Where the node's bytes are, for statfs: a path, or NULL. */
const char *tree_host_path(const struct node *n);
/* The allocation unit of the node's image if it is known at once, else 0. */
uint32_t tree_unit(struct node *n);

#endif
