/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * testfmt.c - a format for tests of the engine: the smallest that allocates.
 */
#include "testfmt.h"
#include "bitmap.h"

#include "engine.h"

#define TABLE 4096u

struct testfmt_state {
	pthread_mutex_t lock;
	uint64_t end;                   /* lock: no unit at or behind it */
	uint64_t *free;                 /* lock: given back */
	size_t nr_free, room;
	_Atomic bool shared;
};

static struct testfmt_state *state_of(struct image *img)
{
	return img->priv;
}

static int fmt_open(struct image *img, struct err *err)
{
	struct testfmt_state *st = img->priv;
	unsigned char head[16];
	uint64_t size;
	int ret = file_read(img->file, head, sizeof(head), 0);

	if (!ret)
		ret = file_size(img->file, &size);
	if (ret || memcmp(head, "testfmt1", 8))
		return err_set(err, -EINVAL, "no testfmt");
	pthread_mutex_init(&st->lock, NULL);
	atomic_store(&img->size, le64_at(head + 8));
	img->unit = img->piece = TESTFMT_UNIT;
	img->align = 1;
	img->page = 512;
	img->zero_tail_hole = true;
	st->end = round_up(size, TESTFMT_UNIT);
	return 0;
}

static void fmt_close(struct image *img)
{
	free(state_of(img)->free);
}

static uint64_t slot_of(uint64_t off)
{
	return TABLE + off / TESTFMT_UNIT * 8;
}

static int slot_page(struct image *img, uint64_t off, struct mpage **pg)
{
	return meta_get(img, img->file, round_down(slot_of(off), img->page),
			pg);
}

static unsigned char *slot_in(struct image *img, struct mpage *pg,
			      uint64_t off)
{
	return (unsigned char *)meta_bytes(pg) + slot_of(off) % img->page;
}

static int fmt_map(const struct view *v, uint64_t off, uint64_t len,
		   struct extent *ext)
{
	uint64_t in = off % TESTFMT_UNIT, host;
	struct mpage *pg;
	int ret = slot_page(v->img, off, &pg);

	if (ret)
		return ret;
	meta_rdlock(pg);
	host = le64_at(slot_in(v->img, pg, off));
	meta_unlock(pg);
	meta_put(pg);
	*ext = (struct extent) {
		.kind = host ? EXT_DATA : EXT_HOLE,
		.flags = state_of(v->img)->shared ? EXT_SHARED : 0,
		.off = off, .len = min_u64(len, TESTFMT_UNIT - in),
		.file = v->img->file, .host = host + in,
	};
	return 0;
}

static int fmt_reserve(struct image *img, struct reserve *res)
{
	struct testfmt_state *st = state_of(img);
	int ret = slot_page(img, res->off, &res->pins[0]);
	with_lock(&st->lock);

	if (ret)
		return ret;
	res->fresh = !st->nr_free;
	if (st->nr_free) {
		res->cookie[0] = st->free[--st->nr_free];
	} else {
		res->cookie[0] = st->end;
		st->end += TESTFMT_UNIT;
	}
	res->dst = (struct extent) {
		.kind = EXT_DATA, .off = res->off, .len = TESTFMT_UNIT,
		.file = img->file, .host = res->cookie[0],
	};
	return 0;
}

static void set_slot(struct image *img, struct mpage *pg, uint64_t off,
		     uint64_t host)
{
	uint64_t old;

	meta_wrlock(pg);
	old = le64_at(slot_in(img, pg, off));
	le64_put(slot_in(img, pg, off), host);
	meta_dirty(pg, STAGE_LINK);
	meta_unlock(pg);
	if (old)
		space_retire(img, img->file, old, TESTFMT_UNIT);
}

static void fmt_commit(struct image *img, const struct reserve *res)
{
	set_slot(img, res->pins[0], res->off, res->cookie[0]);
	meta_put(res->pins[0]);
}

static int give_back(struct image *img, uint64_t host)
{
	struct testfmt_state *st = state_of(img);
	with_lock(&st->lock);

	if (st->nr_free == st->room) {
		size_t room = st->room ? 2 * st->room : 16;
		uint64_t *grown = realloc(st->free, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		st->free = grown;
		st->room = room;
	}
	st->free[st->nr_free++] = host;
	return 0;
}

static void fmt_abort(struct image *img, const struct reserve *res)
{
	meta_put(res->pins[0]);
	(void)give_back(img, res->cookie[0]);
}

static int fmt_unmap(struct image *img, uint64_t off, uint64_t len,
		     enum unmap_how how, uint64_t *done)
{
	struct mpage *pg;
	int ret = slot_page(img, off, &pg);

	(void)len;
	(void)how;
	if (ret)
		return ret;
	change_begin(img);
	set_slot(img, pg, off, 0);
	change_end(img);
	meta_put(pg);
	*done = TESTFMT_UNIT;
	return 0;
}

static int fmt_release_probe(struct image *img, struct file *file,
			     uint64_t host, uint64_t len)
{
	(void)img;
	(void)file;
	(void)host;
	(void)len;
	return 1;
}

static int fmt_release(struct image *img, struct file *file, uint64_t host,
		       uint64_t len)
{
	int ret = 0;

	(void)file;
	for (uint64_t at = host; !ret && at < host + len; at += TESTFMT_UNIT)
		ret = give_back(img, at);
	return ret;
}

/* Bitmaps that end with the image. */
static int no_list(struct image *img, struct bitmap_set *set, struct err *err)
{
	(void)img;
	(void)set;
	(void)err;
	return 0;
}

static int check_any(struct image *img, const struct bitmap_set *set,
		     const struct bitmap *b, struct err *err)
{
	(void)b;
	return no_list(img, (struct bitmap_set *)set, err);
}

static int use_none(struct image *img, struct bitmap *b)
{
	(void)b;
	return no_list(img, NULL, NULL);
}

static int store_none(struct image *img, struct bitmap_set *set)
{
	return no_list(img, set, NULL);
}

static const struct format_bitmaps fmt_bitmaps = {
	.list = no_list,
	.check = check_any,
	.use = use_none,
	.store = store_none,
	.place = store_none,
	.publish = store_none,
};

const struct format testfmt = {
	.name = "testfmt",
	.priv_size = sizeof(struct testfmt_state),
	.open = fmt_open,
	.close = fmt_close,
	.map = fmt_map,
	.reserve = fmt_reserve,
	.commit = fmt_commit,
	.abort = fmt_abort,
	.unmap = fmt_unmap,
	.release_probe = fmt_release_probe,
	.release = fmt_release,
	.bitmaps = &fmt_bitmaps,
};

/* ---- for tests ------------------------------------------------------------ */

int testfmt_create(struct file *f, uint64_t size)
{
	unsigned char head[16];
	int ret = file_truncate(f, TABLE + div_up(size, TESTFMT_UNIT) * 8);

	memcpy(head, "testfmt1", 8);
	le64_put(head + 8, size);
	return ret ? ret : file_write(f, head, sizeof(head), 0);
}

void testfmt_set_shared(struct image *img, bool shared)
{
	atomic_store(&state_of(img)->shared, shared);
}

/* As image_open_file() would, for a format that is in no table. */
struct image *testfmt_open(struct file *f)
{
	struct image *img = calloc(1, sizeof(*img));

	if (!img)
		return NULL;
	img->fmt = &testfmt;
	img->file = file_ref(f);
	img->want_write = img->writable = true;
	img->name = strdup("testfmt");
	img->priv = calloc(1, testfmt.priv_size);
	img->live.img = img;
	img->eng = engine_new(img);
	if (!img->priv || !img->eng || fmt_open(img, NULL))
		BUG("cannot open a testfmt");
	return img;
}
