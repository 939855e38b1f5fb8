/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * measure.c - what a disk holds, in units of an image that is yet to be made;
 * see measure.h.
 */
#include "measure.h"

#include "create.h"

#define STRETCH GiB             /* looked at in one go */

/* The whole units from @*from on that [@off, @end) touches: *from moves. */
static uint64_t units(uint64_t *from, uint64_t off, uint64_t end,
		      uint64_t unit)
{
	uint64_t first = max_u64(*from, round_down(off, unit));
	uint64_t last = round_up(end, unit);

	if (last <= first)
		return 0;
	*from = last;
	return last - first;
}

/* Are there holes below what an image calls data?  A raw one has nothing else;
 * of others the host tells when a tenth of the file takes no space (as QEMU). */
static bool has_host_holes(const struct image *img)
{
	struct stat st;

	if (!img->fmt->unmap && !img->fmt->reserve)
		return true;
	return img->nr_children || file_stat(img->file, &st) ||
	       (uint64_t)st.st_blocks * 512 < (uint64_t)st.st_size / 10 * 9;
}

static unsigned how_exact(const struct measure_source *src)
{
	const struct image *img = src->view ? src->view->img : NULL;

	for (; img; img = img->backing)
		if (has_host_holes(img))
			return MAP_EXACT;
	return 0;
}

int measure_data(const struct measure_source *src, uint64_t unit,
		 uint64_t *bytes, struct err *err)
{
	uint64_t at = 0, counted = 0;
	unsigned flags = how_exact(src);
	struct run run;

	*bytes = 0;
	while (src->view && at < src->size) {
		uint64_t len = min_u64(src->size - at, STRETCH);
		int ret = walk_run(src->view, at, len, 0, flags, &run);

		if (ret)
			return err_errno(err, ret,
					 "Unable to get block status");
		if (run.data && run.present && !run.zero)
			*bytes += units(&counted, at, at + run.len, unit);
		at += run.len;
	}
	return 0;
}

int measure_options(const char *target, const char *const *lists, size_t n,
		    const struct format **fmt, struct options **o,
		    struct err *err)
{
	int ret = create_options(target ? target : "raw", NULL, fmt, o, err);

	if (ret)
		return ret;
	options_add(*o, protocol_create_options);
	for (size_t i = 0; i < n && !ret; i++)
		ret = options_parse(*o, lists[i], err);
	return ret;
}

int measure_run(const struct format *fmt, const struct options *o,
		const struct measure_source *src, struct measure *m,
		struct err *err)
{
	*m = (struct measure) { 0 };
	if (!fmt->admin || !fmt->admin->measure)
		return err_set(err, -ENOTSUP, "Block driver '%s' does not"
			       " support size measurement", fmt->name);
	return fmt->admin->measure(o, src, m, err);
}
