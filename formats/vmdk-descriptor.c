/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmdk-descriptor.c - the text that says what a VMDK image is made of (vmdk.md
 * 2): KEY=VALUE lines and one line per extent.
 *
 * Knows words; opens nothing.  Everything in it is an attacker's.
 */
#include "vmdk.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#define EXTENTS_MAX 8192u

/* ---- values -------------------------------------------------------------- */

/* Is the line KEY=...?  Blanks may surround the key. */
static const char *value_of(const char *line, const char *key)
{
	size_t n = strlen(key);

	line += strspn(line, " \t");
	if (strncmp(line, key, n))
		return NULL;
	line += n + strspn(line + n, " \t");
	if (*line != '=')
		return NULL;
	return line + 1 + strspn(line + 1, " \t");
}

static int take_cid(const char *line, const char *key, _Atomic uint32_t *cid,
		    bool *found)
{
	const char *v = value_of(line, key);
	char *end;
	unsigned long n;

	if (!v)
		return 0;
	n = strtoul(v, &end, 16);
	if (end == v || n > UINT32_MAX || *v == '-')
		return -EINVAL;
	*cid = (uint32_t)n;
	*found = true;
	return 0;
}

/* The first one counts. */
static int take_quoted(const char *line, const char *key, char **out)
{
	const char *v = value_of(line, key), *end;

	if (!v || *out || *v != '"')
		return 0;
	end = strchr(v + 1, '"');
	if (!end)
		return -EINVAL;
	*out = strndup(v + 1, (size_t)(end - v - 1));
	return *out ? 0 : -ENOMEM;
}

/* ---- extent lines -------------------------------------------------------- */

struct words {
	char access[16], type[32], name[1100];
	uint64_t sectors, offset;
	bool has_name, has_offset;
};

/* One word of at most @cap - 1 characters. */
static const char *take_word(const char *p, char *out, size_t cap)
{
	size_t n;

	p += strspn(p, " \t");
	n = strcspn(p, " \t\r");
	if (!n || n >= cap)
		return NULL;
	memcpy(out, p, n);
	out[n] = '\0';
	return p + n;
}

static const char *take_number(const char *p, uint64_t *out)
{
	char *end;

	p += strspn(p, " \t");
	if (!isdigit((unsigned char)*p))
		return NULL;
	errno = 0;
	*out = strtoull(p, &end, 10);
	return errno || (*end && !strchr(" \t\r", *end)) ? NULL : end;
}

static const char *take_name(const char *p, struct words *w)
{
	const char *end;

	p += strspn(p, " \t");
	if (*p != '"')
		return p;
	end = strchr(++p, '"');
	if (!end || end == p || (size_t)(end - p) >= sizeof(w->name))
		return NULL;
	memcpy(w->name, p, (size_t)(end - p));
	w->name[end - p] = '\0';
	w->has_name = true;
	return end + 1;
}

static bool split(const char *line, struct words *w)
{
	const char *p = take_word(line, w->access, sizeof(w->access)), *rest;

	if (p)
		p = take_number(p, &w->sectors);
	if (p)
		p = take_word(p, w->type, sizeof(w->type));
	if (p)
		p = take_name(p, w);
	if (!p)
		return false;
	rest = take_number(p, &w->offset);
	w->has_offset = rest != NULL;
	return true;
}

static bool is_access(const char *line)
{
	static const char *const words[] = { "RW", "RDONLY", "NOACCESS" };

	line += strspn(line, " \t");
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		size_t n = strlen(words[i]);

		if (!strncmp(line, words[i], n) &&
		    (line[n] == ' ' || line[n] == '\t'))
			return true;
	}
	return false;
}

/* What the words mean; false: nothing that we know. */
static bool store_of(const struct words *w, enum vmdk_store *store)
{
	bool flat = !strcmp(w->type, "FLAT"), vmfs = !strcmp(w->type, "VMFS");

	if (!w->sectors || w->sectors > INT64_MAX / SECTOR_SIZE)
		return false;
	if (!strcmp(w->type, "ZERO") || !strcmp(w->access, "NOACCESS")) {
		*store = VMDK_ZERO;
		return true;
	}
	*store = flat || vmfs ? VMDK_FLAT :
		 !strcmp(w->type, "SESPARSE") ? VMDK_SESPARSE : VMDK_SPARSE;
	if (!w->has_name || (flat && !w->has_offset) ||
	    (vmfs && w->has_offset))
		return false;
	return flat || vmfs || *store == VMDK_SESPARSE ||
	       !strcmp(w->type, "SPARSE") ||
	       !strcmp(w->type, "VMFSSPARSE");
}

static int extent_add(struct vmdk *v, const struct words *w,
		      enum vmdk_store store, struct err *err)
{
	uint64_t start = 0, size = w->sectors * SECTOR_SIZE;
	struct vmdk_extent *x;

	if (v->nr)
		start = v->extents[v->nr - 1].start + v->extents[v->nr - 1].size;
	if (v->nr >= EXTENTS_MAX || size > INT64_MAX - start)
		return err_set(err, -EFBIG, "The disk has too many or too large"
			       " extents");
	if (w->has_offset && w->offset > INT64_MAX / SECTOR_SIZE)
		return err_set(err, -EINVAL, "Extent offset too large");
	x = reallocarray(v->extents, v->nr + 1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	v->extents = x;
	x += v->nr++;
	*x = (struct vmdk_extent) {
		.store = store, .start = start, .size = size,
		.type = strdup(w->type),
		.name = w->has_name ? strdup(w->name) : NULL,
		.offset = w->has_offset ? w->offset * SECTOR_SIZE : 0,
		.read_only = strcmp(w->access, "RW") != 0,
	};
	return x->type && (x->name || !w->has_name) ? 0 : -ENOMEM;
}

static int take_extent(struct vmdk *v, const char *line, struct err *err)
{
	struct words w = { .has_name = false };
	enum vmdk_store store;

	if (!is_access(line))
		return 0;
	if (!split(line, &w) || !store_of(&w, &store))
		return err_set(err, -EINVAL, "Invalid extent line: %.200s",
			       line);
	return extent_add(v, &w, store, err);
}

/* ---- the text ------------------------------------------------------------ */

struct seen {
	bool cid, parent_cid;
};

static int take_line(struct vmdk *v, const char *line, struct seen *seen,
		     struct err *err)
{
	int ret = take_cid(line, "CID", &v->cid, &seen->cid);

	if (!ret)
		ret = take_cid(line, "parentCID", &v->parent_cid,
			       &seen->parent_cid);
	if (!ret)
		ret = take_quoted(line, "createType", &v->create_type);
	if (!ret)
		ret = take_quoted(line, "parentFileNameHint", &v->parent);
	if (ret)
		return err_set(err, ret, "Invalid line in the VMDK descriptor:"
			       " %.200s", line);
	return take_extent(v, line, err);
}

int vmdk_parse(struct vmdk *v, const char *text, struct err *err)
{
	struct seen seen = { false, false };
	int ret = 0;

	while (*text && !ret) {
		size_t n = strcspn(text, "\n");
		autofree char *line = strndup(text, n);

		if (!line)
			return -ENOMEM;
		if (n && line[n - 1] == '\r')
			line[n - 1] = '\0';
		ret = take_line(v, line, &seen, err);
		text += n + (text[n] == '\n');
	}
	if (ret)
		return ret;
	if (!v->create_type)
		return err_set(err, -EINVAL, "invalid VMDK image descriptor");
	return seen.parent_cid ? 0 : err_set(err, -EINVAL, "The VMDK descriptor"
					     " has no parentCID");
}

void vmdk_free(struct vmdk *v)
{
	for (unsigned i = 0; i < v->nr; i++) {
		free(v->extents[i].type);
		free(v->extents[i].name);
		file_unref(v->extents[i].file);
	}
	free(v->extents);
	free(v->create_type);
	free(v->parent);
	free(v->text);
}
