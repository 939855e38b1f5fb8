/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * admin.c - changes of a whole image as the engine sees them: the mark before
 * (rule 12), durability afterwards, and what the image remembers.
 *
 * Refuses to know how a format makes them.
 */
#include "engine-int.h"

void image_keep_string(struct image *img, char *old)
{
	struct engine *e = img->eng;
	char **grown;
	with_lock(&e->strings_lock);

	if (!old)
		return;
	grown = realloc(e->strings, (e->nr_strings + 1) * sizeof(*grown));
	if (!grown)             /* it is lost, nothing else */
		return;
	e->strings = grown;
	e->strings[e->nr_strings++] = old;
}

static int copy(const char *text, char **out)
{
	*out = text ? strdup(text) : NULL;
	return text && !*out ? -ENOMEM : 0;
}

int image_change_backing(struct image *img, const char *name,
			 const char *format, struct err *err)
{
	const struct format_admin *admin = img->fmt->admin;
	char *new_name = NULL, *new_fmt = NULL;
	int ret;

	if (!admin || !admin->change_backing)
		return -ENOTSUP;
	ret = copy(name, &new_name);
	if (!ret)
		ret = copy(name ? format : NULL, &new_fmt);
	if (!ret)
		ret = engine_begin(img->eng);
	if (!ret)
		ret = admin->change_backing(img, name, format, err);
	if (!ret)
		ret = image_flush(img);
	if (ret) {
		free(new_name);
		free(new_fmt);
		return ret;
	}
	image_keep_string(img, img->backing_name);
	image_keep_string(img, img->backing_fmt);
	img->backing_name = new_name;
	img->backing_fmt = new_fmt;
	return 0;
}
