/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * report-map.c - the text of `imgctl map`, piece by piece; see report.h.
 *
 * Knows qemu-img's two layouts and which neighbours it prints as one entry.
 * Refuses to know where an extent comes from: the walk tells.
 */
#include "report.h"

#include <inttypes.h>

/* Steps of the walk in one call: keeps a reader of the mount interruptible
 * however many extents merge into one entry. */
#define STEPS 256

void map_cursor_init(struct map_cursor *c, const struct view *v,
		     enum report_format how, uint64_t start, uint64_t length)
{
	uint64_t size = v->root ? v->size : image_size(v->img);

	*c = (struct map_cursor) {
		.view = *v,
		.how = how,
		.shows_compressed = qemu_compat() >= 100,
		.at = start,
		.end = start,
	};
	if (start < size)
		c->end = start + min_u64(size - start, length);
}

/* qemu-img prints two runs as one entry when nothing it prints differs. */
static bool joins(const struct run *a, const struct run *b)
{
	if (a->depth != b->depth || a->present != b->present ||
	    a->zero != b->zero || a->data != b->data ||
	    a->compressed != b->compressed || a->has_host != b->has_host)
		return false;
	if (!a->has_host)
		return true;
	return a->file == b->file && a->host + a->len == b->host;
}

static void put_uint(struct strbuf *out, const char *before, uint64_t n)
{
	strbuf_puts(out, before);
	strbuf_uint(out, n);
}

static void put_bool(struct strbuf *out, const char *before, bool b)
{
	strbuf_puts(out, before);
	strbuf_puts(out, b ? "true" : "false");
}

/* There may be millions of them: no printf. */
static void entry_json(struct map_cursor *c, struct strbuf *out)
{
	const struct run *r = &c->pending;

	put_uint(out, "{ \"start\": ", r->off);
	put_uint(out, ", \"length\": ", r->len);
	put_uint(out, ", \"depth\": ", r->depth);
	put_bool(out, ", \"present\": ", r->present);
	put_bool(out, ", \"zero\": ", r->zero);
	put_bool(out, ", \"data\": ", r->data);
	if (c->shows_compressed)
		put_bool(out, ", \"compressed\": ", r->compressed);
	if (r->has_host)
		put_uint(out, ", \"offset\": ", r->host);
	strbuf_putc(out, '}');
	c->listed = true;
}

static int entry_human(const struct run *r, struct strbuf *out,
		       struct err *err)
{
	if (r->data && !r->has_host)
		return err_set(err, -ENOTSUP, "File contains external,"
			       " encrypted or compressed clusters.");
	if (r->data && !r->zero)
		strbuf_printf(out, "%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64
			      "%s\n", r->off, r->len, r->host,
			      r->filename ? r->filename : "");
	return 0;
}

static int entry(struct map_cursor *c, struct strbuf *out, struct err *err)
{
	c->has_pending = false;
	if (c->how == REPORT_HUMAN)
		return entry_human(&c->pending, out, err);
	entry_json(c, out);
	return 0;
}

static void start(struct map_cursor *c, struct strbuf *out)
{
	c->started = true;
	if (c->how == REPORT_JSON)
		strbuf_putc(out, '[');
	else
		strbuf_printf(out, "%-16s%-16s%-16s%s\n", "Offset", "Length",
			      "Mapped to", "File");
}

/* A map without any entry has one of length 0 (seen in 7.2). */
static int finish(struct map_cursor *c, struct strbuf *out, struct err *err)
{
	int ret = 0;

	c->ended = true;
	if (!c->has_pending && !c->listed)
		c->pending = (struct run) { .off = c->at };
	if (c->has_pending || !c->listed)
		ret = entry(c, out, err);
	if (c->how == REPORT_JSON)
		strbuf_puts(out, "]\n");
	return ret;
}

/* One step of the walk: grows the pending entry, or prints it. */
static int step(struct map_cursor *c, struct strbuf *out, struct err *err)
{
	struct run r;
	int ret;

	ret = walk_step(&c->view, c->at, c->end - c->at, 0,
			MAP_EXACT | MAP_AS_QEMU, &r);
	if (ret)
		return err_errno(err, ret, "Could not read file metadata");
	c->at = r.off + r.len;
	if (c->has_pending && joins(&c->pending, &r)) {
		c->pending.len += r.len;
		return 0;
	}
	if (c->has_pending) {
		ret = entry(c, out, err);
		/* Another one follows, whatever comes after that. */
		if (c->how == REPORT_JSON)
			strbuf_puts(out, ",\n");
	}
	c->pending = r;
	c->has_pending = true;
	return ret;
}

int map_cursor_next(struct map_cursor *c, struct strbuf *out, struct err *err)
{
	int ret = 0;

	if (c->ended)
		return 0;
	if (!c->started)
		start(c, out);
	for (unsigned i = 0; i < STEPS && c->at < c->end && !ret; i++)
		ret = step(c, out, err);
	if (!ret && c->at < c->end)
		return 1;
	if (!ret)
		return finish(c, out, err);
	c->ended = true;
	return ret;
}
