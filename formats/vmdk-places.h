/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-places.h - which sectors of an extent's file somebody has, as check
 * finds it.  A bit stands for a sector, or, where a grain lies as grains do, for
 * a whole one; memory is taken where something lies, at most 1/4096 of the
 * file's length.
 */
#ifndef FORMATS_VMDK_PLACES_H
#define FORMATS_VMDK_PLACES_H

#include "util.h"

/* Bits in chunks, each made when the first one of it is set. */
struct place_bits {
	uint64_t **chunks;
	uint64_t nr;            /* bits */
	uint64_t unit;          /* bytes of the file that one stands for */
};

struct places {
	struct place_bits grains;       /* of pieces that fill whole units */
	struct place_bits sectors;      /* of all others */
};

/* For a file of @end bytes; what lies behind is nobody's.  @grain: bytes. */
int places_init(struct places *p, uint64_t end, uint64_t grain);
void places_free(struct places *p);
/* Has anybody a sector of [host, host + len)? */
bool places_taken(const struct places *p, uint64_t host, uint64_t len);
/* 1: they were free and are taken now; 0: they were not, nothing changes. */
int places_take(struct places *p, uint64_t host, uint64_t len);

#endif
