/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * options.h - "-o key=value,..." lists, sizes and booleans in qemu-img's words
 * (formats/qemu-img-cli.md 2 and 3).
 */
#ifndef BLOCKCORE_OPTIONS_H
#define BLOCKCORE_OPTIONS_H

#include "err.h"
#include "strbuf.h"

enum option_type { OPTION_STRING, OPTION_BOOL, OPTION_NUMBER, OPTION_SIZE };

/* A table ends with name == NULL.  Its order is that of the "Formatting" line;
 * help sorts by name. */
struct option_spec {
	const char *name;
	enum option_type type;
	const char *help;
	const char *def;        /* shown in "Formatting" when not given, or
				 * NULL: not shown unless given */
};

struct options;

/* @protocol (may be NULL) is appended to @format. */
struct options *options_new(const struct option_spec *format,
			    const struct option_spec *protocol);
/* Further options, for whoever made @o and knows them. */
void options_add(struct options *o, const struct option_spec *table);
struct options *options_copy(const struct options *o);
void options_free(struct options *o);

/* "a=b,c=d"; ",," is a comma; bare "key" is on, "nokey" is off; later wins. */
int options_parse(struct options *o, const char *list, struct err *err);
int options_set(struct options *o, const char *name, const char *value,
		struct err *err);
bool options_has(const struct options *o, const char *name);
/* The given value, else the table's default, else @def. */
const char *options_str(const struct options *o, const char *name,
			const char *def);
bool options_bool(const struct options *o, const char *name, bool def);
uint64_t options_num(const struct options *o, const char *name, uint64_t def);

/* " key=value key=value": the tail of the Formatting line. */
void options_print(const struct options *o, struct strbuf *out);
/* The lines of "-o help" below the headline, sorted by name. */
void options_help(const struct options *o, struct strbuf *out);
/* "Invalid option list": empty, or an empty item at either end. */
bool options_list_valid(const char *list);
/* The next "key=value" of @p, with ",," undone in the value: 1, or 0 at the
 * end.  @value is NULL for a bare word.  The caller frees both. */
int options_item(const char **p, char **key, char **value);
/* Is "help" or "?" an item of the list? */
bool options_wants_help(const char *list);

/* The two-line hint behind "expects a non-negative number below 2^64". */
#define SIZE_HINT \
	"Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, " \
	"tera-, peta-\nand exabytes, respectively.\n"

enum size_error { SIZE_OK, SIZE_SYNTAX, SIZE_RANGE };
/* "1.5G", "0x10", "10k": bytes; 7.2's and 10.0's differences follow
 * qemu_compat() (qemu-img-cli.md 2).  Up to 2^64 - 1. */
enum size_error size_parse(const char *text, uint64_t *bytes);
/* "%0.3g UNIT" of info: 197120 is "192 KiB". */
void size_human(struct strbuf *out, uint64_t bytes);
/* on off yes no true false y n.  False: neither. */
bool bool_parse(const char *text, bool *value);

/* Which qemu-img the output follows: 72 or 100.  Environment variable
 * IMGCTL_QEMU_COMPAT=7.2 selects 72; default 100. */
int qemu_compat(void);

#endif
