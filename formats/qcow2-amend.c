/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-amend.c - other options for an image that is there (options.md 2): what
 * may be asked, and the order in which it is done: up to version 3 first, down
 * to version 2 last, the size before that.
 *
 * Everything is refused before anything is changed.  Each step is durable, and
 * after each the image is sound and reads the same.
 */
#include "qcow2-amend.h"

#include <inttypes.h>

const struct option_spec qcow2_amend_options[] = {
	{ "encrypt.state", OPTION_STRING,
	  "Select new state of affected keyslots (active/inactive)", NULL },
	{ "encrypt.keyslot", OPTION_NUMBER,
	  "Select a single keyslot to modify explicitly", NULL },
	{ "encrypt.old-secret", OPTION_STRING,
	  "Select all keyslots that match this password", NULL },
	{ "encrypt.new-secret", OPTION_STRING, "New secret to set in the"
	  " matching keyslots. Empty string to erase", NULL },
	{ "encrypt.iter-time", OPTION_NUMBER,
	  "Time to spend in PBKDF in milliseconds", NULL },
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ "compat", OPTION_STRING,
	  "Compatibility level (v2 [0.10] or v3 [1.1])", NULL },
	{ "backing_file", OPTION_STRING, "File name of a base image", NULL },
	{ "backing_fmt", OPTION_STRING, "Image format of the base image",
	  NULL },
	{ "data_file", OPTION_STRING, "File name of an external data file",
	  NULL },
	{ "data_file_raw", OPTION_BOOL, "The external data file must stay"
	  " valid as a raw image", NULL },
	{ "lazy_refcounts", OPTION_BOOL, "Postpone refcount updates", NULL },
	{ "refcount_bits", OPTION_NUMBER,
	  "Width of a reference count entry in bits", NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

struct amend {
	struct image *img;
	const struct options *o;
	struct progress *progress;
	unsigned version, order;
	bool lazy, raw;
	uint64_t size;          /* 0: stays */
	const char *data_file;  /* NULL: stays */
};

/* ---- what is asked ------------------------------------------------------- */

static int parse_compat(struct amend *a, struct err *err)
{
	const char *compat = options_str(a->o, "compat", NULL);

	if (!compat)
		return 0;
	if (!strcmp(compat, "0.10") || !strcmp(compat, "v2"))
		a->version = 2;
	else if (!strcmp(compat, "1.1") || !strcmp(compat, "v3"))
		a->version = 3;
	else
		return err_set(err, -EINVAL, "Unknown compatibility level %s",
			       compat);
	return 0;
}

static int parse_data_file(struct amend *a, struct err *err)
{
	const struct qcow2 *q = qcow2_of(a->img);

	a->data_file = options_str(a->o, "data_file", NULL);
	if (a->data_file && !(q->incompat & QINCOMPAT_DATA_FILE))
		return err_set(err, -EINVAL, "data-file can only be set for"
			       " images that use an external data file");
	a->raw = q->autoclear & QAUTOCLEAR_DATA_RAW;
	if (options_bool(a->o, "data_file_raw", a->raw) && !a->raw)
		return err_set(err, -EINVAL, "data-file-raw cannot be set on"
			       " existing images");
	a->raw = options_bool(a->o, "data_file_raw", a->raw);
	return 0;
}

static int parse_width(struct amend *a, struct err *err)
{
	uint64_t bits = options_num(a->o, "refcount_bits",
				    1u << qcow2_of(a->img)->refcount_order);

	if (!is_pow2(bits) || bits > 64)
		return err_set(err, -EINVAL, "Refcount width must be a power"
			       " of two and may not exceed 64 bits");
	a->order = log2_u64(bits);
	return 0;
}

static int parse(struct amend *a, struct err *err)
{
	const struct qcow2 *q = qcow2_of(a->img);
	int ret;

	for (const struct option_spec *s = qcow2_amend_options; s->name; s++)
		if (!strncmp(s->name, "encrypt.", 8) &&
		    options_has(a->o, s->name))
			return err_set(err, -EINVAL, "Can't amend encryption"
				       " options - encryption not present");
	a->version = q->version;
	a->size = options_num(a->o, "size", 0);
	a->lazy = options_bool(a->o, "lazy_refcounts",
			       q->compat & QCOMPAT_LAZY_REFCOUNTS);
	ret = parse_compat(a, err);
	if (!ret)
		ret = parse_data_file(a, err);
	return ret ? ret : parse_width(a, err);
}

/* ---- what is refused ----------------------------------------------------- */

static bool differs(const char *a, const char *b)
{
	return a ? !b || strcmp(a, b) : b != NULL;
}

static int check_backing(const struct amend *a, struct err *err)
{
	const char *name = options_str(a->o, "backing_file", NULL);
	const char *fmt = options_str(a->o, "backing_fmt", NULL);

	if ((!name && !fmt) || (!differs(name, a->img->backing_name) &&
				!differs(fmt, a->img->backing_fmt)))
		return 0;
	err_set(err, -EINVAL, "Cannot amend the backing file");
	err_hint(err, "You can use 'qemu-img rebase' instead.\n");
	return -EINVAL;
}

static int check_v3_only(const struct amend *a, struct err *err)
{
	const struct qcow2 *q = qcow2_of(a->img);
	bool lazy = q->compat & QCOMPAT_LAZY_REFCOUNTS;

	if (a->version >= 3)
		return 0;
	if (a->order != q->refcount_order && a->order != 4)
		return err_set(err, -ENOTSUP, "Refcount widths other than 16"
			       " bits require compatibility level 1.1 or above"
			       " (use compat=1.1 or greater)");
	if (a->lazy && !lazy)
		return err_set(err, -EINVAL, "Lazy refcounts only supported"
			       " with compatibility level 1.1 and above (use"
			       " compat=1.1 or greater)");
	return 0;
}

static int check_all(const struct amend *a, struct err *err)
{
	int ret = check_v3_only(a, err);

	if (!ret)
		ret = check_backing(a, err);
	if (!ret && a->size > INT64_MAX)
		ret = err_set(err, -EINVAL, "Image size cannot be negative");
	if (!ret && a->version < qcow2_of(a->img)->version)
		ret = qcow2_downgrade_check(a->img, a->size ? a->size :
					    image_size(a->img), a->order,
					    a->progress, err);
	if (!ret && a->order < qcow2_of(a->img)->refcount_order)
		ret = qcow2_width_check(a->img, a->order, err);
	return ret;
}

/* ---- what is done -------------------------------------------------------- */

/* Version 3, feature bits, the data file's name: one header. */
static int change_header(const struct amend *a)
{
	struct qcow2_header h;

	qcow2_header_get(a->img, &h);
	h.version = (unsigned)max_u64(h.version, a->version);
	h.compat &= ~QCOMPAT_LAZY_REFCOUNTS;
	if (a->lazy)
		h.compat |= QCOMPAT_LAZY_REFCOUNTS;
	if (!a->raw)
		h.autoclear &= ~QAUTOCLEAR_DATA_RAW;
	if (a->data_file)
		h.data_file = *a->data_file ? a->data_file : NULL;
	return qcow2_header_set(a->img, &h);
}

static int change_size(const struct amend *a, struct err *err)
{
	const struct resize_args r = { .progress = a->progress };

	return a->size ? image_resize(a->img, a->size, &r, err) : 0;
}

int qcow2_amend(struct image *img, const struct options *o,
		struct progress *progress, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct amend a = { .img = img, .o = o, .progress = progress };
	int ret = parse(&a, err);

	if (!ret)
		ret = check_all(&a, err);
	if (ret)
		return ret;
	ret = change_header(&a);
	if (ret)
		return err_errno(err, ret, "Failed to update the image header");
	if (q->raw && !a.raw)
		q->raw = false;
	if (a.order != q->refcount_order)
		ret = qcow2_change_width(img, a.order, progress, err);
	if (!ret)
		ret = change_size(&a, err);
	if (!ret && a.version < q->version)
		ret = qcow2_downgrade(img, progress, err);
	return ret;
}
