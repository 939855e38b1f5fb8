/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image-open.c - from a tree of nodes to an open image: the files, the format
 * (probed or given), the locks, then the format's own open.
 *
 * Nothing that is read from a file is trusted before the file is locked: what
 * probing read is only used to choose a format, which reads it again.
 */
#include "image.h"

#include <sys/stat.h>

#define NESTED_MAX 16           /* nodes below nodes in one image */

/* ---- files -------------------------------------------------------------------- */

static unsigned cache_flags(enum cache_mode cache)
{
	switch (cache) {
	case CACHE_NONE:
	case CACHE_DIRECTSYNC:
		return FILE_DIRECT;
	case CACHE_UNSAFE:
		return FILE_NO_FLUSH;
	default:
		return 0;
	}
}

static unsigned flag_if(bool on, unsigned flag)
{
	return on ? flag : 0;
}

unsigned image_file_flags(unsigned flags, enum cache_mode cache,
			  const struct json *node)
{
	unsigned mode = cache_flags(cache);

	return flag_if(flags & IMAGE_RDWR, FILE_RDWR) |
	       flag_if(flags & IMAGE_RDWR_LATER, FILE_RDWR_TRY) |
	       flag_if(flags & IMAGE_NO_LOCK, FILE_NO_LOCK) |
	       flag_if(spec_bool(node, "cache.direct", mode & FILE_DIRECT),
		       FILE_DIRECT) |
	       flag_if(spec_bool(node, "cache.no-flush", mode & FILE_NO_FLUSH),
		       FILE_NO_FLUSH);
}

/* The kind of file that is there, when the node does not say. */
static const char *driver_of(const char *path)
{
	struct stat st;

	if (!stat(path, &st) && (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode)))
		return "host_device";
	return "file";
}

int image_open_protocol(struct json *node, unsigned flags,
			const struct policy *policy, struct file **f,
			struct err *err)
{
	const unsigned mode = FILE_DIRECT | FILE_NO_FLUSH;
	const char *name = json_get_str(node, "filename");
	int ret = spec_check(node, SPEC_FLAGS, NULL, false, err);

	if (!ret)
		ret = spec_check(node, SPEC_VALUES, NULL, false, err);
	if (ret)
		return ret;
	/* A name under a policy is not looked at before it is allowed. */
	if (name && !json_get_str(node, "driver"))
		json_set_take(node, "driver", json_string(
			policy ? "file" : driver_of(name)));
	flags = (flags & ~mode) |
		flag_if(spec_bool(node, "cache.direct", flags & FILE_DIRECT),
			FILE_DIRECT) |
		flag_if(spec_bool(node, "cache.no-flush",
				  flags & FILE_NO_FLUSH), FILE_NO_FLUSH);
	return file_open(node, flags, policy, f, err);
}

/* ---- the node below --------------------------------------------------------------- */

static bool has_prefix(const struct json *node, const char *prefix)
{
	for (size_t i = 0; i < node->n; i++)
		if (!strncmp(node->keys[i], prefix, strlen(prefix)))
			return true;
	return false;
}

static int no_file(const struct json *node, struct err *err)
{
	const char *name = json_get_str(node, "file");

	if (name && has_prefix(node, "file."))
		return err_set(err, -EINVAL, "Cannot reference an existing"
			       " block device with additional options or a new"
			       " filename");
	if (name)
		return err_set(err, -ENODEV, "Cannot find device='%s' nor"
			       " node-name='%s'", name, name);
	if (json_get_str(node, "driver"))
		return err_set(err, -EINVAL, "A block device must be specified"
			       " for \"file\"");
	return err_set(err, -EINVAL, "Must specify either driver or file");
}

/* A format as the file of another one. */
static int open_inner(const struct opening *op, struct image *img,
		      const struct json *node, struct file **f, struct err *err)
{
	struct opening inner = *op;
	struct image *file;
	int ret;

	if (op->nested >= NESTED_MAX)
		return err_set(err, -ELOOP, "Too many nodes in one image");
	inner.nested++;
	inner.flags &= ~(unsigned)(IMAGE_CHECK | IMAGE_REPAIR |
				   IMAGE_NO_BACKING);
	if (!img->fmt || !img->fmt->probed_guard)
		inner.flags |= IMAGE_INNER;
	ret = image_open_node(&inner, node, &file, err);
	if (ret)
		return ret;
	/* With the drivers that were found. */
	json_set_take(img->node, "file", json_copy(file->node));
	return file_from_image_take(file, f, err);
}

static int open_file(const struct opening *op, struct image *img,
		     struct err *err)
{
	struct json *node = json_get(img->node, "file");
	unsigned flags = image_file_flags(op->flags, op->args->cache,
					  img->node);
	const char *driver;

	if (!node || node->type != JSON_OBJECT || !node->n)
		return no_file(img->node, err);
	driver = json_get_str(node, "driver");
	if (!driver && !json_get_str(node, "filename"))
		return err_set(err, -EINVAL,
			       "Must specify either driver or file");
	if (!driver || spec_is_protocol(driver))
		return image_open_protocol(node, flags, op->self, &img->file,
					   err);
	return open_inner(op, img, node, &img->file, err);
}

/* ---- the format --------------------------------------------------------------------- */

static int probe_file(struct file *f, const struct format **fmt,
		      struct err *err)
{
	unsigned char head[SECTOR_SIZE], tail[SECTOR_SIZE];
	struct probe p = { .name = f->name, .head = head,
			   .head_len = sizeof(head) };
	int ret = file_size(f, &p.size);

	if (!ret)
		ret = file_read(f, head, sizeof(head), 0);
	if (!ret && p.size >= sizeof(tail)) {
		ret = file_read(f, tail, sizeof(tail), p.size - sizeof(tail));
		p.tail = tail;
	}
	if (ret)
		return err_errno(err, ret, "Could not read image for"
				 " determining its format");
	*fmt = probe_format(&p);
	return 0;
}

/* raw.md: a guest could turn its raw disk into an image of another format. */
static void warn_guard(const struct image *img)
{
	log_line("WARNING: Image format was not specified for '%s' and probing"
		 " guessed raw.", img->file->name);
	log_line("         Automatically detecting the format is dangerous for"
		 " raw images, write operations on block 0 will be"
		 " restricted.");
	log_line("         Specify the 'raw' format explicitly to remove the"
		 " restrictions.");
}

static int choose_format(struct image *img, struct err *err)
{
	int ret;

	if (img->fmt)
		return 0;
	ret = probe_file(img->file, &img->fmt, err);
	if (ret)
		return ret;
	img->probed = true;
	json_set_take(img->node, "driver", json_string(img->fmt->name));
	if (img->want_write && img->fmt->probed_guard)
		warn_guard(img);
	return 0;
}

/* The name of the driver that options belong to. */
static const char *driver_name(const struct image *img)
{
	const char *driver = json_get_str(img->node, "driver");

	return spec_is_protocol(driver) ? driver : img->fmt->name;
}

static int format_open(struct image *img, struct err *err)
{
	const char *driver = driver_name(img);
	bool backing = img->fmt->supports_backing &&
		       !(img->flags & IMAGE_NO_BACKING);
	bool bare = spec_is_protocol(driver);
	int ret = bare ? 0 : spec_check(img->node, SPEC_VALUES, driver, backing,
					err);

	if (ret)
		return ret;
	img->priv = calloc(1, img->fmt->priv_size + 1);
	img->eng = engine_new(img);
	if (!img->priv || !img->eng)
		return -ENOMEM;
	ret = img->fmt->open(img, err);
	if (ret) {
		free(img->priv);
		img->priv = NULL;
		return ret;
	}
	if (!img->piece)
		img->piece = img->unit;
	ret = bare ? 0 : spec_check(img->node, SPEC_DRIVER, driver, backing,
				    err);
	if (!ret && !bare)
		ret = spec_check(img->node, SPEC_UNKNOWN, driver, backing, err);
	return ret;
}

/* ---- all together ----------------------------------------------------------------------- */

/* img->file is there: what is left of opening. */
static int open_on_file(const struct opening *op, struct image *img,
			struct err *err)
{
	int ret = choose_format(img, err);

	if (ret)
		return ret;
	img->name = img->node && json_get(img->node, "file") ?
		    spec_name(img->node) : strdup(img->file->name);
	ret = image_check_loop(op, img, err);
	if (!ret)
		ret = image_lock(img, img->want_write, err);
	if (!ret)
		ret = format_open(img, err);
	if (ret)
		return ret;
	img->writable = img->want_write;
	img->live = (struct view) { .img = img, .size = image_size(img) };
	ret = img->writable ? bitmaps_begin(img, err) : 0;
	return ret ? ret : image_open_backing(op, img, err);
}

static struct image *image_new(const struct opening *op,
			       const struct json *node)
{
	struct image *img = calloc(1, sizeof(*img));

	if (!img)
		return NULL;
	img->flags = op->flags;
	img->cache = op->args->cache;
	img->policy = op->args->policy;
	img->want_write = op->flags & IMAGE_RDWR;
	img->node = node ? json_copy(node) : json_object();
	return img;
}

/* What @node says about the format; img->fmt stays NULL to probe. */
static int take_driver(struct image *img, struct err *err)
{
	const char *driver = json_get_str(img->node, "driver");

	if (!driver)
		return 0;
	img->fmt = format_find(spec_is_protocol(driver) ? "raw" : driver);
	return img->fmt ? 0 : err_set(err, -EINVAL, "Unknown driver '%s'",
				      driver);
}

/* Options that say how to open, and may contradict what is wanted. */
static int take_flags(struct image *img, struct err *err)
{
	int ret = spec_check(img->node, SPEC_FLAGS, NULL, false, err);

	if (ret)
		return ret;
	if (spec_bool(img->node, "force-share", false))
		img->flags |= IMAGE_SHARE;
	if (!(img->flags & IMAGE_RDWR))
		return 0;
	if (img->flags & IMAGE_SHARE)
		return err_set(err, -EINVAL, "force-share=on can only be used"
			       " with read-only images");
	if (spec_bool(img->node, "read-only", false))
		return err_set(err, -EROFS, "Block node is read-only");
	return 0;
}

int image_open_node(const struct opening *op, const struct json *node,
		    struct image **out, struct err *err)
{
	struct image *img = image_new(op, node);
	const char *driver;
	int ret;

	if (!img)
		return -ENOMEM;
	driver = json_get_str(img->node, "driver");
	ret = take_driver(img, err);
	if (!ret)
		ret = take_flags(img, err);
	if (ret)
		goto fail;
	if (spec_is_protocol(driver))
		ret = image_open_protocol(img->node, image_file_flags(
			op->flags, op->args->cache, img->node), op->self,
			&img->file, err);
	else
		ret = open_file(op, img, err);
	if (!ret)
		ret = open_on_file(op, img, err);
	if (ret)
		goto fail;
	*out = img;
	return 0;
fail:
	image_free(img);
	return ret;
}

int image_open(const struct image_args *args, struct image **img,
	       struct err *err)
{
	bool endless = false;
	struct opening op = { .args = args, .flags = args->flags,
			      .self = args->self_policy, .endless = &endless };

	return image_open_node(&op, args->node, img, err);
}

int image_open_file(struct file *file, const struct image_args *args,
		    struct image **out, struct err *err)
{
	bool endless = false;
	struct opening op = { .args = args, .flags = args->flags,
			      .self = args->self_policy, .endless = &endless };
	struct image *img = image_new(&op, args->node);
	int ret;

	if (!img)
		return -ENOMEM;
	ret = take_driver(img, err);
	if (!ret)
		ret = take_flags(img, err);
	if (!ret) {
		img->file = file_ref(file);
		ret = open_on_file(&op, img, err);
	}
	if (ret)
		image_free(img);
	else
		*out = img;
	return ret;
}

int image_open_name(const char *name, bool image_opts, const char *format,
		    unsigned flags, enum cache_mode cache,
		    struct image **img, struct err *err)
{
	struct image_args args = { .flags = flags, .cache = cache };
	autojson *node = NULL;
	int ret;

	ret = spec_parse(name, image_opts ? SPEC_IMAGE_OPTS : SPEC_NAME, format,
			 &node, err);
	args.node = node;
	return ret ? ret : image_open(&args, img, err);
}
