/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * crash.h - the power fails at each request of a change of a whole image: what
 * is left must be sound, and be what was there before or what there is
 * afterwards.
 */
#ifndef TESTS_CRASH_H
#define TESTS_CRASH_H

#include "blockcore.h"
#include "testfile.h"

struct crash_case {
	/* Makes "template", with programs that are not ours; may be NULL: it
	 * is there. */
	const char *make;
	/* The change, on an image that is open for writing. */
	int (*change)(struct image *img, const void *arg);
	const void *arg;
	/* More about an image that is open for reading, besides content and
	 * check: old (false) or new?  May be NULL. */
	bool (*is_new)(struct image *img, const void *arg);
	unsigned outcomes;      /* of each crash; 0: 6 */
	unsigned every;         /* how many requests apart; 0: 1 */
};

/* The folder of this test, and a command in it. */
extern char crash_folder[64];
int crash_sh(const char *fmt, ...) printf_like(1, 2);
int crash_setup(void **state);
int crash_teardown(void **state);

/* The file "ours" is what the change makes. */
void crash_everywhere(const struct crash_case *c);

#endif
