/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spec.h - image specifications: what a user, a backing name or imgfs's SOURCE
 * calls an image.  The one parser for all of them (options.md 4, 5, 7, 8):
 *
 *   plain name           a.qcow2, ./a:b, file:a.raw
 *   --image-opts         driver=qcow2,file.filename=a,,b.qcow2
 *   json:{...}           {"driver": "qcow2", "file": {...}} or dotted keys
 *
 * All become one tree of nodes as blockdev-add has it:
 *   {"driver": "qcow2", "file": {"driver": "file", "filename": "a"}, ...}
 * where "driver" of the top node is missing when the format is to be probed,
 * and "driver" of a file when what is found there decides (a file, a device).
 * Only nodes nest; other structured options keep dots ("cache.direct").
 */
#ifndef BLOCKCORE_SPEC_H
#define BLOCKCORE_SPEC_H

#include "json.h"

enum spec_how { SPEC_NAME, SPEC_IMAGE_OPTS };

/* @format (may be NULL) sets the top driver of a name.  Unknown protocols, and
 * @format if it is unknown, are errors here; unknown drivers inside of @text
 * and unknown options are errors of opening. */
int spec_parse(const char *text, enum spec_how how, const char *format,
	       struct json **node, struct err *err);
/* The same for a name found in an image at @base (a file name as given, may be
 * NULL): relative names are resolved against its directory (options.md 8). */
int spec_parse_child(const char *text, const char *base, const char *format,
		     struct json **node, struct err *err);
/* The name that info prints: "a.qcow2" if a plain name says it all, else
 * "json:{...}".  The caller frees. */
char *spec_name(const struct json *node);
/* @name resolved against the directory of @base as qemu-img prints it
 * ("sub/b.raw"); json: and proto: names and absolute paths are kept.  @base may
 * be a json: name: then the file below it counts. */
char *spec_join(const char *base, const char *name);
/* Does the name start with "proto:" (no '/' before the colon)? */
bool spec_has_protocol(const char *name);
/* Is @driver one that stores bytes ("file", "host_device")? */
bool spec_is_protocol(const char *driver);
/* The name of the file at the bottom of @node, or NULL. */
const char *spec_file(const struct json *node);

/*
 * Are the options of one node (not of those below it) such as its driver
 * takes?  Called as opening goes on, because QEMU finds faults in this order.
 */
enum spec_stage {
	SPEC_FLAGS,     /* before the file: how to open at all */
	SPEC_VALUES,    /* before the driver looks at it */
	SPEC_DRIVER,    /* after the driver has opened: its own options */
	SPEC_UNKNOWN,   /* last: names that nobody took */
};
/* @driver: the format that opened it; @backing: may "backing" be given?  Of a
 * protocol node only FLAGS and VALUES are checked here (file_open() does the
 * rest); then, and for FLAGS of any node, @driver may be NULL. */
int spec_check(const struct json *node, enum spec_stage stage,
	       const char *driver, bool backing, struct err *err);
/* The boolean at @key, or @def; values were checked before. */
bool spec_bool(const struct json *node, const char *key, bool def);

#endif
