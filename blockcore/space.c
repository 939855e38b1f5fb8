/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * space.c - rules 1 and 16: the way of host space from "nothing points to it"
 * to "may be handed out".
 *
 *   dropped   a change in memory took the last pointer away
 *   waiting   that change is durable; a reader may still hold an extent
 *   released  the format has lowered its count, the host got its space back
 *
 * Knows records of ranges.  Refuses to know reference counts: the format says
 * whether somebody else holds the bytes, and takes them back.
 */
#include "engine-int.h"

void space_retire(struct image *img, struct file *f, uint64_t host,
		  uint64_t len)
{
	struct engine *e = img->eng;
	struct retired *r = malloc(sizeof(*r));

	if (!r)         /* leaked, until a check repairs it */
		return;
	*r = (struct retired) { .file = f, .host = host, .len = len };
	pthread_mutex_lock(&e->retired_lock);
	if (knobs.no_quarantine) {
		r->next = e->waiting;
		e->waiting = r;
	} else {
		r->next = e->dropped;
		e->dropped = r;
	}
	atomic_store(&e->has_retired, true);
	pthread_mutex_unlock(&e->retired_lock);
}

struct retired *space_take_dropped(struct engine *e)
{
	struct retired *list;
	with_lock(&e->retired_lock);

	list = e->dropped;
	e->dropped = NULL;
	return list;
}

/* In front of @to. */
static struct retired *join(struct retired *list, struct retired *to)
{
	struct retired *last = list;

	if (!list)
		return to;
	while (last->next)
		last = last->next;
	last->next = to;
	return list;
}

void space_put_back(struct engine *e, struct retired *list)
{
	with_lock(&e->retired_lock);

	e->dropped = join(list, e->dropped);
}

void space_settle(struct engine *e, struct retired *list)
{
	uint64_t epoch;

	if (!list)
		return;
	epoch = epoch_advance(e);
	for (struct retired *r = list; r; r = r->next)
		r->epoch = epoch;
	pthread_mutex_lock(&e->retired_lock);
	e->waiting = join(list, e->waiting);
	pthread_mutex_unlock(&e->retired_lock);
}

/* ---- releasing ------------------------------------------------------------ */

static void list_free(struct retired *r)
{
	while (r) {
		struct retired *next = r->next;

		free(r);
		r = next;
	}
}

/* Takes the records that no epoch can see out of the waiting list. */
static struct retired *take_unseen(struct engine *e, size_t *n)
{
	bool all = knobs.no_epochs || knobs.no_quarantine;
	uint64_t oldest = all ? UINT64_MAX : epoch_oldest(e);
	struct retired *unseen = NULL, **p;
	with_lock(&e->retired_lock);

	*n = 0;
	for (p = &e->waiting; *p;) {
		struct retired *r = *p;

		if (r->epoch >= oldest) {
			p = &r->next;
			continue;
		}
		*p = r->next;
		r->next = unseen;
		unseen = r;
		++*n;
	}
	return unseen;
}

static int by_place(const void *a, const void *b)
{
	const struct retired *x = *(struct retired *const *)a;
	const struct retired *y = *(struct retired *const *)b;

	if (x->file != y->file)
		return x->file->id < y->file->id ? -1 : 1;
	return x->host < y->host ? -1 : x->host > y->host;
}

/* A run of neighbours that nobody else holds. */
struct free_run {
	struct file *file;
	uint64_t host, len;
};

static void run_release(struct engine *e, struct free_run *run)
{
	struct image *img = e->img;

	if (!run->len)
		return;
	unit_forget(run->file, run->host, run->len);
	if (img->flags & IMAGE_DISCARD)
		(void)file_discard(run->file, run->host, run->len);
	(void)img->fmt->release(img, run->file, run->host, run->len);
	run->len = 0;
}

/* One piece: a whole unit, or what a packed stream covers. */
static void piece_release(struct engine *e, struct free_run *run,
			  struct file *f, uint64_t host, uint64_t len)
{
	struct image *img = e->img;
	int alone = img->fmt->release_probe(img, f, host, len);

	if (alone != 1 || f != run->file || host != run->host + run->len ||
	    len % img->unit || host % img->unit)
		run_release(e, run);
	if (alone < 0)
		return;
	if (!alone || len % img->unit || host % img->unit) {
		unit_forget(f, host, len);
		(void)img->fmt->release(img, f, host, len);
		return;
	}
	if (!run->len)
		*run = (struct free_run) { .file = f, .host = host };
	run->len += len;
}

static void record_release(struct engine *e, struct free_run *run,
			   const struct retired *r)
{
	uint64_t unit = e->img->unit, step = r->len;

	if (!(r->host % unit) && !(r->len % unit))
		step = unit;
	for (uint64_t at = 0; at < r->len; at += step)
		piece_release(e, run, r->file, r->host + at, step);
}

void space_reap(struct engine *e)
{
	struct free_run run = { .len = 0 };
	struct retired *list, **sorted;
	size_t n, i = 0;

	if (!atomic_load(&e->has_retired))
		return;
	list = take_unseen(e, &n);
	if (!e->img->fmt->release || !n) {
		list_free(list);
		return;
	}
	sorted = malloc(n * sizeof(*sorted));
	if (!sorted) {          /* try again at the next flush */
		pthread_mutex_lock(&e->retired_lock);
		e->waiting = join(list, e->waiting);
		pthread_mutex_unlock(&e->retired_lock);
		return;
	}
	for (struct retired *r = list; r; r = r->next)
		sorted[i++] = r;
	qsort(sorted, n, sizeof(*sorted), by_place);
	for (i = 0; i < n; i++)
		record_release(e, &run, sorted[i]);
	run_release(e, &run);
	free(sorted);
	list_free(list);
	pthread_mutex_lock(&e->retired_lock);
	atomic_store(&e->has_retired, e->dropped || e->waiting);
	pthread_mutex_unlock(&e->retired_lock);
}

void space_drop_all(struct engine *e)
{
	list_free(e->dropped);
	list_free(e->waiting);
}
