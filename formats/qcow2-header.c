/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-header.c - another header for an image that is in use: feature bits,
 * extensions, backing file name (qcow2.md 1-3), in the layout that QEMU writes.
 *
 * Of what is written, each sector of 512 bytes survives a power failure or does
 * not, and the extensions may cross from the first one into others.  When more
 * than one sector changes, the way there is
 *
 *   1  the new extensions and the name, behind all that is in use;
 *   2  sector 0: the new fields, and one extension, a feature name table that
 *      nobody reads, which covers everything up to there;
 *   3  below that table: what belongs there, from the second sector on;
 *   4  sector 0 as it shall be,
 *
 * each durable before the next: at any moment the header is the old one or the
 * new one.  (A cluster too small for both is written at once.)
 *
 * The fields that say where tables are belong to others, who change them
 * meanwhile: they are left as they are.  All changes of the header's page are
 * made in STAGE_SPACE_ROOT (rule 7), hence what such a field points at must be
 * durable, or written around the cache, before.
 */
#include "qcow2.h"

#define FEATURES_MIN_CLUSTER 8192u      /* below: no feature name table */

const struct qcow2_feature_name qcow2_feature_names[QFEATURE_NAMES] = {
	{ 0, 0, "dirty bit" },
	{ 0, 1, "corrupt bit" },
	{ 0, 2, "external data file" },
	{ 0, 3, "compression type" },
	{ 0, 4, "extended L2 entries" },
	{ 1, 0, "lazy refcounts" },
	{ 2, 0, "bitmaps" },
	{ 2, 1, "raw external data" },
};

bool qcow2_header_has_names(unsigned version, unsigned cluster_bits)
{
	return version >= 3 && 1u << cluster_bits >= FEATURES_MIN_CLUSTER;
}

/* ---- single fields ------------------------------------------------------- */

int qcow2_header_pin(struct image *img, struct mpage **pg)
{
	return meta_get(img, img->file, 0, pg);
}

/* With the page's lock.  After a switch of roots that is not durable yet the
 * header is one; once it is, no longer. */
void qcow2_header_dirty(struct image *img, struct mpage *pg)
{
	struct qcow2 *q = qcow2_of(img);

	q->head_is_root &= meta_is_dirty(pg);
	meta_dirty(pg, q->head_is_root ? STAGE_ROOT : STAGE_SPACE_ROOT);
}

void qcow2_header_put(struct image *img, struct mpage *pg, unsigned at,
		      const void *bytes, size_t len)
{
	meta_wrlock(pg);
	memcpy((unsigned char *)meta_bytes(pg) + at, bytes, len);
	qcow2_header_dirty(img, pg);
	meta_unlock(pg);
}

/* ---- what a header says -------------------------------------------------- */

void qcow2_header_get(const struct image *img, struct qcow2_header *h)
{
	const struct qcow2 *q = qcow2_of(img);

	*h = (struct qcow2_header) {
		.version = q->version,
		.incompat = q->incompat,
		.compat = q->compat,
		.autoclear = q->autoclear,
		.backing = img->backing_name,
		.backing_fmt = img->backing_fmt,
		.data_file = q->data_file,
	};
	if (!q->has_bitmaps)
		return;
	h->nb_bitmaps = q->nb_bitmaps;
	h->bitmaps_size = q->bitmaps_size;
	h->bitmaps_offset = q->bitmaps_offset;
}

/* Of an image in use: under construction. */
struct layout_of {
	struct image *img;
	const struct qcow2_header *h;
	unsigned char *bytes;   /* a cluster, or NULL: only lengths */
	size_t at;
};

static void put_ext(struct layout_of *l, uint32_t type, const void *data,
		    size_t len)
{
	size_t padded = round_up(len, 8);

	if (l->bytes) {
		be32_put(l->bytes + l->at, type);
		be32_put(l->bytes + l->at + 4, (uint32_t)len);
		memcpy(l->bytes + l->at + 8, data, len);
		memset(l->bytes + l->at + 8 + len, 0, padded - len);
	}
	l->at += 8 + padded;
}

static void put_kept(struct layout_of *l, bool luks)
{
	const struct qcow2 *q = qcow2_of(l->img);

	for (size_t i = 0; i < q->nr_exts; i++) {
		const struct qcow2_ext *x = &q->exts[i];

		switch (x->type) {
		case QEXT_BACKING_FORMAT:
		case QEXT_DATA_FILE:
		case QEXT_FEATURES:
		case QEXT_BITMAPS:
			break;
		default:
			if ((x->type == QEXT_LUKS) == luks)
				put_ext(l, x->type, x->data, x->len);
		}
	}
}

static void put_bitmaps(struct layout_of *l)
{
	unsigned char b[QB_LENGTH] = { 0 };

	if (!l->h->nb_bitmaps)
		return;
	be32_put(b + QB_COUNT, l->h->nb_bitmaps);
	be64_put(b + QB_DIR_SIZE, l->h->bitmaps_size);
	be64_put(b + QB_DIR_OFFSET, l->h->bitmaps_offset);
	put_ext(l, QEXT_BITMAPS, b, sizeof(b));
}

/* Extensions and name from l->at on, in QEMU's order; where the name is. */
static size_t put_tail(struct layout_of *l, bool names)
{
	const struct qcow2_header *h = l->h;
	const struct qcow2 *q = qcow2_of(l->img);
	size_t name_at;

	if (h->backing && h->backing_fmt)
		put_ext(l, QEXT_BACKING_FORMAT, h->backing_fmt,
			strlen(h->backing_fmt));
	if (h->data_file)
		put_ext(l, QEXT_DATA_FILE, h->data_file, strlen(h->data_file));
	put_kept(l, true);
	if (names && qcow2_header_has_names(h->version, q->cluster_bits))
		put_ext(l, QEXT_FEATURES, qcow2_feature_names,
			sizeof(qcow2_feature_names));
	put_bitmaps(l);
	put_kept(l, false);
	put_ext(l, QEXT_END, "", 0);
	name_at = l->at;
	if (h->backing && l->bytes)
		memcpy(l->bytes + name_at, h->backing, strlen(h->backing));
	l->at += h->backing ? strlen(h->backing) : 0;
	return name_at;
}

/* Fields that are this file's to change; unknown ones stay. */
static void put_fields(struct layout_of *l, size_t name_at)
{
	const struct qcow2_header *h = l->h;
	const struct qcow2 *q = qcow2_of(l->img);
	unsigned char *b = l->bytes;

	be32_put(b + QH_VERSION, h->version);
	be64_put(b + QH_BACKING_OFFSET, h->backing ? name_at : 0);
	be32_put(b + QH_BACKING_SIZE,
		 h->backing ? (uint32_t)strlen(h->backing) : 0);
	if (h->version < 3)
		return;
	be64_put(b + QH_INCOMPAT, h->incompat);
	be64_put(b + QH_COMPAT, h->compat);
	be64_put(b + QH_AUTOCLEAR, h->autoclear);
	be32_put(b + QH_REFCOUNT_ORDER, q->refcount_order);
	be32_put(b + QH_HEADER_LENGTH, qcow2_header_length(q, h->version));
	b[QH_COMPRESSION_TYPE] = (unsigned char)q->compression;
}

uint32_t qcow2_header_length(const struct qcow2 *q, unsigned version)
{
	return version < 3 ? QH_V2_LENGTH :
	       (uint32_t)max_u64(q->header_length, QH_V3_LENGTH);
}

/* ---- where the present header ends --------------------------------------- */

/* Behind the last byte of @c that means anything. */
static size_t header_end(const struct qcow2 *q, const unsigned char *c)
{
	uint64_t unit = UINT64_C(1) << q->cluster_bits;
	uint64_t name = be64_at(c + QH_BACKING_OFFSET);
	uint64_t end = name ? name : unit, at = q->header_length;

	while (at + 8 <= end) {
		uint32_t type = be32_at(c + at), len = be32_at(c + at + 4);

		at += 8;
		if (type == QEXT_END || len > end - at)
			break;
		at += round_up(len, 8);
	}
	if (name)
		at = max_u64(at, name + be32_at(c + QH_BACKING_SIZE));
	return min_u64(at, unit);
}

/* ---- writing ------------------------------------------------------------- */

/* Bytes [from, to) of @c; of the fields that say where tables are what stands
 * in the page now. */
static void put_page(const struct image *img, struct mpage *pg, uint64_t host,
		     const unsigned char *c, uint64_t from, uint64_t to)
{
	unsigned char keep[QH_V2_LENGTH], *p = meta_bytes(pg);
	uint64_t begin = max_u64(host, from);
	uint64_t end = min_u64(host + img->page, to);

	memcpy(keep, p, sizeof(keep));
	memcpy(p + (begin - host), c + begin, end - begin);
	if (!host)
		memcpy(p + QH_CLUSTER_BITS, keep + QH_CLUSTER_BITS,
		       QH_V2_LENGTH - QH_CLUSTER_BITS);
}

static void pages_put(struct mpage **pg, size_t n)
{
	while (n--)
		meta_put(pg[n]);
	free(pg);
}

/* The pages of [from, to), pinned. */
static int pages_get(struct image *img, uint64_t from, uint64_t to,
		     struct mpage ***out, size_t *n)
{
	struct mpage **pg = calloc(div_up(to - from, img->page) + 2,
				   sizeof(*pg));
	uint64_t at = round_down(from, img->page);
	int ret = pg ? 0 : -ENOMEM;

	for (*n = 0; !ret && at < to; at += img->page) {
		ret = meta_get(img, img->file, at, &pg[*n]);
		if (!ret)
			++*n;
	}
	if (ret)
		pages_put(pg, *n);
	else
		*out = pg;
	return ret;
}

/* Bytes [from, to) of @c become what the header holds, durably. */
static int put(struct image *img, const unsigned char *c, uint64_t from,
	       uint64_t to)
{
	struct mpage **pg;
	size_t n;
	int ret = pages_get(img, from, to, &pg, &n);

	if (ret)
		return ret;
	change_begin(img);
	for (size_t i = 0; i < n; i++) {
		uint64_t at = round_down(from, img->page) + i * img->page;

		meta_wrlock(pg[i]);
		put_page(img, pg[i], at, c, from, to);
		if (at)
			meta_dirty(pg[i], STAGE_SPACE_ROOT);
		else
			qcow2_header_dirty(img, pg[i]);
		meta_unlock(pg[i]);
	}
	change_end(img);
	pages_put(pg, n);
	pause_point("qcow2:header");
	return image_flush(img);
}

/* A header in the making: clusters of bytes, how much of them is in use. */
struct rewrite {
	unsigned char *old, *new, *way;
	size_t old_end, new_end;
	size_t way_at, way_end; /* the extensions on the way, and the name */
};

/* Which sector is the only one that differs; else @n is how many do. */
static uint64_t differing(const struct rewrite *w, uint64_t *n)
{
	uint64_t end = max_u64(w->old_end, w->new_end), found = 0;

	*n = 0;
	for (uint64_t at = 0; at < end; at += SECTOR_SIZE)
		if (memcmp(w->old + at, w->new + at, SECTOR_SIZE)) {
			++*n;
			found = at;
		}
	return found;
}

/* Steps 1 and 2 of the comment above. */
static void make_way(struct image *img, const struct qcow2_header *h,
		    struct rewrite *w)
{
	struct layout_of l = { img, h, w->way, w->way_at };
	uint32_t length = qcow2_header_length(qcow2_of(img), h->version);
	size_t name_at = put_tail(&l, false);

	memcpy(w->way, w->new, length);
	put_fields(&l, name_at);
	be32_put(w->way + length, QEXT_FEATURES);
	be32_put(w->way + length + 4, (uint32_t)(w->way_at - length - 8));
}

static int write_stepwise(struct image *img, const struct qcow2_header *h,
			  struct rewrite *w)
{
	struct layout_of l = { img, h, NULL, 0 };
	uint64_t unit = img->unit;
	int ret;

	put_tail(&l, false);
	w->way_at = round_up(max_u64(w->old_end, w->new_end), 8);
	w->way_end = w->way_at + l.at;
	if (w->way_end > unit)
		return put(img, w->new, 0, unit);
	make_way(img, h, w);
	ret = put(img, w->way, w->way_at, w->way_end);
	if (!ret)
		ret = put(img, w->way, 0, SECTOR_SIZE);
	if (!ret)
		ret = put(img, w->new, SECTOR_SIZE, w->way_at);
	if (!ret)
		ret = put(img, w->new, 0, SECTOR_SIZE);
	return ret ? ret : put(img, w->new, w->way_at, w->way_end);
}

static int write_header(struct image *img, const struct qcow2_header *h,
			struct rewrite *w)
{
	const struct qcow2 *q = qcow2_of(img);
	struct layout_of l = { img, h, w->new, 0 };
	uint64_t n, at;
	int ret = meta_read(img, img->file, w->old, img->unit, 0);

	if (ret)
		return ret;
	w->old_end = header_end(q, w->old);
	l.at = qcow2_header_length(q, h->version);
	memcpy(w->new, w->old, min_u64(l.at, q->header_length));
	put_fields(&l, put_tail(&l, true));
	w->new_end = l.at;
	at = differing(w, &n);
	if (n > 1)
		return write_stepwise(img, h, w);
	return put(img, w->new, at, at + SECTOR_SIZE);
}

/* ---- the call ------------------------------------------------------------ */

/* As it would be refused by who opens it. */
static int header_check(struct image *img, const struct qcow2_header *h)
{
	const struct qcow2 *q = qcow2_of(img);
	struct layout_of l = {
		img, h, NULL, qcow2_header_length(q, h->version),
	};

	if (h->backing && (!*h->backing ||
			   strlen(h->backing) > QCOW2_MAX_BACKING_NAME))
		return -EINVAL;
	if (h->backing_fmt && strlen(h->backing_fmt) > QCOW2_MAX_BACKING_FMT)
		return -EINVAL;
	put_tail(&l, true);
	return l.at > img->unit ? -ENOSPC : 0;
}

static void take_header(struct image *img, const struct qcow2_header *h,
			char *data_file)
{
	struct qcow2 *q = qcow2_of(img);

	q->header_length = qcow2_header_length(q, h->version);
	q->version = h->version;
	q->incompat = h->incompat;
	q->compat = h->compat;
	q->autoclear = h->autoclear;
	q->has_bitmaps = h->nb_bitmaps;
	q->nb_bitmaps = h->nb_bitmaps;
	q->bitmaps_size = h->bitmaps_size;
	q->bitmaps_offset = h->bitmaps_offset;
	if (q->data_file != data_file)
		image_keep_string(img, q->data_file);
	q->data_file = data_file;
}

int qcow2_header_set(struct image *img, const struct qcow2_header *h)
{
	struct qcow2 *q = qcow2_of(img);
	autofree unsigned char *bytes = calloc(3, img->unit);
	struct rewrite w = {
		.old = bytes, .new = bytes + img->unit,
		.way = bytes + 2 * img->unit,
	};
	char *data_file = q->data_file;
	int ret = bytes ? header_check(img, h) : -ENOMEM;
	with_lock(&q->header);

	if (!ret && h->data_file != q->data_file) {
		data_file = h->data_file ? strdup(h->data_file) : NULL;
		ret = h->data_file && !data_file ? -ENOMEM : 0;
	}
	if (!ret)
		ret = write_header(img, h, &w);
	if (!ret)
		take_header(img, h, data_file);
	else if (data_file != q->data_file)
		free(data_file);
	return ret;
}

int qcow2_change_backing(struct image *img, const char *name,
			 const char *format, struct err *err)
{
	struct qcow2_header h;

	(void)err;      /* the reason says it all */
	if (name && qcow2_of(img)->autoclear & QAUTOCLEAR_DATA_RAW)
		return -EINVAL;
	qcow2_header_get(img, &h);
	h.backing = name;
	h.backing_fmt = name ? format : NULL;
	return qcow2_header_set(img, &h);
}
