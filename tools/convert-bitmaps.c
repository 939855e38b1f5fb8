/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert-bitmaps.c - `imgctl convert --bitmaps`: the dirty bitmaps of the
 * source's top layer, with granularity and state, into the target.
 *
 * The last one of the file comes first, as QEMU has it: that decides which one
 * an error names.  They are added in the order of the file.
 */
#include "convert.h"
#include "bitmap.h"

static bool can_have(const struct image *img)
{
	return img->fmt->bitmaps && !img->fmt->bitmaps->never(img);
}

static bool fail(struct err *err, int ret)
{
	err_set(err, ret, "%s", strerror(-ret));
	say_err(err);
	return false;
}

static bool refuse_broken(const struct bitmap_info *b)
{
	autoerr err = ERR_INIT;

	err_set(&err, -EINVAL, "Cannot copy inconsistent bitmap '%s'", b->name);
	err_hint(&err, "Try --skip-broken-bitmaps, or use 'qemu-img bitmap"
		 " --remove' to delete it\n");
	say_err(&err);
	return false;
}

bool bitmaps_prepare(struct convert_cmd *c)
{
	autoerr err = ERR_INIT;
	int ret;

	if (!c->bitmaps)
		return true;
	if (c->nr_sources > 1) {
		say_error("Copying bitmaps only possible with single source");
		return false;
	}
	if (!can_have(c->src[0])) {
		say_error("Source lacks bitmap support");
		return false;
	}
	ret = bitmap_list(c->src[0], &c->list, &c->nr_list, &err);
	if (ret)
		return fail(&err, ret);
	for (size_t i = c->nr_list; i-- > 0;)
		if (c->list[i].inconsistent && !c->skip_broken)
			return refuse_broken(&c->list[i]);
	return true;
}

bool bitmaps_target_fits(const struct convert_cmd *c)
{
	if (!c->bitmaps || can_have(c->dst))
		return true;
	say_error("Format driver '%s' does not support bitmaps",
		  c->dst->fmt->name);
	return false;
}

static bool is_there(const struct bitmap_info *list, size_t n,
		     const char *name)
{
	while (n--)
		if (!strcmp(list[n].name, name))
			return true;
	return false;
}

/* Before one is made.  Says what is left out. */
static int check(const struct convert_cmd *c, struct err *err)
{
	struct bitmap_info *there;
	size_t n;
	int ret = bitmap_list(c->dst, &there, &n, err);

	if (ret)
		return ret;
	for (size_t i = c->nr_list; i-- > 0 && !ret;) {
		const char *name = c->list[i].name;

		if (c->list[i].inconsistent)
			say_warning("Skipping inconsistent bitmap '%s'", name);
		else if (is_there(there, n, name))
			ret = err_set(err, -EEXIST, "Failed to create bitmap"
				      " %s: Bitmap already exists: %s", name,
				      name);
	}
	bitmap_list_free(there, n);
	return ret;
}

static int copy_one(const struct convert_cmd *c, const struct bitmap_info *b,
		    struct err *err)
{
	int ret = bitmap_add(c->dst, b->name, b->granularity, err);

	if (ret) {
		err_prefix(err, "Failed to create bitmap %s: ", b->name);
		return ret;
	}
	ret = bitmap_merge(c->dst, b->name, c->src[0], b->name, err);
	if (!ret && !b->enabled)
		ret = bitmap_enable(c->dst, b->name, false, err);
	if (ret) {
		err_prefix(err, "Failed to populate bitmap %s: ", b->name);
		(void)bitmap_remove(c->dst, b->name, NULL);
	}
	return ret;
}

int bitmaps_copy(struct convert_cmd *c)
{
	autoerr err = ERR_INIT;
	bool same_size;
	int ret;

	if (!c->bitmaps)
		return 0;
	same_size = image_size(c->dst) == image_size(c->src[0]);
	ret = check(c, &err);
	for (size_t i = 0; i < c->nr_list && !ret; i++) {
		/* The first that fails is the last one, then. */
		size_t k = same_size ? i : c->nr_list - 1 - i;

		if (!c->list[k].inconsistent)
			ret = copy_one(c, &c->list[k], &err);
	}
	if (ret)
		fail(&err, ret);
	return ret;
}
