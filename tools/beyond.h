/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * beyond.h - what imgctl does and qemu-img does not.  Called as qemu-img all of
 * it is off: then the sentence and the exit code are qemu-img's.
 */
#ifndef TOOLS_BEYOND_H
#define TOOLS_BEYOND_H

#include <stdbool.h>

enum beyond {
	BEYOND_CHECK,           /* check of a format that QEMU cannot check */
	BEYOND_REPAIR,          /* check -r likewise */
	BEYOND_COMMIT,          /* commit into such a base */
	BEYOND_GROW,            /* ... that has to grow */
	BEYOND_MEASURE,         /* measure of a target that QEMU does not */
	BEYOND_MOUNT,           /* commands drive a mount that has the image */
	BEYOND_LEVEL,           /* -o compression_level of convert */
	BEYOND_APPLY,           /* snapshot -a of an image with bitmaps */
	BEYOND_DELETE_ID,       /* snapshot -d of an ID */
	BEYOND_SAFE,            /* --safe, IMGCTL_SAFE: the path policy */
};

/* Is this a case that is off now?  @format may be NULL. */
bool beyond_qemu(enum beyond what, const char *format);

#endif
