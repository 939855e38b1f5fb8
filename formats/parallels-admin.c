/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parallels-admin.c - making, checking and repairing Parallels disks
 * (parallels.md: create limits, check).
 */
#include "parallels.h"

#include "json.h"

#include <inttypes.h>
#include <stdio.h>

#define DEFAULT_CLUSTER (1 * MiB)
#define HEADS 16u
#define SECTORS_PER_TRACK 32u

/* ---- create -------------------------------------------------------------- */

static const struct option_spec create_options[] = {
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ "cluster_size", OPTION_SIZE, "Parallels image cluster size",
	  "1048576" },
	{ NULL, OPTION_STRING, NULL, NULL },
};

static uint64_t want_cluster(const struct options *o)
{
	return options_num(o, "cluster_size", DEFAULT_CLUSTER);
}

static int create_check(const struct options *o, uint64_t size,
			struct err *err)
{
	uint64_t cluster = want_cluster(o);

	if (cluster && cluster / SECTOR_SIZE >= PARALLELS_MAX_TRACKS)
		return err_set(err, -EINVAL, "Cluster size is too large");
	/* A table as large as can be opened again. */
	if (!cluster || div_up(size, round_up(cluster, SECTOR_SIZE)) >
	    PARALLELS_MAX_ENTRIES)
		return err_set(err, -E2BIG, "Image size is too large for this"
			       " cluster size");
	return 0;
}

static int create(struct file *f, const struct options *o, uint64_t size,
		  struct err *err)
{
	uint64_t cluster = round_up(want_cluster(o), SECTOR_SIZE);
	uint64_t entries = div_up(size, cluster), sectors = size / SECTOR_SIZE;
	uint64_t data = round_up(PH_LENGTH + 4 * entries, cluster);
	unsigned char h[PH_LENGTH] = { 0 };
	int ret;

	memcpy(h + PH_MAGIC, PARALLELS_V2, 16);
	le32_put(h + PH_VERSION, 2);
	le32_put(h + PH_HEADS, HEADS);
	le32_put(h + PH_CYLINDERS,
		 (uint32_t)(sectors / HEADS / SECTORS_PER_TRACK));
	le32_put(h + PH_TRACKS, (uint32_t)(cluster / SECTOR_SIZE));
	le32_put(h + PH_ENTRIES, (uint32_t)entries);
	le64_put(h + PH_SECTORS, sectors);
	le32_put(h + PH_DATA, (uint32_t)(data / SECTOR_SIZE));
	ret = file_truncate(f, data);
	if (!ret)
		ret = file_write(f, h, sizeof(h), 0);
	return ret ? err_errno(err, ret, "Could not write the new image") : 0;
}

/* ---- info ---------------------------------------------------------------- */

/* QEMU shows nothing; bitmaps are ours alone. */
static int info(struct image *img, struct image_info *info, struct err *err)
{
	struct json *bitmaps = parallels_bitmaps_json(img), *data;

	(void)err;
	if (!bitmaps)
		return 0;
	data = json_object();
	json_set_take(data, "bitmaps", bitmaps);
	info->specific = json_object();
	json_set_take(info->specific, "type", json_string("parallels"));
	json_set_take(info->specific, "data", data);
	return 0;
}

/* ---- check and repair ---------------------------------------------------- */

struct scan {
	struct image *img;
	struct check_result *res;
	unsigned fix;
	uint64_t size;          /* of the file */
	uint64_t end;           /* of the last cluster in use */
	uint64_t last;          /* the cluster before */
	unsigned char *used;    /* a bit per place of a cluster */
};

static bool fixing(const struct scan *s, unsigned what)
{
	return s->fix & what;
}

static void tell(struct scan *s, unsigned what, const char *text)
{
	check_say(s->res, "%s %s", fixing(s, what) ? "Repairing" : "ERROR",
		  text);
	if (fixing(s, what))
		s->res->corruptions_fixed++;
	else
		s->res->corruptions++;
}

static int put_entry(struct scan *s, uint64_t i, uint64_t host)
{
	unsigned char bytes[4];

	le32_put(bytes, (uint32_t)(host / parallels_of(s->img)->step));
	return repair_write(s->img, s->img->file, bytes, sizeof(bytes),
			    PH_LENGTH + 4 * i);
}

static int outside(struct scan *s, uint64_t i)
{
	char text[64];

	snprintf(text, sizeof(text), "cluster %" PRIu64 " is outside image", i);
	tell(s, CHECK_FIX_ERRORS, text);
	return fixing(s, CHECK_FIX_ERRORS) ? put_entry(s, i, 0) : 0;
}

/* The second owner gets a copy, durable before its entry. */
static int duplicate(struct scan *s, uint64_t i, uint64_t host)
{
	const struct parallels *p = parallels_of(s->img);
	uint64_t at = round_up(max_u64(s->size, s->end), p->step);
	autofree void *buf = NULL;
	char text[64];
	int ret;

	snprintf(text, sizeof(text), "duplicate offset in BAT entry %" PRIu64,
		 i);
	tell(s, CHECK_FIX_ERRORS, text);
	if (!fixing(s, CHECK_FIX_ERRORS))
		return 0;
	buf = malloc(s->img->unit);
	ret = buf ? file_read(s->img->file, buf, s->img->unit, host) : -ENOMEM;
	if (!ret)
		ret = repair_write(s->img, s->img->file, buf, s->img->unit, at);
	if (!ret)
		ret = repair_barrier(s->img);
	if (!ret)
		ret = put_entry(s, i, at);
	s->end = s->size = at + s->img->unit;
	return ret;
}

static bool seen_before(struct scan *s, uint64_t host)
{
	uint64_t place = host / parallels_of(s->img)->step;
	unsigned char bit = (unsigned char)(1u << place % 8);
	bool was = s->used[place / 8] & bit;

	s->used[place / 8] |= bit;
	return was;
}

static int check_entry(struct scan *s, uint64_t i, uint64_t host)
{
	if (!host) {
		s->last = 0;
		return 0;
	}
	s->res->allocated_clusters++;
	if (s->last && host != s->last + s->img->unit)
		s->res->fragmented_clusters++;
	s->last = host;
	if (host >= s->size || host < parallels_of(s->img)->start) {
		if (!fixing(s, CHECK_FIX_ERRORS))
			s->end = max_u64(s->end, host + s->img->unit);
		else
			s->res->allocated_clusters--;
		return outside(s, i);
	}
	if (seen_before(s, host))
		return duplicate(s, i, host);
	s->end = max_u64(s->end, host + s->img->unit);
	return 0;
}

static int check_entries(struct scan *s)
{
	const struct parallels *p = parallels_of(s->img);
	unsigned char buf[4096];
	int ret = 0;

	for (uint64_t i = 0; !ret && i < p->entries; i++) {
		uint64_t in = i % (sizeof(buf) / 4);

		if (!in)
			ret = meta_read(s->img, s->img->file, buf,
					min_u64(sizeof(buf),
						4 * (p->entries - i)),
					PH_LENGTH + 4 * i);
		if (!ret && !in && s->res->cancel &&
		    atomic_load(s->res->cancel))
			ret = -EINTR;
		if (!ret)
			ret = check_entry(s, i, le32_at(buf + 4 * in) *
						p->step);
	}
	return ret;
}

/* What only readers look at must not keep them out after a repair: bitmaps that
 * nobody can read are let go. */
static int check_extension(struct scan *s)
{
	const unsigned char none[8] = { 0 };
	struct parallels *p = parallels_of(s->img);
	struct parallels_bitmaps bitmaps = { NULL, 0 };
	autoerr err = ERR_INIT;
	int ret;

	if (!p->extension || !fixing(s, CHECK_FIX_ERRORS))
		return 0;
	ret = parallels_extension_read(s->img, &bitmaps, &err);
	parallels_extension_free(&bitmaps);
	if (!ret || ret == -ENOMEM)
		return ret;
	tell(s, CHECK_FIX_ERRORS, "the Format Extension cannot be read");
	ret = repair_write(s->img, s->img->file, none, sizeof(none),
			   PH_EXTENSION);
	p->extension = 0;
	return ret;
}

/* An extension lies there, too, and is no leak. */
static int check_tail(struct scan *s)
{
	const struct parallels *p = parallels_of(s->img);
	uint64_t size = round_up(s->size, SECTOR_SIZE), lost, n;

	if (size <= s->end || p->extension)
		return 0;
	lost = size - s->end;
	n = div_up(lost, s->img->unit);
	check_say(s->res, "%s space leaked at the end of the image %" PRIu64,
		  fixing(s, CHECK_FIX_LEAKS) ? "Repairing" : "ERROR", lost);
	if (!fixing(s, CHECK_FIX_LEAKS)) {
		s->res->leaks += n;
		return 0;
	}
	s->res->leaks_fixed += n;
	s->size = s->end;
	return file_truncate(s->img->file, s->end);
}

static int run(struct scan *s)
{
	struct image *img = s->img;
	struct parallels *p = parallels_of(img);
	autofree void *used = NULL;
	int ret = file_size(img->file, &s->size);

	if (ret)
		return ret;
	s->used = used = calloc(1, s->size / p->step / 8 + 1);
	if (!used)
		return -ENOMEM;
	s->end = round_up(p->start, p->step);
	if (p->unclosed)
		tell(s, CHECK_FIX_ERRORS, "image was not closed correctly");
	s->res->total_clusters = p->entries;
	ret = check_extension(s);
	if (!ret)
		ret = check_entries(s);
	if (!ret)
		ret = check_tail(s);
	s->res->image_end_offset = s->end;
	if (!ret && s->fix) {
		atomic_store(&p->next, s->end);
		atomic_store(&p->end, max_u64(s->size, s->end));
	}
	return ret;
}

static int check(struct image *img, struct check_result *res)
{
	struct scan s = { .img = img, .res = res };

	return run(&s);
}

/* What is written marks the image as ours, and the mark goes when it is
 * closed: then that of who did not finish is gone as well. */
static int repair(struct image *img, unsigned fix, struct check_result *res)
{
	struct parallels *p = parallels_of(img);
	struct scan s = { .img = img, .res = res, .fix = fix };
	unsigned char mark[4];
	int ret = run(&s);

	if (ret || !p->unclosed || !(fix & CHECK_FIX_ERRORS))
		return ret;
	le32_put(mark, PARALLELS_IN_USE);
	ret = repair_write(img, img->file, mark, sizeof(mark), PH_IN_USE);
	if (!ret)
		p->unclosed = false;
	return ret;
}

const struct format_admin parallels_admin = {
	.create_options = create_options,
	.create_check = create_check,
	.create = create,
	.info = info,
	.check = check,
	.repair = repair,
};
