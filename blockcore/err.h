/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * err.h - one sentence for a person, built where the fault is known.
 *
 * Hot paths return a negative errno and nothing else.  Cold paths (open,
 * create, check, parse) take a trailing struct err *, which may be NULL.
 * Callers add context in front ("Could not open 'x': ").  The first error
 * set wins: setting a second one is ignored.
 */
#ifndef BLOCKCORE_ERR_H
#define BLOCKCORE_ERR_H

#include "util.h"

struct err {
	int code;       /* negative errno, 0 while nothing happened */
	char *text;     /* the sentence, without a newline */
	char *hint;     /* further lines to print as they are, or NULL */
};

#define ERR_INIT { 0, NULL, NULL }

/* Returns @code, so that "return err_set(err, -EINVAL, ...)" reads well. */
int err_set(struct err *err, int code, const char *fmt, ...) printf_like(3, 4);
/* As err_set(), with ": strerror" behind it. */
int err_errno(struct err *err, int code, const char *fmt, ...)
	printf_like(3, 4);
/* Puts text in front of the sentence; nothing when no error is set. */
void err_prefix(struct err *err, const char *fmt, ...) printf_like(2, 3);
/* Adds text behind the sentence on lines of its own; the text brings its own
 * newlines (QEMU's last hint line sometimes has none). */
void err_hint(struct err *err, const char *fmt, ...) printf_like(2, 3);
/* What to print: the sentence, or strerror() of the code when there is none. */
const char *err_text(const struct err *err);
void err_clear(struct err *err);
/* Moves @from into @to (if @to is set already or NULL, @from is dropped). */
void err_move(struct err *to, struct err *from);

#define autoerr __attribute__((cleanup(err_clear))) struct err

/*
 * A warning for the person at the terminal ("short-form boolean option ...
 * deprecated"); may hold several lines, no newline at the end.  Programs set
 * where it goes before they start threads; default: "warning: TEXT" on stderr.
 */
void warn(const char *fmt, ...) printf_like(1, 2);
void warn_set(void (*fn)(const char *text));

/* Our own bug: prints file, line and text, then aborts. */
#define BUG(...) bug_at(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void bug_at(const char *file, int line, const char *fmt, ...)
	printf_like(3, 4);
#define BUG_ON(cond) \
	do { if (__builtin_expect(!!(cond), 0)) BUG("%s", #cond); } while (0)

#endif
