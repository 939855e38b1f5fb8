/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xml.c - see xml.h.  One pass, one buffer as long as the text: nothing in a
 * text makes it recurse or take more memory.
 */
#include "xml.h"

#include "util.h"

#include <ctype.h>

struct xml {
	const char *p, *end;
	const struct xml_events *events;
	void *data;
	struct err *err;
	char path[XML_MAX_PATH];
	size_t path_len;
	unsigned depth;
	bool done;              /* the outermost element has ended */
	char *out;              /* text of the elements that are open */
	size_t out_len;
	size_t begin[XML_MAX_DEPTH];    /* where that of each begins */
};

static int bad(struct xml *x, const char *what)
{
	return err_set(x->err, -EINVAL, "The XML is broken: %s", what);
}

static bool skip_to(struct xml *x, const char *mark)
{
	size_t n = strlen(mark);
	const char *at = memmem(x->p, (size_t)(x->end - x->p), mark, n);

	if (at)
		x->p = at + n;
	return at;
}

static bool next_is(const struct xml *x, const char *mark)
{
	size_t n = strlen(mark);

	return (size_t)(x->end - x->p) >= n && !memcmp(x->p, mark, n);
}

/* ---- text ---------------------------------------------------------------- */

static int take_entity(struct xml *x)
{
	static const struct { const char *name; char c; } known[] = {
		{ "&amp;", '&' }, { "&lt;", '<' }, { "&gt;", '>' },
		{ "&quot;", '"' }, { "&apos;", '\'' },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (next_is(x, known[i].name)) {
			x->p += strlen(known[i].name);
			x->out[x->out_len++] = known[i].c;
			return 0;
		}
	return bad(x, "an unknown entity");
}

static int take_char(struct xml *x)
{
	if (*x->p == '&')
		return take_entity(x);
	if (!*x->p)
		return bad(x, "a zero byte");
	if (!x->depth && !isspace((unsigned char)*x->p))
		return bad(x, "text outside of all elements");
	x->out[x->out_len++] = *x->p++;
	return 0;
}

/* The text of the element that ends, between its spaces; ended by a zero in
 * room that its tags have left. */
static const char *text_of(struct xml *x)
{
	size_t from = x->begin[x->depth - 1], to = x->out_len;

	while (from < to && isspace((unsigned char)x->out[from]))
		from++;
	while (to > from && isspace((unsigned char)x->out[to - 1]))
		to--;
	x->out[to] = 0;
	return x->out + from;
}

/* ---- tags ---------------------------------------------------------------- */

static bool is_name(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.' ||
	       c == ':';
}

static size_t name_len(const struct xml *x)
{
	size_t n = 0;

	while (x->p + n < x->end && is_name(x->p[n]))
		n++;
	return n;
}

static int element_begins(struct xml *x, const char *name, size_t n)
{
	if (x->done)
		return bad(x, "a second outermost element");
	if (x->depth == XML_MAX_DEPTH || x->path_len + n + 2 > XML_MAX_PATH)
		return bad(x, "too many elements within each other");
	if (x->depth)
		x->path[x->path_len++] = '/';
	memcpy(x->path + x->path_len, name, n);
	x->path_len += n;
	x->path[x->path_len] = 0;
	x->begin[x->depth++] = x->out_len;
	return x->events->open(x->data, x->path, x->err);
}

static int element_ends(struct xml *x)
{
	int ret = x->events->close(x->data, x->path, text_of(x), x->err);
	char *slash = strrchr(x->path, '/');

	x->out_len = x->begin[--x->depth];
	x->path_len = slash ? (size_t)(slash - x->path) : 0;
	x->path[x->path_len] = 0;
	x->done = !x->depth;
	return ret;
}

static const char *last_name(const struct xml *x)
{
	const char *slash = strrchr(x->path, '/');

	return slash ? slash + 1 : x->path;
}

static int end_tag(struct xml *x)
{
	size_t n;

	x->p += 2;
	n = name_len(x);
	if (!x->depth || strlen(last_name(x)) != n ||
	    memcmp(last_name(x), x->p, n))
		return bad(x, "an end without a beginning");
	x->p += n;
	while (x->p < x->end && isspace((unsigned char)*x->p))
		x->p++;
	if (x->p == x->end || *x->p++ != '>')
		return bad(x, "a tag without an end");
	return element_ends(x);
}

/* To the '>' of a tag; values may contain one. */
static int skip_attributes(struct xml *x, bool *empty)
{
	char quote = 0;

	for (; x->p < x->end; x->p++) {
		if (quote) {
			quote = *x->p == quote ? 0 : quote;
		} else if (*x->p == '"' || *x->p == '\'') {
			quote = *x->p;
		} else if (*x->p == '>') {
			*empty = x->p[-1] == '/';
			x->p++;
			return 0;
		} else if (*x->p == '<') {
			break;
		}
	}
	return bad(x, "a tag without an end");
}

static int start_tag(struct xml *x)
{
	const char *name = ++x->p;
	size_t n = name_len(x);
	bool empty = false;
	int ret;

	if (!n)
		return bad(x, "a tag without a name");
	x->p += n;
	ret = skip_attributes(x, &empty);
	if (!ret)
		ret = element_begins(x, name, n);
	return ret || !empty ? ret : element_ends(x);
}

static int step(struct xml *x)
{
	if (*x->p != '<')
		return take_char(x);
	if (next_is(x, "<!--"))
		return skip_to(x, "-->") ? 0 : bad(x, "an endless comment");
	if (next_is(x, "<?"))
		return skip_to(x, "?>") ? 0 : bad(x, "an endless instruction");
	if (next_is(x, "<!"))
		return bad(x, "declarations are not read");
	return next_is(x, "</") ? end_tag(x) : start_tag(x);
}

int xml_parse(const char *text, size_t len, const struct xml_events *events,
	      void *data, struct err *err)
{
	struct xml x = {
		.p = text, .end = text + len, .events = events, .data = data,
		.err = err,
	};
	autofree char *out = malloc(len + 1);
	int ret = 0;

	if (!out)
		return -ENOMEM;
	x.out = out;
	while (!ret && x.p < x.end)
		ret = step(&x);
	if (!ret && !x.done)
		ret = bad(&x, "it ends too early");
	return ret;
}
