/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * create.h - making new image files: what create and convert share.
 *
 * Nothing of an existing target is touched before every option has been
 * checked and the target is locked; what could not be locked is never removed.
 */
#ifndef BLOCKCORE_CREATE_H
#define BLOCKCORE_CREATE_H

#include "blockcore.h"
#include "options.h"

/*
 * The format's and the file's options for "-o", after these checks (sentences
 * are qemu-img's, without a file name): unknown format, format without create,
 * unknown protocol of @target (NULL: none named).
 */
int create_options(const char *format, const char *target,
		   const struct format **fmt, struct options **o,
		   struct err *err);

/* Prints "-o help" of @format as create and convert do; @target may be NULL
 * (then only the format's own options are listed).  @more: the command's own
 * options, may be NULL. */
int create_help(const char *format, const char *target,
		const struct option_spec *more, struct strbuf *out,
		struct err *err);

struct image_create {
	const char *target;     /* file name as the user gave it */
	const struct format *fmt;
	const struct options *options;  /* checked by fmt->admin->create_check
					 * in here, before the target is
					 * opened */
	uint64_t size;          /* guest bytes; rounded up to a sector here */
	bool unsafe;            /* who fills it does not sync it either */
	struct image *const *src;       /* what is read must not be emptied */
	unsigned nr_src;
	/* Called when the target is open, locked and still untouched;
	 * @created: it did not exist before.  May be NULL. */
	void (*opened)(void *data, const char *path, const struct stat *st,
		       bool created);
	void *data;
};
/*
 * Makes the file.  On failure a target that this call created is removed again.
 * Errors have no prefix: create puts "NAME: " in front, convert
 * "NAME: error while converting FMT: ".
 */
int image_create(const struct image_create *c, struct err *err);

/* `create` as a whole: formats, -o lists, backing file, size rules, the
 * Formatting line, image_create(). */
struct create_request {
	const char *target;
	const char *format;             /* NULL: raw */
	const char *const *lists;       /* the -o options in order */
	size_t nr_lists;
	const char *backing;            /* -b, wins over -o backing_file */
	const char *backing_fmt;        /* -F */
	bool has_size;
	uint64_t size;
	bool trust_backing;             /* -u: do not open the backing file */
	/* "Formatting ...": comes when the request itself is sound, before
	 * the format has looked at it.  May be NULL. */
	void (*formatting)(void *data, const char *line);
	void (*opened)(void *data, const char *path, const struct stat *st,
		       bool created);
	void *data;
};
/* Error sentences are complete but for the program's name. */
int create_run(const struct create_request *req, struct err *err);

#endif
