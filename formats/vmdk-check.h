/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-check.h - what looking at the tables of an extent (vmdk-check.c) and at
 * their entries (vmdk-grains.c) share.
 */
#ifndef FORMATS_VMDK_CHECK_H
#define FORMATS_VMDK_CHECK_H

#include "vmdk.h"
#include "vmdk-places.h"

struct vmdk_scan {
	struct image *img;
	struct vmdk_extent *x;
	struct check_result *res;
	unsigned fix;           /* enum check_fix */
	uint64_t rgd;           /* 0: there is none, or it is unusable */
	bool rgd_is_new;        /* this repair has made it: it is empty */
	uint64_t was;           /* the file's length before anything */
	uint64_t end;           /* what is new goes here */
	struct places metadata; /* header, descriptor, directories, tables */
	struct places grains;
	unsigned char *tables;  /* of each what is known of it: TABLE_* */
	unsigned char *first, *second;  /* a table, and the redundant one */
	bool differ;            /* some table does from its second one */
};

static inline bool vmdk_scan_fixes(const struct vmdk_scan *s)
{
	return s->fix & CHECK_FIX_ERRORS;
}

static inline void vmdk_scan_found(struct vmdk_scan *s)
{
	if (vmdk_scan_fixes(s))
		s->res->corruptions_fixed++;
	else
		s->res->corruptions++;
}

/*
 * Looks at the entries of table @index in s->first, and takes the grains'
 * places.  With @second what s->second says is tried where the first one cannot
 * be; *@changed: s->first has been put right, and is to be written behind a
 * barrier.
 */
int vmdk_grains_check(struct vmdk_scan *s, uint64_t index, bool second,
		      bool *changed);

#endif
