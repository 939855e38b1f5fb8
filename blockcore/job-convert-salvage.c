/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job-convert-salvage.c - convert --salvage: around what cannot be read.
 *
 * As qemu-img does (qemu-img-cli.md 12): what failed is read again sector by
 * sector, a sector that fails still is zeroes, and each has its warning.  They
 * are told when the batch is stored, hence in order.
 */
#include "job-convert.h"

#include <inttypes.h>
#include <stdio.h>

void convert_salvage(const struct convert *c, struct batch *b, struct piece *p)
{
	for (uint64_t pos = 0, n; pos < p->len && !convert_cancelled(c);
	     pos += n) {
		unsigned char *buf = b->buf + p->at + pos;
		int ret;

		n = min_u64(SECTOR_SIZE, p->len - pos);
		ret = convert_read(c, buf, n, p->off + pos);
		b->lost[(p->at + pos) / SECTOR_SIZE] = ret;
		if (!ret)
			continue;
		memset(buf, 0, n);
		p->salvaged = b->any_lost = true;
	}
}

static void say_lost(const struct convert *c, const char *what, uint64_t off,
		     int error)
{
	char line[160];

	snprintf(line, sizeof(line), "error while reading %s %" PRIu64 ": %s",
		 what, off, strerror(-error));
	c->a->warn(c->a->report_data, line);
}

/* qemu-img asks what a sector is, and what a unit is where it begins. */
static void warn_piece(const struct convert *c, const struct batch *b,
		       const struct piece *p)
{
	for (uint64_t pos = 0; pos < p->len; pos += SECTOR_SIZE) {
		int lost = b->lost[(p->at + pos) / SECTOR_SIZE];

		if (!lost)
			continue;
		if (p->bad_map && (!c->unit || !pos))
			say_lost(c, "block status at offset", p->off + pos,
				 p->bad_map);
		say_lost(c, "offset", p->off + pos, lost);
	}
}

void convert_warn(struct convert *c, const struct batch *b)
{
	if (!b->any_lost || c->a->quiet || !c->a->warn)
		return;
	/* With -W there may be several of us. */
	pthread_mutex_lock(&c->plan);
	for (unsigned i = 0; i < b->nr; i++)
		if (b->piece[i].salvaged)
			warn_piece(c, b, &b->piece[i]);
	pthread_mutex_unlock(&c->plan);
}
