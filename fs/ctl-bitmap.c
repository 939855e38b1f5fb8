/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-bitmap.c - `bitmap --add --remove --clear --enable --disable --merge`, in
 * the order given, as `imgctl bitmap` has it; what was done before a failing
 * one stays.  -b names another image to merge from, which is opened for as long
 * as that takes.
 */
#include "fs/ctl.h"

#include "bitmap.h"

enum { ADD = 256, REMOVE, CLEAR, ENABLE, DISABLE, MERGE };

static const struct ctl_option options[] = {
	{ ADD, "add", false }, { REMOVE, "remove", false },
	{ CLEAR, "clear", false }, { ENABLE, "enable", false },
	{ DISABLE, "disable", false }, { MERGE, "merge", true },
	{ 'g', "granularity", true }, { 'b', "source-file", true },
	{ 'F', "source-format", true }, { 0, NULL, false },
};

struct action {
	int what;
	const char *source;     /* MERGE: the other bitmap */
};

struct actions {
	struct action *list;
	size_t n;
	uint64_t granularity;
	const char *file, *format;      /* -b, -F */
	bool add, merge;
};

static int take_option(struct actions *a, int id, const char *arg,
		       struct err *err)
{
	if (id == 'g')
		return size_parse(arg, &a->granularity) == SIZE_OK ? 0 :
		       err_set(err, -EINVAL, "Invalid granularity specified");
	if (id == 'b' || id == 'F') {
		*(id == 'b' ? &a->file : &a->format) = arg;
		return 0;
	}
	a->list[a->n++] = (struct action) { id, arg };
	a->add |= id == ADD;
	a->merge |= id == MERGE;
	return 0;
}

/* What does not go together, in QEMU's order. */
static const char *conflict(const struct ctl_call *c, const struct actions *a)
{
	if (!a->n)
		return "Need at least one of --add, --remove, --clear,"
		       " --enable, --disable, or --merge";
	if (a->granularity && !a->add)
		return "granularity only supported with --add";
	if (a->format && !a->file)
		return "-F only supported with -b";
	if (a->file && !a->merge)
		return "Merge bitmap source file only supported with --merge";
	return c->nr_operands == 1 ? NULL : "Expecting a bitmap name";
}

static int parse(struct ctl_call *c, struct actions *a, struct err *err)
{
	const char *arg, *wrong;
	int id, ret = 0;

	while (!ret && (id = ctl_next(c, options, &arg, err)) > 0)
		ret = take_option(a, id, arg, err);
	if (ret || id < 0)
		return ret ? ret : id;
	wrong = conflict(c, a);
	return wrong ? err_set(err, -EINVAL, "%s", wrong) : 0;
}

static int act(struct image *img, const struct actions *a,
	       const struct action *one, struct image *other, const char *name,
	       struct err *err)
{
	switch (one->what) {
	case ADD:
		return bitmap_add(img, name, a->granularity, err);
	case REMOVE:
		return bitmap_remove(img, name, err);
	case CLEAR:
		return bitmap_clear(img, name, err);
	case MERGE:
		return bitmap_merge(img, name, other ? other : img, one->source,
				    err);
	default:
		return bitmap_enable(img, name, one->what == ENABLE, err);
	}
}

int ctl_bitmap(struct ctl_call *c, struct err *err)
{
	autofree struct action *list = calloc((size_t)c->argc + 1,
					      sizeof(*list));
	struct actions a = { .list = list };
	struct image *other = NULL;
	int ret = list ? parse(c, &a, err) : -ENOMEM;

	if (!ret)
		ret = ctl_change(c, err);
	if (!ret && a.file)
		ret = ctl_open_image(c, a.file, a.format, IMAGE_NO_BACKING,
				     &other, err);
	for (size_t i = 0; i < a.n && !ret; i++)
		ret = act(c->img, &a, &a.list[i], other, c->operands[0], err);
	image_close(other);
	return ret;
}
