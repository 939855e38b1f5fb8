/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * amend.c - the options of `amend`, with qemu-img's refusals; the format does
 * the rest.
 */
#include "amend.h"
#include "engine-int.h"

static int unsupported(const char *format, struct err *err)
{
	return err_set(err, -EOPNOTSUPP, "Format driver '%s' does not support"
		       " option amendment", format);
}

static bool can(const struct format *fmt)
{
	return fmt->admin && fmt->admin->amend;
}

int amend_help(const char *format, struct strbuf *out, struct err *err)
{
	const struct format *fmt = format_find(format);
	struct options *o;

	if (!fmt)
		return err_set(err, -EINVAL, "Unknown file format '%s'",
			       format);
	if (!can(fmt))
		return unsupported(format, err);
	o = options_new(fmt->admin->amend_options, NULL);
	if (!o)
		return -ENOMEM;
	strbuf_printf(out, "Amend options for '%s':\n", format);
	options_help(o, out);
	options_free(o);
	return 0;
}

static bool named(const struct option_spec *table, const char *name, size_t n)
{
	for (; table && table->name; table++)
		if (!strncmp(table->name, name, n) && !table->name[n])
			return true;
	return false;
}

/* An option that exists, but only for what is new. */
static void hint_create(const struct format *fmt, const char *list,
			struct err *err)
{
	const char *p = list;
	char *key, *value;

	while (options_item(&p, &key, &value)) {
		if (!named(fmt->admin->amend_options, key, strlen(key)) &&
		    (named(fmt->admin->create_options, key, strlen(key)) ||
		     named(protocol_create_options, key, strlen(key))))
			err_hint(err, "This option is only supported for image"
				 " creation\n");
		free(key);
		free(value);
	}
}

int amend_run(struct image *img, const char *const *lists, size_t n,
	      struct progress *p, struct err *err)
{
	const struct format *fmt = img->fmt;
	struct options *o;
	int ret = 0;

	if (!can(fmt))
		return unsupported(fmt->name, err);
	o = options_new(fmt->admin->amend_options, NULL);
	if (!o)
		return -ENOMEM;
	for (size_t i = 0; i < n && !ret; i++) {
		ret = options_parse(o, lists[i], err);
		if (ret)
			hint_create(fmt, lists[i], err);
	}
	if (!ret)
		ret = engine_begin(img->eng);
	if (!ret)
		ret = fmt->admin->amend(img, o, p, err);
	if (!ret)
		ret = image_flush(img);
	options_free(o);
	return ret ? err_errno(err, ret, "Could not amend the image") : 0;
}
