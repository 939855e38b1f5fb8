/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * epoch.c - rule 1: a thread is in an epoch while it uses an extent; host space
 * that was dropped is not handed out again before all epochs that may have seen
 * it are over.
 *
 * Entering and leaving is a store to a cache line of the thread's own; no lock
 * and nothing shared is written.  A thread has one slot number for all images;
 * the number is given back when the thread ends.  Slots are made in chunks of
 * doubling size, so that a slot never moves.
 */
#include "engine-int.h"

#include <sched.h>
#include <time.h>

#define CHUNK_SLOTS 64u         /* of the first chunk */
#define SLOT_NONE UINT32_MAX

/* ---- slot numbers of threads ---------------------------------------------- */

static pthread_mutex_t number_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t *free_numbers;          /* number_lock */
static size_t nr_free, free_room;       /* number_lock */
static uint32_t next_number;            /* number_lock */
static pthread_key_t number_key;
static pthread_once_t number_once = PTHREAD_ONCE_INIT;
static _Thread_local uint32_t my_number = SLOT_NONE;

static void number_give_back(void *p)
{
	uint32_t number = (uint32_t)(uintptr_t)p - 1;
	with_lock(&number_lock);

	if (nr_free == free_room) {
		size_t room = free_room ? 2 * free_room : 64;
		uint32_t *grown = realloc(free_numbers, room * sizeof(*grown));

		if (!grown)     /* a number is lost, nothing else */
			return;
		free_numbers = grown;
		free_room = room;
	}
	free_numbers[nr_free++] = number;
}

static void number_key_make(void)
{
	if (pthread_key_create(&number_key, number_give_back))
		BUG("no thread keys left");
}

static uint32_t number_take(void)
{
	uint32_t number;

	pthread_once(&number_once, number_key_make);
	pthread_mutex_lock(&number_lock);
	number = nr_free ? free_numbers[--nr_free] : next_number++;
	pthread_mutex_unlock(&number_lock);
	pthread_setspecific(number_key, (void *)(uintptr_t)(number + 1));
	my_number = number;
	return number;
}

/* ---- slots ---------------------------------------------------------------- */

int epochs_init(struct epochs *ep)
{
	struct epoch_slot *first = aligned_alloc(64, CHUNK_SLOTS *
						 sizeof(*first));

	if (!first)
		return -ENOMEM;
	memset(first, 0, CHUNK_SLOTS * sizeof(*first));
	atomic_store(&ep->chunk[0], first);
	atomic_store(&ep->now, 1);
	return 0;
}

void epochs_destroy(struct epochs *ep)
{
	for (unsigned i = 0; i < EPOCH_CHUNKS; i++)
		free(atomic_load(&ep->chunk[i]));
}

/* A thread cannot go on without its slot: memory is awaited. */
static struct epoch_slot *chunk_make(struct epochs *ep, unsigned i)
{
	size_t bytes = ((size_t)CHUNK_SLOTS << i) * sizeof(struct epoch_slot);
	struct epoch_slot *made, *found = NULL;

	while (!(made = aligned_alloc(64, bytes)))
		sched_yield();
	memset(made, 0, bytes);
	if (atomic_compare_exchange_strong(&ep->chunk[i], &found, made))
		return made;
	free(made);
	return found;
}

static struct epoch_slot *slot_get(struct epochs *ep)
{
	uint32_t number = my_number == SLOT_NONE ? number_take() : my_number;
	unsigned i = log2_u64(number / CHUNK_SLOTS + 1);
	uint32_t first = CHUNK_SLOTS * ((1u << i) - 1);
	struct epoch_slot *chunk;

	BUG_ON(i >= EPOCH_CHUNKS);
	chunk = atomic_load_explicit(&ep->chunk[i], memory_order_acquire);
	if (!chunk)
		chunk = chunk_make(ep, i);
	return chunk + (number - first);
}

/* ---- epochs --------------------------------------------------------------- */

/*
 * The number may be old by the time it is stored: then whoever looked at the
 * slots in between saw nobody, and what he freed was dropped from the mapping
 * before, which the caller asks only after the store.
 */
void epoch_enter(struct engine *e)
{
	struct epoch_slot *s = slot_get(&e->epochs);

	if (s->depth++ == 0)
		atomic_store(&s->seen, atomic_load(&e->epochs.now));
}

void epoch_exit(struct engine *e)
{
	struct epoch_slot *s = slot_get(&e->epochs);

	BUG_ON(!s->depth);
	if (--s->depth == 0)
		atomic_store_explicit(&s->seen, 0, memory_order_release);
}

uint64_t epoch_advance(struct engine *e)
{
	return atomic_fetch_add(&e->epochs.now, 1);
}

uint64_t epoch_oldest(struct engine *e)
{
	uint64_t oldest = UINT64_MAX;

	for (unsigned i = 0; i < EPOCH_CHUNKS; i++) {
		struct epoch_slot *chunk = atomic_load(&e->epochs.chunk[i]);

		for (uint32_t k = 0; chunk && k < CHUNK_SLOTS << i; k++) {
			uint64_t seen = atomic_load(&chunk[k].seen);

			if (seen && seen < oldest)
				oldest = seen;
		}
	}
	return oldest;
}

void image_wait_epochs(struct image *img)
{
	struct engine *e = img->eng;
	uint64_t ended = epoch_advance(e);
	struct timespec nap = { .tv_nsec = 20000 };

	BUG_ON(slot_get(&e->epochs)->depth);
	while (!knobs.no_epochs && epoch_oldest(e) <= ended) {
		nanosleep(&nap, NULL);
		if (nap.tv_nsec < 2000000)
			nap.tv_nsec *= 2;
	}
}
