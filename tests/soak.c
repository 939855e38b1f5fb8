/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * soak.c - random 4 KiB reads and overwrites in several images at once, and
 * how much memory that took: rule 13 holds if the peak stays within the cache's
 * bound and 64 MiB.
 *
 *	soak [-b BOUND] [-s SECONDS | -n OPERATIONS] [-T THREADS] IMAGE...
 *
 * Prints operations, the bound and VmHWM; exit status 1 above the limit or when
 * a call fails.
 */
#include "blockcore.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define BLOCK 4096u
#define EXTRA (64 * MiB)

struct soak {
	struct image *img[64];
	unsigned nr_images;
	uint64_t max_ops;
	time_t end;             /* 0: no limit */
	_Atomic uint64_t ops;
	_Atomic int failed;
};

static uint64_t rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static bool is_over(struct soak *s, uint64_t op)
{
	if (atomic_load(&s->failed) || (s->max_ops && op >= s->max_ops))
		return true;
	return s->end && !(op % 64) && time(NULL) >= s->end;
}

static void *worker(void *data)
{
	struct soak *s = data;
	static _Atomic uint64_t next_seed = 1;
	uint64_t state = atomic_fetch_add(&next_seed, 1) * 7919, op;
	char buf[BLOCK];

	memset(buf, (int)state, sizeof(buf));
	while (!is_over(s, op = atomic_fetch_add(&s->ops, 1))) {
		struct image *img = s->img[rnd(&state) % s->nr_images];
		uint64_t blocks = image_size(img) / BLOCK;
		uint64_t off = rnd(&state) % blocks * BLOCK;
		int ret = rnd(&state) & 1 ?
			image_read(&img->live, buf, BLOCK, off) :
			image_write(&img->live, buf, BLOCK, off);

		if (!ret && !(op % 5000))
			ret = image_flush(img);
		if (ret)
			atomic_store(&s->failed, ret);
	}
	return NULL;
}

static uint64_t peak_memory(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	uint64_t kib = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmHWM: %" SCNu64, &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib * 1024;
}

static void open_images(struct soak *s, char **names, int n)
{
	for (int i = 0; i < n && i < 64; i++) {
		autoerr err = ERR_INIT;

		if (image_open_name(names[i], false, "qcow2", IMAGE_RDWR,
				    CACHE_WRITEBACK, &s->img[i], &err)) {
			fprintf(stderr, "soak: %s: %s\n", names[i],
				err_text(&err));
			exit(1);
		}
		s->nr_images++;
	}
}

static int verdict(struct soak *s, uint64_t bound)
{
	uint64_t peak;

	for (unsigned i = 0; i < s->nr_images; i++)
		if (image_close(s->img[i]))
			atomic_store(&s->failed, -EIO);
	peak = peak_memory();
	printf("%" PRIu64 " operations on %u images, bound %" PRIu64
	       " MiB, VmHWM %" PRIu64 " MiB\n", (uint64_t)s->ops,
	       s->nr_images, bound / MiB, peak / MiB);
	if (atomic_load(&s->failed))
		fprintf(stderr, "soak: %s\n", strerror(-s->failed));
	return s->failed || peak > bound + EXTRA;
}

int main(int argc, char **argv)
{
	struct soak s = { .max_ops = 100000 };
	uint64_t bound = 256 * MiB;
	unsigned threads = 4;
	pthread_t id[64];
	int c;

	while ((c = getopt(argc, argv, "b:s:n:T:")) != -1)
		switch (c) {
		case 'b': bound = strtoull(optarg, NULL, 0); break;
		case 'n': s.max_ops = strtoull(optarg, NULL, 0); break;
		case 'T': threads = (unsigned)atoi(optarg) % 64; break;
		case 's':
			s.end = time(NULL) + atoi(optarg);
			s.max_ops = 0;
			break;
		default: return 2;
		}
	if (optind == argc)
		return 2;
	cache_set_bound(bound);
	open_images(&s, argv + optind, argc - optind);
	for (unsigned i = 0; i < threads; i++)
		if (pthread_create(&id[i], NULL, worker, &s))
			return 2;
	for (unsigned i = 0; i < threads; i++)
		pthread_join(id[i], NULL);
	return verdict(&s, bound);
}
