/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* escape.h - names inside an image as names of files; see escape.c. */
#ifndef FS_ESCAPE_H
#define FS_ESCAPE_H

#include "util.h"

/* Allocated; at most 255 bytes, never "", "." or "..", without '/' and control
 * characters.  Without memory the program ends. */
char *name_shown(const char *exact);
/* The name that is shown as @shown (which a user has typed), allocated.
 * -EINVAL: none is. */
int name_meant(const char *shown, char **exact);

#endif
