/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * create.c - makes new image files; see create.h.
 *
 * Knows the order of things: every option is checked, the backing file is
 * looked at, the target and a file beside it are opened and locked, and only
 * then is one of them emptied.
 * Refuses to know what an image of some format looks like: admin->create does.
 */
#include "create.h"

#include "spec.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

/* ---- options ------------------------------------------------------------------- */

/* Can a file be made at @target?  Only plain names and "file:" can. */
static int target_check(const char *target, struct err *err)
{
	autojson *node = NULL;
	int n = (int)strcspn(target, ":");
	int ret;

	if (!strncmp(target, "file:", 5) || !spec_has_protocol(target))
		return 0;
	if (!strncmp(target, "json:", 5))
		return err_set(err, -EINVAL, "Unknown protocol 'json'");
	ret = spec_parse(target, SPEC_NAME, "raw", &node, err);
	if (ret)
		return ret;
	return err_set(err, -ENOTSUP, "Protocol driver '%.*s' does not support"
		       " image creation", n, target);
}

static bool same_file(const char *a, const char *b)
{
	struct stat sa, sb;

	if (!strcmp(a, b))
		return true;
	return !stat(a, &sa) && !stat(b, &sb) && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

/* The path behind an optional "file:". */
static const char *target_path(const char *target)
{
	return strncmp(target, "file:", 5) ? target : target + 5;
}

int create_options(const char *format, const char *target,
		   const struct format **fmt, struct options **o,
		   struct err *err)
{
	bool plain = !strcmp(format, "file");
	const struct format *f = format_find(plain ? "raw" : format);
	int ret;

	if (!f)
		return err_set(err, -EINVAL, "Unknown file format '%s'",
			       format);
	ret = target ? target_check(target, err) : 0;
	if (ret)
		return ret;
	if (!f->admin || !f->admin->create)
		return err_set(err, -ENOTSUP, "Format driver '%s' does not"
			       " support image creation", format);
	*fmt = f;
	*o = options_new(plain ? NULL : f->admin->create_options,
			 target || plain ? protocol_create_options : NULL);
	return 0;
}

int create_help(const char *format, const char *target,
		const struct option_spec *more, struct strbuf *out,
		struct err *err)
{
	const struct format *fmt;
	struct options *o;
	int ret = create_options(format, target, &fmt, &o, err);

	if (ret)
		return ret;
	if (more)
		options_add(o, more);
	if (target)
		strbuf_puts(out, "Supported options:\n");
	else
		strbuf_printf(out, "Supported %s options:\n", format);
	options_help(o, out);
	if (!target)
		strbuf_puts(out, "\nThe protocol level may support further"
			    " options.\nSpecify the target filename to include"
			    " those options.\n");
	options_free(o);
	return 0;
}

/* ---- the target ------------------------------------------------------------------ */

/*
 * Opens the target without changing it.  A FIFO or the like is refused as
 * qemu-img refuses it, but without hanging on it.
 */
static int target_open(const char *target, struct file **f, bool *created,
		       struct err *err)
{
	const char *path = target_path(target);
	unsigned flags = FILE_RDWR | FILE_CREATE;
	struct stat st;
	int ret;

	if (!stat(path, &st) && S_ISCHR(st.st_mode))
		return err_set(err, -EINVAL, "Cannot grow device files");
	if (!stat(path, &st) && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode) &&
	    !S_ISDIR(st.st_mode))
		return err_errno(err, -EINVAL, "Could not resize file");
	*created = true;
	ret = file_open_path(path, flags | FILE_EXCL, NULL, f, NULL);
	if (ret == -EEXIST || ret == -EISDIR) {
		*created = false;
		ret = file_open_path(path, flags, NULL, f, NULL);
	}
	if (ret && !stat(path, &st) && S_ISDIR(st.st_mode))
		ret = -EISDIR;
	return ret ? err_errno(err, ret, "Could not create '%s'", path) : 0;
}

/*
 * locking.md: while the file is emptied 101, 103 / 203.  But first nobody may
 * be writing to it: raw would share that, and its disk would be gone.
 */
static int target_lock(struct file *f, struct err *err)
{
	const unsigned used = PERM_WRITE | PERM_RESIZE;
	int ret = file_lock(f, used, used, err);

	return ret ? ret : file_lock(f, used, PERM_RESIZE, err);
}

/* A file that cannot become as large as a raw image has to be keeps what is in
 * it: found out before it is emptied. */
static int size_try(const struct image_create *c, struct file *f,
		    const struct stat *st, struct err *err)
{
	int ret;

	if (!c->fmt->probed_guard || c->size <= (uint64_t)st->st_size)
		return 0;
	ret = file_truncate(f, c->size);
	if (ret == -EFBIG)
		return err_set(err, ret, "The image size is too large for file"
			       " format '%s'", c->fmt->name);
	return ret ? err_errno(err, ret, "Could not resize file") : 0;
}

/* A device keeps its size; a file starts empty. */
static int target_empty(const struct image_create *c, struct file *f,
			const struct stat *st, struct err *err)
{
	uint64_t have;
	int ret;

	if (S_ISBLK(st->st_mode)) {
		ret = file_size(f, &have);
		if (!ret && have < c->size)
			return err_set(err, -EFBIG, "Cannot grow device"
				       " files");
		return ret ? err_errno(err, ret, "Could not get the size of"
				       " the device") : 0;
	}
	ret = size_try(c, f, st, err);
	if (!ret) {
		ret = file_truncate(f, 0);
		if (ret)
			err_errno(err, ret, "Could not resize file");
	}
	if (ret)
		return ret;
	protocol_apply(target_path(c->target), c->options);
	return 0;
}

static int target_fill(const struct image_create *c, struct file *f,
		       struct file *beside, struct err *err)
{
	const struct format_admin *admin = c->fmt->admin;

	return beside ? admin->create_with(f, beside, c->options, c->size,
					   err) :
			admin->create(f, c->options, c->size, err);
}

static int target_write(const struct image_create *c, struct file *f,
			struct file *beside, const struct stat *st,
			struct err *err)
{
	const unsigned used = PERM_WRITE | PERM_RESIZE;
	bool raw = c->fmt->probed_guard;
	int ret;

	pause_point("create-truncate");
	ret = target_empty(c, f, st, err);
	if (!ret)
		ret = file_lock(f, used, raw ? PERM_RESIZE : used, err);
	if (ret)
		return ret;
	pause_point("create-write");
	ret = target_fill(c, f, beside, err);
	if (ret && err && !err->code)
		err_errno(err, ret, "Could not create image");
	if (!ret && !c->unsafe) {
		ret = file_sync(f);
		if (ret)
			err_errno(err, ret, "Could not flush the new image");
	}
	return ret;
}

/* Only what this call made, and only if the name still leads to it. */
static void target_remove(const char *path, const struct stat *st)
{
	struct stat now;

	if (!lstat(path, &now) && now.st_dev == st->st_dev &&
	    now.st_ino == st->st_ino)
		unlink(path);
}

/* The file beside it is open before anything is emptied. */
static int target_write_both(const struct image_create *c, struct file *f,
			     const struct stat *st, struct err *err)
{
	const struct format_admin *admin = c->fmt->admin;
	struct file *beside = NULL;
	struct stat beside_st;
	const char *name = NULL;
	bool created = false;
	int ret = 0;

	if (admin->create_open)
		ret = admin->create_open(c->options, c->size, &beside, &name,
					 &created, err);
	if (ret)
		return ret;
	created = created && !file_stat(beside, &beside_st);
	ret = target_write(c, f, beside, st, err);
	file_unref(beside);
	if (ret && created)
		target_remove(name, &beside_st);
	return ret;
}

/* Locks tell it, too, unless the source was opened without (-U). */
static bool is_read(const struct image_create *c, const struct stat *st)
{
	for (unsigned i = 0; i < c->nr_src; i++)
		if (image_reads(c->src[i], st))
			return true;
	return false;
}

static int target_make(const struct image_create *c, struct file *f,
		       bool created, struct err *err)
{
	const char *path = target_path(c->target);
	struct stat st;
	int ret = file_stat(f, &st);

	if (ret)
		return err_errno(err, ret, "Could not create '%s'", path);
	if (c->opened)
		c->opened(c->data, path, &st, created);
	ret = target_lock(f, err);
	if (!ret && is_read(c, &st))
		ret = err_set(err, -EBUSY, "'%s' is being read", path);
	if (!ret)
		ret = target_write_both(c, f, &st, err);
	if (ret && created)
		target_remove(path, &st);
	return ret;
}

/* ---- what is emptied must hold nothing else --------------------------------- */

/* With -u there need be no chain. */
static struct image *chain_open(const struct image_create *c)
{
	struct image_args args = { .flags = IMAGE_SHARE };
	const char *backing = options_str(c->options, "backing_file", NULL);
	autojson *node = NULL;
	autoerr err = ERR_INIT;
	struct image *img;

	if (!backing ||
	    spec_parse_child(backing, target_path(c->target),
			     options_str(c->options, "backing_fmt", NULL),
			     &node, &err))
		return NULL;
	args.node = node;
	return image_open(&args, &img, &err) ? NULL : img;
}

/* @data may be NULL, as may be files that are yet to be made. */
static int chain_check(const struct image_create *c, const char *path,
		       const char *data, struct err *err)
{
	struct stat target, beside;
	bool has_target = !stat(path, &target);
	bool has_data = data && !stat(data, &beside);
	struct image *chain = has_target || has_data ? chain_open(c) : NULL;
	int ret = 0;

	if (has_data && is_read(c, &beside))
		ret = err_set(err, -EBUSY, "'%s' is being read", data);
	else if (has_target && image_reads(chain, &target))
		ret = err_set(err, -EINVAL, "Trying to create an image that"
			      " belongs to its own backing chain");
	else if (has_data && image_reads(chain, &beside))
		ret = err_set(err, -EINVAL, "Trying to create an image whose"
			      " data file belongs to its backing chain");
	if (chain)
		image_close(chain);
	return ret;
}

/* A data file is looked for beside its image first. */
static int data_file_check(const char *data, const char *path,
			   const char *backing, struct err *err)
{
	autofree char *full = backing ? spec_join(path, backing) : NULL;
	autofree char *found = spec_join(path, data);

	if (same_file(data, path))
		return err_set(err, -EINVAL, "Trying to create an image with"
			       " the same filename as its data file");
	if (full && same_file(data, full))
		return err_set(err, -EINVAL, "Trying to create an image whose"
			       " data file is its backing file");
	if (!same_file(data, found) && !access(found, F_OK))
		return err_set(err, -EEXIST, "Its data file '%s' would be"
			       " taken for '%s', which is there already",
			       data, found);
	return 0;
}

static int files_check(const struct image_create *c, struct err *err)
{
	const char *path = target_path(c->target);
	const char *backing = options_str(c->options, "backing_file", NULL);
	const char *data = options_str(c->options, "data_file", NULL);
	int ret = 0;

	data = data ? target_path(data) : NULL;
	if (data)
		ret = target_check(data, err);
	if (data && !ret)
		ret = data_file_check(data, path, backing, err);
	return ret ? ret : chain_check(c, path, data, err);
}

int image_create(const struct image_create *c, struct err *err)
{
	const struct format_admin *admin = c->fmt->admin;
	struct image_create whole = *c;
	struct file *f;
	bool created = false;
	int ret = 0;

	whole.size = round_up(min_u64(c->size, UINT64_MAX - SECTOR_SIZE),
			      SECTOR_SIZE);
	if (admin->create_check)
		ret = admin->create_check(c->options, whole.size, err);
	if (!ret)
		ret = files_check(c, err);
	if (ret)
		return ret;
	ret = target_open(c->target, &f, &created, err);
	if (ret)
		return ret;
	ret = target_make(&whole, f, created, err);
	file_unref(f);
	return ret;
}

/* ---- create as a whole -------------------------------------------------------------- */

static int set_backing(const struct create_request *req,
		       const struct format *fmt, struct options *o,
		       struct err *err)
{
	if (req->backing && options_set(o, "backing_file", req->backing, NULL))
		return err_set(err, -ENOTSUP, "Backing file not supported for"
			       " file format '%s'", fmt->name);
	if (req->backing_fmt &&
	    options_set(o, "backing_fmt", req->backing_fmt, NULL))
		return err_set(err, -ENOTSUP, "Backing file format not"
			       " supported for file format '%s'", fmt->name);
	return 0;
}

/* Names that could never work, before any file is looked at. */
static int backing_name_check(const struct create_request *req,
			      const char *backing, struct err *err)
{
	autofree char *full = NULL;

	if (!*backing)
		return err_set(err, -EINVAL,
			       "Expected backing file name, got empty string");
	full = spec_join(target_path(req->target), backing);
	if (same_file(target_path(req->target), full) ||
	    !strcmp(req->target, backing))
		return err_set(err, -EINVAL, "Error: Trying to create an image"
			       " with the same filename as the backing file");
	return 0;
}

static int backing_open(const struct create_request *req, const char *backing,
			const char *format, struct image **img,
			struct err *err)
{
	struct image_args args = { .cache = CACHE_WRITEBACK };
	autojson *node = NULL;
	int ret;

	ret = spec_parse_child(backing, target_path(req->target), format,
			       &node, err);
	args.node = node;
	if (!ret)
		ret = image_open(&args, img, err);
	if (ret)
		err_hint(err, "Could not open backing image.\n");
	return ret;
}

/* Opens the backing file to see that it is there, and for its size. */
static int backing_look(const struct create_request *req, const char *backing,
			const char *format, uint64_t *size, struct err *err)
{
	struct image *img;
	int ret;

	if (req->trust_backing)
		return format ? 0 :
		       err_set(err, -EINVAL, "Backing file specified without"
			       " backing format");
	ret = backing_open(req, backing, format, &img, err);
	if (ret)
		return ret;
	if (!format) {
		ret = err_set(err, -EINVAL, "Backing file specified without"
			      " backing format");
		err_hint(err, "Detected format of %s.", img->fmt->name);
	} else {
		*size = image_size(img);
	}
	image_close(img);
	return ret;
}

static int take_size(const struct create_request *req, struct options *o,
		     const char *backing, uint64_t backing_size,
		     uint64_t *size, struct err *err)
{
	char text[32];

	if (req->has_size)
		*size = req->size;
	else if (options_has(o, "size"))
		*size = options_num(o, "size", 0);
	else if (backing && !req->trust_backing)
		*size = backing_size;
	else
		return err_set(err, -EINVAL,
			       "Image creation needs a size parameter");
	snprintf(text, sizeof(text), "%" PRIu64, *size);
	return options_set(o, "size", text, err);
}

static int read_lists(const struct create_request *req, struct options *o,
		      struct err *err)
{
	int ret = 0;

	for (size_t i = 0; i < req->nr_lists && !ret; i++)
		ret = options_parse(o, req->lists[i], err);
	if (!ret && req->has_size && options_has(o, "size"))
		ret = err_set(err, -EINVAL,
			      "The image size must be specified only once");
	return ret;
}

static void formatting(const struct create_request *req,
		       const struct options *o)
{
	autostrbuf text = STRBUF_INIT;

	if (!req->formatting)
		return;
	strbuf_printf(&text, "Formatting '%s', fmt=%s", req->target,
		      req->format ? req->format : "raw");
	options_print(o, &text);
	req->formatting(req->data, text.text);
}

/* Everything up to the Formatting line: @o is complete afterwards. */
static int prepare(const struct create_request *req, const struct format *fmt,
		   struct options *o, uint64_t *size, struct err *err)
{
	const char *backing, *format;
	uint64_t backing_size = 0;
	int ret = read_lists(req, o, err);

	if (!ret)
		ret = set_backing(req, fmt, o, err);
	if (ret)
		return ret;
	backing = options_str(o, "backing_file", NULL);
	format = options_str(o, "backing_fmt", NULL);
	if (backing)
		ret = backing_name_check(req, backing, err);
	if (backing && !ret)
		ret = backing_look(req, backing, format, &backing_size, err);
	if (!ret)
		ret = take_size(req, o, backing, backing_size, size, err);
	return ret;
}

int create_run(const struct create_request *req, struct err *err)
{
	struct image_create c = {
		.target = req->target,
		.opened = req->opened,
		.data = req->data,
	};
	struct options *o = NULL;
	int ret;

	ret = create_options(req->format ? req->format : "raw", req->target,
			     &c.fmt, &o, err);
	if (!ret)
		ret = prepare(req, c.fmt, o, &c.size, err);
	if (!ret) {
		formatting(req, o);
		c.options = o;
		ret = image_create(&c, err);
	}
	options_free(o);
	if (ret)
		err_prefix(err, "%s: ", req->target);
	return ret;
}
