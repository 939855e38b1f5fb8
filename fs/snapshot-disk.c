/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot-disk.c - snapshots/NAME/disk: the data path of disk.c on another
 * view of the image, for reading.
 */
#include "fs/disk.h"
#include "fs/snapshots.h"

#include "snapshot.h"

struct snapshot_handle {
	struct disk_handle dh;
	const struct format_snapshots *ops;
	uint64_t opened;        /* of the image: the view is of that opening */
};

static struct snapshot_handle *snapshot_handle(struct handle *h)
{
	return container_of(disk_handle(h), struct snapshot_handle, dh);
}

static void snapshot_attr(struct node *n, const struct facts *f,
			  struct stat *st)
{
	struct snapshot_known k;
	uint64_t size, unit = 0;

	if (!snapshot_known(n->m, n->number, &k))
		return;
	if (n->layer < f->nr)
		unit = f->layers[n->layer].unit;
	/* What is being made will be as large as the disk. */
	size = k.id ? k.size : n->layer < f->nr ? f->layers[n->layer].size : 0;
	st->st_size = (off_t)size;
	st->st_blocks = (blkcnt_t)blocks_unknown(size);
	st->st_blksize = (blksize_t)min_u64(max_u64(unit, 4096), MiB);
	snapshot_known_free(&k);
}

static int view_open(struct node *n, struct snapshot_handle *sh)
{
	struct snapshot_known k;
	struct snapshot_key key;
	struct image *img;
	int ret = -ENOENT;

	if (!snapshot_known(n->m, n->number, &k))
		return -ENOENT;
	key = (struct snapshot_key) { .id = k.id, .name = k.name };
	img = k.id ? disk_enter(n) : NULL;
	if (img) {
		ret = image_snapshot_view(img, &key, &sh->dh.snapshot, NULL);
		if (!ret)
			sh->ops = img->fmt->admin->snapshots;
		sh->opened = n->m->opened;
		disk_leave(n);
	}
	snapshot_known_free(&k);
	return ret;
}

static int snapshot_open(struct node *n, struct fuse_file_info *fi,
			 struct handle **h)
{
	struct snapshot_handle *sh;
	int ret = snapshot_hold(n->m, n->number);

	if (ret)
		return ret;
	sh = calloc(1, sizeof(*sh));
	ret = sh ? view_open(n, sh) : -ENOMEM;
	if (ret) {
		snapshot_release(n->m, n->number);
		free(sh);
		return ret;
	}
	sh->dh.len = UINT64_MAX;
	/* It never changes: its pages hold as long as the node. */
	fi->keep_cache = mimage_keep_cache(n->m);
	*h = &sh->dh.h;
	return 0;
}

/* Shared with a writer, and read anew since? */
static bool is_stale(struct handle *h)
{
	return snapshot_handle(h)->opened != h->node->m->opened;
}

static void snapshot_read(fuse_req_t req, struct handle *h, size_t len,
			  off_t off)
{
	if (is_stale(h))
		reply_err(req, -ESTALE);
	else
		disk_read(req, h, len, off);
}

static void snapshot_lseek(fuse_req_t req, struct handle *h, off_t off,
			   int whence)
{
	if (is_stale(h))
		reply_err(req, -ESTALE);
	else
		disk_lseek(req, h, off, whence);
}

static void snapshot_close(struct handle *h)
{
	struct snapshot_handle *sh = snapshot_handle(h);

	sh->ops->view_close(&sh->dh.snapshot);
	snapshot_release(h->node->m, h->node->number);
}

const struct node_ops snapshot_disk_ops = {
	.name = "disk",
	.mode = 0444,
	.opens_image = true,
	.attr = snapshot_attr,
	.open = snapshot_open,
	.read = snapshot_read,
	.lseek = snapshot_lseek,
	.copy = disk_copy,
	.release = snapshot_close,
};
