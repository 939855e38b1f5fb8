/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * peek.c - is this file an image, and which files does it name as its parts?
 *
 * Knows how little is read to tell: the first 64 KiB and the last sector.
 * Refuses to know folders; what it is given is a regular file, opened without
 * blocking, and hostile.
 */
#include "fs/folder.h"

#include <ctype.h>
#include <strings.h>

#define HEAD_LEN (64 * KiB)

/* Reads what there is, up to @len bytes. */
static ssize_t read_upto(int fd, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pread(fd, (char *)buf + done, len - done,
			  (off_t)(off + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static const struct format *best_format(const struct probe *p)
{
	const struct format *best = NULL;
	int score, most = 0;

	for (unsigned i = 0; formats[i]; i++) {
		score = formats[i]->probe ? formats[i]->probe(p) : 0;
		if (score > most) {
			most = score;
			best = formats[i];
		}
	}
	return best;
}

/* ---- raw disks ---------------------------------------------------------------- */

/* Anything looks like a raw disk: its name must say so. */
static bool named_raw(const char *name)
{
	static const char *const ends[] = { ".raw", ".img", ".iso" };
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(ends); i++)
		if (!strcasecmp(dot, ends[i]))
			return true;
	return false;
}

/* ---- parts ----------------------------------------------------------------------- */

static void add_extent(struct peek *p, const char *name, size_t len)
{
	char **grown = reallocarray(p->extents, p->nr_extents + 1,
				    sizeof(char *));

	BUG_ON(!grown);
	p->extents = grown;
	grown[p->nr_extents] = strndup(name, len);
	BUG_ON(!grown[p->nr_extents]);
	p->nr_extents++;
}

/* A line of a VMDK descriptor: RW 4192256 SPARSE "disk-s001.vmdk" */
static void extent_line(struct peek *p, const char *line, size_t len)
{
	static const char *const access[] = { "RW ", "RDONLY ", "NOACCESS " };
	const char *open, *close;
	bool is_extent = false;

	for (size_t i = 0; i < ARRAY_SIZE(access); i++)
		is_extent |= len > strlen(access[i]) &&
			     !strncmp(line, access[i], strlen(access[i]));
	open = is_extent ? memchr(line, '"', len) : NULL;
	if (!open++)
		return;
	close = memchr(open, '"', len - (size_t)(open - line));
	if (close && close > open && !memchr(open, 0, (size_t)(close - open)))
		add_extent(p, open, (size_t)(close - open));
}

static void descriptor_extents(struct peek *p, const char *text, size_t len)
{
	const char *end;
	size_t line;

	while (len) {
		end = memchr(text, '\n', len);
		line = end ? (size_t)(end - text) : len;
		extent_line(p, text, line);
		line += end ? 1 : 0;
		text += line;
		len -= line;
	}
}

static void look_at(const struct probe *pr, bool list_raw, size_t got,
		    struct peek *p)
{
	const struct format *fmt = best_format(pr);

	if (!fmt)
		return;
	p->image = !fmt->probed_guard || list_raw || named_raw(pr->name);
	if (!strcmp(fmt->name, "vmdk"))
		descriptor_extents(p, (const char *)pr->head, got);
}

int peek_file(int fd, const char *name, bool list_raw, struct peek *p)
{
	autofree unsigned char *head = calloc(1, HEAD_LEN);
	unsigned char tail[SECTOR_SIZE];
	struct probe pr = { .name = name, .head = head };
	struct stat st;
	ssize_t n;

	memset(p, 0, sizeof(*p));
	if (!head)
		return -ENOMEM;
	if (fstat(fd, &st))
		return -errno;
	pr.size = (uint64_t)st.st_size;
	n = read_upto(fd, head, HEAD_LEN, 0);
	if (n < 0)
		return (int)n;
	pr.head_len = max_u64((uint64_t)n, SECTOR_SIZE);
	if (pr.size >= SECTOR_SIZE &&
	    read_upto(fd, tail, sizeof(tail), pr.size - SECTOR_SIZE) ==
	    SECTOR_SIZE)
		pr.tail = tail;
	look_at(&pr, list_raw, (size_t)n, p);
	return 0;
}

void peek_free(struct peek *p)
{
	for (unsigned i = 0; i < p->nr_extents; i++)
		free(p->extents[i]);
	free(p->extents);
	memset(p, 0, sizeof(*p));
}
