/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhdx-log.c - the log (vhdx.md, "Log"): which of its entries are alive, what
 * they change, and new ones.
 *
 * We write one entry for each batch of pages, and no batch before the one before
 * it is durable in its place: of our entries at most one is alive, and its tail
 * is itself.  No entry is larger than half the log, so that none overwrites the
 * one before it: a torn entry leaves that one alive, and replaying it changes
 * nothing.
 *
 * Entries are judged sector by sector while they are read: the memory that a
 * log takes is 1/64 of its size, the time is linear.
 */
#include "vhdx.h"
#include "crc32c.h"
#include "engine.h"

enum {
	L_CRC = 4,
	L_LENGTH = 8,
	L_TAIL = 12,
	L_SEQ = 16,
	L_COUNT = 24,
	L_GUID = 32,
	L_FLUSHED = 48,
	L_LAST = 56,
	L_DESCRIPTORS = 64,
	DESC = 32,              /* bytes of one */
	D_TRAILING = 4,
	D_LEADING = 8,          /* of a zero descriptor: the length */
	D_OFFSET = 16,
	D_SEQ = 24,
	DATA_HIGH = 4,
	DATA_BYTES = 8,
	DATA_LOW = 4092,
	LEAD = 8, TRAIL = 4,
	MAX_ZEROES = 4096,      /* descriptors of stretches of zeroes */
};

struct entry {
	uint64_t pos, len, seq, tail;
};

struct scan {
	struct file *f;
	const struct vhdx *v;
	struct entry *e;
	size_t n, room;
	struct vhdx_patches *out;
	size_t zeroes, heads;
};

/* An entry that is being read. */
struct reading {
	struct scan *s;
	struct entry e;
	uint64_t sector;        /* the next one, of the entry */
	uint32_t crc, count;
	uint64_t data;          /* data sectors that descriptors promise */
};

static uint64_t desc_sectors(uint64_t count)
{
	return div_up(L_DESCRIPTORS + DESC * count, VHDX_SECTOR);
}

static uint64_t log_host(const struct vhdx *v, uint64_t pos)
{
	return v->log + pos % v->log_len;
}

/* ---- one entry ----------------------------------------------------------- */

static int next_sector(struct reading *r, unsigned char *buf)
{
	const struct vhdx *v = r->s->v;
	static const unsigned char none[4];
	int ret = file_read(r->s->f, buf, VHDX_SECTOR,
			    log_host(v, r->e.pos + VHDX_SECTOR * r->sector));

	if (ret)
		return ret;
	if (r->sector) {
		r->crc = crc32c(r->crc, buf, VHDX_SECTOR);
	} else {
		r->crc = crc32c(0, buf, L_CRC);
		r->crc = crc32c(r->crc, none, sizeof(none));
		r->crc = crc32c(r->crc, buf + L_LENGTH,
				VHDX_SECTOR - L_LENGTH);
	}
	r->sector++;
	return 0;
}

static bool head_good(struct reading *r, const unsigned char *h)
{
	const struct vhdx *v = r->s->v;

	r->e.len = le32_at(h + L_LENGTH);
	r->e.tail = le32_at(h + L_TAIL);
	r->e.seq = le64_at(h + L_SEQ);
	r->count = le32_at(h + L_COUNT);
	return !memcmp(h, "loge", 4) && r->e.seq && r->e.len &&
	       r->e.len % VHDX_SECTOR == 0 && r->e.len <= v->log_len &&
	       r->e.tail % VHDX_SECTOR == 0 && r->e.tail < v->log_len &&
	       desc_sectors(r->count) * VHDX_SECTOR <= r->e.len &&
	       !memcmp(h + L_GUID, v->header + H_LOG_GUID, 16);
}

static bool desc_good(struct reading *r, const unsigned char *d)
{
	const struct vhdx *v = r->s->v;
	uint64_t off = le64_at(d + D_OFFSET);
	bool data = !memcmp(d, "desc", 4);
	uint64_t len = data ? VHDX_SECTOR : le64_at(d + D_LEADING);

	if (!data && memcmp(d, "zero", 4))
		return false;
	/* Neither headers nor the log itself. */
	if (le64_at(d + D_SEQ) != r->e.seq || off % VHDX_SECTOR ||
	    len % VHDX_SECTOR || off < MiB || off > INT64_MAX / 2 ||
	    len > INT64_MAX / 2 ||
	    (off < v->log + v->log_len && v->log < off + len))
		return false;
	r->data += data;
	return true;
}

static int patch_add(struct reading *r, const unsigned char *d,
		     uint64_t nth_data)
{
	struct vhdx_patches *out = r->s->out;
	bool zero = !memcmp(d, "zero", 4);
	struct vhdx_patch *p;

	if (zero && ++r->s->zeroes > MAX_ZEROES)
		return -EINVAL;
	if (out->n == out->room) {
		size_t room = out->room * 2 + 64;

		p = reallocarray(out->p, room, sizeof(*p));
		if (!p)
			return -ENOMEM;
		out->p = p;
		out->room = room;
	}
	p = &out->p[out->n];
	*p = (struct vhdx_patch) {
		.off = le64_at(d + D_OFFSET),
		.len = zero ? le64_at(d + D_LEADING) : VHDX_SECTOR,
		.from = zero ? 0 : log_host(r->s->v, r->e.pos + VHDX_SECTOR *
					    (desc_sectors(r->count) +
					     nth_data)),
		.order = (uint32_t)out->n,
	};
	memcpy(p->lead, d + D_LEADING, LEAD);
	memcpy(p->trail, d + D_TRAILING, TRAIL);
	out->n++;
	return 0;
}

/* 1: all of its descriptors are sound. */
static int read_descriptors(struct reading *r, unsigned char *buf)
{
	uint32_t at = L_DESCRIPTORS;

	for (uint32_t i = 0; i < r->count; i++, at += DESC) {
		int ret = 0;

		if (at == VHDX_SECTOR) {
			ret = next_sector(r, buf);
			at = 0;
		}
		if (!ret && !desc_good(r, buf + at))
			return 0;
		if (!ret && r->s->out)
			ret = patch_add(r, buf + at, r->data - 1);
		if (ret)
			return ret;
	}
	return 1;
}

/* 1: there is a sound entry at @pos.  With scan->out set its patches are
 * taken. */
static int read_entry(struct scan *s, uint64_t pos, struct entry *e)
{
	struct reading r = { .s = s, .e = { .pos = pos } };
	unsigned char buf[VHDX_SECTOR];
	uint32_t crc;
	int ret = next_sector(&r, buf);

	if (ret || !head_good(&r, buf))
		return ret;
	s->heads++;
	crc = le32_at(buf + L_CRC);
	if (s->out) {
		s->out->flushed = le64_at(buf + L_FLUSHED);
		s->out->last = le64_at(buf + L_LAST);
	}
	ret = read_descriptors(&r, buf);
	if (ret != 1)
		return ret;
	if ((desc_sectors(r.count) + r.data) * VHDX_SECTOR != r.e.len)
		return 0;
	while (r.sector * VHDX_SECTOR < r.e.len) {
		ret = next_sector(&r, buf);
		if (ret)
			return ret;
		if (memcmp(buf, "data", 4) ||
		    le32_at(buf + DATA_HIGH) != r.e.seq >> 32 ||
		    le32_at(buf + DATA_LOW) != (uint32_t)r.e.seq)
			return 0;
	}
	*e = r.e;
	return r.crc == crc || knobs.no_log_crc;
}

/* ---- the active sequence ------------------------------------------------- */

static int entry_add(struct scan *s, const struct entry *e)
{
	if (s->n == s->room) {
		size_t room = s->room * 2 + 64;
		struct entry *more = reallocarray(s->e, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		s->e = more;
		s->room = room;
	}
	s->e[s->n++] = *e;
	return 0;
}

/* No sector of a sound entry begins like another entry: what is inside one
 * needs no look. */
static int find_entries(struct scan *s)
{
	struct entry e;

	for (uint64_t pos = 0; pos < s->v->log_len;) {
		int ret = read_entry(s, pos, &e);

		if (ret < 0)
			return ret;
		pos += ret ? e.len : VHDX_SECTOR;
		ret = ret ? entry_add(s, &e) : 0;
		if (ret)
			return ret;
	}
	return 0;
}

/* Does entry @b come right after @a? */
static bool follows(const struct scan *s, size_t a, size_t b)
{
	return s->e[b].seq == s->e[a].seq + 1 &&
	       (s->e[a].pos + s->e[a].len) % s->v->log_len == s->e[b].pos;
}

static size_t before(const struct scan *s, size_t i)
{
	return (i ? i : s->n) - 1;
}

/* Back from the end of a run to the entry that its tail names. */
static bool find_tail(const struct scan *s, size_t head, size_t *tail)
{
	size_t i = head;

	for (size_t n = 0; n < s->n; n++) {
		if (s->e[i].pos == s->e[head].tail) {
			*tail = i;
			return true;
		}
		if (!follows(s, before(s, i), i))
			return false;
		i = before(s, i);
	}
	return false;
}

static bool find_active(const struct scan *s, size_t *tail, size_t *head)
{
	uint64_t best = 0;

	for (size_t i = 0; i < s->n; i++) {
		size_t from;

		if (s->e[i].seq <= best || follows(s, i, (i + 1) % s->n) ||
		    !find_tail(s, i, &from))
			continue;
		best = s->e[i].seq;
		*head = i;
		*tail = from;
	}
	return best;
}

static int take_patches(struct scan *s, struct vhdx_patches *out)
{
	size_t i, head;
	struct entry e;

	if (!find_active(s, &i, &head))
		return -EINVAL;
	s->out = out;
	for (;; i = (i + 1) % s->n) {
		int ret = read_entry(s, s->e[i].pos, &e);

		if (ret != 1)
			return ret ? ret : -EINVAL;
		if (i == head)
			return 0;
	}
}

int vhdx_log_read(struct file *f, const struct vhdx *v,
		  struct vhdx_patches *out)
{
	struct scan s = { .f = f, .v = v };
	int ret = find_entries(&s);

	/* QEMU names the log first: a crash may come before its first entry
	 * is whole, and then nothing was changed by it. */
	if (!ret && (s.n || s.heads > 1))
		ret = take_patches(&s, out);
	free(s.e);
	if (ret) {
		free(out->p);
		*out = (struct vhdx_patches) { 0 };
	}
	return ret;
}

int vhdx_patch_read(struct file *f, const struct vhdx_patch *p,
		    unsigned char *sector)
{
	int ret = file_read(f, sector, VHDX_SECTOR, p->from);

	memcpy(sector, p->lead, LEAD);
	memcpy(sector + DATA_LOW, p->trail, TRAIL);
	return ret;
}

/* ---- writing ------------------------------------------------------------- */

/* Where the blocks end that the pages name: they are durable already. */
static uint64_t blocks_end(const struct image *img,
			   const struct journal_page *pages, size_t n)
{
	uint64_t end = 0;

	for (size_t i = 0; i < n; i++)
		for (unsigned at = 0; at < img->page; at += 8) {
			uint64_t e = le64_at((const char *)pages[i].bytes + at);

			if (BAT_STATE(e) >= BLOCK_PRESENT)
				end = max_u64(end, BAT_HOST(e) + img->unit);
		}
	return end;
}

static void put_page(unsigned char *entry, size_t i, size_t n, uint64_t seq,
		     const struct journal_page *page)
{
	unsigned char *d = entry + L_DESCRIPTORS + DESC * i;
	unsigned char *s = entry + VHDX_SECTOR * (desc_sectors(n) + i);
	const unsigned char *bytes = page->bytes;

	memcpy(d, "desc", 4);
	memcpy(d + D_TRAILING, bytes + DATA_LOW, TRAIL);
	memcpy(d + D_LEADING, bytes, LEAD);
	le64_put(d + D_OFFSET, page->host);
	le64_put(d + D_SEQ, seq);
	memcpy(s, "data", 4);
	le32_put(s + DATA_HIGH, (uint32_t)(seq >> 32));
	memcpy(s + DATA_BYTES, bytes + LEAD, DATA_LOW - DATA_BYTES);
	le32_put(s + DATA_LOW, (uint32_t)seq);
}

static int write_entry(struct image *img, const unsigned char *entry,
		       uint64_t len)
{
	const struct vhdx *v = vhdx_of(img);
	uint64_t first = min_u64(len, v->log_len - v->log_pos);
	int ret = file_write(img->file, entry, first, v->log + v->log_pos);

	if (!ret && first < len)
		ret = file_write(img->file, entry + first, len - first,
				 v->log);
	return ret;
}

/* Headers that name a log in which there is no entry are a corrupt image: the
 * first entry is durable before them. */
static int log_begin(struct image *img)
{
	struct vhdx *v = vhdx_of(img);
	unsigned char h[VHDX_SECTOR];
	int ret;

	if (!vhdx_guid_null(v->header + H_LOG_GUID))
		return 0;
	memcpy(h, v->header, sizeof(h));
	memcpy(h + H_LOG_GUID, v->log_guid, 16);
	ret = repair_barrier(img);
	return ret ? ret : vhdx_headers_write(img, h);
}

/* How many pages one entry takes. */
static size_t room(const struct vhdx *v)
{
	uint64_t sectors = v->log_len / VHDX_SECTOR / 2, n = sectors - 1;

	while (desc_sectors(n) + n > sectors)
		n--;
	return n;
}

int vhdx_journal(struct image *img, const struct journal_page *pages,
		 size_t n, size_t *done)
{
	struct vhdx *v = vhdx_of(img);
	autofree unsigned char *entry = NULL;
	uint64_t size, len;
	int ret = file_size(img->file, &size);

	n = min_u64(n, room(v));
	len = VHDX_SECTOR * (desc_sectors(n) + n);
	entry = calloc(1, len);
	if (ret || !entry)
		return ret ? ret : -ENOMEM;
	memcpy(entry, "loge", 4);
	le32_put(entry + L_LENGTH, (uint32_t)len);
	le32_put(entry + L_TAIL, (uint32_t)v->log_pos);
	le64_put(entry + L_SEQ, v->log_seq);
	le32_put(entry + L_COUNT, (uint32_t)n);
	memcpy(entry + L_GUID, v->log_guid, 16);
	size = min_u64(size, max_u64(blocks_end(img, pages, n), MiB));
	le64_put(entry + L_FLUSHED, size);
	le64_put(entry + L_LAST, size);
	for (size_t i = 0; i < n; i++)
		put_page(entry, i, n, v->log_seq, &pages[i]);
	vhdx_seal(entry, len);
	ret = write_entry(img, entry, len);
	if (!ret)
		ret = log_begin(img);
	if (ret)
		return ret;
	v->log_pos = (v->log_pos + len) % v->log_len;
	v->log_seq++;
	*done = n;
	return 0;
}
