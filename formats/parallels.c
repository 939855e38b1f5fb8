/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parallels.c - Parallels' expanding disks (parallels.md): a header, and behind
 * it a table with a 32-bit entry per cluster, in units of clusters or, in the
 * older kind, of sectors.
 *
 * Clusters are any number of sectors (rule 10).  Space is taken from the end of
 * the file; what is discarded keeps its place and becomes a hole of the file.
 * The header and the first entries share a page, which is LINK.
 */
#include "parallels.h"

#include <inttypes.h>

enum {
	COOKIE_INDEX = 0,
	COOKIE_N,
};

enum { LOOK = 128 };            /* entries that are read at once */

/* ---- opening ------------------------------------------------------------- */

static bool has_magic(const unsigned char *h)
{
	return !memcmp(h, PARALLELS_V1, 16) || !memcmp(h, PARALLELS_V2, 16);
}

static int parallels_probe(const struct probe *p)
{
	return p->head_len >= PH_LENGTH && has_magic(p->head) &&
	       le32_at(p->head + PH_VERSION) == 2 ? 100 : 0;
}

int parallels_check_header(const unsigned char *h, uint64_t file,
			   struct err *err)
{
	uint32_t tracks = le32_at(h + PH_TRACKS);
	uint32_t entries = le32_at(h + PH_ENTRIES);

	if (!has_magic(h) || le32_at(h + PH_VERSION) != 2)
		return err_set(err, -EINVAL, "Image not in Parallels format");
	if (!tracks)
		return err_set(err, -EINVAL, "Invalid image: Zero sectors per"
			       " track");
	if (tracks > PARALLELS_MAX_TRACKS)
		return err_set(err, -EFBIG, "Invalid image: Too big cluster");
	if (entries > PARALLELS_MAX_ENTRIES)
		return err_set(err, -EFBIG, "Catalog too large");
	if (!range_within(PH_LENGTH, 4 * (uint64_t)entries,
			  round_up(file, SECTOR_SIZE)))
		return err_set(err, -EINVAL, "The catalog goes beyond the end"
			       " of the file");
	return 0;
}

static int take_header(struct image *img, const unsigned char *h,
		       struct err *err)
{
	struct parallels *p = parallels_of(img);
	bool v2 = !memcmp(h, PARALLELS_V2, 16);
	uint64_t sectors = le64_at(h + PH_SECTORS);

	if (!v2)
		sectors &= UINT32_MAX;
	if (sectors > INT64_MAX / SECTOR_SIZE)
		return err_set(err, -EFBIG, "The disk is too large");
	img->unit = le32_at(h + PH_TRACKS) * SECTOR_SIZE;
	img->page = SECTOR_SIZE;
	img->align = 1;
	p->entries = le32_at(h + PH_ENTRIES);
	p->step = v2 ? img->unit : SECTOR_SIZE;
	p->unclosed = le32_at(h + PH_IN_USE) == PARALLELS_IN_USE;
	p->extension = le64_at(h + PH_EXTENSION);
	p->start = PH_LENGTH + 4 * (uint64_t)p->entries;
	atomic_store(&img->size, sectors * SECTOR_SIZE);
	return 0;
}

/*
 * Where new clusters may begin: behind the file and all that entries name.  What
 * somebody who did not finish has put behind the last cluster is nobody's.
 */
static int find_next(struct image *img)
{
	struct parallels *p = parallels_of(img);
	unsigned char buf[4096];
	uint64_t size, next;
	int ret = file_size(img->file, &size);

	next = round_up(p->unclosed && !p->extension ? p->start :
			max_u64(size, p->start), p->step);
	for (uint64_t i = 0; !ret && i < p->entries; i += sizeof(buf) / 4) {
		uint64_t n = min_u64(sizeof(buf) / 4, p->entries - i);

		ret = file_read(img->file, buf, 4 * n, PH_LENGTH + 4 * i);
		for (uint64_t k = 0; !ret && k < n; k++) {
			uint64_t host = le32_at(buf + 4 * k) * p->step;

			/* An entry beyond the end is no reason to grow. */
			if (host && host < size)
				next = max_u64(next, host + img->unit);
		}
	}
	atomic_store(&p->next, next);
	return ret;
}

/* Older QEMUs refuse; newer ones go on where nothing else is wrong. */
static int check_unclosed(struct image *img, struct err *err)
{
	struct check_result res = { 0 };
	int ret;

	if (qemu_compat() == 72)
		return err_set(err, -EACCES, "parallels: Image was not closed"
			       " correctly; cannot be opened read/write");
	ret = parallels_admin.check(img, &res);
	if (ret)
		return err_errno(err, ret, "Could not check the image");
	return res.corruptions > 1 ?
	       err_set(err, -EUCLEAN, "The image was not closed correctly and"
		       " is corrupt; repair it with check -r all") : 0;
}

static int parallels_upgrade(struct image *img, struct err *err)
{
	struct parallels *p = parallels_of(img);
	int ret = 0;

	if (p->unclosed && !(img->flags & IMAGE_REPAIR))
		ret = check_unclosed(img, err);
	if (ret)
		return ret;
	if (p->extension)
		warn("Format Extension ignored in RW mode");
	ret = find_next(img);
	return ret ? err_errno(err, ret, "Could not read the catalog") : 0;
}

static int parallels_open(struct image *img, struct err *err)
{
	struct parallels *p = parallels_of(img);
	unsigned char h[PH_LENGTH];
	uint64_t size;
	int ret = file_size(img->file, &size);

	if (!ret)
		ret = file_read(img->file, h, sizeof(h), 0);
	if (ret)
		return err_errno(err, ret, "Could not read the header");
	ret = parallels_check_header(h, size, err);
	if (!ret)
		ret = take_header(img, h, err);
	if (!ret && p->extension && !img->want_write)
		ret = parallels_extension_read(img, &p->bitmaps, err);
	if (ret)
		return ret;
	pthread_mutex_init(&p->lock, NULL);
	atomic_store(&p->end, size);
	ret = img->want_write ? parallels_upgrade(img, err) : 0;
	if (ret)
		pthread_mutex_destroy(&p->lock);
	return ret;
}

static void parallels_close(struct image *img)
{
	pthread_mutex_destroy(&parallels_of(img)->lock);
	parallels_extension_free(&parallels_of(img)->bitmaps);
}

/* ---- mapping ------------------------------------------------------------- */

/* Rule 14: inside of the file, or of what was added to it. */
static bool entry_good(const struct image *img, uint64_t host)
{
	struct parallels *p = parallels_of(img);
	uint64_t end = atomic_load(img->writable ? &p->next : &p->end);

	return host >= p->start && host < end;
}

static uint64_t run_of(const struct image *img, const unsigned char *buf,
		       uint64_t max)
{
	const struct parallels *p = parallels_of(img);
	uint32_t first = le32_at(buf);
	uint64_t step = first ? img->unit / p->step : 0, n = 1;

	while (n < max && le32_at(buf + 4 * n) == first + n * step &&
	       (!first || entry_good(img, (first + n * step) * p->step)))
		n++;
	return n;
}

static int parallels_map(const struct view *v, uint64_t off, uint64_t len,
			 struct extent *ext)
{
	struct image *img = v->img;
	const struct parallels *p = parallels_of(img);
	uint64_t i = off / img->unit, in = off % img->unit, host, n;
	struct extent found = {
		.kind = EXT_HOLE, .off = off, .len = len, .file = img->file,
	};
	unsigned char buf[4 * LOOK];
	int ret;

	if (i < p->entries) {           /* a table may be too short */
		n = min_u64(div_up(in + len, img->unit),
			    min_u64(LOOK, p->entries - i));
		ret = meta_peek(img, img->file, buf, 4 * n,
				PH_LENGTH + 4 * i);
		if (ret)
			return ret;
		found.len = min_u64(len, run_of(img, buf, n) * img->unit - in);
		host = le32_at(buf) * p->step;
		if (host && !entry_good(img, host)) {
			image_corrupt(img, "cluster %" PRIu64 " is outside"
				      " image", i);
			return -EIO;
		}
		found.kind = host ? EXT_DATA : EXT_HOLE;
		found.host = host + in;
	}
	*ext = found;
	return 0;
}

/* ---- writing ------------------------------------------------------------- */

/* The file ends with a whole cluster before an entry leads there. */
static int take(struct image *img, uint64_t n, uint64_t *host)
{
	struct parallels *p = parallels_of(img);
	uint64_t end = UINT32_MAX * p->step, at;
	bool grows = img->file->traits.grows;
	int ret = 0;
	with_lock(&p->lock);

	if (spare_take(&p->spare, n * img->unit, p->step, host))
		return 0;
	if (!grows)
		end = min_u64(end, atomic_load(&p->end));
	at = round_up(atomic_load(&p->next), p->step);
	if (!range_within(at, n * img->unit, end))
		return grows ? -EFBIG : -ENOSPC;
	if (grows)
		ret = file_truncate(img->file, at + n * img->unit);
	if (ret)
		return ret;
	atomic_store(&p->next, at + n * img->unit);
	if (grows)
		atomic_store(&p->end, at + n * img->unit);
	*host = at;
	return 0;
}

/* Entries from @i on that one page holds, of at most @n. */
static uint64_t in_page(const struct image *img, uint64_t i, uint64_t n)
{
	uint64_t slot = PH_LENGTH + 4 * i;

	return min_u64(n, (img->page - slot % img->page) / 4);
}

static int parallels_reserve(struct image *img, struct reserve *res)
{
	const struct parallels *p = parallels_of(img);
	uint64_t i = res->off / img->unit, n, host;
	int ret;

	if (res->intent != STORE_DATA)
		return -ENOTSUP;
	if (i >= p->entries)
		return -EFBIG;
	n = in_page(img, i, min_u64(div_up(res->len, img->unit),
				    p->entries - i));
	ret = meta_get(img, img->file, round_down(PH_LENGTH + 4 * i, img->page),
		       &res->pins[0]);
	if (ret)
		return ret;
	ret = take(img, n, &host);
	if (ret) {
		meta_put(res->pins[0]);
		return ret;
	}
	res->dst = (struct extent) {
		.kind = EXT_DATA, .off = res->off, .len = n * img->unit,
		.file = img->file, .host = host,
	};
	res->fresh = img->file->traits.grows && !spare_used(&p->spare, host);
	res->cookie[COOKIE_INDEX] = i;
	res->cookie[COOKIE_N] = n;
	return 0;
}

static void parallels_commit(struct image *img, const struct reserve *res)
{
	const struct parallels *p = parallels_of(img);
	uint64_t slot = PH_LENGTH + 4 * res->cookie[COOKIE_INDEX];
	struct mpage *pg = res->pins[0];

	meta_wrlock(pg);
	for (uint64_t i = 0; i < res->cookie[COOKIE_N]; i++)
		le32_put((unsigned char *)meta_bytes(pg) + slot % img->page +
			 4 * i,
			 (uint32_t)((res->dst.host + i * img->unit) / p->step));
	meta_dirty(pg, STAGE_LINK);
	meta_unlock(pg);
	meta_put(pg);
}

static void parallels_abort(struct image *img, const struct reserve *res)
{
	struct parallels *p = parallels_of(img);
	with_lock(&p->lock);

	atomic_store(&p->next, spare_give(&p->spare, res->dst.host,
					  res->cookie[COOKIE_N] * img->unit,
					  atomic_load(&p->next)));
	meta_put(res->pins[0]);
}

/* What has a place keeps it, as a hole of the file. */
static int parallels_unmap(struct image *img, uint64_t off, uint64_t len,
			   enum unmap_how how, uint64_t *done)
{
	struct extent ext;
	int ret = parallels_map(&img->live, off,
				min_u64(len, image_size(img) - off), &ext);

	(void)how;
	if (ret)
		return ret;
	if (ext.kind == EXT_DATA)
		return -ENOTSUP;
	*done = ext.len;
	return 0;
}

/* ---- the mark of who writes (rule 12) ------------------------------------ */

/* The page with it is not dirty now, and must not bring back what it was. */
static int write_mark(struct image *img, uint32_t mark)
{
	unsigned char bytes[4];
	int ret;

	le32_put(bytes, mark);
	ret = file_write(img->file, bytes, sizeof(bytes), PH_IN_USE);
	meta_forget(img, img->file, 0, SECTOR_SIZE);
	return ret;
}

/* Takes away what lies behind the last cluster of an unfinished writer: new
 * clusters begin there, and must read as zeroes. */
static int cut_tail(struct image *img)
{
	struct parallels *p = parallels_of(img);
	uint64_t next = atomic_load(&p->next);

	if (!p->unclosed || p->extension || !img->file->traits.grows)
		return 0;
	log_line("Repairing image was not closed correctly");
	p->unclosed = false;
	atomic_store(&p->end, next);
	return file_truncate(img->file, next);
}

/* Bitmaps would tell lies from now on: they are let go, their clusters stay.  A
 * repair cuts the tail itself. */
static int parallels_dirty(struct image *img)
{
	const unsigned char none[8] = { 0 };
	int ret = img->flags & IMAGE_REPAIR ? 0 : cut_tail(img);

	if (!ret && parallels_of(img)->extension)
		ret = file_write(img->file, none, sizeof(none), PH_EXTENSION);
	if (ret)
		return ret;
	parallels_of(img)->extension = 0;
	return write_mark(img, PARALLELS_IN_USE);
}

static int parallels_clean(struct image *img)
{
	const struct parallels *p = parallels_of(img);
	uint64_t size, end = atomic_load(&p->next);
	int ret = file_size(img->file, &size);

	/* Longer: behind the end are bytes of a write that failed. */
	if (!ret && img->file->traits.grows &&
	    (size < end || (size > end && spare_used(&p->spare, end))))
		ret = file_truncate(img->file, end);
	return ret ? ret : write_mark(img, 0);
}

const struct format parallels_format = {
	.name = "parallels",
	.priv_size = sizeof(struct parallels),
	.probe = parallels_probe,
	.open = parallels_open,
	.upgrade = parallels_upgrade,
	.close = parallels_close,
	.map = parallels_map,
	.dirty = parallels_dirty,
	.clean = parallels_clean,
	.reserve = parallels_reserve,
	.commit = parallels_commit,
	.abort = parallels_abort,
	.unmap = parallels_unmap,
	.bitmaps = &parallels_bitmap_ops,
	.admin = &parallels_admin,
};
