/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-write.c - new grains, and the CID that says that the disk has changed.
 *
 * Space is taken from the end of an extent's file and not given back; an entry
 * is changed in both tables where there are two (vmdk.md 3).  Knows which page
 * holds an entry.  Refuses to know what a descriptor says beyond its CID.
 */
#include "vmdk.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

#define MAX_HOST (UINT64_C(0xffffffff) * SECTOR_SIZE)
#define COWD_FREE 28u           /* header: first free sector */

enum { MARKER = 12 };
enum { COOKIE_SLOT, COOKIE_N };
enum { PIN_TABLE, PIN_SECOND, NR_PINS };

/* ---- may it be written --------------------------------------------------- */

static int extent_writable(const struct image *img,
			   const struct vmdk_extent *x, bool last,
			   struct err *err)
{
	const char *name = x->name ? x->name : img->name;

	if (x->read_only && x->store != VMDK_ZERO)
		return err_set(err, -EROFS, "Extent '%s' is read-only", name);
	if (x->store == VMDK_SESPARSE)
		return err_set(err, -ENOTSUP, "No write support for seSparse"
			       " images available");
	if (x->ended)
		return err_set(err, -ENOTSUP, "'%s' is a finished stream",
			       name);
	if (x->store != VMDK_SPARSE)
		return 0;
	if ((x->gd_fault || x->rgd_fault) && !(img->flags & IMAGE_REPAIR))
		return err_set(err, -EUCLEAN, "The %sgrain directory of '%s'"
			       " %s; cannot be opened read/write",
			       x->gd_fault ? "" : "redundant ", name,
			       x->gd_fault ? x->gd_fault : x->rgd_fault);
	if (x->grain != img->unit || x->start % img->unit ||
	    (!last && x->size % img->unit))
		return err_set(err, -ENOTSUP, "The grains of extent '%s' do"
			       " not fit the others", name);
	return 0;
}

/* Behind the file as it is now: it may have grown under an earlier writer. */
static int find_next(struct vmdk_extent *x, struct err *err)
{
	int ret = file_size(x->file, &x->file_end);

	if (ret)
		return err_errno(err, ret, "Could not get the file's size");
	atomic_store(&x->next,
		     round_up(max_u64(x->file_end, atomic_load(&x->next)),
			      x->packed ? SECTOR_SIZE : x->grain));
	return 0;
}

int vmdk_writable(const struct image *img, struct err *err)
{
	struct vmdk *v = vmdk_of(img);
	int ret = 0;

	for (unsigned i = 0; !ret && i < v->nr; i++) {
		struct vmdk_extent *x = &v->extents[i];

		ret = extent_writable(img, x, i + 1 == v->nr, err);
		if (!ret && x->store == VMDK_SPARSE)
			ret = find_next(x, err);
	}
	return ret;
}

int vmdk_upgrade(struct image *img, struct err *err)
{
	if (img->packed_only)
		return err_set(err, -ENOTSUP, "A streamOptimized image is only"
			       " written as a whole, by convert");
	return vmdk_writable(img, err);
}

/* ---- the CID ------------------------------------------------------------- */

uint32_t vmdk_new_cid(void)
{
	uint32_t cid = 0;

	while (cid < 0x10000000 || cid == VMDK_NO_PARENT)
		if (getrandom(&cid, sizeof(cid), 0) != sizeof(cid))
			cid = (uint32_t)getpid() * 0x9e3779b1u | 0x10000000;
	return cid;
}

/* Where the line's number is; NULL: there is no such line. */
static char *find_cid(char *text)
{
	char *p = text;

	while (p && strncmp(p, "CID=", 4)) {
		p = strchr(p, '\n');
		p = p ? p + 1 : NULL;
	}
	return p ? p + 4 : NULL;
}

/* Another number of digits moves the rest of the text. */
static int write_text(struct image *img, char *at, size_t digits,
		      const char *cid)
{
	struct vmdk *v = vmdk_of(img);
	size_t old = strlen(v->text), n = old + strlen(cid) - digits;
	autofree char *text = calloc(1, max_u64(old, n) + 1);
	int ret;

	if (!text)
		return -ENOMEM;
	if (v->text_at && n > v->text_room)
		return -ENOSPC;
	snprintf(text, n + 1, "%.*s%s%s", (int)(at - v->text), v->text, cid,
		 at + digits);
	ret = file_write(img->file, text, max_u64(old, n), v->text_at);
	if (ret)
		return ret;
	free(v->text);
	v->text = strdup(text);
	return v->text ? 0 : -ENOMEM;
}

/* As many digits as before where that leaves enough to choose from: then one
 * sector changes. */
int vmdk_dirty(struct image *img)
{
	struct vmdk *v = vmdk_of(img);
	char *at = find_cid(v->text), hex[16];
	uint32_t cid;
	size_t digits = 0;
	int ret;

	/* A repair changes no byte of the disk. */
	if (!at || img->flags & IMAGE_REPAIR)
		return 0;
	while (isxdigit((unsigned char)at[digits]))
		digits++;
	do {
		cid = vmdk_new_cid();
		if (digits >= 6 && digits < 8)
			cid >>= 4 * (8 - digits);
	} while (cid == v->cid);
	snprintf(hex, sizeof(hex), "%" PRIx32, cid);
	if (strlen(hex) == digits) {
		memcpy(at, hex, digits);
		ret = file_write(img->file, hex, digits,
				 v->text_at + (uint64_t)(at - v->text));
	} else {
		ret = write_text(img, at, digits, hex);
	}
	if (!ret)
		v->cid = cid;
	return ret;
}

/* ---- space --------------------------------------------------------------- */

static int take(struct vmdk *v, struct vmdk_extent *x, uint64_t len,
		uint64_t align, uint64_t *host)
{
	uint64_t limit = x->file->traits.grows ? MAX_HOST : x->file_end, at;
	with_lock(&v->space);

	at = round_up(atomic_load(&x->next), align);
	if (spare_take(&x->spare, len, align, host))
		return 0;
	if (!range_within(at, len, limit))
		return x->file->traits.grows ? -EFBIG : -ENOSPC;
	atomic_store_explicit(&x->next, at + len, memory_order_release);
	*host = at;
	return 0;
}

/* Nothing leads there. */
static void give(struct vmdk *v, struct vmdk_extent *x, uint64_t host,
		 uint64_t len)
{
	with_lock(&v->space);

	atomic_store_explicit(&x->next, spare_give(&x->spare, host, len,
						   atomic_load(&x->next)),
			      memory_order_release);
}

/* What others see of it ends with a whole grain.  Behind that may be bytes of a
 * write that failed. */
static int extent_clean(struct vmdk_extent *x)
{
	uint64_t end = round_up(atomic_load(&x->next), x->packed ?
				SECTOR_SIZE : x->grain), size;
	unsigned char free_sector[4];
	int ret = file_size(x->file, &size);

	if (!ret && x->file->traits.grows &&
	    (size < end || (size > end && spare_used(&x->spare, end))))
		ret = file_truncate(x->file, end);
	if (ret || !x->cowd)
		return ret;
	le32_put(free_sector, (uint32_t)(end / SECTOR_SIZE));
	return file_write(x->file, free_sector, sizeof(free_sector),
			  COWD_FREE);
}

int vmdk_clean(struct image *img)
{
	const struct vmdk *v = vmdk_of(img);
	int ret = 0;

	for (unsigned i = 0; !ret && i < v->nr; i++)
		if (v->extents[i].store == VMDK_SPARSE &&
		    (atomic_load(&v->extents[i].next) > v->extents[i].file_end ||
		     v->extents[i].spare.used_to))
			ret = extent_clean(&v->extents[i]);
	return ret;
}

/* ---- tables -------------------------------------------------------------- */

static uint64_t table_bytes(const struct vmdk_extent *x)
{
	return round_up(4 * x->gtes, SECTOR_SIZE);
}

static int set_root(struct image *img, struct vmdk_extent *x, uint64_t slot,
		    uint64_t table)
{
	struct mpage *pg;
	int ret = meta_get(img, x->file, round_down(slot, img->page), &pg);

	if (ret)
		return ret;
	change_begin(img);
	meta_wrlock(pg);
	le32_put((unsigned char *)meta_bytes(pg) + slot % img->page,
		 (uint32_t)(table / SECTOR_SIZE));
	meta_dirty(pg, STAGE_ROOT);
	meta_unlock(pg);
	change_end(img);
	meta_put(pg);
	return 0;
}

/* An empty table: written at once, hence durable before anything leads
 * there. */
static int table_make(struct image *img, struct vmdk_extent *x, uint64_t gd,
		      uint64_t index, uint64_t *table)
{
	struct vmdk *v = vmdk_of(img);
	int ret = take(v, x, table_bytes(x), SECTOR_SIZE, table);

	if (ret)
		return ret;
	ret = file_zero(x->file, *table, table_bytes(x), ZERO_ALLOCATE);
	if (ret) {
		give(v, x, *table, table_bytes(x));
		return ret;
	}
	meta_forget(img, x->file, *table, table_bytes(x));
	return set_root(img, x, gd + 4 * index, *table);
}

static bool table_good(const struct vmdk_extent *x, uint64_t table)
{
	return table && range_within(table, table_bytes(x),
				     atomic_load(&x->next));
}

/* *@second is 0 where there is no second table, or none that could be one. */
static int tables_own(struct image *img, struct vmdk_extent *x,
		      uint64_t index, uint64_t *table, uint64_t *second)
{
	struct vmdk *v = vmdk_of(img);
	int ret = 0;
	with_lock(&v->lock);

	*second = 0;
	if (x->rgd)
		ret = vmdk_table_at(img, x, x->rgd, index, second);
	if (!ret && x->rgd && !*second)
		ret = table_make(img, x, x->rgd, index, second);
	if (!ret)
		ret = vmdk_table_at(img, x, x->gd, index, table);
	if (!ret && !*table)
		ret = table_make(img, x, x->gd, index, table);
	if (ret)
		return ret;
	if (!table_good(x, *second) || *second == *table)
		*second = 0;
	if (table_good(x, *table))
		return 0;
	image_corrupt(img, "Grain table at offset %#" PRIx64 " is beyond the"
		      " end of the file", *table);
	return -EIO;
}

/* The entries of @n grains from @g on, all in one page: pinned. */
static int pin_entries(struct image *img, struct vmdk_extent *x, uint64_t g,
		       struct mpage *pins[NR_PINS], uint64_t *slot,
		       uint64_t *n)
{
	uint64_t i = g % x->gtes, table, second;
	int ret = tables_own(img, x, g / x->gtes, &table, &second);

	if (ret)
		return ret;
	*slot = 4 * i % img->page;
	*n = min_u64(*n, min_u64(x->gtes - i, (img->page - *slot) / 4));
	*n = min_u64(*n, div_up(x->size, x->grain) - g);
	ret = meta_get(img, x->file, table + round_down(4 * i, img->page),
		       &pins[PIN_TABLE]);
	if (ret || !second)
		return ret;
	ret = meta_get(img, x->file, second + round_down(4 * i, img->page),
		       &pins[PIN_SECOND]);
	if (ret)
		meta_put(pins[PIN_TABLE]);
	return ret;
}

/* Inside the gate: entry k becomes @first + k * @step, in both tables. */
static void put_entries(struct mpage *const pins[NR_PINS], uint64_t slot,
			uint64_t n, uint64_t first, uint64_t step)
{
	for (int p = 0; p < NR_PINS; p++) {
		struct mpage *pg = pins[p];

		if (!pg)
			continue;
		meta_wrlock(pg);
		for (uint64_t k = 0; k < n; k++)
			le32_put((unsigned char *)meta_bytes(pg) + slot +
				 4 * k, (uint32_t)(first + k * step));
		meta_dirty(pg, STAGE_LINK);
		meta_unlock(pg);
	}
}

static void unpin(struct mpage *const pins[NR_PINS])
{
	for (int p = 0; p < NR_PINS; p++)
		meta_put(pins[p]);
}

/* ---- reserve, commit, abort ---------------------------------------------- */

/* vmdk.md 4: the grain's sector and the stream's length come first. */
static void put_marker(struct reserve *res, uint64_t in)
{
	le64_put(res->frame, in / SECTOR_SIZE);
	le32_put(res->frame + 8, res->packed);
	res->frame_len = MARKER;
}

static int take_space(struct image *img, struct vmdk_extent *x,
		      const struct reserve *res, uint64_t n, uint64_t *host)
{
	struct vmdk *v = vmdk_of(img);

	return res->intent == STORE_PACKED ?
	       take(v, x, MARKER + (uint64_t)res->packed, SECTOR_SIZE, host) :
	       take(v, x, n * x->grain, x->grain, host);
}

int vmdk_reserve(struct image *img, struct reserve *res)
{
	struct vmdk_extent *x = vmdk_extent_at(vmdk_of(img), res->off);
	uint64_t in = res->off - x->start, host, slot;
	uint64_t n = div_up(res->len, img->unit);
	int ret;

	if (x->store != VMDK_SPARSE)
		return -EROFS;          /* NOACCESS, or all zeroes */
	if (res->intent == STORE_PREALLOC ||
	    x->packed != (res->intent == STORE_PACKED))
		return -ENOTSUP;
	ret = pin_entries(img, x, in / x->grain, res->pins, &slot, &n);
	if (ret)
		return ret;
	ret = take_space(img, x, res, n, &host);
	if (ret) {
		unpin(res->pins);
		return ret;
	}
	if (x->packed)
		put_marker(res, in);
	res->dst = (struct extent) {
		.kind = EXT_DATA, .off = res->off, .len = n * x->grain,
		.file = x->file, .host = host + res->frame_len,
	};
	/* A device is full of whatever was there before. */
	res->fresh = x->file->traits.grows && !spare_used(&x->spare, host);
	res->cookie[COOKIE_SLOT] = slot;
	res->cookie[COOKIE_N] = n;
	return 0;
}

void vmdk_commit(struct image *img, const struct reserve *res)
{
	put_entries(res->pins, res->cookie[COOKIE_SLOT], res->cookie[COOKIE_N],
		    (res->dst.host - res->frame_len) / SECTOR_SIZE,
		    img->unit / SECTOR_SIZE);
	unpin(res->pins);
}

void vmdk_abort(struct image *img, const struct reserve *res)
{
	struct vmdk *v = vmdk_of(img);
	struct vmdk_extent *x = vmdk_extent_at(v, res->off);

	give(v, x, res->dst.host - res->frame_len, res->frame_len +
	     (x->packed ? res->packed : res->cookie[COOKIE_N] * x->grain));
	unpin(res->pins);
}

/* ---- unmap --------------------------------------------------------------- */

static int set_entries(struct image *img, struct vmdk_extent *x, uint64_t in,
		       uint64_t len, uint32_t entry, uint64_t *done)
{
	uint64_t n = div_up(len, x->grain), slot;
	struct mpage *pins[NR_PINS] = { NULL, NULL };
	int ret = pin_entries(img, x, in / x->grain, pins, &slot, &n);

	if (ret)
		return ret;
	change_begin(img);
	put_entries(pins, slot, n, entry, 0);
	change_end(img);
	unpin(pins);
	*done = n * x->grain;
	return 0;
}

/*
 * What has a place keeps it: the engine makes zeroes there, which are a hole of
 * the file.  What has none gets the entry that means zeroes, or, with nothing
 * below it, none.
 */
int vmdk_unmap(struct image *img, uint64_t off, uint64_t len,
	       enum unmap_how how, uint64_t *done)
{
	struct vmdk_extent *x = vmdk_extent_at(vmdk_of(img), off);
	bool backed = img->backing || img->backing_name;
	struct extent ext;
	int ret = img->fmt->map(&img->live, off,
				min_u64(len, image_size(img) - off), &ext);

	if (ret)
		return ret;
	if (ext.kind == EXT_DATA || ext.kind == EXT_PACKED)
		return -ENOTSUP;
	if (how == UNMAP_HOLE ? ext.kind == EXT_HOLE :
	    ext.kind == EXT_ZERO || !backed) {
		*done = ext.len;
		return 0;
	}
	if (x->store != VMDK_SPARSE)
		return -ENOTSUP;
	if (how == UNMAP_HOLE)
		return set_entries(img, x, off - x->start, ext.len, 0, done);
	return x->zeroes ? set_entries(img, x, off - x->start, ext.len, 1,
				       done) : -ENOTSUP;
}
