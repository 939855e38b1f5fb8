/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vpc.h - what the parts of the VHD driver share (vpc.md).
 *
 *   vpc.c          footer, header, mapping, allocation
 *   vpc-create.c   geometry and new images
 *   vpc-check.c    check and repair
 *   vpc-info.c     geometry and sizes
 *   vpc-parent.c   the parent of a differencing image
 */
#ifndef FORMATS_VPC_H
#define FORMATS_VPC_H

#include "blockcore.h"
#include "spare.h"

enum {                          /* the footer, and its copy in front */
	VF_COOKIE = 0,
	VF_FEATURES = 8,
	VF_VERSION = 12,
	VF_DATA = 16,
	VF_TIME = 24,
	VF_APP = 28,
	VF_APP_VERSION = 32,
	VF_OS = 36,
	VF_ORIGINAL = 40,
	VF_SIZE = 48,
	VF_CYLINDERS = 56,
	VF_HEADS = 58,
	VF_SECTORS = 59,
	VF_TYPE = 60,
	VF_CHECKSUM = 64,
	VF_UUID = 68,
	VF_LENGTH = 512,
};

enum {                          /* the header of a dynamic disk */
	VD_COOKIE = 0,
	VD_DATA = 8,
	VD_TABLE = 16,
	VD_VERSION = 24,
	VD_ENTRIES = 28,
	VD_BLOCK = 32,
	VD_CHECKSUM = 36,
	VD_PARENT_UUID = 40,
	VD_PARENT_NAME = 64,
	VD_LOCATORS = 576,
	VD_LENGTH = 1024,
};

enum { VPC_FIXED = 2, VPC_DYNAMIC = 3, VPC_DIFFERENCING = 4 };

#define VPC_UUID 16u
#define VPC_FREE 0xffffffffu
#define VPC_CHS_MAX ((uint64_t)65535 * 16 * 255)
#define VPC_SECTORS_MAX 0xff000000u     /* 2040 GiB */

struct vpc {
	unsigned char footer[VF_LENGTH];
	bool fixed, has_parent;
	bool stated;            /* the size is the stated one */
	uint64_t table;         /* host offset of the BAT */
	uint32_t entries;       /* of it */
	uint32_t bitmap;        /* bytes in front of a block */
	uint64_t file_end;      /* when it was opened */
	/* Where the footer is and the next block begins: changed under
	 * lock. */
	_Atomic uint64_t next;
	pthread_mutex_t lock;
	struct spare spare;     /* under lock */
};

static inline struct vpc *vpc_of(const struct image *img)
{
	return img->priv;
}

static inline uint64_t vpc_stride(const struct image *img)
{
	return vpc_of(img)->bitmap + (uint64_t)img->unit;
}

/* The sum of @n bytes but for the field at @field, inverted. */
uint32_t vpc_checksum(const unsigned char *p, size_t n, size_t field);
void vpc_seal_footer(unsigned char *footer);
bool vpc_is_footer(const unsigned char *p);

extern const struct option_spec vpc_create_options[];
int vpc_create_check(const struct options *o, uint64_t size, struct err *err);
int vpc_create(struct file *f, const struct options *o, uint64_t size,
	       struct err *err);

int vpc_info(struct image *img, struct image_info *info, struct err *err);
int vpc_check(struct image *img, struct check_result *res);
int vpc_repair(struct image *img, unsigned fix, struct check_result *res);

/* @header: the dynamic one.  Sets img->backing_name. */
int vpc_find_parent(struct image *img, const unsigned char *header,
		    struct err *err);

#endif
