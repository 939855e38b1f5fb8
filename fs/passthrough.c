/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * passthrough.c - disks that the kernel reads from the image file by itself
 * (F31): raw, and VMDK with one flat extent, when what the guest reads is that
 * file from its first byte to its last.
 *
 * Only where nothing can be written: claims, bitmaps and the guard of probed
 * images know nothing of what the kernel does.  And where it cannot be had (no
 * privilege, a file system below that the kernel does not stack on) reads come
 * to us, as ever.
 *
 * The kernel wants all opens of a node to be of one kind: the first one
 * decides.  Refuses to know formats: it asks for the map.
 */
#include "fs/passthrough.h"

#include "fs/disk.h"

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17) && defined(FUSE_CAP_PASSTHROUGH)

#include <unistd.h>

bool passthrough_wanted(const struct fs_options *o)
{
	return !o->no_passthrough && !o->rw && !o->share && !geteuid() &&
	       (o->cache == FS_CACHE_DEFAULT || o->cache == FS_CACHE_UNSAFE);
}

void passthrough_negotiate(struct mount *mnt, struct fuse_conn_info *conn)
{
	/* Of images on ordinary file systems, not on stacked ones: one more may
	 * be stacked on us then. */
	mnt->passes = passthrough_wanted(mnt->opt) &&
		      fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
	if (!mnt->passes)
		fuse_unset_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
}

/* The descriptor of the file that the whole disk is, or -1. */
static int whole_file(struct image *img)
{
	uint64_t size = image_size(img), bytes;
	struct extent ext;

	if (!size || image_map(&img->live, 0, size, &ext) ||
	    ext.kind != EXT_DATA || ext.len != size || ext.host ||
	    ext.cipher || file_size(ext.file, &bytes) || bytes != size)
		return -1;
	return file_descriptor(ext.file);
}

static int backing_new(fuse_req_t req, struct node *n)
{
	struct image *img = disk_enter(n);
	int fd, id = 0;

	if (!img)
		return 0;
	fd = whole_file(img);
	if (fd >= 0)
		id = fuse_passthrough_open(req, fd);
	disk_leave(n);
	return id > 0 ? id : 0;
}

void passthrough_open(fuse_req_t req, struct handle *h,
		      struct fuse_file_info *fi)
{
	struct node *n = h->node;

	if (!n->mnt->passes || n->kind != NODE_DISK)
		return;
	with_lock(&n->mnt->passing);
	if (!n->opens++)
		n->backing_id = backing_new(req, n);
	h->counted = true;
	if (!n->backing_id)
		return;
	fi->backing_id = n->backing_id;
	fi->keep_cache = 0;     /* not with that; there are no pages of ours */
}

void passthrough_release(fuse_req_t req, struct handle *h)
{
	struct node *n = h->node;

	if (!h->counted)
		return;
	h->counted = false;
	with_lock(&n->mnt->passing);
	if (--n->opens || !n->backing_id)
		return;
	fuse_passthrough_close(req, n->backing_id);
	n->backing_id = 0;
}

#else

bool passthrough_wanted(const struct fs_options *o)
{
	(void)o;
	return false;
}

void passthrough_negotiate(struct mount *mnt, struct fuse_conn_info *conn)
{
	(void)mnt, (void)conn;
}

void passthrough_open(fuse_req_t req, struct handle *h,
		      struct fuse_file_info *fi)
{
	(void)req, (void)h, (void)fi;
}

void passthrough_release(fuse_req_t req, struct handle *h)
{
	(void)req, (void)h;
}

#endif
