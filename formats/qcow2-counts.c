/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-counts.c - how often clusters are referenced; see qcow2-counts.h.
 */
#include "qcow2-counts.h"

int counts_init(struct counts *c, uint64_t nr, uint64_t max)
{
	*c = (struct counts) {
		.nr_chunks = div_up(nr, COUNTS_CHUNK),
		.nr = nr,
		.max = min_u64(max, UINT32_MAX),
	};
	if (c->nr_chunks <= COUNTS_LIMIT / sizeof(void *)) {
		if (c->max > UINT16_MAX)
			c->wide = calloc(c->nr_chunks + 1, sizeof(*c->wide));
		else
			c->narrow = calloc(c->nr_chunks + 1,
					   sizeof(*c->narrow));
	}
	if (c->wide || c->narrow)
		return 0;
	*c = (struct counts) { NULL };
	return -ENOMEM;
}

void counts_free(struct counts *c)
{
	for (uint64_t i = 0; i < c->nr_chunks; i++)
		free(c->wide ? (void *)c->wide[i] :
		     c->narrow ? (void *)c->narrow[i] : NULL);
	free(c->wide);
	free(c->narrow);
	*c = (struct counts) { NULL };
}

static void *chunk_new(struct counts *c, size_t size)
{
	if (c->bytes + COUNTS_CHUNK * size > COUNTS_LIMIT)
		return NULL;
	c->bytes += COUNTS_CHUNK * size;
	return calloc(COUNTS_CHUNK, size);
}

static int add_wide(struct counts *c, uint64_t chunk, uint64_t i)
{
	if (!c->wide[chunk])
		c->wide[chunk] = chunk_new(c, sizeof(uint32_t));
	if (!c->wide[chunk])
		return -ENOMEM;
	if (c->wide[chunk][i] == c->max)
		return -EOVERFLOW;
	c->wide[chunk][i]++;
	return 0;
}

static int add_narrow(struct counts *c, uint64_t chunk, uint64_t i)
{
	if (!c->narrow[chunk])
		c->narrow[chunk] = chunk_new(c, sizeof(uint16_t));
	if (!c->narrow[chunk])
		return -ENOMEM;
	if (c->narrow[chunk][i] == c->max)
		return -EOVERFLOW;
	c->narrow[chunk][i]++;
	return 0;
}

int counts_add(struct counts *c, uint64_t cluster)
{
	uint64_t chunk = cluster / COUNTS_CHUNK, i = cluster % COUNTS_CHUNK;

	if (cluster >= c->nr)
		return -EFBIG;
	return c->wide ? add_wide(c, chunk, i) : add_narrow(c, chunk, i);
}

void counts_drop(struct counts *c, uint64_t cluster)
{
	uint64_t chunk = cluster / COUNTS_CHUNK, i = cluster % COUNTS_CHUNK;

	if (c->wide)
		c->wide[chunk][i]--;
	else
		c->narrow[chunk][i]--;
}

uint64_t counts_get(const struct counts *c, uint64_t cluster)
{
	uint64_t chunk = cluster / COUNTS_CHUNK, i = cluster % COUNTS_CHUNK;

	if (cluster >= c->nr)
		return 0;
	if (c->wide)
		return c->wide[chunk] ? c->wide[chunk][i] : 0;
	return c->narrow[chunk] ? c->narrow[chunk][i] : 0;
}

bool counts_none(const struct counts *c, uint64_t first, uint64_t n)
{
	for (uint64_t i = first / COUNTS_CHUNK;
	     i < c->nr_chunks && i * COUNTS_CHUNK < first + n; i++)
		if (c->wide ? !!c->wide[i] : !!c->narrow[i])
			return false;
	return true;
}
