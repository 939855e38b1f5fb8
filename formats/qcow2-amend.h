/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-amend.h - the parts of `amend`.
 *
 *   qcow2-amend.c      options and their order
 *   qcow2-width.c      reference counts of another width
 *   qcow2-downgrade.c  version 2
 *
 * Nobody else uses the image meanwhile.
 */
#ifndef FORMATS_QCOW2_AMEND_H
#define FORMATS_QCOW2_AMEND_H

#include "qcow2.h"

#include "job.h"

/* Would all counts fit? */
int qcow2_width_check(struct image *img, unsigned order, struct err *err);
/* Another refcount_order. */
int qcow2_change_width(struct image *img, unsigned order, struct progress *p,
		       struct err *err);
/* Could the image, with that size and order, be one of version 2? */
int qcow2_downgrade_check(struct image *img, uint64_t size, unsigned order,
			  struct progress *p, struct err *err);
int qcow2_downgrade(struct image *img, struct progress *p, struct err *err);

#endif
