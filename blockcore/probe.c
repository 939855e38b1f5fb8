/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * probe.c - which format a file looks like, and the guard that keeps a guest
 * from changing the answer (raw.md, Probing, The sector-0 guard).
 *
 * Refuses to know what any format looks like: format->probe() does.
 */
#include "engine.h"

const struct format *probe_format(const struct probe *p)
{
	const struct format *best = NULL;
	int sure = 0;

	for (const struct format *const *f = formats; *f; f++) {
		int n = (*f)->probe ? (*f)->probe(p) : 0;

		if (n > sure) {
			sure = n;
			best = *f;
		}
	}
	/* raw answers to everything. */
	BUG_ON(!best);
	return best;
}

int probe_guard(struct image *img, const void *buf, size_t len, uint64_t off)
{
	unsigned char head[SECTOR_SIZE];
	struct probe p = { .name = img->file->name, .head = head,
			   .head_len = sizeof(head) };
	int ret;

	if (!img->probed || !img->fmt->probed_guard || off >= sizeof(head) ||
	    !len)
		return 0;
	ret = file_read(img->file, head, sizeof(head), 0);
	if (!ret)
		ret = file_size(img->file, &p.size);
	if (ret)
		return ret;
	memcpy(head + off, buf, min_u64(len, sizeof(head) - off));
	return probe_format(&p)->probed_guard ? 0 : -EPERM;
}
