/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sketch.h - the fuzzers' inputs: a file of many megabytes in a few hundred
 * bytes.  Images are mostly zeroes; a fuzzer that changes bytes of a whole one
 * changes nothing that matters.
 *
 *	u8 flags, u8 seed, u16 0
 *	u32 bytes of the image, u32 bytes of its second file, u32 0
 *	records: u32 offset (bit 31: in the second file), u16 n, n bytes
 *
 * All numbers are little-endian.  What no record covers is zero; a last record
 * that is cut short counts as far as it goes.  With SKETCH_CREATE the two sizes
 * are one virtual size, and the rest is what stands behind -o of `create`.
 * tests/fuzz/fold makes one of an image.
 */
#ifndef TESTS_FUZZ_SKETCH_H
#define TESTS_FUZZ_SKETCH_H

#include "util.h"

enum {
	SKETCH_MEND = 1 << 0,   /* checksums of the format are made right */
	SKETCH_CHAIN = 1 << 1,  /* open what it names as its parent, too */
	SKETCH_CREATE = 1 << 2, /* options of a new image, not an image */
	SKETCH_BUNDLE = 1 << 3, /* what says which images make up a bundle */
};

#define SKETCH_HEAD 16u
#define SKETCH_MAX (80 * MiB)   /* of a file */
#define SKETCH_SECOND UINT32_C(0x80000000)

/* Writes the image into @fd and its second file into @second, both empty.
 * *has_second: there is one. */
void sketch_unfold(const uint8_t *data, size_t size, int fd, int second,
		   bool *has_second);
/* Makes checksums right that @format has, in the file @fd. */
void sketch_mend(const char *format, int fd);

#endif
