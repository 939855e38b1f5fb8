/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file-posix.c - regular files and block devices.
 *
 * Knows what Linux offers for them: O_DIRECT and its alignment, holes,
 * fallocate and where it does not work, sizes of devices.  Refuses to know
 * about the end of the file and about durability's rules (file.c), about names
 * inside images (policy.c) and about locks (file-lock.c).
 *
 * What a file system turns out not to be able to do is remembered per file, so
 * that it is not asked again.
 */
#include "file-internal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define BOUNCE (1 * MiB)
#define COPY_STEP (2 * MiB)     /* where the host has to move the bytes */
#define CLONE_UNIT 4096u        /* what shares blocks has none larger */
#define PROBE_MAX 4096u
#define LEND_UNIT 65536u        /* as large as a page may be */

enum {
	NO_PUNCH = 1 << 0,
	NO_ZERO_RANGE = 1 << 1,
	NO_ALLOCATE = 1 << 2,
	NO_SEEK = 1 << 3,
	NO_DISCARD = 1 << 4,
	NO_CLONE = 1 << 5,
	NO_COPY = 1 << 6,
};

struct posix {
	struct file file;
	int fd;
	bool device;            /* block or character */
	bool no_flush;
	uint32_t mem_align;     /* of buffers under O_DIRECT; else 1 */
	_Atomic unsigned cannot;
	struct file_locks locks;
};

static struct posix *to_posix(struct file *f)
{
	return container_of(f, struct posix, file);
}

/* ---- bytes --------------------------------------------------------------- */

static bool buffers_fit(const struct posix *p, const struct iovec *v, int n)
{
	int i;

	for (i = 0; i < n; i++)
		if ((uintptr_t)v[i].iov_base % p->mem_align)
			return false;
	return true;
}

static size_t iov_total(const struct iovec *v, int n)
{
	size_t sum = 0;
	int i;

	for (i = 0; i < n; i++)
		sum += v[i].iov_len;
	return sum;
}

static void *bounce_alloc(const struct posix *p, size_t bytes)
{
	void *buf;

	return posix_memalign(&buf, max_u64(p->mem_align, 4096), bytes) ?
	       NULL : buf;
}

/* O_DIRECT into buffers that it cannot reach; may be short. */
static ssize_t bounce_read(struct posix *p, const struct iovec *v, int n,
			   uint64_t off)
{
	size_t len = (size_t)min_u64(iov_total(v, n), BOUNCE), left;
	autofree char *buf = bounce_alloc(p, len);
	const char *at = buf;
	ssize_t got;

	if (!buf)
		return -ENOMEM;
	got = pread(p->fd, buf, len, (off_t)off);
	if (got < 0)
		return -errno;
	for (left = (size_t)got; left; v++) {
		size_t part = (size_t)min_u64(left, v->iov_len);

		memcpy(v->iov_base, at, part);
		at += part;
		left -= part;
	}
	return got;
}

static ssize_t bounce_write(struct posix *p, const struct iovec *v, int n,
			    uint64_t off)
{
	size_t len = (size_t)min_u64(iov_total(v, n), BOUNCE), left;
	autofree char *buf = bounce_alloc(p, len);
	char *at = buf;
	ssize_t got;

	if (!buf)
		return -ENOMEM;
	for (left = len; left; v++) {
		size_t part = (size_t)min_u64(left, v->iov_len);

		memcpy(at, v->iov_base, part);
		at += part;
		left -= part;
	}
	got = pwrite(p->fd, buf, len, (off_t)off);
	return got < 0 ? -errno : got;
}

static ssize_t posix_preadv(struct file *f, const struct iovec *v, int n,
			    uint64_t off)
{
	struct posix *p = to_posix(f);
	ssize_t got;

	if (p->mem_align > 1 && !buffers_fit(p, v, n))
		return bounce_read(p, v, n, off);
	got = n == 1 ? pread(p->fd, v->iov_base, v->iov_len, (off_t)off) :
		       preadv(p->fd, v, n, (off_t)off);
	return got < 0 ? -errno : got;
}

static ssize_t posix_pwritev(struct file *f, const struct iovec *v, int n,
			     uint64_t off)
{
	struct posix *p = to_posix(f);
	ssize_t got;

	if (p->mem_align > 1 && !buffers_fit(p, v, n))
		return bounce_write(p, v, n, off);
	got = n == 1 ? pwrite(p->fd, v->iov_base, v->iov_len, (off_t)off) :
		       pwritev(p->fd, v, n, (off_t)off);
	return got < 0 ? -errno : got;
}

static int posix_sync(struct file *f)
{
	struct posix *p = to_posix(f);

	if (p->no_flush)
		return 0;
	while (fdatasync(p->fd) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static void posix_sync_begin(struct file *f)
{
	struct posix *p = to_posix(f);

	if (!p->no_flush)
		(void)sync_file_range(p->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* ---- size ---------------------------------------------------------------- */

static int posix_stat(struct file *f, struct stat *st)
{
	return fstat(to_posix(f)->fd, st) < 0 ? -errno : 0;
}

static int posix_size(struct file *f, uint64_t *size)
{
	struct stat st;
	off_t end;
	int ret = posix_stat(f, &st);

	if (ret)
		return ret;
	if (S_ISREG(st.st_mode)) {
		*size = (uint64_t)st.st_size;
		return 0;
	}
	if (S_ISBLK(st.st_mode) &&
	    !ioctl(to_posix(f)->fd, BLKGETSIZE64, size))
		return 0;
	end = lseek(to_posix(f)->fd, 0, SEEK_END);
	*size = end < 0 ? 0 : (uint64_t)end;
	return end < 0 ? -errno : 0;
}

static int posix_truncate(struct file *f, uint64_t size)
{
	struct posix *p = to_posix(f);
	uint64_t have;
	int ret;

	if (p->device) {
		ret = posix_size(f, &have);
		return ret ? ret : size <= have ? 0 : -EINVAL;
	}
	if (size > INT64_MAX)
		return -EFBIG;
	return ftruncate(p->fd, (off_t)size) < 0 ? -errno : 0;
}

/* ---- space --------------------------------------------------------------- */

/* 0, an error, or -EOPNOTSUPP, which is remembered as @bit. */
static int space_call(struct posix *p, int mode, unsigned bit, uint64_t off,
		      uint64_t len)
{
	int ret;

	if (atomic_load_explicit(&p->cannot, memory_order_relaxed) & bit)
		return -EOPNOTSUPP;
	/* Devices take whole blocks only; that is no lasting refusal. */
	if (p->device && (off | len) % 4096)
		return -EOPNOTSUPP;
	if (!fallocate(p->fd, mode, (off_t)off, (off_t)len))
		return 0;
	ret = -errno;
	if (ret != -EOPNOTSUPP && ret != -ENOSYS && ret != -ENOTTY &&
	    ret != -ENODEV)
		return ret;
	atomic_fetch_or(&p->cannot, bit);
	return -EOPNOTSUPP;
}

static int punch(struct posix *p, uint64_t off, uint64_t len)
{
	return space_call(p, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  NO_PUNCH, off, len);
}

/* Punching leaves the size alone.  The last byte is the caller's. */
static int grow_to(struct posix *p, uint64_t end)
{
	static const char zeroes[64 * KiB] __attribute__((aligned(4096)));
	size_t unit = p->file.traits.min_io;
	uint64_t size;
	int ret = posix_size(&p->file, &size);

	if (ret || size >= end || p->device)
		return ret;
	if (unit > sizeof(zeroes))
		return -EOPNOTSUPP;
	return pwrite(p->fd, zeroes, unit, (off_t)(end - unit)) < 0 ?
	       -errno : 0;
}

static int zero_by_punching(struct posix *p, uint64_t off, uint64_t len)
{
	int ret = punch(p, off, len);

	return ret ? ret : grow_to(p, off + len);
}

static int posix_zero(struct file *f, uint64_t off, uint64_t len, unsigned how)
{
	struct posix *p = to_posix(f);
	int ret = -EOPNOTSUPP;

	if (off + len > INT64_MAX || off + len < off)
		return -EFBIG;
	if (how & ZERO_MAY_UNMAP && !(how & ZERO_ALLOCATE))
		ret = zero_by_punching(p, off, len);
	if (ret == -EOPNOTSUPP)
		ret = space_call(p, FALLOC_FL_ZERO_RANGE, NO_ZERO_RANGE, off,
				 len);
	if (ret != -EOPNOTSUPP || p->device)
		return ret;
	/* tmpfs: a hole that is allocated again. */
	ret = punch(p, off, len);
	if (!ret)
		ret = space_call(p, 0, NO_ALLOCATE, off, len);
	return ret;
}

static int posix_discard(struct file *f, uint64_t off, uint64_t len)
{
	struct posix *p = to_posix(f);
	uint64_t range[2] = { off, len };
	int ret;

	if (!p->device)
		return punch(p, off, len);
	if (atomic_load(&p->cannot) & NO_DISCARD || (off | len) % 4096)
		return -EOPNOTSUPP;
	if (!ioctl(p->fd, BLKDISCARD, range))
		return 0;
	ret = -errno;
	if (ret != -EOPNOTSUPP && ret != -ENOTTY && ret != -EINVAL)
		return ret;
	atomic_fetch_or(&p->cannot, NO_DISCARD);
	return -EOPNOTSUPP;
}

static int posix_allocate(struct file *f, uint64_t off, uint64_t len)
{
	struct posix *p = to_posix(f);

	if (off + len > INT64_MAX || off + len < off)
		return -EFBIG;
	/* A device has its space. */
	return p->device ? 0 : space_call(p, 0, NO_ALLOCATE, off, len);
}

static bool cannot(struct posix *p, unsigned bit)
{
	return atomic_load_explicit(&p->cannot, memory_order_relaxed) & bit;
}

/* "Not these files" and "not these bytes": read and write them. */
static ssize_t refused(struct posix *p, unsigned bit)
{
	switch (errno) {
	case EOPNOTSUPP:
	case ENOSYS:
	case ENOTTY:
	case EXDEV:
		atomic_fetch_or(&p->cannot, bit);
		return -EOPNOTSUPP;
	case EINVAL:
	case EPERM:
	case ETXTBSY:
	case EINTR:
		return -EOPNOTSUPP;
	default:
		return -errno;
	}
}

static ssize_t clone_range(struct posix *to, uint64_t off, struct posix *from,
			   uint64_t src_off, uint64_t len)
{
	struct file_clone_range range = {
		.src_fd = from->fd, .src_offset = src_off,
		.src_length = round_down(len, CLONE_UNIT), .dest_offset = off,
	};

	if (cannot(to, NO_CLONE) || !range.src_length ||
	    (off | src_off) % CLONE_UNIT)
		return -EOPNOTSUPP;
	if (ioctl(to->fd, FICLONERANGE, &range) < 0)
		return refused(to, NO_CLONE);
	return (ssize_t)range.src_length;
}

static ssize_t posix_copy(struct file *f, uint64_t off, struct file *src,
			  uint64_t src_off, uint64_t len)
{
	struct posix *to = to_posix(f), *from = to_posix(src);
	off_t in = (off_t)src_off, out = (off_t)off;
	uint64_t size;
	ssize_t n = posix_size(src, &size);

	/* Past the end of the source are zeroes, and nothing to copy. */
	if (n || to->device || from->device || src_off >= size)
		return n ? n : -EOPNOTSUPP;
	len = min_u64(len, size - src_off);
	n = clone_range(to, off, from, src_off, len);
	if (n != -EOPNOTSUPP || cannot(to, NO_COPY))
		return n;
	n = copy_file_range(from->fd, &in, to->fd, &out,
			    min_u64(len, COPY_STEP), 0);
	if (n < 0)
		return refused(to, NO_COPY);
	return n ? n : -EOPNOTSUPP;
}

/* Mapped and faulted in with one call each: what cannot be read fails here, and
 * not under the hands of who looks at it. */
static int posix_lend(struct file *f, uint64_t off, size_t len,
		      struct file_loan *loan)
{
	struct posix *p = to_posix(f);
	uint64_t head = off % LEND_UNIT;
	size_t all = head + len;
	void *at;

	if (p->device || p->mem_align > 1)      /* O_DIRECT: no pages */
		return -EOPNOTSUPP;
	at = mmap(NULL, all, PROT_READ, MAP_SHARED, p->fd,
		  (off_t)(off - head));
	if (at == MAP_FAILED)
		return -EOPNOTSUPP;
	if (madvise(at, all, MADV_POPULATE_READ)) {
		munmap(at, all);
		return -EOPNOTSUPP;
	}
	*loan = (struct file_loan) { (unsigned char *)at + head, at, all };
	return 0;
}

/* What lies between data and the end of the file is a hole, and reads as
 * zeroes.  lseek moves a position that nobody uses. */
static int posix_extent(struct file *f, uint64_t off, uint64_t len,
			enum file_kind *kind, uint64_t *run)
{
	struct posix *p = to_posix(f);
	off_t at = -1, data = (off_t)off;
	bool known;

	if (!(atomic_load_explicit(&p->cannot, memory_order_relaxed) &
	      NO_SEEK)) {
		data = lseek(p->fd, (off_t)off, SEEK_DATA);
		at = data == (off_t)off ?
		     lseek(p->fd, (off_t)off, SEEK_HOLE) : data;
		if (at < 0 && errno == EINVAL)
			atomic_fetch_or(&p->cannot, NO_SEEK);
		if (data < 0 && errno == ENXIO) {
			*kind = FILE_ZERO;
			*run = len;
			return 0;
		}
	}
	/* Anything else that cannot be told is data. */
	known = at > (off_t)off;
	*kind = known && data > (off_t)off ? FILE_ZERO : FILE_DATA;
	*run = known ? min_u64((uint64_t)at - off, len) : len;
	return 0;
}

/* ---- opening and closing ------------------------------------------------- */

static int posix_lock(struct file *f, unsigned used, unsigned unshared,
		      struct err *err)
{
	struct posix *p = to_posix(f);

	return file_locks_set(&p->locks, p->fd, f->name, used, unshared, err);
}

/*
 * The same inode by another open file description, which takes the place of the
 * old one: calls that are under way end on that.  Its locks go with it; they are
 * taken again at once, and if somebody was faster that is an error.
 */
static int posix_make_writable(struct file *f)
{
	struct posix *p = to_posix(f);
	int flags = fcntl(p->fd, F_GETFL), fd, ret;
	char path[32];

	if (flags < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p->fd);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | (flags & O_DIRECT));
	if (fd < 0)
		return -errno;
	ret = file_locks_move(&p->locks, p->fd, fd, f->name);
	close(fd);
	return ret;
}

static void posix_close(struct file *f)
{
	struct posix *p = to_posix(f);

	close(p->fd);
	pthread_mutex_destroy(&p->locks.lock);
	free(p);
}

#define POSIX_OPS(driver) { \
	.name = driver, \
	.preadv = posix_preadv, \
	.pwritev = posix_pwritev, \
	.sync = posix_sync, \
	.zero = posix_zero, \
	.sync_begin = posix_sync_begin, \
	.discard = posix_discard, \
	.allocate = posix_allocate, \
	.copy = posix_copy, \
	.lend = posix_lend, \
	.truncate = posix_truncate, \
	.size = posix_size, \
	.extent = posix_extent, \
	.stat = posix_stat, \
	.lock = posix_lock, \
	.make_writable = posix_make_writable, \
	.close = posix_close, \
}

static const struct file_ops file_driver = POSIX_OPS("file");
int file_descriptor(struct file *f)
{
	struct posix *p = to_posix(f);

	return f->ops == &file_driver && p->mem_align == 1 ? p->fd : -1;
}

static const struct file_ops device_driver = POSIX_OPS("host_device");
static const struct file_ops cdrom_driver = POSIX_OPS("host_cdrom");

/* The smallest read that works where the kernel does not say. */
static uint32_t probe_direct(int fd)
{
	uint32_t n;
	void *buf;

	if (posix_memalign(&buf, PROBE_MAX, PROBE_MAX))
		return PROBE_MAX;
	for (n = SECTOR_SIZE; n < PROBE_MAX; n *= 2)
		if (pread(fd, buf, n, 0) > 0)
			break;
	free(buf);
	return n;
}

static void find_alignment(struct posix *p)
{
	int sector = 0;
#ifdef STATX_DIOALIGN
	struct statx sx;

	if (!statx(p->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) &&
	    sx.stx_mask & STATX_DIOALIGN && sx.stx_dio_offset_align) {
		p->mem_align = sx.stx_dio_mem_align;
		p->file.traits.min_io = sx.stx_dio_offset_align;
		return;
	}
#endif
	if (ioctl(p->fd, BLKSSZGET, &sector) < 0 || sector < 1)
		sector = (int)probe_direct(p->fd);
	p->mem_align = PROBE_MAX;
	p->file.traits.min_io = (uint32_t)sector;
}

static const struct file_ops *driver_of(const struct posix_args *a, mode_t mode)
{
	if (!strcmp(a->driver, "host_cdrom"))
		return &cdrom_driver;
	return S_ISREG(mode) ? &file_driver : &device_driver;
}

static int check_kind(const struct posix_args *a, mode_t mode, struct err *err)
{
	bool device = S_ISBLK(mode) || S_ISCHR(mode);

	if (strcmp(a->driver, "file") && !device)
		return err_set(err, -EINVAL, "'%s' driver requires '%s' to be"
			       " either a character or block device",
			       a->driver, a->path);
	return 0;
}

static int take_fd(const struct posix_args *a, int fd, bool writable,
		   struct file **f, struct err *err)
{
	struct posix *p;
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return err_errno(err, -errno, "Could not open '%s'", a->path);
	ret = check_kind(a, st.st_mode, err);
	if (ret)
		return ret;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_errno(err, -ENOMEM, "Could not open '%s'", a->path);
	file_init(&p->file, driver_of(a, st.st_mode), a->path);
	p->fd = fd;
	p->device = !S_ISREG(st.st_mode);
	p->no_flush = a->flags & FILE_NO_FLUSH;
	p->mem_align = 1;
	p->locks.mode = a->lock;
	if (a->flags & FILE_NO_LOCK)
		p->locks.mode = LOCK_MODE_OFF;
	pthread_mutex_init(&p->locks.lock, NULL);
	p->file.traits.read_only = !writable;
	p->file.traits.grows = !p->device;
	p->file.traits.seekable_holes = !p->device;
	if (a->flags & FILE_DIRECT)
		find_alignment(p);
	*f = &p->file;
	return 0;
}

static bool not_permitted(int ret)
{
	return ret == -EACCES || ret == -EPERM || ret == -EROFS ||
	       ret == -ETXTBSY;
}

int posix_open(const struct posix_args *a, const struct policy *policy,
	       struct file **f, struct err *err)
{
	bool wants = a->flags & (FILE_RDWR | FILE_RDWR_TRY);
	int how = O_CLOEXEC | O_NOCTTY, fd, ret;
	autoerr why = ERR_INIT;

	if (a->flags & FILE_CREATE)
		how |= O_CREAT | (a->flags & FILE_EXCL ? O_EXCL : 0);
	if (a->flags & FILE_DIRECT)
		how |= O_DIRECT;
	fd = policy_open(policy, a->path, how | (wants ? O_RDWR : O_RDONLY),
			 0644, &why);
	if (wants && !(a->flags & FILE_RDWR) && not_permitted(fd)) {
		err_clear(&why);
		wants = false;
		fd = policy_open(policy, a->path, how | O_RDONLY, 0644, &why);
	}
	if (fd == -EINVAL && a->flags & FILE_DIRECT && !policy) {
		err_clear(&why);
		err_set(&why, -EINVAL, "Could not open '%s': filesystem does"
			" not support O_DIRECT", a->path);
	}
	if (fd < 0) {
		err_move(err, &why);
		return fd;
	}
	ret = take_fd(a, fd, wants, f, err);
	if (ret)
		close(fd);
	return ret;
}
