/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image.h - what the parts of opening an image share: image-open.c (nodes,
 * probing, locks), image-chain.c (second files), image.c (life afterwards).
 */
#ifndef BLOCKCORE_IMAGE_H
#define BLOCKCORE_IMAGE_H

#include "engine.h"
#include "spec.h"

/* Set on images that a format reads as its file (qcow2 over raw over a file):
 * they are locked as that format is. */
#define IMAGE_INNER (1u << 31)

/* One image being opened, and those above it. */
struct opening {
	const struct image_args *args;
	unsigned flags;                 /* image_flag, for this image */
	const struct policy *self;      /* for this image's own name */
	const struct image *above;      /* the image whose backing file this
					 * is, or NULL */
	const struct opening *up;       /* ... and its opening */
	unsigned depth;                 /* images above in the chain */
	unsigned nested;                /* nodes above in this image */
	bool *endless;                  /* out: the chain has no end */
};

/* The tree @node, for @op. */
int image_open_node(const struct opening *op, const struct json *node,
		    struct image **img, struct err *err);
/* Opens img->backing unless there is none. */
int image_open_backing(const struct opening *op, struct image *img,
		       struct err *err);
/* Is the file of @img that of an image above it? */
int image_check_loop(const struct opening *op, const struct image *img,
		     struct err *err);
/* Flags for files of an image with these flags, as @node wants it. */
unsigned image_file_flags(unsigned flags, enum cache_mode cache,
			  const struct json *node);
/* A protocol node as a file.  Sets its "driver" where that is missing. */
int image_open_protocol(struct json *node, unsigned file_flags,
			const struct policy *policy, struct file **f,
			struct err *err);
/* locking.md: takes or changes the locks of all files of @img. */
int image_lock(struct image *img, bool writable, struct err *err);
/* Frees what is there of an image that is not open (any more). */
void image_free(struct image *img);

#endif
