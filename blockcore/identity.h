/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * identity.h - what a mount of imgfs answers about its files (F12): the one
 * thing that the two programs say to each other besides `ctl`.
 */
#ifndef BLOCKCORE_IDENTITY_H
#define BLOCKCORE_IDENTITY_H

#include <stdint.h>
#include <sys/ioctl.h>

/* imgfs_identity.kind of the directory of an image and of its disk. */
enum { IMGFS_KIND_FOLDER = 0, IMGFS_KIND_IMAGE = 1, IMGFS_KIND_DISK = 2 };

/* _IOR on any file or directory of a mount that was opened for reading. */
struct imgfs_identity {
	uint32_t version;               /* 1 */
	uint32_t kind;                  /* enum node_kind */
	uint32_t layer, number;
	uint32_t flags;                 /* enum imgfs_identity_flag */
	uint32_t nr_open;               /* of open[] on the root: image files
					 * that are open now */
	uint32_t pid;                   /* of the daemon, as it sees itself */
	uint32_t reserved;
	uint64_t dev, ino;              /* the image file, 0: unknown */
	char name[256];                 /* of the image's directory */
	struct {
		uint64_t dev, ino;
		char name[256];
	} open[32];                     /* the first ones */
};
enum imgfs_identity_flag {
	IMGFS_IS_OPEN = 1 << 0,
	IMGFS_IS_WRITABLE = 1 << 1,
	IMGFS_MOUNT_RW = 1 << 2,
};
#define IMGFS_IOC_IDENTITY _IOR('i', 1, struct imgfs_identity)

#endif
