/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * options.c - "-o key=value,..." lists (qemu-img-cli.md 3, options.md 1).
 * Knows types, defaults and qemu-img's sentences.  Refuses to know what an
 * option means: formats bring tables and judge values.
 */
#include "options.h"

#include <inttypes.h>

struct slot {
	const struct option_spec *spec;
	char *value;            /* as given, or NULL */
};

struct options {
	struct slot *slots;
	size_t n;
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static struct slot *find(const struct options *o, const char *name)
{
	for (size_t i = 0; i < o->n; i++)
		if (!strcmp(o->slots[i].spec->name, name))
			return &o->slots[i];
	return NULL;
}

/* A name that the format has already stays the format's. */
void options_add(struct options *o, const struct option_spec *spec)
{
	for (; spec && spec->name; spec++) {
		if (find(o, spec->name))
			continue;
		o->slots = must(reallocarray(o->slots, o->n + 1,
					     sizeof(*o->slots)));
		o->slots[o->n++] = (struct slot){ spec, NULL };
	}
}

struct options *options_new(const struct option_spec *format,
			    const struct option_spec *protocol)
{
	struct options *o = must(calloc(1, sizeof(*o)));

	options_add(o, format);
	options_add(o, protocol);
	return o;
}

struct options *options_copy(const struct options *o)
{
	struct options *c = must(calloc(1, sizeof(*c)));

	c->slots = must(calloc(o->n + 1, sizeof(*c->slots)));
	for (c->n = 0; c->n < o->n; c->n++) {
		const struct slot *s = &o->slots[c->n];

		c->slots[c->n].spec = s->spec;
		if (s->value)
			c->slots[c->n].value = must(strdup(s->value));
	}
	return c;
}

void options_free(struct options *o)
{
	if (!o)
		return;
	for (size_t i = 0; i < o->n; i++)
		free(o->slots[i].value);
	free(o->slots);
	free(o);
}

/* ---- lists --------------------------------------------------------------- */

int options_item(const char **p, char **key, char **value)
{
	struct strbuf sb = STRBUF_INIT;
	size_t n = strcspn(*p, "=,");

	if (!**p)
		return 0;
	*key = must(strndup(*p, n));
	*value = NULL;
	*p += n;
	if (**p != '=') {
		*p += **p == ',';
		return 1;
	}
	strbuf_puts(&sb, "");
	for ((*p)++; **p; (*p)++) {
		if (**p == ',' && *++(*p) != ',')
			break;
		strbuf_putc(&sb, **p);
	}
	*value = strbuf_take(&sb);
	return 1;
}

bool options_list_valid(const char *list)
{
	size_t len = strlen(list), commas = 0;

	while (commas < len && list[len - 1 - commas] == ',')
		commas++;
	return len && *list != ',' && commas % 2 == 0;
}

bool options_wants_help(const char *list)
{
	bool help = false;
	char *key, *value;

	while (!help && options_item(&list, &key, &value)) {
		help = !value && (!strcmp(key, "help") || !strcmp(key, "?"));
		free(key);
		free(value);
	}
	return help;
}

/* A bare word: "key" is on, "nokey" is off (so "nocow" asks for no "cow"). */
static int set_bare(struct options *o, const char *word, struct err *err)
{
	if (strncmp(word, "no", 2))
		return options_set(o, word, "on", err);
	return options_set(o, word + 2, "off", err);
}

int options_parse(struct options *o, const char *list, struct err *err)
{
	char *key, *value;
	int ret = 0;

	while (!ret && options_item(&list, &key, &value)) {
		if (!value)
			ret = set_bare(o, key, err);
		else if (strcmp(key, "id"))     /* names the list: no option */
			ret = options_set(o, key, value, err);
		free(key);
		free(value);
	}
	return ret;
}

/* ---- values -------------------------------------------------------------- */

static int check_bool(const char *name, const char *value, struct err *err)
{
	bool b;

	if (bool_parse(value, &b))
		return 0;
	return err_set(err, -EINVAL, "Parameter '%s' expects 'on' or 'off'",
		       name);
}

/* Decimal, 0x, 0-octal; negative numbers wrap, as strtoull() does. */
static int check_number(const char *name, const char *value, struct err *err)
{
	char *end;

	errno = 0;
	strtoull(value, &end, 0);
	if (errno == ERANGE)
		return err_set(err, -EINVAL, "Value '%s' is too large for "
			       "parameter '%s'", value, name);
	if (end == value || *end)
		return err_set(err, -EINVAL, "Parameter '%s' expects a number",
			       name);
	return 0;
}

/* Leaves the plain number in @value: "Formatting" prints that. */
static int check_size(const char *name, char **value, struct err *err)
{
	struct strbuf sb = STRBUF_INIT;
	uint64_t bytes;

	switch (size_parse(*value, &bytes)) {
	case SIZE_OK:
		break;
	case SIZE_RANGE:
		return err_set(err, -EINVAL, "Value '%s' is out of range for "
			       "parameter '%s'", *value, name);
	default:
		err_set(err, -EINVAL, "Parameter '%s' expects a non-negative "
			"number below 2^64", name);
		err_hint(err, SIZE_HINT);
		return -EINVAL;
	}
	strbuf_printf(&sb, "%" PRIu64, bytes);
	free(*value);
	*value = strbuf_take(&sb);
	return 0;
}

static int check_value(const struct option_spec *spec, char **value,
		       struct err *err)
{
	switch (spec->type) {
	case OPTION_BOOL:
		return check_bool(spec->name, *value, err);
	case OPTION_NUMBER:
		return check_number(spec->name, *value, err);
	case OPTION_SIZE:
		return check_size(spec->name, value, err);
	default:
		return 0;
	}
}

int options_set(struct options *o, const char *name, const char *value,
		struct err *err)
{
	struct slot *s = find(o, name);
	autofree char *copy = must(strdup(value));
	int ret;

	if (!s)
		return err_set(err, -EINVAL, "Invalid parameter '%s'", name);
	ret = check_value(s->spec, &copy, err);
	if (ret)
		return ret;
	free(s->value);
	s->value = copy;
	copy = NULL;
	return 0;
}

bool options_has(const struct options *o, const char *name)
{
	const struct slot *s = find(o, name);

	return s && s->value;
}

const char *options_str(const struct options *o, const char *name,
			const char *def)
{
	const struct slot *s = find(o, name);

	if (s && s->value)
		return s->value;
	return s && s->spec->def ? s->spec->def : def;
}

bool options_bool(const struct options *o, const char *name, bool def)
{
	const char *text = options_str(o, name, NULL);
	bool b = def;

	if (text)
		bool_parse(text, &b);
	return b;
}

uint64_t options_num(const struct options *o, const char *name, uint64_t def)
{
	const struct slot *s = find(o, name);
	const char *text = options_str(o, name, NULL);

	if (!text)
		return def;
	return strtoull(text, NULL, s->spec->type == OPTION_SIZE ? 10 : 0);
}

/* ---- printing ------------------------------------------------------------ */

static void print_string(struct strbuf *out, const char *text)
{
	for (; *text; text++) {
		strbuf_putc(out, *text);
		if (*text == ',')
			strbuf_putc(out, ',');
	}
}

void options_print(const struct options *o, struct strbuf *out)
{
	for (size_t i = 0; i < o->n; i++) {
		const struct option_spec *spec = o->slots[i].spec;
		const char *text = options_str(o, spec->name, NULL);

		if (!text)
			continue;
		strbuf_printf(out, " %s=", spec->name);
		if (spec->type == OPTION_SIZE || spec->type == OPTION_NUMBER)
			strbuf_printf(out, "%" PRId64, (int64_t)
				      options_num(o, spec->name, 0));
		else
			print_string(out, text);
	}
}

static int by_name(const void *a, const void *b)
{
	const struct slot *x = a, *y = b;

	return strcmp(x->spec->name, y->spec->name);
}

void options_help(const struct options *o, struct strbuf *out)
{
	static const char *const type[] = {
		[OPTION_STRING] = "str", [OPTION_BOOL] = "bool (on/off)",
		[OPTION_NUMBER] = "num", [OPTION_SIZE] = "size",
	};
	autofree struct slot *sorted = must(calloc(o->n + 1, sizeof(*sorted)));

	if (o->n)
		memcpy(sorted, o->slots, o->n * sizeof(*sorted));
	qsort(sorted, o->n, sizeof(*sorted), by_name);
	for (size_t i = 0; i < o->n; i++) {
		const struct option_spec *s = sorted[i].spec;
		autostrbuf key = STRBUF_INIT;

		strbuf_printf(&key, "%s=<%s>", s->name, type[s->type]);
		if (s->help)
			strbuf_printf(out, "  %-22s - %s\n", key.text, s->help);
		else
			strbuf_printf(out, "  %s\n", key.text);
	}
}
