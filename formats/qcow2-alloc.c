/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-alloc.c - reference counts and free clusters (qcow2.md 6).
 */
#include "qcow2.h"

#include <inttypes.h>

int qcow2_alloc_init(struct image *img, uint64_t reftable_offset,
		     uint32_t reftable_clusters)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t size;
	int ret = file_size(img->file, &size);

	if (ret)
		return ret;
	q->reftable_offset = reftable_offset;
	q->reftable_clusters = reftable_clusters;
	q->free_index = 0;
	q->packed_next = 0;
	atomic_store(&q->file_end,
		     round_up(size, UINT64_C(1) << q->cluster_bits));
	return 0;
}
