/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xml.h - a small reader of XML for descriptors of a few kilobytes.
 *
 * It knows elements, text, the five named entities, comments and processing
 * instructions; attributes are passed over.  What could make a text larger than
 * it is (DOCTYPE, further entities), and all else, is refused.
 */
#ifndef FORMATS_XML_H
#define FORMATS_XML_H

#include "err.h"

#include <stddef.h>

#define XML_MAX_DEPTH 16        /* elements within each other */
#define XML_MAX_PATH 512        /* bytes of their names */

struct xml_events {
	/* @path: names from the outermost element to this one: "a/b/c".
	 * Negative errno (and @err): stop. */
	int (*open)(void *data, const char *path, struct err *err);
	/* @text: all text directly within it, entities replaced, without the
	 * spaces around it. */
	int (*close)(void *data, const char *path, const char *text,
		     struct err *err);
};

/* 0, -EINVAL: not such a text, or what an event has returned. */
int xml_parse(const char *text, size_t len, const struct xml_events *events,
	      void *data, struct err *err);

#endif
