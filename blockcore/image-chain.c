/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image-chain.c - the only two ways from an image to a second file: its
 * backing file, and child_open() for extents and data files.
 *
 * Names found inside an image are an attacker's: every one of them is opened
 * under img->policy, whatever its form.
 */
#include "image.h"
#include "engine.h"

/* ---- loops -------------------------------------------------------------------- */

static bool same_file(struct file *a, struct file *b)
{
	struct stat x, y;

	return !file_stat(a, &x) && !file_stat(b, &y) &&
	       x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool file_is(struct file *f, const struct stat *st)
{
	const struct image *below = image_of_file(f);
	struct stat now;

	if (below)
		return image_reads(below, st);
	return !file_stat(f, &now) && now.st_dev == st->st_dev &&
	       now.st_ino == st->st_ino;
}

bool image_reads(const struct image *img, const struct stat *st)
{
	for (; img; img = img->backing) {
		if (img->file && file_is(img->file, st))
			return true;
		for (unsigned i = 0; i < img->nr_children; i++)
			if (file_is(img->children[i].file, st))
				return true;
	}
	return false;
}

int image_check_loop(const struct opening *op, const struct image *img,
		     struct err *err)
{
	/* A format below this one is no layer of the chain. */
	if (op->nested)
		return 0;
	/* Without a backing file the chain ends here. */
	for (const struct opening *o = op; o->above; o = o->up)
		if (img->fmt->supports_backing && o->above->fmt == img->fmt &&
		    same_file(o->above->file, img->file)) {
			*op->endless = true;
			return err_set(err, -ELOOP, "Backing file '%s' creates"
				       " an infinite loop.", img->name);
		}
	if (op->depth < CHAIN_MAX)
		return 0;
	*op->endless = true;
	return err_set(err, -ELOOP, "Backing chain is deeper than %d images",
		       CHAIN_MAX);
}

/* ---- the backing file --------------------------------------------------------------- */

/* The file name that relative names in @img start from. */
static const char *base_name(const struct image *img)
{
	const char *name = spec_file(img->node);

	return name ? name : img->file->name;
}

static void overlay(struct json *node, const struct json *over)
{
	for (size_t i = 0; i < over->n; i++)
		json_set_take(node, over->keys[i], json_copy(over->items[i]));
}

/*
 * The backing file's node: what the image says, then what its own node says
 * about "backing".  *node stays NULL where there is none.
 */
static int backing_node(const struct image *img, struct json **node,
			struct err *err)
{
	const struct json *over = json_get(img->node, "backing");
	const char *ref = json_get_str(img->node, "backing");
	bool options = over && over->type == JSON_OBJECT && over->n;
	const char *stored = img->backing_name;
	int ret = 0;

	if (over && (over->type == JSON_NULL || (ref && !*ref)))
		return 0;
	if (ref)
		return err_set(err, -ENODEV, "Cannot find device='%s' nor"
			       " node-name='%s'", ref, ref);
	if (!stored && !options)
		return 0;
	if (stored && !(options && json_get(over, "file")))
		ret = spec_parse_child(stored, base_name(img),
				       img->backing_fmt, node, err);
	else
		*node = json_object();
	if (ret || !options)
		return ret;
	if (img->backing_fmt && !json_get(*node, "driver"))
		json_set_take(*node, "driver", json_string(img->backing_fmt));
	overlay(*node, over);
	return 0;
}

static int open_node_below(const struct opening *op, struct image *img,
			   const struct json *node, struct err *err)
{
	const unsigned own = IMAGE_RDWR | IMAGE_RDWR_LATER | IMAGE_CHECK |
			     IMAGE_REPAIR | IMAGE_ALONE | IMAGE_DISCARD |
			     IMAGE_RESIZE | IMAGE_INNER;
	struct opening below = {
		.args = op->args,
		.flags = op->flags & ~own,
		.self = op->args->policy,
		.above = img,
		.up = op,
		.depth = op->depth + 1,
		.endless = op->endless,
	};
	int ret = image_open_node(&below, node, &img->backing, err);

	if (ret && err && !err->code) {
		autofree char *name = spec_name(node);

		err_errno(err, ret, "Could not open '%s'", name);
	}
	return ret;
}

int image_open_backing(const struct opening *op, struct image *img,
		       struct err *err)
{
	const char *ref = json_get_str(img->node, "backing");
	autojson *node = NULL;
	int ret;

	if (!img->fmt->supports_backing)
		return 0;
	if (ref && !*ref)
		warn("Use of \"backing\": \"\" is deprecated; use"
		     " \"backing\": null instead");
	if (img->flags & IMAGE_NO_BACKING)
		return 0;
	ret = backing_node(img, &node, err);
	if (!ret && node)
		ret = open_node_below(op, img, node, err);
	if (ret && !*op->endless)
		err_prefix(err, "Could not open backing file: ");
	return ret;
}

/* ---- extents, data files -------------------------------------------------------------- */

/* @name as a protocol node: an extent is bytes, not an image. */
static int child_node(const struct image *img, const char *name,
		      struct json **node, struct err *err)
{
	autojson *top = NULL;
	const struct json *file;
	int ret = spec_parse_child(name, base_name(img), NULL, &top, err);

	if (ret)
		return ret;
	file = json_get_str(top, "driver") ? top : json_get(top, "file");
	if (!file || file->type != JSON_OBJECT ||
	    (json_get_str(file, "driver") &&
	     !spec_is_protocol(json_get_str(file, "driver"))))
		return err_set(err, -ENOTSUP, "'%s' is not the name of a file",
			       name);
	*node = json_copy(file);
	return 0;
}

static int child_add(struct image *img, const char *role, struct file *f)
{
	size_t n = img->nr_children;
	struct child *grown = reallocarray(img->children, n + 1,
					   sizeof(*grown));
	uint64_t bytes = 0;

	if (!grown)
		return -ENOMEM;
	img->children = grown;
	(void)file_size(f, &bytes);
	grown[n] = (struct child) { .role = strdup(role), .file = f,
				    .bytes = bytes };
	if (!grown[n].role)
		return -ENOMEM;
	img->nr_children++;
	return 0;
}

int child_open(struct image *img, const char *role, const char *name,
	       unsigned file_flags, struct file **out, struct err *err)
{
	unsigned flags = image_file_flags(img->flags, img->cache, img->node);
	autojson *node = NULL;
	struct file *f;
	int ret = child_node(img, name, &node, err);

	if (!ret && knobs.child)
		f = knobs.child(name);
	else if (!ret)
		ret = image_open_protocol(node, flags | file_flags,
					  img->policy, &f, err);
	if (ret)
		return ret;
	ret = child_add(img, role, f);
	if (ret) {
		file_unref(f);
		return ret;
	}
	ret = image_lock(img, img->want_write, err);
	if (!ret)
		*out = file_ref(f);
	return ret;
}
