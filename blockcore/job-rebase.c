/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job-rebase.c - an image gets another backing file, and what it reads as stays.
 *
 * Where the image stores nothing, and the old and the new chain do not read the
 * same, it gets the old one's bytes, a unit at a time.  Then nothing that the
 * guest sees depends on which of the two is below, and one write of the header
 * replaces the name.  So it can end at any moment, and be begun again.
 *
 * Several threads take stretches of the disk.  Where both chains lead to the
 * same bytes of one file, or to zeroes, nothing is read.  What has to be compared
 * is looked at in the host's own pages where that is allowed (image_lend()):
 * copying it cost more than comparing it.
 */
#include "job.h"
#include "codec.h"
#include "engine.h"

#include <sched.h>

enum { MAX_WORKERS = 8 };
#define STRETCH (2 * MiB)       /* what a thread takes at a time */
#define ALIGN 4096u             /* of buffers: the kernel copies twice as fast
				 * as to what malloc() gives */
#define BORROW (256 * KiB)      /* a smaller mapping costs more than a copy */

struct rebase {
	const struct rebase_args *a;
	struct image *top, *old;
	uint64_t size;
	pthread_mutex_t lock;   /* guards what follows, and progress */
	uint64_t next;          /* not taken yet */
	int error;              /* the first one: all stop */
	_Atomic uint64_t behind;        /* bytes stored */
};

/* Of one thread. */
struct worker {
	struct rebase *r;
	char *buf[2];           /* STRETCH bytes each */
	const char *old, *new;  /* in those, or lent */
	void *packed;           /* a unit; NULL: not compressed */
	struct run old_run, new_run;    /* the last one that was asked for */
	/* The last two files that were compared, and whether they are one. */
	const struct file *file[2];
	bool same;
};

/* ---- do both chains say the same? ------------------------------------------------ */

/*
 * The run at @off of a chain that may be missing or too short.  Where the host
 * has holes costs it a look at much of a file: it is asked for more than is
 * needed now, and *@known is what it said.
 */
static int chain_run(struct image *img, uint64_t off, uint64_t len,
		     struct run *known, struct run *run)
{
	uint64_t size = img ? image_size(img) : 0, skip;

	if (off >= size) {
		*run = (struct run) { .off = off, .len = len, .zero = true };
		return 0;
	}
	if (off < known->off || off >= known->off + known->len) {
		int ret = walk_step(&img->live, off, min_u64(GiB, size - off),
				    0, MAP_EXACT, known);

		if (ret)
			return ret;
	}
	*run = *known;
	skip = off - known->off;
	run->off = off;
	run->len = min_u64(len, known->len - skip);
	run->host += run->has_host ? skip : 0;
	return 0;
}

static bool same_file(struct worker *w, struct file *a, struct file *b)
{
	struct stat x, y;

	if (w->file[0] == a && w->file[1] == b)
		return w->same;
	w->file[0] = a;
	w->file[1] = b;
	w->same = a == b || (!file_stat(a, &x) && !file_stat(b, &y) &&
			     x.st_ino && x.st_dev == y.st_dev &&
			     x.st_ino == y.st_ino);
	return w->same;
}

static bool is_plain(const struct run *run)
{
	return run->data && run->has_host && run->file && !run->compressed &&
	       !run->encrypted;
}

static bool same_bytes(struct worker *w, const struct run *a,
		       const struct run *b)
{
	if (a->zero || b->zero)
		return a->zero && b->zero;
	return is_plain(a) && is_plain(b) && a->host == b->host &&
	       same_file(w, a->file, b->file);
}

/* ---- bytes ---------------------------------------------------------------------------- */

static int chain_read(struct image *img, char *buf, uint64_t len, uint64_t off)
{
	uint64_t size = img ? image_size(img) : 0;
	uint64_t n = off < size ? min_u64(len, size - off) : 0;
	int ret = n ? image_read(&img->live, buf, n, off) : 0;

	memset(buf + n, 0, len - n);
	return ret;
}

/* *@bytes: in @buf or, with a @loan, in the host's pages. */
static int chain_see(struct image *img, char *buf, uint64_t len, uint64_t off,
		     struct file_loan *loan, const char **bytes)
{
	if (loan && img && len >= BORROW &&
	    range_within(off, len, image_size(img)) &&
	    !image_lend(&img->live, len, off, loan)) {
		*bytes = (const char *)loan->bytes;
		pause_point("rebase-lent");
		return 0;
	}
	*bytes = buf;
	return chain_read(img, buf, len, off);
}

/* One whole unit, encoded; 1: it does not shrink, or is not whole. */
static int store_packed(struct worker *w, const char *buf, uint64_t len,
			uint64_t off)
{
	struct image *top = w->r->top;
	size_t n = 0;
	int ret;

	if (!w->packed || off % top->unit || len != top->unit)
		return 1;
	ret = image_pack(top, buf, w->packed, &n);
	if (ret || !n)
		return ret ? ret : 1;
	return image_write_packed(&top->live, w->packed, n, off);
}

static int store(struct worker *w, const char *buf, uint64_t len, uint64_t off)
{
	int ret = 1;

	if (is_zero(buf, len))
		return image_pull(w->r->top, NULL, len, off);
	image_write_behind(w->r->top, &w->r->behind, len);
	if (w->packed)
		ret = store_packed(w, buf, len, off);
	return ret == 1 ? image_pull(w->r->top, buf, len, off) : ret;
}

/* To the end of the unit that holds @off, if that is before @end. */
static uint64_t unit_end(const struct image *img, uint64_t off, uint64_t end)
{
	return min_u64(round_down(off, img->unit) + img->unit, end);
}

/* Units of [off, off + len) that differ; neighbours in one go, unless each is
 * encoded by itself. */
static int store_differing(struct worker *w, uint64_t off, uint64_t len)
{
	const struct image *top = w->r->top;
	uint64_t end = off + len, at = off, from = off, next;
	int ret = 0;

	for (; !ret && at < end; at = next) {
		next = unit_end(top, at, end);
		if (memcmp(w->old + (at - off), w->new + (at - off),
			   next - at)) {
			if (!w->packed)
				continue;
			ret = store(w, w->old + (at - off), next - at, at);
		} else if (from < at) {
			ret = store(w, w->old + (from - off), at - from, from);
		}
		from = next;
	}
	if (!ret && from < end)
		ret = store(w, w->old + (from - off), end - from, from);
	return ret;
}

static int compare_seen(struct worker *w, uint64_t off, uint64_t len, bool lend)
{
	struct file_loan old = { 0 }, new = { 0 };
	int ret = chain_see(w->r->old, w->buf[0], len, off, lend ? &old : NULL,
			    &w->old);

	if (!ret)
		ret = chain_see(w->r->a->new, w->buf[1], len, off,
				lend ? &new : NULL, &w->new);
	if (!ret)
		ret = store_differing(w, off, len);
	file_give_back(&old);
	file_give_back(&new);
	return ret;
}

static int compare_bytes(struct worker *w, uint64_t off, uint64_t len)
{
	/* What is encoded must not change under the encoder. */
	int ret = compare_seen(w, off, len, w->r->a->lend && !w->packed);

	/* Cut off under the mapping: reading it has the right error. */
	return ret == -EFAULT ? compare_seen(w, off, len, false) : ret;
}

/* ---- a stretch --------------------------------------------------------------------------- */

/* How far the two chains have to be read and compared from @off on, at most
 * @len; or, with *@same, how far that need not be. */
static int look(struct worker *w, uint64_t off, uint64_t len, bool *same,
		uint64_t *n)
{
	struct run a, b;
	int ret = chain_run(w->r->old, off, len, &w->old_run, &a);

	if (!ret)
		ret = chain_run(w->r->a->new, off, len, &w->new_run, &b);
	if (ret)
		return ret;
	*n = min_u64(a.len, b.len);
	*same = same_bytes(w, &a, &b);
	return 0;
}

/* What the image leaves to those below it.  Units are compared as a whole,
 * whatever their parts come from. */
static int do_hole(struct worker *w, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, at = off, n;
	bool same;
	int ret = 0;

	while (!ret && at < end) {
		ret = look(w, at, end - at, &same, &n);
		if (ret)
			break;
		if (same) {
			uint64_t to = at + n == end ? end :
				      round_down(at + n, w->r->top->unit);

			if (to > at) {
				at = to;
				continue;
			}
		}
		n = unit_end(w->r->top, at + n - 1, end) - at;
		ret = compare_bytes(w, at, n);
		at += n;
	}
	return ret;
}

static int do_stretch(struct worker *w, uint64_t off, uint64_t len)
{
	struct extent ext;
	int ret = 0;

	for (; !ret && len; off += ext.len, len -= ext.len) {
		ret = image_map(&w->r->top->live, off, len, &ext);
		if (!ret && ext.kind == EXT_HOLE)
			ret = do_hole(w, off, ext.len);
		if (ret)
			break;
	}
	return ret;
}

/* ---- the workers ----------------------------------------------------------------------------- */

/* *@len 0: there is nothing left to do. */
static void take(struct rebase *r, uint64_t *off, uint64_t *len)
{
	uint64_t step = max_u64(round_down(STRETCH, r->top->unit),
				r->top->unit);

	with_lock(&r->lock);
	*off = r->next;
	*len = r->error ? 0 : min_u64(step, r->size - r->next);
	r->next += *len;
}

/* Who waits for the rate, or because of a pause, keeps the others waiting. */
static void done(struct rebase *r, uint64_t len, int ret)
{
	with_lock(&r->lock);
	if (!ret)
		ret = progress_step(r->a->progress, len);
	if (ret && !r->error)
		r->error = ret;
}

static int worker_init(struct worker *w, struct rebase *r)
{
	size_t n = round_up(max_u64(STRETCH, r->top->unit), ALIGN);

	w->r = r;
	w->buf[0] = aligned_alloc(ALIGN, n);
	w->buf[1] = aligned_alloc(ALIGN, n);
	if (r->a->compress)
		w->packed = malloc(r->top->unit);
	return w->buf[0] && w->buf[1] && (w->packed || !r->a->compress) ? 0 :
								    -ENOMEM;
}

static void *work(void *data)
{
	struct rebase *r = data;
	struct worker w = { 0 };
	uint64_t off, len;
	int ret = worker_init(&w, r);

	if (ret)
		done(r, 0, ret);
	for (take(r, &off, &len); len; take(r, &off, &len)) {
		ret = do_stretch(&w, off, len);
		pause_point("rebase-stretch");
		done(r, len, ret);
	}
	free(w.buf[0]);
	free(w.buf[1]);
	free(w.packed);
	return NULL;
}

static unsigned nr_workers(const struct rebase_args *a)
{
	cpu_set_t set;
	unsigned n = a->threads;

	if (!n && !sched_getaffinity(0, sizeof(set), &set))
		n = (unsigned)CPU_COUNT(&set);
	return n < 1 ? 1 : n > MAX_WORKERS ? MAX_WORKERS : n;
}

static int pull_what_differs(const struct rebase_args *a)
{
	struct rebase r = { .a = a, .top = a->top, .old = a->top->backing,
			    .size = image_size(a->top) };
	unsigned want = nr_workers(a), n = 0;
	pthread_t threads[MAX_WORKERS];

	pthread_mutex_init(&r.lock, NULL);
	if (a->progress)
		atomic_store(&a->progress->total, r.size);
	while (n + 1 < want &&
	       !pthread_create(&threads[n], NULL, work, &r))
		n++;
	work(&r);
	while (n)
		pthread_join(threads[--n], NULL);
	pthread_mutex_destroy(&r.lock);
	return r.error;
}

/* ---- all of it ------------------------------------------------------------------------------- */

int rebase_header(struct image *top, const char *name, const char *format,
		  struct err *err)
{
	autoerr why = ERR_INIT;
	int ret = image_change_backing(top, name, format, &why);

	if (ret == -ENOSPC)
		return err_set(err, ret, "Could not change the backing file to"
			       " '%s': No space left in the file header", name);
	if (ret)
		return err_set(err, ret, "Could not change the backing file to"
			       " '%s': %s", name ? name : "",
			       why.code ? err_text(&why) : strerror(-ret));
	return 0;
}

int rebase_check(const struct image *top, const char *name, const char *format,
		 struct err *err)
{
	int ret = 0;

	if (!top->fmt->admin || !top->fmt->admin->change_backing)
		ret = -ENOTSUP;
	else if (name && !format)
		return err_set(err, -EINVAL, "Could not change the backing file"
			       " to '%s': backing format must be specified",
			       name);
	return ret ? err_errno(err, ret, "Could not change the backing file to"
			       " '%s'", name ? name : "") : 0;
}

static int pull_and_change(const struct rebase_args *a, struct err *err)
{
	int ret = pull_what_differs(a);

	/* The header must not be the first to be durable. */
	if (!ret && !knobs.no_job_flush)
		ret = image_flush(a->top);
	if (ret)
		return ret == -ECANCELED ? ret :
		       err_errno(err, ret, "Could not rebase");
	pause_point("rebase-pulled");
	return rebase_header(a->top, a->name, a->format, err);
}

int job_rebase(const struct rebase_args *a, struct err *err)
{
	int ret = rebase_check(a->top, a->name, a->format, err);

	if (ret)
		return ret;
	atomic_store(&a->top->keep_zeroes, a->new != NULL);
	ret = pull_and_change(a, err);
	atomic_store(&a->top->keep_zeroes, false);
	return ret;
}
