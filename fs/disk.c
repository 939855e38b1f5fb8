/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk.c - the data path: reads and writes of `disk` and of the partitions.
 *
 * Knows what a regular file of fixed size answers to read, write, fsync, close
 * and truncate (F5 to F11).  Refuses to know formats and where bytes lie: the
 * engine does.  Nothing is allocated and no lock of ours is taken per request.
 */
#include "fs/disk.h"

#include "fs/partitions.h"
#include "fs/slow.h"

#include "bitmap.h"

#include <fcntl.h>

/* ---- the image ------------------------------------------------------------ */

struct image *disk_enter(const struct node *n)
{
	struct image *img;

	mimage_enter(n->m);
	img = mimage_layer(n->m, n->layer);
	if (!img)
		mimage_leave(n->m);
	return img;
}

void disk_leave(const struct node *n)
{
	mimage_leave(n->m);
}

uint64_t disk_size(const struct disk_handle *dh, const struct image *img)
{
	uint64_t size = dh->snapshot.root ? dh->snapshot.size :
					    image_size(img);

	if (dh->start >= size)
		return 0;
	return min_u64(dh->len, size - dh->start);
}

/* ---- buffers (F5) ----------------------------------------------------------- */

struct buffer {
	size_t len;
	void *bytes;
};

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;
static char zeroes[DISK_IO_MAX] __attribute__((aligned(4096)));

static void buffer_free(void *data)
{
	struct buffer *b = data;

	free(b->bytes);
	free(b);
}

static void buffer_key_make(void)
{
	if (pthread_key_create(&buffer_key, buffer_free))
		BUG("no key for a thread's buffer");
}

static struct buffer *buffer_new(void)
{
	struct buffer *b = calloc(1, sizeof(*b));

	if (b && pthread_setspecific(buffer_key, b)) {
		free(b);
		return NULL;
	}
	return b;
}

void *disk_buffer(size_t len)
{
	struct buffer *b;

	pthread_once(&buffer_once, buffer_key_make);
	b = pthread_getspecific(buffer_key);
	if (!b)
		b = buffer_new();
	if (!b || b->len >= len)
		return b ? b->bytes : NULL;
	free(b->bytes);
	b->len = 0;
	b->bytes = NULL;
	len = round_up(max_u64(len, FS_MAX_READ), 4096);
	if (posix_memalign(&b->bytes, 4096, len))
		b->bytes = NULL;
	else
		b->len = len;
	return b->bytes;
}

/* ---- reading ------------------------------------------------------------------ */

/* Below this, asking the map first costs more than filling with zeroes. */
#define ASK_MAP (64 * KiB)

static bool all_zero(const struct view *v, uint64_t off, size_t len)
{
	struct run r;

	return len >= ASK_MAP && len <= sizeof(zeroes) &&
		!walk_step(v, off, len, 0, 0, &r) && r.zero && r.len == len;
}

/* *buf: where the bytes are. */
static int read_some(struct disk_handle *dh, struct image *img, size_t *len,
		     uint64_t off, const void **buf)
{
	uint64_t size = disk_size(dh, img);
	void *own;

	*len = off < size ? min_u64(*len, size - off) : 0;
	*buf = zeroes;
	off += dh->start;
	if (!*len || all_zero(disk_view(dh, img), off, *len))
		return 0;
	*buf = own = disk_buffer(*len);
	return own ? image_read(disk_view(dh, img), own, *len, off) : -ENOMEM;
}

void disk_read(fuse_req_t req, struct handle *h, size_t len, off_t off)
{
	struct image *img = disk_enter(h->node);
	const void *buf;
	int ret = -EIO;

	if (img) {
		ret = read_some(disk_handle(h), img, &len, (uint64_t)off,
				&buf);
		disk_leave(h->node);
	}
	if (ret)
		reply_err(req, ret);
	else
		reply_buf(req, buf, len);
}

/* ---- writing ------------------------------------------------------------------- */

int disk_fit(struct disk_handle *dh, struct image *img, uint64_t off,
	     uint64_t *len, const _Atomic bool *gone)
{
	uint64_t size = disk_size(dh, img), end;
	int ret;

	if (add_overflows(off, *len, &end))
		return -EFBIG;
	if (end <= size)
		return 0;
	if (dh->h.node->mnt->opt->growable) {
		ret = image_grow(img, end, gone, NULL);
		if (!ret || off >= size)
			return ret;
	}
	if (off >= size)
		return -ENOSPC;
	*len = size - off;
	return 0;
}

void disk_wrote(struct disk_handle *dh, uint64_t off, uint64_t len)
{
	struct mimage *m = dh->h.node->m;

	blocks_changed(m, off, len);
	if (m->track && len)
		bits_set(m->track, off / TRACK_UNIT, (off + len - 1) /
			 TRACK_UNIT - off / TRACK_UNIT + 1);
	/* Looked at before: a line that all threads write is slow. */
	if (!atomic_load_explicit(&dh->wrote, memory_order_relaxed))
		atomic_store(&dh->wrote, true);
	mimage_wrote(m);
}

/* To be watched costs a lock of all requests: only who may have to wait is. */
static int write_fit(fuse_req_t req, struct disk_handle *dh, struct image *img,
		     uint64_t off, uint64_t *len)
{
	_Atomic bool gone = false;
	int ret;

	if (range_within(off, *len, disk_size(dh, img)))
		return 0;
	caller_watch(req, &gone);
	ret = disk_fit(dh, img, off, len, &gone);
	caller_unwatch(req);
	return ret;
}

static void disk_write(fuse_req_t req, struct handle *h, const char *buf,
		       size_t len, off_t off)
{
	struct disk_handle *dh = disk_handle(h);
	struct image *img = disk_enter(h->node);
	uint64_t n = len;
	int ret = -EIO;

	if (img) {
		ret = write_fit(req, dh, img, (uint64_t)off, &n);
		if (!ret)
			ret = image_write(&img->live, buf, n, (uint64_t)off);
		disk_wrote(dh, (uint64_t)off, n);
		disk_leave(h->node);
	}
	if (ret)
		reply_err(req, ret);
	else
		reply_write(req, n);
}

/* ---- durability (F10, F11) --------------------------------------------------------- */

static int flush(struct disk_handle *dh)
{
	int ret;

	/* Before the flush: what is written meanwhile counts for the next. */
	atomic_store(&dh->wrote, false);
	ret = mimage_flush(dh->h.node->m);
	if (ret)
		atomic_store(&dh->wrote, true);
	return ret;
}

static bool flushes_at_close(struct disk_handle *dh)
{
	return atomic_load(&dh->wrote) &&
		dh->h.node->mnt->opt->cache != FS_CACHE_UNSAFE;
}

static void disk_fsync(fuse_req_t req, struct handle *h, bool data)
{
	(void)data;
	reply_err(req, flush(disk_handle(h)));
}

static void disk_flush(fuse_req_t req, struct handle *h)
{
	struct disk_handle *dh = disk_handle(h);

	reply_err(req, flushes_at_close(dh) ? flush(dh) : 0);
}

/* What came after the last FLUSH: stores through a mapping. */
struct late_flush {
	struct work work;
	struct mimage *m;
};

static void late_flush(struct work *w)
{
	struct late_flush *lf = container_of(w, struct late_flush, work);

	mimage_flush(lf->m);
	mimage_put(lf->m, MIMAGE_READ);
	mimage_unref(lf->m);
	free(lf);
}

static void disk_release(struct handle *h)
{
	struct mimage *m = h->node->m;
	struct late_flush *lf;

	if (!flushes_at_close(disk_handle(h)))
		return;
	lf = calloc(1, sizeof(*lf));
	if (!lf || !mimage_get_fast(m, MIMAGE_READ)) {
		free(lf);       /* the timer will see to it */
		return;
	}
	lf->m = mimage_ref(m);
	lf->work.run = late_flush;
	work_submit(m->mnt->housework, &lf->work);
}

/* ---- opening and size ------------------------------------------------------------------ */

/* Direct handles (F6) pay only where writers of one file run in parallel. */
static void open_flags(struct node *n, struct fuse_file_info *fi)
{
	bool direct = n->mnt->opt->cache == FS_CACHE_NONE;

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 15)
	direct = direct || (fi->flags & O_DIRECT &&
			    n->mnt->opt->cache != FS_CACHE_WRITEBACK);
	fi->parallel_direct_writes = direct;
#endif
	fi->direct_io = direct;
	fi->keep_cache = mimage_keep_cache(n->m);
}

static int handle_new(struct node *n, struct handle **h, uint64_t start,
		      uint64_t len)
{
	struct disk_handle *dh = calloc(1, sizeof(*dh));
	struct image *img;

	if (!dh)
		return -ENOMEM;
	img = disk_enter(n);
	if (!img) {
		free(dh);
		return -EIO;
	}
	dh->start = start;
	dh->len = len;
	blocks_begin(n, start, len, disk_size(dh, img));
	disk_leave(n);
	*h = &dh->h;
	return 0;
}

static int disk_open(struct node *n, struct fuse_file_info *fi,
		     struct handle **h)
{
	open_flags(n, fi);
	return handle_new(n, h, 0, UINT64_MAX);
}

static const struct partition *partition_of(const struct partition_table *t,
					    unsigned number)
{
	for (unsigned i = 0; t && i < t->nr; i++)
		if (t->list[i].number == number)
			return &t->list[i];
	return NULL;
}

/* The window is what the table says now; it stays for this handle. */
static int partition_open(struct node *n, struct fuse_file_info *fi,
			  struct handle **h)
{
	struct image *img = disk_enter(n);
	struct partition_table t = { .nr = 0 };
	const struct partition *p;
	int ret;

	if (!img)
		return -EIO;
	ret = partition_table_read(&img->live, &t);
	disk_leave(n);
	if (ret)
		return ret;
	p = partition_of(&t, n->number);
	ret = p ? handle_new(n, h, p->start, p->size) : -ENOENT;
	partition_table_free(&t);
	open_flags(n, fi);
	return ret;
}

static int disk_set_size(struct node *n, struct handle *h, uint64_t size,
			 const _Atomic bool *gone)
{
	struct image *img;
	int ret = 0;

	(void)h;
	if (!size)
		return 0;       /* F8: O_TRUNC */
	img = disk_enter(n);
	if (!img)
		return -EIO;
	if (size < image_size(img))
		ret = -EPERM;
	else if (size > image_size(img))
		ret = n->mnt->opt->growable ?
		      image_grow(img, size, gone, NULL) : -EFBIG;
	if (!ret)
		mimage_wrote(n->m);
	disk_leave(n);
	return ret;
}

static void fill_attr(struct stat *st, uint64_t size, uint64_t unit,
		      uint64_t blocks)
{
	st->st_size = (off_t)size;
	st->st_blocks = (blkcnt_t)blocks;
	st->st_blksize = (blksize_t)min_u64(max_u64(unit, 4096), MiB);
}

/* The open image knows best; when it is closed, or busy, what was seen of it
 * last (stat waits for nobody). */
static bool attr_of_open(struct node *n, uint64_t start, uint64_t len,
			 struct stat *st)
{
	struct disk_handle window = { .start = start, .len = len };
	struct image *img = NULL;
	uint64_t size;

	if (pthread_rwlock_tryrdlock(&n->m->gate))
		return false;
	if (n->m->image)
		img = mimage_layer(n->m, n->layer);
	if (img) {
		size = disk_size(&window, img);
		fill_attr(st, size, img->unit,
			  blocks_of(n, img, start, len, size));
	}
	pthread_rwlock_unlock(&n->m->gate);
	return img;
}

static void disk_attr(struct node *n, const struct facts *f, struct stat *st)
{
	const struct layer *l;

	if (!atomic_load_explicit(&n->m->asked, memory_order_relaxed))
		atomic_store(&n->m->asked, true);
	if (attr_of_open(n, 0, UINT64_MAX, st) || n->layer >= f->nr)
		return;
	l = &f->layers[n->layer];
	fill_attr(st, l->size, l->unit, blocks_unknown(l->size));
}

static void partition_attr(struct node *n, const struct facts *f,
			   struct stat *st)
{
	const struct partition *p = NULL;

	if (n->layer < f->nr)
		p = partition_of(f->layers[n->layer].parts, n->number);
	if (p && !attr_of_open(n, p->start, p->size, st))
		fill_attr(st, p->size, f->layers[n->layer].unit,
			  blocks_unknown(p->size));
}

const struct node_ops disk_ops = {
	.name = "disk",
	.mode = 0644,
	.opens_image = true,
	.attr = disk_attr,
	.open = disk_open,
	.read = disk_read,
	.write = disk_write,
	.flush = disk_flush,
	.fsync = disk_fsync,
	.release = disk_release,
	.fallocate = disk_fallocate,
	.lseek = disk_lseek,
	.set_size = disk_set_size,
	.copy = disk_copy,
};

const struct node_ops partition_ops = {
	.mode = 0444,
	.opens_image = true,
	.attr = partition_attr,
	.open = partition_open,
	.read = disk_read,
	.lseek = disk_lseek,
	.copy = disk_copy,
};
