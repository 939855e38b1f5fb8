/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-words.c - a line of ctl becomes words, and words become options and
 * operands; see ctl.h.
 *
 * Knows quotes and getopt's grammar.  Refuses to know any command.
 */
#include "fs/ctl.h"

#include <ctype.h>

/* ---- words ------------------------------------------------------------------- */

void words_add(struct words *w, const char *word)
{
	w->word = reallocarray(w->word, (size_t)w->nr + 2, sizeof(*w->word));
	BUG_ON(!w->word);
	w->word[w->nr] = strdup(word);
	BUG_ON(!w->word[w->nr]);
	w->word[++w->nr] = NULL;
}

void words_free(struct words *w)
{
	for (int i = 0; i < w->nr; i++)
		free(w->word[i]);
	free(w->word);
	memset(w, 0, sizeof(*w));
}

/* Within "...": \ quotes only itself and ". */
static bool double_quoted(const char **at, struct strbuf *out)
{
	const char *s = *at;

	for (; *s && *s != '"'; s++) {
		if (*s == '\\' && (s[1] == '\\' || s[1] == '"'))
			s++;
		strbuf_putc(out, *s);
	}
	*at = *s ? s + 1 : s;
	return *s;
}

static bool single_quoted(const char **at, struct strbuf *out)
{
	size_t n = strcspn(*at, "'");
	bool closed = (*at)[n];

	strbuf_add(out, *at, n);
	*at += n + closed;
	return closed;
}

/* The word at *@at, which is no blank.  False: a quote is not closed. */
static bool take_word(const char **at, struct strbuf *out, bool *plain)
{
	bool closed = true;

	*plain = true;
	while (closed && **at && !isspace((unsigned char)**at)) {
		char ch = *(*at)++;

		if (ch != '\'' && ch != '"' && ch != '\\') {
			strbuf_putc(out, ch);
			continue;
		}
		*plain = false;
		if (ch == '\'')
			closed = single_quoted(at, out);
		else if (ch == '"')
			closed = double_quoted(at, out);
		else if (**at)
			strbuf_putc(out, *(*at)++);
	}
	return closed;
}

static void drop_last(struct words *w)
{
	free(w->word[--w->nr]);
	w->word[w->nr] = NULL;
}

int words_parse(const char *line, struct words *w, bool *job, struct err *err)
{
	bool plain = false;

	memset(w, 0, sizeof(*w));
	for (;;) {
		autostrbuf word = STRBUF_INIT;

		while (isspace((unsigned char)*line))
			line++;
		if (!*line)
			break;
		if (!take_word(&line, &word, &plain)) {
			words_free(w);
			return err_set(err, -EINVAL, "A quote is not closed");
		}
		words_add(w, word.text ? word.text : "");
	}
	*job = w->nr > 1 && plain && !strcmp(w->word[w->nr - 1], "&");
	if (*job)
		drop_last(w);
	return 0;
}

/* ---- options --------------------------------------------------------------------- */

static int no_option(const struct ctl_call *c, const char *text,
		     struct err *err)
{
	return err_set(err, -EINVAL, "%s: unrecognized option '%s'", c->argv[0],
		       text);
}

static int no_argument(const struct ctl_call *c, const char *text,
		       struct err *err)
{
	return err_set(err, -EINVAL, "%s: option '%s' requires an argument",
		       c->argv[0], text);
}

static const struct ctl_option *find_letter(const struct ctl_option *o,
					    char letter)
{
	while (o->id && o->id != letter)
		o++;
	return o->id ? o : NULL;
}

/* By its whole name, or by the beginning of just one. */
static const struct ctl_option *find_long(const struct ctl_option *o,
					  const char *name, size_t len)
{
	const struct ctl_option *found = NULL;
	bool several = false;

	for (; o->id; o++) {
		if (!o->name || strncmp(o->name, name, len))
			continue;
		if (!o->name[len])
			return o;
		several = found;
		found = o;
	}
	return several ? NULL : found;
}

/* The letter at c->cluster. */
static int short_option(struct ctl_call *c, const struct ctl_option *options,
			const char **arg, struct err *err)
{
	char text[] = { '-', *c->cluster++, 0 };
	const struct ctl_option *o = find_letter(options, text[1]);

	if (!o)
		return no_option(c, text, err);
	if (!o->arg) {
		if (!*c->cluster)
			c->cluster = NULL;
		return o->id;
	}
	*arg = *c->cluster ? c->cluster :
	       c->at < c->argc ? c->argv[c->at++] : NULL;
	c->cluster = NULL;
	return *arg ? o->id : no_argument(c, text, err);
}

static int long_option(struct ctl_call *c, const struct ctl_option *options,
		       const char *word, const char **arg, struct err *err)
{
	size_t len = strcspn(word + 2, "=");
	const struct ctl_option *o = find_long(options, word + 2, len);
	const char *value = word[2 + len] ? word + 3 + len : NULL;

	if (!o || (value && !o->arg))
		return no_option(c, word, err);
	if (!o->arg)
		return o->id;
	*arg = value ? value : c->at < c->argc ? c->argv[c->at++] : NULL;
	return *arg ? o->id : no_argument(c, word, err);
}

/* Operands move to the front of argv, behind the command's word. */
static void operand(struct ctl_call *c, char *word)
{
	if (!c->operands)
		c->operands = c->argv + 1;
	c->operands[c->nr_operands++] = word;
}

int ctl_next(struct ctl_call *c, const struct ctl_option *options,
	     const char **arg, struct err *err)
{
	*arg = NULL;
	if (c->cluster)
		return short_option(c, options, arg, err);
	while (c->at < c->argc) {
		char *word = c->argv[c->at++];

		if (!strcmp(word, "--"))
			break;
		if (word[0] == '-' && word[1] == '-')
			return long_option(c, options, word, arg, err);
		if (word[0] == '-' && word[1]) {
			c->cluster = word + 1;
			return short_option(c, options, arg, err);
		}
		operand(c, word);
	}
	while (c->at < c->argc)
		operand(c, c->argv[c->at++]);
	return 0;
}
