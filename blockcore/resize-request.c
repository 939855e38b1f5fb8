/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize-request.c - from "+1G" to the new size of an image, with qemu-img's
 * refusals in their order (qemu-img-cli.md 10).
 */
#include "resize.h"

int resize_parse(const char *text, struct resize_request *r, struct err *err)
{
	r->relative = *text == '+' ? 1 : *text == '-' ? -1 : 0;
	if (r->relative)
		text++;
	switch (size_parse(text, &r->number)) {
	case SIZE_OK:
		return 0;
	case SIZE_RANGE:
		return err_set(err, -EINVAL, "Value '%s' is out of range for"
			       " parameter 'size'", text);
	default:
		err_set(err, -EINVAL, "Parameter 'size' expects a non-negative"
			" number below 2^64");
		err_hint(err, "%s", SIZE_HINT);
		return -EINVAL;
	}
}

/* False: it is not positive. */
static bool new_size(const struct resize_request *r, uint64_t old,
		     uint64_t *size)
{
	*size = r->number;
	if (r->relative > 0 && add_overflows(old, r->number, size))
		return false;
	if (r->relative < 0 && r->number >= old)
		return false;
	if (r->relative < 0)
		*size = old - r->number;
	return *size && *size <= INT64_MAX;
}

int resize_run(struct image *img, const struct resize_request *r,
	       struct progress *progress, struct err *err)
{
	const struct resize_args a = {
		.prealloc = r->prealloc, .progress = progress,
	};
	uint64_t old = image_size(img), size;

	if (!new_size(r, old, &size))
		return err_set(err, -EINVAL, "New image size must be positive");
	if (size <= old && r->prealloc != PREALLOC_OFF)
		return err_set(err, -EINVAL, "Preallocation can only be used"
			       " for growing images");
	if (size < old && !r->shrink)
		return err_set(err, -EPERM, "Use the --shrink option to"
			       " perform a shrink operation.");
	return image_resize(img, size, &a, err);
}
