/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-grains.c - the entries of a table as check sees them: does each lead to a
 * place of its own?
 *
 * One that does not takes what the redundant table says, if that is sound.  Else
 * who uses a grain second gets a copy: each of the two keeps what it reads now.
 * What leads nowhere, or into the tables, is gone.  Entries of which both tables
 * say the same have the first word, so that one that has gone astray does not
 * take another one's place.
 */
#include "vmdk-check.h"

#include <inttypes.h>

enum { MARKER = 12 };           /* in front of a compressed grain */

static const char shared[] = "has the place of another one";

/* The bytes at @host that an entry claims; 0: there is no compressed grain. */
static int claimed(const struct vmdk_scan *s, uint64_t host, uint64_t *len)
{
	unsigned char m[MARKER];
	uint32_t size;
	int ret;

	*len = s->x->grain;
	if (!s->x->packed)
		return 0;
	ret = meta_read(s->img, s->x->file, m, sizeof(m), host);
	size = le32_at(m + 8);
	*len = !ret && vmdk_stream_fits(s->x, host, size, s->was) ?
	       MARKER + (uint64_t)size : 0;
	return ret;
}

/* *@why: what is wrong with an entry, or NULL: then its place is taken. */
static int look(struct vmdk_scan *s, uint32_t e, const char **why)
{
	enum extent_kind kind = vmdk_kind_of(s->x, e);
	uint64_t host = (uint64_t)e * SECTOR_SIZE, len;
	int ret;

	*why = NULL;
	if (kind != EXT_DATA && kind != EXT_PACKED)
		return 0;
	*why = "points after EOF";
	if (host >= s->was)
		return 0;
	*why = "points into metadata";
	if (places_taken(&s->metadata, host, SECTOR_SIZE))
		return 0;
	ret = claimed(s, host, &len);
	if (ret || places_taken(&s->metadata, host, len))
		return ret;
	*why = "has no valid marker";
	if (!len)
		return 0;
	ret = places_take(&s->grains, host, len);
	*why = ret == 1 ? NULL : shared;
	return ret < 0 ? ret : 0;
}

/* Behind the end of the file: durable with the caller's barrier. */
static int copy_grain(struct vmdk_scan *s, unsigned char *entry)
{
	uint64_t from = (uint64_t)le32_at(entry) * SECTOR_SIZE, len, n;
	uint64_t to = round_up(s->end, s->x->packed ? SECTOR_SIZE :
			       s->x->grain);
	autofree unsigned char *buf = malloc(MiB);
	int ret = buf ? claimed(s, from, &len) : -ENOMEM;

	if (!ret && to / SECTOR_SIZE > UINT32_MAX)
		ret = -EFBIG;
	for (uint64_t at = 0; !ret && at < len; at += n) {
		n = min_u64(MiB, len - at);
		ret = meta_read(s->img, s->x->file, buf, n, from + at);
		if (!ret)
			ret = repair_write(s->img, s->x->file, buf, n,
					   to + at);
	}
	if (ret)
		return ret;
	s->end = to + len;
	le32_put(entry, (uint32_t)(to / SECTOR_SIZE));
	return 0;
}

/* @other: what the redundant table says, or NULL. */
static int mend(struct vmdk_scan *s, unsigned char *entry,
		const unsigned char *other, bool is_shared)
{
	const char *why = NULL;
	int ret = 0;

	/* One that is only behind says nothing about a shared grain. */
	if (other && is_shared && le32_at(other) <= 1)
		other = NULL;
	if (other)
		ret = look(s, le32_at(other), &why);
	if (ret)
		return ret;
	if (other && !why) {
		le32_put(entry, le32_at(other));
		return 0;
	}
	if (is_shared)
		return copy_grain(s, entry);
	le32_put(entry, 0);
	return 0;
}

static int check_entry(struct vmdk_scan *s, uint64_t g, unsigned char *entry,
		       const unsigned char *other, bool *changed)
{
	const struct vmdk_extent *x = s->x;
	const char *why;
	int ret = look(s, le32_at(entry), &why);

	if (ret || !why)
		return ret;
	check_say(s->res, "%s cluster offset for sector %" PRIu64 " %s",
		  vmdk_scan_fixes(s) ? "Repairing" : "ERROR:",
		  (x->start + g * x->grain) / SECTOR_SIZE, why);
	vmdk_scan_found(s);
	if (!vmdk_scan_fixes(s))
		return 0;
	*changed = true;
	return mend(s, entry, other, why == shared);
}

/* Those of which both tables say the same, or the others: as @later says. */
static int check_those(struct vmdk_scan *s, uint64_t index, bool second,
		       const unsigned char *later, bool those, bool *changed)
{
	const struct vmdk_extent *x = s->x;
	uint64_t n = min_u64(x->gtes, div_up(x->size, x->grain) -
			     index * x->gtes);
	int ret = 0;

	for (uint64_t i = 0; !ret && i < n; i++)
		if ((later[i / 8] >> i % 8 & 1) == those)
			ret = check_entry(s, index * x->gtes + i,
					  s->first + 4 * i,
					  second ? s->second + 4 * i : NULL,
					  changed);
	return ret;
}

int vmdk_grains_check(struct vmdk_scan *s, uint64_t index, bool second,
		      bool *changed)
{
	unsigned char later[VMDK_GTES_MAX / 8] = { 0 };
	int ret;

	for (uint64_t i = 0; second && i < s->x->gtes; i++)
		if (memcmp(s->first + 4 * i, s->second + 4 * i, 4))
			later[i / 8] |= (unsigned char)(1u << i % 8);
	ret = check_those(s, index, second, later, false, changed);
	return ret || !second ? ret :
	       check_those(s, index, second, later, true, changed);
}
