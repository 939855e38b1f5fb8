/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhdx-parent.c - the parent locator of a differencing image (vhdx.md,
 * "Differencing"): the names of the image below, and how it is told from others:
 * of what the names lead to, the first one with the right number is it.
 *
 * Looks at headers only; opening it as an image is the engine's, under the same
 * policy.
 */
#include "vhdx.h"

#include "json.h"
#include "spec.h"
#include "strbuf.h"

#include <stdio.h>

enum {
	P_COUNT = 18,
	P_ENTRIES = 20,
	P_ENTRY = 12,
	MAX_LOCATOR = 1024 * 1024,
	MAX_ENTRIES = 64,
};

static const unsigned char locator_vhdx[16] = {
	0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
	0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13,
};

enum key { LINKAGE, LINKAGE2, RELATIVE, VOLUME, ABSOLUTE, NR_KEYS };
static const char *const keys[NR_KEYS] = {
	"parent_linkage", "parent_linkage2", "relative_path", "volume_path",
	"absolute_win32_path",
};

/* ---- text ---------------------------------------------------------------- */

static void put_utf8(struct strbuf *out, uint32_t c)
{
	if (c < 0x80) {
		strbuf_printf(out, "%c", (int)c);
	} else if (c < 0x800) {
		strbuf_printf(out, "%c%c", (int)(0xc0 | c >> 6),
			      (int)(0x80 | (c & 63)));
	} else if (c < 0x10000) {
		strbuf_printf(out, "%c%c%c", (int)(0xe0 | c >> 12),
			      (int)(0x80 | (c >> 6 & 63)),
			      (int)(0x80 | (c & 63)));
	} else {
		strbuf_printf(out, "%c%c%c%c", (int)(0xf0 | c >> 18),
			      (int)(0x80 | (c >> 12 & 63)),
			      (int)(0x80 | (c >> 6 & 63)),
			      (int)(0x80 | (c & 63)));
	}
}

/* false: no text, or one with a NUL in it. */
static bool take_utf16(struct strbuf *out, const unsigned char *p, size_t len)
{
	for (size_t i = 0; i + 1 < len; i += 2) {
		uint32_t c = le16_at(p + i);

		if (c >= 0xd800 && c < 0xdc00 && i + 3 < len) {
			uint32_t low = le16_at(p + i + 2);

			if (low < 0xdc00 || low > 0xdfff)
				return false;
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
			i += 2;
		}
		if (!c || (c >= 0xd800 && c < 0xe000))
			return false;
		put_utf8(out, c);
	}
	return len && len % 2 == 0;
}

/* "{xxxxxxxx-xxxx-...}" as it lies in a header. */
static bool parse_guid(const char *text, unsigned char *guid)
{
	static const unsigned char place[16] = {
		3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15,
	};
	unsigned n = 0;

	for (; *text && n < 16; text++) {
		unsigned byte;
		char two[3] = { text[0], text[1], 0 };

		if (*text == '{' || *text == '-' || *text == '}')
			continue;
		if (strspn(two, "0123456789abcdefABCDEF") != 2 ||
		    sscanf(two, "%2x", &byte) != 1)
			return false;
		guid[place[n++]] = (unsigned char)byte;
		text++;
	}
	return n == 16;
}

/* As a path of this system. */
static char *unix_path(const char *text)
{
	char *path;

	while (!strncmp(text, ".\\", 2))
		text += 2;
	path = strdup(text);
	for (char *p = path; p && *p; p++)
		if (*p == '\\')
			*p = '/';
	return path;
}

/* ---- the locator --------------------------------------------------------- */

static int take_entry(const unsigned char *loc, uint32_t len,
		      const unsigned char *e, char **values)
{
	autostrbuf key = STRBUF_INIT, value = STRBUF_INIT;
	uint32_t key_at = le32_at(e), value_at = le32_at(e + 4);
	uint16_t key_len = le16_at(e + 8), value_len = le16_at(e + 10);

	if (!range_within(key_at, key_len, len) ||
	    !range_within(value_at, value_len, len) ||
	    !take_utf16(&key, loc + key_at, key_len) ||
	    !take_utf16(&value, loc + value_at, value_len))
		return -EINVAL;
	for (unsigned i = 0; i < NR_KEYS; i++)
		if (!strcmp(key.text, keys[i]) && !values[i]) {
			values[i] = strdup(value.text);
			if (!values[i])
				return -ENOMEM;
		}
	return 0;
}

/* ---- which of them it is --------------------------------------------------- */

/* The number of the data of the image at @path. */
static int read_guid(const struct image *img, const char *path,
		     unsigned char *guid)
{
	unsigned char h[VHDX_SECTOR];
	struct file *f;
	uint64_t best = 0;
	bool found = false;
	int ret = file_open_path(path, FILE_NO_LOCK, img->policy, &f, NULL);

	if (ret)
		return ret;
	for (unsigned i = 1; !ret && i <= 2; i++) {
		ret = file_read(f, h, sizeof(h), VHDX_TABLE * i);
		if (ret || !vhdx_header_good(h) ||
		    (found && le64_at(h + H_SEQ) <= best))
			continue;
		found = true;
		best = le64_at(h + H_SEQ);
		memcpy(guid, h + H_DATA_GUID, 16);
	}
	file_unref(f);
	return ret ? ret : found ? 0 : -EINVAL;
}

/* 1: that is it; 0: it is not there, or is something else (*@other). */
static int try(struct image *img, const char *name, bool *other)
{
	const struct vhdx *v = vhdx_of(img);
	autofree char *path = spec_join(img->file->name, name);
	unsigned char guid[16];

	if (!path)
		return -ENOMEM;
	if (!*name || read_guid(img, path, guid))
		return 0;
	if (memcmp(guid, v->linkage, 16) && memcmp(guid, v->linkage2, 16)) {
		*other = true;
		return 0;
	}
	img->backing_name = strdup(name);
	return img->backing_name ? 1 : -ENOMEM;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The paths as they are, then the last part of each in the image's folder.  If
 * it is none of them the engine may say what is wrong with the first. */
static int choose(struct image *img, char **paths, struct err *err)
{
	bool other = false;
	int ret = 0;

	for (unsigned i = 0; !ret && i < 2 * NR_KEYS; i++) {
		const char *p = paths[i % NR_KEYS];

		if (p)
			ret = try(img, i < NR_KEYS ? p : last_part(p), &other);
	}
	if (ret)
		return ret < 0 ? ret : 0;
	for (unsigned i = 0; !img->backing_name && i < NR_KEYS; i++)
		if (paths[i])
			img->backing_name = strdup(paths[i]);
	if (!img->backing_name)
		return -ENOMEM;
	if (!other || img->flags & IMAGE_NO_BACKING ||
	    json_get(img->node, "backing"))
		return 0;
	return err_set(err, -EINVAL, "The parent '%s' of the VHDX image is"
		       " another image, or was written to", img->backing_name);
}

static int take_values(struct image *img, char **values, struct err *err)
{
	struct vhdx *v = vhdx_of(img);
	char *paths[NR_KEYS] = { NULL };
	bool any = false;
	int ret;

	if (!values[LINKAGE] || !parse_guid(values[LINKAGE], v->linkage))
		return -EINVAL;
	memcpy(v->linkage2, v->linkage, 16);
	if (values[LINKAGE2] && !parse_guid(values[LINKAGE2], v->linkage2))
		return -EINVAL;
	for (unsigned i = RELATIVE; i < NR_KEYS; i++) {
		paths[i] = values[i] ? unix_path(values[i]) : NULL;
		any |= paths[i] != NULL;
	}
	img->backing_fmt = strdup("vhdx");
	ret = !img->backing_fmt ? -ENOMEM : any ? choose(img, paths, err) :
						  -EINVAL;
	for (unsigned i = 0; i < NR_KEYS; i++)
		free(paths[i]);
	return ret;
}

static int read_locator(struct image *img, const unsigned char *loc,
			uint32_t len, struct err *err)
{
	char *values[NR_KEYS] = { NULL };
	uint16_t n = len >= P_ENTRIES ? le16_at(loc + P_COUNT) : 0;
	int ret = n && n <= MAX_ENTRIES &&
		  range_within(P_ENTRIES, P_ENTRY * (uint64_t)n, len) &&
		  !memcmp(loc, locator_vhdx, 16) ? 0 : -EINVAL;

	for (unsigned i = 0; !ret && i < n; i++)
		ret = take_entry(loc, len, loc + P_ENTRIES + P_ENTRY * i,
				 values);
	if (!ret)
		ret = take_values(img, values, err);
	for (unsigned i = 0; i < NR_KEYS; i++)
		free(values[i]);
	return ret;
}

int vhdx_parent(struct image *img, uint64_t at, uint32_t len, struct err *err)
{
	autofree unsigned char *loc = NULL;
	int ret = len && len <= MAX_LOCATOR ? 0 : -EINVAL;

	if (!ret) {
		loc = malloc(len);
		ret = loc ? file_read(vhdx_of(img)->file, loc, len, at) :
			    -ENOMEM;
	}
	if (!ret)
		ret = read_locator(img, loc, len, err);
	return ret ? err_errno(err, ret, "The parent locator of the VHDX image"
			       " is invalid") : 0;
}
