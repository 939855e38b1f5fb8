/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * trace.c - -T, --trace: accepted in qemu-img's grammar, so that scripts which
 * use it go on.  There are no trace events here: a name is answered as a name
 * of no event is, a pattern matches nothing.
 */
#include "tools.h"

/* A line of an events file is named by @file and @line. */
static void event_wanted(const char *name, const char *file, unsigned line)
{
	if (!*name || strpbrk(name, "*?"))
		return;
	if (file)
		fprintf(stderr, "%s:%s:%u: warning: ", prog_name(), file, line);
	else
		fprintf(stderr, "%s: warning: ", prog_name());
	fprintf(stderr, "trace event '%s' does not exist\n", name);
}

static int events_file(const char *path)
{
	FILE *f = fopen(path, "re");
	char text[1024];

	if (!f) {
		fprintf(stderr, "%s:%s: %s\n", prog_name(), path,
			strerror(errno));
		return 1;
	}
	for (unsigned n = 1; fgets(text, sizeof(text), f); n++) {
		text[strcspn(text, "\n")] = '\0';
		if (*text != '#')
			event_wanted(text, path, n);
	}
	fclose(f);
	return 0;
}

static int bad_key(const char *key, bool short_form)
{
	if (short_form)
		say_warning("short-form boolean option '%s' deprecated\n"
			    "Please use %s=on instead", key, key);
	say_error("Invalid parameter '%s'", key);
	return 1;
}

/* One "key=value"; the first may be a bare name of events. */
static int take_item(const char *key, const char *value, bool first,
		     char **file)
{
	if (!value && first)
		event_wanted(key, NULL, 0);
	else if (!strcmp(key, "enable") && value)
		event_wanted(value, NULL, 0);
	else if (!strcmp(key, "events") && value)
		free(*file), *file = strdup(value);
	else if (strcmp(key, "file") || !value)
		return bad_key(key, !value);
	return 0;
}

int trace_option(const char *text)
{
	autofree char *file = NULL;
	bool first = true;
	int rc = 0;

	while (!rc) {
		autofree char *key = NULL;
		autofree char *value = NULL;

		if (!options_item(&text, &key, &value))
			break;
		rc = take_item(key, value, first, &file);
		first = false;
	}
	return !rc && file ? events_file(file) : rc;
}
