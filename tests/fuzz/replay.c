/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * replay.c - the fuzzers' target without libFuzzer: for a finding under a
 * debugger, and for a slice of it in every build.
 *
 *	replay [-n ROUNDS] [-s SEED] [-k FILE] [-u IMAGE] SKETCH...
 *
 * Each SKETCH is run; then ROUNDS changed ones.  -k keeps what is being run in
 * FILE, where it lies after a crash.  -u writes what the (one) sketch stands for
 * to IMAGE, for imgctl, and its second file to IMAGE.second.
 */
#include "sketch.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
			       unsigned int seed);

static uint32_t state = 1;
static const char *keep;

static uint32_t next_random(void)
{
	state = state * 1664525u + 1013904223u;
	return state >> 8;
}

/* libFuzzer's has more in it. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
	(void)max_size;
	for (unsigned n = 1 + next_random() % 3; size && n; n--) {
		uint8_t *p = data + next_random() % size;

		*p = next_random() & 1 ? (uint8_t)next_random() :
		     (uint8_t)(*p ^ 1u << next_random() % 8);
	}
	return size;
}

static uint8_t *load(const char *name, size_t *size)
{
	uint8_t *data = malloc(2 * MiB);
	FILE *f = fopen(name, "r");

	if (!f || !data) {
		perror(name);
		exit(2);
	}
	*size = fread(data, 1, 2 * MiB, f);
	fclose(f);
	return data;
}

static void run(const uint8_t *data, size_t size)
{
	FILE *f = keep ? fopen(keep, "w") : NULL;

	if (f && fwrite(data, 1, size, f) != size)
		exit(2);
	if (f)
		fclose(f);
	LLVMFuzzerTestOneInput(data, size);
}

static void unfold(const char *name, const char *image)
{
	char second[4096];
	size_t size;
	uint8_t *data = load(name, &size);
	int fd = open(image, O_RDWR | O_CREAT | O_TRUNC, 0644), other;
	const char *format = getenv("FUZZ_FORMAT");
	bool two;

	snprintf(second, sizeof(second), "%s.second", image);
	other = open(second, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || other < 0) {
		perror(image);
		exit(2);
	}
	sketch_unfold(data, size, fd, other, &two);
	if (size && data[0] & SKETCH_MEND && format)
		sketch_mend(format, fd);
	if (!two)
		unlink(second);
	free(data);
	exit(0);
}

int main(int argc, char **argv)
{
	unsigned rounds = 0;
	int c;

	while ((c = getopt(argc, argv, "n:s:k:u:")) != -1)
		switch (c) {
		case 'n': rounds = (unsigned)atoi(optarg); break;
		case 's': state = (uint32_t)atoi(optarg); break;
		case 'k': keep = optarg; break;
		case 'u':
			if (optind + 1 == argc)
				unfold(argv[optind], optarg);
			/* fall through */
		default: return 2;
		}
	for (int i = optind; i < argc; i++) {
		size_t size;
		uint8_t *data = load(argv[i], &size);

		run(data, size);
		free(data);
	}
	for (unsigned i = 0; i < rounds && optind < argc; i++) {
		size_t size;
		uint8_t *data = load(argv[optind + (int)(next_random() %
				     (unsigned)(argc - optind))], &size);

		size = LLVMFuzzerCustomMutator(data, size, size,
					       next_random());
		run(data, size);
		free(data);
	}
	return 0;
}
