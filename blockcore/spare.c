/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * spare.c - host space that was taken and not needed; see spare.h.
 */
#include "spare.h"

static void drop(struct spare *s, unsigned i)
{
	s->piece[i] = s->piece[--s->n];
}

/* [*host, + *len) becomes one with the pieces that it touches. */
static void merge(struct spare *s, uint64_t *host, uint64_t *len)
{
	for (unsigned i = 0; i < s->n;) {
		uint64_t at = s->piece[i].host, n = s->piece[i].len;

		if (at + n != *host && *host + *len != at) {
			i++;
			continue;
		}
		*host = min_u64(*host, at);
		*len += n;
		drop(s, i);
	}
}

static void keep(struct spare *s, uint64_t host, uint64_t len)
{
	if (!len || s->n == SPARE_MAX)
		return;
	s->piece[s->n].host = host;
	s->piece[s->n++].len = len;
}

uint64_t spare_give(struct spare *s, uint64_t host, uint64_t len, uint64_t end)
{
	atomic_store(&s->used_to, max_u64(s->used_to, host + len));
	merge(s, &host, &len);
	if (host + len == end)
		return host;
	keep(s, host, len);
	return end;
}

bool spare_take(struct spare *s, uint64_t len, uint64_t align, uint64_t *host)
{
	for (unsigned i = 0; i < s->n; i++) {
		uint64_t from = s->piece[i].host, to = from + s->piece[i].len;
		uint64_t at = round_up(from, align);

		if (at > to || to - at < len)
			continue;
		drop(s, i);
		keep(s, from, at - from);
		keep(s, at + len, to - at - len);
		*host = at;
		return true;
	}
	return false;
}
