/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cloop.c - compressed loop images, version 2 (cloop.md).  Read-only.
 *
 * Knows the shell script at the front, the table of offsets behind it, and that
 * each block is one zlib stream.  The table stays in the file: pages of it are
 * read when they are needed.
 */
#include "blockcore.h"
#include "codec.h"

#include <inttypes.h>

enum {
	CH_BLOCK_SIZE = 128,
	CH_BLOCKS = 132,
	CH_OFFSETS = 136,
};

#define MAX_BLOCK (64 * MiB)
#define MAX_BLOCKS 536870911u
#define MAX_OFFSETS (512 * MiB)         /* bytes of the table */
#define CHUNK 8192u                     /* offsets that are looked at at once */

#define SHELL "#!/bin/sh\n#V"
#define KNOWN "2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660" \
	" /dev/cloop $1\n"
#define VERSION_MAX 16u         /* characters */

struct cloop {
	uint32_t blocks;
	uint64_t end;           /* of the file */
};

/* ---- opening ------------------------------------------------------------- */

static bool begins(const struct probe *p, const char *text)
{
	size_t n = strlen(text);

	return p->head_len >= n && !memcmp(p->head, text, n);
}

/* How long the version is that the script names, at @at; 0: it names none. */
static size_t version_of(const unsigned char *h, const char **at)
{
	size_t n;

	if (memcmp(h, SHELL, strlen(SHELL)))
		return 0;
	*at = (const char *)h + strlen(SHELL);
	n = strspn(*at, "0123456789.");
	return n <= VERSION_MAX && !strncmp(*at + n, " Format\n", 8) ? n : 0;
}

/* Other versions are taken to be refused by name: nobody wants to read what
 * they hold as a disk. */
static bool is_other(const struct probe *p)
{
	unsigned char h[CH_BLOCK_SIZE + 1] = { 0 };
	const char *at;

	if (probe_as_qemu || p->head_len < CH_BLOCK_SIZE)
		return false;
	memcpy(h, p->head, CH_BLOCK_SIZE);
	return version_of(h, &at) && strstr((char *)h, " cloop");
}

static int cloop_probe(const struct probe *p)
{
	return begins(p, SHELL KNOWN) || is_other(p) ? 100 : 0;
}

/* The offsets first .. first + n - 1. */
static int offsets_read(struct image *img, uint64_t first, size_t n,
			unsigned char *buf)
{
	return file_read(img->file, buf, 8 * n, CH_OFFSETS + 8 * first);
}

/* Does none of the offsets decrease? */
static int check_offsets(struct image *img, struct err *err)
{
	const struct cloop *c = img->priv;
	autofree unsigned char *buf = malloc(8 * CHUNK);
	uint64_t last = 0, nr = (uint64_t)c->blocks + 1;

	if (!buf)
		return -ENOMEM;
	for (uint64_t i = 0; i < nr; i += CHUNK) {
		size_t n = min_u64(CHUNK, nr - i);
		int ret = offsets_read(img, i, n, buf);

		if (ret)
			return err_errno(err, ret, "Could not read offsets");
		for (size_t k = 0; k < n; k++) {
			uint64_t at = be64_at(buf + 8 * k);

			if (at < last)
				return err_set(err, -EINVAL, "offsets not"
					       " monotonically increasing at"
					       " index %" PRIu64 ", image file"
					       " is corrupt", i + k);
			last = at;
		}
	}
	return 0;
}

static int parse(struct image *img, const unsigned char *h, struct err *err)
{
	struct cloop *c = img->priv;
	uint32_t block = be32_at(h + CH_BLOCK_SIZE);

	c->blocks = be32_at(h + CH_BLOCKS);
	if (block % SECTOR_SIZE)
		return err_set(err, -EINVAL, "block_size %" PRIu32 " must be a"
			       " multiple of 512", block);
	if (!block)
		return err_set(err, -EINVAL, "block_size cannot be zero");
	if (block > MAX_BLOCK)
		return err_set(err, -EINVAL, "block_size %" PRIu32 " must be 64"
			       " MB or less", block);
	if (c->blocks > MAX_BLOCKS)
		return err_set(err, -EINVAL, "n_blocks %" PRIu32 " must be %u"
			       " or less", c->blocks, MAX_BLOCKS);
	if (8 * ((uint64_t)c->blocks + 1) > MAX_OFFSETS)
		return err_set(err, -EINVAL, "image requires too many offsets,"
			       " try increasing block size");
	if (!range_within(CH_OFFSETS, 8 * ((uint64_t)c->blocks + 1), c->end))
		return err_set(err, -EINVAL, "The table of offsets goes beyond"
			       " the end of the file");
	img->unit = block;
	img->align = 1;
	img->page = SECTOR_SIZE;
	atomic_store(&img->size, (uint64_t)c->blocks * block);
	return 0;
}

static int refuse_writing(struct image *img, struct err *err)
{
	(void)img;
	return err_set(err, -EROFS, "Image is read-only");
}

/* Other versions differ in more than the number. */
static int refuse_version(const unsigned char *h, struct err *err)
{
	const char *at;
	size_t n = version_of(h, &at);

	if (!n || (n == 3 && !memcmp(at, "2.0", 3)))
		return 0;
	return err_set(err, -ENOTSUP, "cloop images of version %.*s are not"
		       " supported, only of version 2.0", (int)n, at);
}

static int cloop_open(struct image *img, struct err *err)
{
	unsigned char h[CH_OFFSETS + 1] = { 0 };
	struct cloop *c = img->priv;
	int ret;

	if (img->want_write)
		return refuse_writing(img, err);
	ret = file_read(img->file, h, CH_OFFSETS, 0);
	if (!ret)
		ret = file_size(img->file, &c->end);
	if (ret)
		return err_errno(err, ret, "Could not read the header");
	ret = refuse_version(h, err);
	if (!ret)
		ret = parse(img, h, err);
	return ret ? ret : check_offsets(img, err);
}

/* ---- mapping ------------------------------------------------------------- */

static int cloop_map(const struct view *v, uint64_t off, uint64_t len,
		     struct extent *ext)
{
	struct image *img = v->img;
	const struct cloop *c = img->priv;
	uint64_t block = off / img->unit, in = off % img->unit, begin, end;
	unsigned char pair[16];
	int ret = meta_peek(img, img->file, pair, sizeof(pair),
			    CH_OFFSETS + 8 * block);

	if (ret)
		return ret;
	begin = be64_at(pair);
	end = be64_at(pair + 8);
	/* The file may have changed since it was opened. */
	if (begin >= end || begin >= c->end || end - begin > 2 * MAX_BLOCK)
		return -EIO;
	*ext = (struct extent) {
		.kind = EXT_PACKED,
		.off = off,
		.len = min_u64(len, img->unit - in),
		.file = img->file,
		.host = begin,
		.unit = {
			.codec = &codec_zlib,
			.packed = (uint32_t)(end - begin),
			.len = img->unit,
			.skip = (uint32_t)in,
		},
	};
	return 0;
}

/* ---- check: every block is where it must be and decodes ------------------- */

static int check_block(struct image *img, uint64_t i, void *buf,
		       struct check_result *res)
{
	int ret = image_read(&img->live, buf, img->unit, i * img->unit);

	if (ret == -ENOMEM)
		return ret;
	if (ret) {
		check_say(res, "ERROR: block %" PRIu64 " cannot be decoded", i);
		res->corruptions++;
	}
	return 0;
}

static int cloop_check(struct image *img, struct check_result *res)
{
	const struct cloop *c = img->priv;
	autofree void *buf = malloc(img->unit);
	unsigned char last[8];
	int ret = buf ? 0 : -ENOMEM;

	res->total_clusters = res->allocated_clusters = c->blocks;
	res->compressed_clusters = c->blocks;
	for (uint64_t i = 0; !ret && i < c->blocks; i++) {
		if (res->cancel && atomic_load(res->cancel))
			return -EINTR;
		ret = check_block(img, i, buf, res);
	}
	if (!ret)
		ret = offsets_read(img, c->blocks, 1, last);
	if (ret)
		return ret;
	res->image_end_offset = be64_at(last);
	if (res->image_end_offset > c->end) {
		check_say(res, "ERROR: the last block ends beyond the end of"
			  " the file");
		res->corruptions++;
	}
	return 0;
}

static const struct format_admin cloop_admin = {
	.check = cloop_check,
};

const struct format cloop_format = {
	.name = "cloop",
	.priv_size = sizeof(struct cloop),
	.probe = cloop_probe,
	.open = cloop_open,
	.upgrade = refuse_writing,
	.map = cloop_map,
	.admin = &cloop_admin,
};
