/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-places.c - who lies where in an extent's file; see vmdk-places.h.
 */
#include "vmdk-places.h"

#include <errno.h>
#include <stdlib.h>

#define CHUNK 32768u            /* bits */

static int bits_init(struct place_bits *b, uint64_t end, uint64_t unit)
{
	b->unit = unit;
	b->nr = div_up(end, unit);
	b->chunks = calloc(div_up(b->nr, CHUNK) + 1, sizeof(*b->chunks));
	return b->chunks ? 0 : -ENOMEM;
}

static void bits_free(struct place_bits *b)
{
	for (uint64_t i = 0; b->chunks && i * CHUNK < b->nr; i++)
		free(b->chunks[i]);
	free(b->chunks);
}

/* The bits [i, i + *n) of a word as a mask; *@n: at most up to @last. */
static uint64_t word_mask(uint64_t i, uint64_t last, uint64_t *n)
{
	*n = min_u64(64 - i % 64, last - i);
	return (*n == 64 ? UINT64_MAX : (UINT64_C(1) << *n) - 1) << i % 64;
}

static bool bits_any(const struct place_bits *b, uint64_t host, uint64_t len)
{
	uint64_t last = min_u64(div_up(host + len, b->unit), b->nr), n;

	for (uint64_t i = host / b->unit; i < last; i += n) {
		const uint64_t *c = b->chunks[i / CHUNK];

		if (c && c[i % CHUNK / 64] & word_mask(i, last, &n))
			return true;
		if (!c)
			n = CHUNK - i % CHUNK;
	}
	return false;
}

static int bits_set(struct place_bits *b, uint64_t host, uint64_t len)
{
	uint64_t last = min_u64(div_up(host + len, b->unit), b->nr), n;

	for (uint64_t i = host / b->unit; i < last; i += n) {
		uint64_t **c = &b->chunks[i / CHUNK];

		if (!*c)
			*c = calloc(1, CHUNK / 8);
		if (!*c)
			return -ENOMEM;
		(*c)[i % CHUNK / 64] |= word_mask(i, last, &n);
	}
	return 0;
}

/* Grains lie on multiples of what is a power of two in their size. */
int places_init(struct places *p, uint64_t end, uint64_t grain)
{
	int ret = bits_init(&p->grains, end, grain & -grain);

	return ret ? ret : bits_init(&p->sectors, end, SECTOR_SIZE);
}

void places_free(struct places *p)
{
	bits_free(&p->grains);
	bits_free(&p->sectors);
}

bool places_taken(const struct places *p, uint64_t host, uint64_t len)
{
	return bits_any(&p->grains, host, len) ||
	       bits_any(&p->sectors, host, len);
}

int places_take(struct places *p, uint64_t host, uint64_t len)
{
	uint64_t unit = p->grains.unit;
	int ret;

	if (places_taken(p, host, len))
		return 0;
	ret = bits_set(host % unit || len % unit ? &p->sectors : &p->grains,
		       host, len);
	return ret ? ret : 1;
}
