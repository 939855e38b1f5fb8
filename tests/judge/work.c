/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * work.c - threads that write, zero, flush and read back, until the power goes.
 */
#include "judge.h"

#include <stdio.h>

struct worker {
	struct work *work;
	pthread_t thread;
	uint64_t state;
	unsigned char *buf;
	uint64_t max_sectors;
};

static uint64_t pick_range(struct worker *k, uint64_t *n)
{
	struct world *w = k->work->world;
	uint64_t first = rnd(&k->state) % w->nr_sectors;

	/* Half of the work meets in a few units, where it collides. */
	if (rnd(&k->state) & 1)
		first %= min_u64(w->nr_sectors,
				 8 * k->work->img->unit / SECTOR_SIZE);
	*n = 1 + rnd(&k->state) % k->max_sectors;
	if (rnd(&k->state) % 3 == 0)
		*n = 1 + *n % 8;
	*n = min_u64(*n, w->nr_sectors - first);
	return first;
}

static uint64_t pick_units(struct worker *k, uint64_t *n)
{
	struct world *w = k->work->world;
	uint64_t unit = k->work->img->unit / SECTOR_SIZE;
	uint64_t first = pick_range(k, n);

	first = round_down(first, unit);
	*n = unit * (1 + rnd(&k->state) % 3);
	*n = min_u64(*n, w->nr_sectors - first);
	return first;
}

/* The power is gone: whatever fails now, fails rightly. */
static int outcome(struct worker *k, int ret)
{
	if (ret && !atomic_load(&k->work->cut))
		atomic_fetch_add(&k->work->errors, 1);
	return ret;
}

static void read_back(struct worker *k, uint64_t first, uint64_t n)
{
	struct work *work = k->work;
	int ret = image_read(&work->img->live, k->buf, n * SECTOR_SIZE,
			     first * SECTOR_SIZE);

	if (outcome(k, ret) || atomic_load(&work->cut))
		return;
	if (!world_current(work->world, first, n, k->buf))
		atomic_store(&work->misread, true);
}

static void do_write(struct worker *k)
{
	struct work *work = k->work;
	uint64_t n, first = pick_range(k, &n);

	if (!world_take(work->world, first, n))
		return;
	world_next(work->world, first, n, k->buf);
	if (!outcome(k, image_write(&work->img->live, k->buf, n * SECTOR_SIZE,
				    first * SECTOR_SIZE))) {
		world_acked(work->world, first, n);
		read_back(k, first, n);
	}
	world_give(work->world, first, n);
}

static void do_zero(struct worker *k)
{
	static const enum unmap_how how[] = {
		UNMAP_ZERO, UNMAP_ZERO, UNMAP_ZERO_KEEP, UNMAP_HOLE,
	};
	struct work *work = k->work;
	uint64_t n, first = rnd(&k->state) % 4 ? pick_units(k, &n) :
						  pick_range(k, &n);
	bool units = work->holes &&
		     !(first * SECTOR_SIZE % work->img->unit) &&
		     !(n * SECTOR_SIZE % work->img->unit);

	if (!world_take(work->world, first, n))
		return;
	world_next(work->world, first, n, NULL);
	if (!outcome(k, image_unmap(&work->img->live, first * SECTOR_SIZE,
				    n * SECTOR_SIZE,
				    how[rnd(&k->state) % (units ? 4 : 3)]))) {
		world_acked(work->world, first, n);
		read_back(k, first, n);
	}
	world_give(work->world, first, n);
}

/* Is nothing stored there? */
static bool is_free(struct image *img, uint64_t off, uint64_t len)
{
	struct extent ext;

	for (uint64_t end = off + len; off < end; off += ext.len)
		if (image_map(&img->live, off, end - off, &ext) ||
		    ext.kind == EXT_DATA || ext.kind == EXT_PACKED)
			return false;
	return true;
}

/* One unit, encoded, if it has no place yet. */
static void do_packed(struct worker *k)
{
	struct work *work = k->work;
	struct image *img = work->img;
	uint64_t unit = img->unit / SECTOR_SIZE, n, first = pick_units(k, &n);
	unsigned char *out = malloc(img->unit);
	size_t packed = 0;

	n = min_u64(unit, work->world->nr_sectors - first);
	if (!out || n != unit || !world_take(work->world, first, n)) {
		free(out);
		return;
	}
	if (is_free(img, first * SECTOR_SIZE, img->unit)) {
		world_next(work->world, first, n, k->buf);
		if (!outcome(k, image_pack(img, k->buf, out, &packed)) &&
		    packed && !outcome(k, image_write_packed(&img->live, out,
					packed, first * SECTOR_SIZE))) {
			world_acked(work->world, first, n);
			read_back(k, first, n);
		}
	}
	world_give(work->world, first, n);
	free(out);
}

static void do_flush(struct worker *k)
{
	struct work *work = k->work;
	unsigned char *snapshot = world_snapshot(work->world);

	if (snapshot && !image_flush(work->img)) {
		world_durable(work->world, snapshot);
		atomic_fetch_add(&work->flushes, 1);
	}
	free(snapshot);
}

static void step(struct worker *k)
{
	uint64_t dice = rnd(&k->state) % 100;

	if (dice < 6)
		do_flush(k);
	else if (dice < 26)
		do_zero(k);
	else if (dice < 36 && k->work->packed)
		do_packed(k);
	else
		do_write(k);
}

/*
 * A write whose fate is not known, and the power failure.  Half of both meet a
 * flush; the former then a second one, which must not claim that all is well.
 * Returns how many flushes.
 */
static unsigned mishap(struct work *work, unsigned i)
{
	bool lost = work->lost_write && i == work->cut_at - work->cut_at / 8;

	if (lost)
		power_unknown_fate(work->disk, 1 + work->cut_requests,
				   -ETIMEDOUT);
	if (i == work->cut_at) {
		atomic_store(&work->cut, true);
		if (work->at_sync)
			power_crash_sync(work->disk, 1 + work->cut_requests);
		else
			power_crash_after(work->disk, 1 + work->cut_requests);
	}
	if (!(work->seed & 1) && !work->at_sync)
		return 0;
	return lost ? 2 : i == work->cut_at;
}

static void *worker_main(void *data)
{
	struct worker *k = data;
	struct work *work = k->work;
	unsigned i;

	while ((i = atomic_fetch_add(&work->done, 1)) < work->ops &&
	       !atomic_load(&work->misread)) {
		unsigned flushes = mishap(work, i);

		if (!flushes)
			step(k);
		while (flushes--)
			do_flush(k);
	}
	return NULL;
}

/*
 * At the engine's pause points a thread now and then lets the others go first:
 * windows of nanoseconds become wide enough to meet in.
 */
static void jitter(const char *name)
{
	static _Atomic uint64_t next = 1;
	static _Thread_local uint64_t state;

	if (!state)
		state = atomic_fetch_add(&next, 1) * 2654435761u;
	if (rnd(&state) % 4 == 0 || !strcmp(name, "flush:copy"))
		usleep((useconds_t)(rnd(&state) % 200));
}

void work_run(struct work *work)
{
	struct worker workers[64] = { 0 };
	uint64_t unit = work->img->unit / SECTOR_SIZE;

	pause_set(jitter);
	if (work->admin)
		admin_start(work);
	for (unsigned i = 0; i < work->threads; i++) {
		struct worker *k = &workers[i];

		k->work = work;
		k->state = work->seed * 1000003 + i + 1;
		k->max_sectors = min_u64(2 * unit + 3, 300);
		k->buf = calloc(4 * unit + 300, SECTOR_SIZE);
		if (!k->buf || pthread_create(&k->thread, NULL, worker_main, k))
			BUG("cannot start worker %u", i);
	}
	for (unsigned i = 0; i < work->threads; i++) {
		pthread_join(workers[i].thread, NULL);
		free(workers[i].buf);
	}
	if (work->admin)
		admin_stop();
	pause_set(NULL);
}
