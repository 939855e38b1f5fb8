/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file.c - the one checked wrapper around every driver (remote.md R1).
 *
 * Knows the end of the file, the granularity and the largest request of a
 * driver, short counts, and the two states of a file: "has unsynced bytes"
 * (rule 11) and "is broken" (rule 6, R6).  Refuses to know what a file is made
 * of.  Reading or overwriting a file that takes any range (min_io of 1) is one
 * call of the driver: no lock, no allocation.
 */
#include "file-internal.h"

#include "engine.h"

#include <sys/mman.h>

#define STEP_IOVS 64            /* buffers passed to the driver at once */
#define BOUNCE (1 * MiB)
#define ZERO_PIECE (64 * KiB)

/* ---- life ---------------------------------------------------------------- */

void file_init(struct file *f, const struct file_ops *ops, const char *name)
{
	static _Atomic uint64_t last_id;
	pthread_rwlockattr_t attr;

	memset(f, 0, sizeof(*f));
	f->ops = ops;
	f->traits = (struct file_traits) {
		.min_io = 1,
		.pref_io = 64 * KiB,
		.max_io = 1 * GiB,
		.depth = 4,
		.grows = true,
	};
	f->name = strdup(name);
	BUG_ON(!f->name);
	f->id = atomic_fetch_add(&last_id, 1) + 1;
	atomic_init(&f->refs, 1);
	pthread_mutex_init(&f->sync_lock, NULL);
	/* Parts of blocks must get through a stream of whole ones. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr,
		PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&f->edge, &attr);
	pthread_rwlockattr_destroy(&attr);
}

struct file *file_ref(struct file *f)
{
	atomic_fetch_add(&f->refs, 1);
	return f;
}

void file_unref(struct file *f)
{
	char *name;

	if (!f || atomic_fetch_sub(&f->refs, 1) != 1)
		return;
	file_queue_free(atomic_load(&f->queue));
	pthread_mutex_destroy(&f->sync_lock);
	pthread_rwlock_destroy(&f->edge);
	name = f->name;
	f->ops->close(f);       /* frees @f */
	free(name);
}

/* ---- state --------------------------------------------------------------- */

/* R6: did the request happen or not?  Nobody can tell. */
static bool fate_unknown(int ret)
{
	switch (ret) {
	case -ETIMEDOUT:
	case -ENOTCONN:
	case -ESHUTDOWN:
	case -ECONNRESET:
	case -ECONNABORTED:
	case -EPIPE:
	case -EHOSTDOWN:
	case -EHOSTUNREACH:
	case -ENETDOWN:
	case -ENETRESET:
	case -ENETUNREACH:
	case -ENODEV:
		return true;
	}
	return false;
}

static void file_break(struct file *f, int ret)
{
	int sound = 0;

	if (knobs.no_sticky)    /* tests only */
		return;
	atomic_compare_exchange_strong(&f->broken, &sound, ret);
}

static int may_change(struct file *f)
{
	int broken = atomic_load_explicit(&f->broken, memory_order_relaxed);

	return __builtin_expect(broken, 0) ? broken :
	       f->traits.read_only ? -EROFS : 0;
}

/*
 * The end of every request that changes bytes.  The flag is set after the bytes
 * are in: a sync that clears it before will see them.  It is set after failures
 * too, which may have changed some.
 */
static int settle(struct file *f, int ret)
{
	if (!atomic_load(&f->unsynced))
		atomic_store(&f->unsynced, true);
	if (__builtin_expect(ret < 0, 0) && fate_unknown(ret))
		file_break(f, ret);
	return ret;
}

int file_sync(struct file *f)
{
	int ret;

	with_lock(&f->sync_lock);
	ret = atomic_load(&f->broken);
	if (ret || !atomic_exchange(&f->unsynced, false))
		return ret;
	ret = f->ops->sync(f);
	if (ret) {
		/* The kernel may have dropped the pages: that a second sync
		 * finds nothing to complain about means nothing. */
		file_break(f, ret);
		atomic_store(&f->unsynced, true);
		return ret;
	}
	/* A write whose fate is unknown came meanwhile: it is not durable. */
	return atomic_load(&f->broken);
}

void file_sync_begin(struct file *f)
{
	if (f->ops->sync_begin && atomic_load(&f->unsynced))
		f->ops->sync_begin(f);
}

/* ---- buffers ------------------------------------------------------------- */

/* A place in somebody's buffers. */
struct cursor {
	const struct iovec *v;
	int n;
	size_t skip;            /* bytes of v[0] that are done */
};

/* The next at most @max bytes, as many as STEP_IOVS buffers hold. */
static int cursor_peek(const struct cursor *c, struct iovec *out, uint64_t max)
{
	size_t skip = c->skip, len;
	int i, n = 0;

	for (i = 0; i < c->n && n < STEP_IOVS && max; i++, skip = 0) {
		len = (size_t)min_u64(c->v[i].iov_len - skip, max);
		if (!len)
			continue;
		out[n].iov_base = (char *)c->v[i].iov_base + skip;
		out[n++].iov_len = len;
		max -= len;
	}
	return n;
}

static void cursor_move(struct cursor *c, size_t bytes)
{
	c->skip += bytes;
	while (c->n && c->skip >= c->v->iov_len) {
		c->skip -= c->v->iov_len;
		c->v++;
		c->n--;
	}
}

enum copy_way { TO_CURSOR, FROM_CURSOR };

/* @buf NULL: zeroes. */
static void cursor_copy(struct cursor *c, char *buf, size_t bytes,
			enum copy_way way)
{
	while (bytes) {
		size_t n = (size_t)min_u64(c->v->iov_len - c->skip, bytes);
		char *theirs = (char *)c->v->iov_base + c->skip;

		if (!buf)
			memset(theirs, 0, n);
		else if (way == TO_CURSOR)
			memcpy(theirs, buf, n);
		else
			memcpy(buf, theirs, n);
		cursor_move(c, n);
		buf = buf ? buf + n : NULL;
		bytes -= n;
	}
}

static uint64_t iov_bytes(const struct iovec *v, int n)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < n; i++)
		sum += v[i].iov_len;
	return sum;
}

/* May the driver be given this as it is? */
static bool whole_blocks(const struct file *f, const struct iovec *v, int n,
			 uint64_t off)
{
	uint32_t unit = f->traits.min_io;
	int i;

	if (unit == 1)
		return true;
	if (off % unit)
		return false;
	for (i = 0; i < n; i++)
		if (v[i].iov_len % unit)
			return false;
	return true;
}

static int bounce_alloc(const struct file *f, uint64_t bytes, char **buf,
			uint64_t *size)
{
	void *p;

	*size = min_u64(round_up(bytes, f->traits.min_io) + f->traits.min_io,
			round_up(BOUNCE, f->traits.min_io));
	if (posix_memalign(&p, 4096, (size_t)*size))
		return -ENOMEM;
	*buf = p;
	return 0;
}

/* ---- reading ------------------------------------------------------------- */

/* The driver had nothing at @off.  1: that is the end; 0: no longer. */
static int is_end(struct file *f, uint64_t off)
{
	uint64_t size;
	int ret = f->ops->size(f, &size);

	return ret ? ret : off >= size;
}

/* Whole blocks, any number of driver calls. */
static int read_steps(struct file *f, struct cursor *c, uint64_t len,
		      uint64_t off)
{
	struct iovec v[STEP_IOVS];
	unsigned empty = 0;
	ssize_t got, ragged;
	int ret, n;

	while (len) {
		n = cursor_peek(c, v, min_u64(len, f->traits.max_io));
		got = f->ops->preadv(f, v, n, off);
		if (got == -EINTR)
			continue;
		if (got < 0)
			return (int)got;
		/* Part of a block is all there is, up to the end. */
		ragged = got % (ssize_t)f->traits.min_io;
		ret = got && !ragged ? 0 : is_end(f, off + (uint64_t)got);
		if (ret < 0)
			return ret;
		if (!ret)
			got -= ragged;
		cursor_move(c, (size_t)got);
		off += (uint64_t)got;
		len -= (uint64_t)got;
		if (ret) {
			cursor_copy(c, NULL, len, TO_CURSOR);
			return 0;
		}
		if (!got && ++empty > 3)
			return -EIO;
	}
	return 0;
}

/* Parts of blocks: through a buffer that holds the whole ones. */
static int read_padded(struct file *f, struct cursor *c, uint64_t len,
		       uint64_t off)
{
	autofree char *buf = NULL;
	uint64_t size;
	int ret = bounce_alloc(f, len, &buf, &size);

	while (!ret && len) {
		uint64_t head = off % f->traits.min_io;
		uint64_t n = min_u64(len, size - head);
		uint64_t whole = round_up(head + n, f->traits.min_io);
		struct iovec v = { buf, (size_t)whole };
		struct cursor in = { &v, 1, 0 };

		ret = read_steps(f, &in, whole, off - head);
		if (ret)
			break;
		cursor_copy(c, buf + head, (size_t)n, TO_CURSOR);
		off += n;
		len -= n;
	}
	return ret;
}

int file_readv(struct file *f, const struct iovec *v, int n, uint64_t off)
{
	uint64_t len = iov_bytes(v, n);
	struct cursor c = { v, n, 0 };
	ssize_t got;

	if (!len)
		return 0;
	if (!whole_blocks(f, v, n, off))
		return read_padded(f, &c, len, off);
	if (len > f->traits.max_io || n > STEP_IOVS)
		return read_steps(f, &c, len, off);
	got = f->ops->preadv(f, v, n, off);
	if (__builtin_expect(got == (ssize_t)len, 1))
		return 0;
	if (got < 0 && got != -EINTR)
		return (int)got;
	if (got < 0 || got % (ssize_t)f->traits.min_io)
		got = 0;        /* once more, and slowly */
	cursor_move(&c, (size_t)got);
	return read_steps(f, &c, len - (uint64_t)got, off + (uint64_t)got);
}

int file_read(struct file *f, void *buf, size_t len, uint64_t off)
{
	struct iovec v = { buf, len };

	return file_readv(f, &v, 1, off);
}

/* ---- writing ------------------------------------------------------------- */

static int write_steps(struct file *f, struct cursor *c, uint64_t len,
		       uint64_t off)
{
	struct iovec v[STEP_IOVS];
	ssize_t got;
	int n;

	while (len) {
		n = cursor_peek(c, v, min_u64(len, f->traits.max_io));
		got = f->ops->pwritev(f, v, n, off);
		if (got == -EINTR)
			continue;
		if (got < 0)
			return (int)got;
		got -= got % (ssize_t)f->traits.min_io;
		if (!got)
			return is_end(f, off) > 0 ? -ENOSPC : -EIO;
		cursor_move(c, (size_t)got);
		off += (uint64_t)got;
		len -= (uint64_t)got;
	}
	return 0;
}

static int block_read(struct file *f, char *buf, uint64_t off)
{
	struct iovec v = { buf, f->traits.min_io };
	struct cursor c = { &v, 1, 0 };

	return read_steps(f, &c, f->traits.min_io, off);
}

/* One piece: @head bytes of the first block are kept, as is what follows the
 * last byte in the last block. */
static int write_piece(struct file *f, struct cursor *c, char *buf,
		       uint64_t head, uint64_t n, uint64_t off)
{
	uint64_t unit = f->traits.min_io;
	uint64_t whole = round_up(head + n, unit), start = off - head;
	struct iovec v = { buf, (size_t)whole };
	struct cursor out = { &v, 1, 0 };
	int ret = 0;

	if (head)
		ret = block_read(f, buf, start);
	if (!ret && (head + n) % unit && (whole > unit || !head))
		ret = block_read(f, buf + whole - unit, start + whole - unit);
	if (ret)
		return ret;
	cursor_copy(c, buf + head, (size_t)n, FROM_CURSOR);
	return write_steps(f, &out, whole, start);
}

/* Under edge, exclusive.  Padding must not make the file longer. */
static int write_padded(struct file *f, struct cursor *c, uint64_t len,
			uint64_t off)
{
	uint64_t end = off + len, size, old;
	autofree char *buf = NULL;
	int ret = f->ops->size(f, &old);

	if (!ret)
		ret = bounce_alloc(f, len, &buf, &size);
	while (!ret && len) {
		uint64_t head = off % f->traits.min_io;
		uint64_t n = min_u64(len, size - head);

		ret = write_piece(f, c, buf, head, n, off);
		off += n;
		len -= n;
	}
	if (!ret && f->traits.grows && round_up(end, f->traits.min_io) > old &&
	    max_u64(old, end) % f->traits.min_io)
		ret = f->ops->truncate(f, max_u64(old, end));
	return ret;
}

static int write_locked(struct file *f, const struct iovec *v, int n,
			uint64_t len, uint64_t off)
{
	bool whole = whole_blocks(f, v, n, off);
	struct cursor c = { v, n, 0 };
	int ret;

	if (whole)
		pthread_rwlock_rdlock(&f->edge);
	else
		pthread_rwlock_wrlock(&f->edge);
	ret = whole ? write_steps(f, &c, len, off) :
		      write_padded(f, &c, len, off);
	pthread_rwlock_unlock(&f->edge);
	return ret;
}

int file_writev(struct file *f, const struct iovec *v, int n, uint64_t off)
{
	uint64_t len = iov_bytes(v, n);
	struct cursor c = { v, n, 0 };
	ssize_t got = 0;
	int ret = may_change(f);

	if (ret || !len)
		return ret;
	if (f->traits.min_io > 1)
		return settle(f, write_locked(f, v, n, len, off));
	if (len <= f->traits.max_io && n <= STEP_IOVS) {
		got = f->ops->pwritev(f, v, n, off);
		if (__builtin_expect(got == (ssize_t)len, 1))
			return settle(f, 0);
		if (got < 0 && got != -EINTR)
			return settle(f, (int)got);
		got = got < 0 ? 0 : got;
	}
	cursor_move(&c, (size_t)got);
	return settle(f, write_steps(f, &c, len - (uint64_t)got,
				     off + (uint64_t)got));
}

int file_write(struct file *f, const void *buf, size_t len, uint64_t off)
{
	struct iovec v = { (void *)buf, len };

	return file_writev(f, &v, 1, off);
}

ssize_t file_copy(struct file *f, uint64_t off, struct file *src,
		  uint64_t src_off, uint64_t len)
{
	ssize_t n = may_change(f);

	if (n)
		return n;
	if (!f->ops->copy || f->ops->copy != src->ops->copy ||
	    (off | len) % f->traits.min_io)
		return -EOPNOTSUPP;
	if (f->traits.min_io > 1)
		pthread_rwlock_rdlock(&f->edge);
	n = f->ops->copy(f, off, src, src_off, len);
	if (f->traits.min_io > 1)
		pthread_rwlock_unlock(&f->edge);
	if (n == -EOPNOTSUPP)
		return n;
	settle(f, n < 0 ? (int)n : 0);
	return n;
}

int file_lend(struct file *f, uint64_t off, size_t len,
	      struct file_loan *loan)
{
	uint64_t size;

	if (!f->ops->lend || f->ops->size(f, &size) ||
	    !range_within(off, len, size))
		return -EOPNOTSUPP;
	return f->ops->lend(f, off, len, loan);
}

/* A loan is a mapping, whatever the driver. */
void file_give_back(struct file_loan *loan)
{
	if (loan->len)
		munmap(loan->base, loan->len);
	loan->len = 0;
}

/* ---- requests for a driver's own queue ------------------------------------ */

bool file_req_plain(struct file *f, const struct file_req *req)
{
	uint64_t size;

	if (req->op == FILE_OP_WRITE) {
		if (may_change(f))
			return false;
	} else if (req->op != FILE_OP_READ || f->ops->size(f, &size) ||
		   !range_within(req->off, req->len, size)) {
		return false;
	}
	return f->traits.min_io == 1 && req->niov <= STEP_IOVS &&
	       req->len <= f->traits.max_io;
}

void file_req_done(struct file_req *req, int result)
{
	req->result = req->op == FILE_OP_READ ? result :
		      settle(req->file, result);
	req->done(req);
}

/* ---- zeroes and space ---------------------------------------------------- */

static int write_zeroes(struct file *f, uint64_t off, uint64_t len)
{
	static const char zeroes[ZERO_PIECE] __attribute__((aligned(4096)));
	struct iovec v[16];
	int n, ret = 0;

	while (!ret && len) {
		uint64_t did = 0;

		for (n = 0; n < 16 && did < len; n++) {
			v[n].iov_base = (void *)zeroes;
			v[n].iov_len = (size_t)min_u64(len - did, ZERO_PIECE);
			did += v[n].iov_len;
		}
		ret = file_writev(f, v, n, off);
		off += did;
		len -= did;
	}
	return ret;
}

static int zero_whole(struct file *f, uint64_t off, uint64_t len, unsigned how)
{
	int ret = -EOPNOTSUPP;

	if (f->ops->zero) {
		if (f->traits.min_io > 1)
			pthread_rwlock_rdlock(&f->edge);
		do {
			ret = f->ops->zero(f, off, len, how);
		} while (ret == -EINTR);
		if (f->traits.min_io > 1)
			pthread_rwlock_unlock(&f->edge);
	}
	if (ret == -EOPNOTSUPP && !(how & ZERO_FAST))
		return write_zeroes(f, off, len);
	return ret == -EOPNOTSUPP ? ret : settle(f, ret);
}

int file_zero(struct file *f, uint64_t off, uint64_t len, unsigned how)
{
	uint64_t unit = f->traits.min_io, end = off + len;
	uint64_t from = round_up(off, unit), to = round_down(end, unit);
	int ret = may_change(f);

	if (ret || !len)
		return ret;
	if (from >= to && (off % unit || end % unit))
		return write_zeroes(f, off, len);
	/* The middle first: it is what may refuse to be fast. */
	ret = zero_whole(f, from, to - from, how);
	if (!ret && off < from)
		ret = write_zeroes(f, off, from - off);
	if (!ret && to < end)
		ret = write_zeroes(f, to, end - to);
	return ret;
}

int file_discard(struct file *f, uint64_t off, uint64_t len)
{
	uint64_t size, end, unit = f->traits.min_io;
	int ret = may_change(f);

	if (ret || !f->ops->discard)
		return ret;
	ret = file_size(f, &size);
	if (ret)
		return ret;
	end = round_down(min_u64(off + len, size), unit);
	off = round_up(off, unit);
	if (off >= end)
		return 0;
	if (unit > 1)
		pthread_rwlock_rdlock(&f->edge);
	do {
		ret = f->ops->discard(f, off, end - off);
	} while (ret == -EINTR);
	if (unit > 1)
		pthread_rwlock_unlock(&f->edge);
	return ret == -EOPNOTSUPP ? 0 : settle(f, ret);
}

/* The last byte is the caller's, who makes the file this long: unlike a
 * truncate this cannot cut off what another thread appends meanwhile. */
static int grow_by_writing(struct file *f, uint64_t end)
{
	uint64_t size;
	int ret = file_size(f, &size);

	if (ret || size >= end)
		return ret;
	return f->traits.grows ? write_zeroes(f, end - 1, 1) : -ENOSPC;
}

int file_allocate(struct file *f, uint64_t off, uint64_t len)
{
	int ret = may_change(f);

	if (ret || !len)
		return ret;
	ret = -EOPNOTSUPP;
	if (f->ops->allocate) {
		do {
			ret = f->ops->allocate(f, off, len);
		} while (ret == -EINTR);
	}
	if (ret == -EOPNOTSUPP)
		return grow_by_writing(f, off + len);
	return settle(f, ret);
}

int file_truncate(struct file *f, uint64_t size)
{
	int ret = may_change(f);

	if (ret)
		return ret;
	pthread_rwlock_wrlock(&f->edge);
	do {
		ret = f->ops->truncate ? f->ops->truncate(f, size) : -ENOTSUP;
	} while (ret == -EINTR);
	pthread_rwlock_unlock(&f->edge);
	return settle(f, ret);
}

/* ---- asking -------------------------------------------------------------- */

int file_size(struct file *f, uint64_t *size)
{
	return f->ops->size(f, size);
}

int file_extent(struct file *f, uint64_t off, uint64_t len,
		enum file_kind *kind, uint64_t *run)
{
	uint64_t size;
	int ret = file_size(f, &size);

	if (ret)
		return ret;
	if (off >= size) {
		*kind = FILE_ZERO;
		*run = len;
		return 0;
	}
	len = min_u64(len, size - off);
	if (f->ops->extent)
		return f->ops->extent(f, off, len, kind, run);
	*kind = FILE_DATA;
	*run = len;
	return 0;
}

int file_stat(struct file *f, struct stat *st)
{
	return f->ops->stat ? f->ops->stat(f, st) : -ENOTSUP;
}

int file_disk_usage(struct file *f, uint64_t *bytes)
{
	struct stat st;
	int ret = file_stat(f, &st);

	if (!ret)
		*bytes = (uint64_t)st.st_blocks * 512;
	return ret;
}

int file_lock(struct file *f, unsigned used, unsigned unshared,
	      struct err *err)
{
	return f->ops->lock ? f->ops->lock(f, used, unshared, err) : 0;
}

int file_make_writable(struct file *f, struct err *err)
{
	int ret = -EROFS;

	if (!f->traits.read_only)
		return 0;
	if (f->ops->make_writable)
		ret = f->ops->make_writable(f);
	if (ret)
		return err_errno(err, ret, "Could not open '%s'", f->name);
	f->traits.read_only = false;
	return 0;
}
