/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * flush.c - rules 4, 5 and 6: what was acknowledged becomes durable, in an
 * order that leaves a sound image whenever the power fails.
 *
 * A flush copies all dirty pages at one instant at which no change is half
 * made (the gate is exclusive for as long as copying takes), then writes the
 * copies stage by stage.  Stage N is durable before the first byte of stage
 * N + 1 is written.  Changes go on meanwhile, on the pages.
 *
 * Knows pages, stages and files.  Refuses to know what they hold.
 */
#include "engine-int.h"

#define MAX_IOV 256
#define HOST_PAGE 4096u         /* at least */
#define WRITE_BEHIND (32 * MiB)

/* One copied page. */
struct frozen {
	struct mpage *pg;       /* pinned, "being written" */
	enum stage stage;
	unsigned char *copy;
};

struct flush {
	struct engine *e;
	struct frozen *page;
	struct mpage **pages;   /* the same, for meta_written() */
	unsigned char *copies;
	size_t n, room;
	struct retired *dropped;
};

/* ---- the gate ------------------------------------------------------------- */

void change_begin(struct image *img)
{
	if (!knobs.no_gate)
		pthread_rwlock_rdlock(&img->eng->gate);
}

void change_end(struct image *img)
{
	atomic_fetch_add_explicit(&img->eng->changes, 1,
				  memory_order_relaxed);
	if (!knobs.no_gate)
		pthread_rwlock_unlock(&img->eng->gate);
}

uint64_t image_changes(const struct image *img)
{
	return atomic_load(&img->eng->changes);
}

static void gate_close(struct engine *e)
{
	if (!knobs.no_gate)
		pthread_rwlock_wrlock(&e->gate);
}

static void gate_open(struct engine *e)
{
	if (!knobs.no_gate)
		pthread_rwlock_unlock(&e->gate);
}

/* ---- freezing ------------------------------------------------------------- */

static void flush_free(struct flush *f)
{
	free(f->page);
	free(f->pages);
	free(f->copies);
}

static int flush_room(struct flush *f, size_t n)
{
	size_t page = f->e->img->page;

	flush_free(f);
	f->room = n;
	f->page = calloc(n + 1, sizeof(*f->page));
	f->pages = calloc(n + 1, sizeof(*f->pages));
	f->copies = malloc((n + 1) * page);
	if (!f->page || !f->pages || !f->copies)
		return -ENOMEM;
	/* Nobody shall wait for the host to find the memory. */
	for (size_t at = 0; at < (n + 1) * page; at += HOST_PAGE)
		((volatile unsigned char *)f->copies)[at] = 0;
	return 0;
}

static void copy_pages(struct flush *f)
{
	size_t size = f->e->img->page;

	f->n = meta_collect(f->e, f->pages, f->room);
	for (size_t i = 0; i < f->n; i++) {
		struct mpage *pg = f->pages[i];

		meta_rdlock(pg);
		f->page[i] = (struct frozen) {
			.pg = pg,
			.stage = pg->stage,
			.copy = f->copies + i * size,
		};
		memcpy(f->page[i].copy, pg->data, size);
		meta_unlock(pg);
		if (knobs.no_gate)
			pause_point("flush:copy");
	}
	f->dropped = space_take_dropped(f->e);
	atomic_fetch_add(&cache_dirty_bytes, f->n * size);
}

/* All dirty pages of one instant. */
static int freeze(struct flush *f)
{
	struct engine *e = f->e;
	bool fits;

	do {
		size_t n = atomic_load(&e->nr_dirty);

		if (flush_room(f, n + n / 8 + 32))
			return -ENOMEM;
		gate_close(e);
		fits = atomic_load(&e->nr_dirty) <= f->room;
		if (fits)
			copy_pages(f);
		gate_open(e);
	} while (!fits);
	return 0;
}

/* ---- writing -------------------------------------------------------------- */

static int by_stage_and_place(const void *a, const void *b)
{
	const struct frozen *x = a, *y = b;

	if (x->stage != y->stage)
		return x->stage < y->stage ? -1 : 1;
	if (x->pg->file != y->pg->file)
		return x->pg->file->id < y->pg->file->id ? -1 : 1;
	return x->pg->host < y->pg->host ? -1 : x->pg->host > y->pg->host;
}

static bool adjacent(const struct frozen *a, const struct frozen *b)
{
	return a->stage == b->stage && a->pg->file == b->pg->file &&
	       a->pg->host + a->pg->size == b->pg->host;
}

/* Writes neighbours in one call; says how many. */
static int write_run(const struct frozen *page, size_t max, size_t *n)
{
	struct iovec iov[MAX_IOV];

	*n = 0;
	do {
		iov[*n] = (struct iovec) { page[*n].copy, page[*n].pg->size };
		++*n;
	} while (*n < max && *n < MAX_IOV &&
		 adjacent(&page[*n - 1], &page[*n]));
	return file_writev(page->pg->file, iov, (int)*n, page->pg->host);
}

int sync_files(struct image *img)
{
	int ret = file_sync(img->file);

	for (unsigned i = 0; !ret && i < img->nr_children; i++)
		ret = file_sync(img->children[i].file);
	return ret;
}

/* @n pages of one stage, all of them copied to the journal and durable there,
 * become durable in their places. */
static int write_places(struct flush *f, const struct frozen *page, size_t n,
			bool *failed_write)
{
	int ret = 0;

	for (size_t i = 0, k; !ret && i < n; i += k) {
		ret = write_run(page + i, n - i, &k);
		*failed_write = ret != 0;
	}
	return ret ? ret : sync_files(f->e->img);
}

/* Rule 19: the first batch of @max pages of one stage. */
static int write_journaled(struct flush *f, const struct frozen *page,
			   size_t max, size_t *n, bool *failed_write)
{
	struct image *img = f->e->img;
	autofree struct journal_page *pages = calloc(max, sizeof(*pages));
	int ret;

	if (!pages)
		return -ENOMEM;
	for (size_t i = 0; i < max; i++)
		pages[i] = (struct journal_page) {
			page[i].pg->file, page[i].pg->host, page[i].copy,
		};
	ret = img->fmt->journal(img, pages, max, n);
	*failed_write = ret != 0;
	if (!ret && !knobs.no_log_sync)
		ret = sync_files(img);
	pause_point("flush:journal");
	return ret ? ret : write_places(f, page, *n, failed_write);
}

static size_t same_stage(const struct flush *f, size_t i)
{
	size_t n = 1;

	while (i + n < f->n && f->page[i + n].stage == f->page[i].stage)
		n++;
	return n;
}

/* @failed_write: the error is of a page's write, not of a sync. */
static int write_stages(struct flush *f, bool *failed_write)
{
	int stage = STAGE_SPACE, ret = 0;

	qsort(f->page, f->n, sizeof(*f->page), by_stage_and_place);
	for (size_t i = 0, n; !ret && i < f->n; i += n) {
		if ((int)f->page[i].stage != stage) {
			stage = (int)f->page[i].stage;
			if (!knobs.no_stages)
				ret = sync_files(f->e->img);
			if (ret)
				return ret;
			pause_point("flush:stage");
		}
		if (f->e->img->fmt->journal) {
			ret = write_journaled(f, f->page + i,
					      same_stage(f, i), &n,
					      failed_write);
		} else {
			ret = write_run(f->page + i, f->n - i, &n);
			*failed_write = ret != 0;
		}
	}
	return ret ? ret : sync_files(f->e->img);
}

/* Rule 6: a full host can be tried again; nothing else can. */
static bool may_retry(int ret, bool failed_write)
{
	return failed_write && (ret == -ENOSPC || ret == -EDQUOT);
}

static int flush_locked(struct engine *e)
{
	struct flush f = { .e = e };
	bool failed_write = false;
	int ret = freeze(&f);

	if (ret) {
		flush_free(&f);
		return ret;
	}
	pause_point("flush:copied");
	ret = write_stages(&f, &failed_write);
	if (ret && !may_retry(ret, failed_write) && !knobs.no_sticky)
		atomic_store(&e->broken, ret);
	atomic_fetch_add(&e->flushes, 1);
	meta_written(e, f.pages, f.n, ret && !knobs.no_sticky);
	atomic_fetch_sub(&cache_dirty_bytes, f.n * e->img->page);
	if (ret)
		space_put_back(e, f.dropped);
	else
		space_settle(e, f.dropped);
	flush_free(&f);
	if (!ret)
		space_reap(e);
	return ret;
}

int image_flush(struct image *img)
{
	struct engine *e = img->eng;
	int ret;
	with_lock(&e->flush_lock);

	ret = atomic_load(&e->broken);
	if (ret || !img->writable)
		return ret;
	return flush_locked(e);
}

void image_write_behind(struct image *img, _Atomic uint64_t *behind,
			uint64_t bytes)
{
	uint64_t was = atomic_fetch_add(behind, bytes);

	if (was / WRITE_BEHIND == (was + bytes) / WRITE_BEHIND)
		return;
	file_sync_begin(img->file);
	for (unsigned i = 0; i < img->nr_children; i++)
		file_sync_begin(img->children[i].file);
}

bool image_is_dirty(struct image *img)
{
	struct engine *e = img->eng;
	bool dirty = atomic_load(&e->nr_dirty) ||
		     atomic_load(&e->has_retired) ||
		     atomic_load(&img->file->unsynced);

	for (unsigned i = 0; !dirty && i < img->nr_children; i++)
		dirty = atomic_load(&img->children[i].file->unsynced);
	return dirty;
}
