/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * report.h - the text of info, map and check: what imgctl prints and what the
 * files info, info.json, map, map.json, check, check.json of a mount hold, byte
 * for byte.  Layout follows qemu_compat().
 */
#ifndef BLOCKCORE_REPORT_H
#define BLOCKCORE_REPORT_H

#include "blockcore.h"
#include "json.h"
#include "measure.h"

enum report_format { REPORT_HUMAN, REPORT_JSON };

/*
 * info of one image (not of its chain).  It may be open for anything; only
 * metadata is read.  report_info_json() makes the object, report_info() the
 * text with its last newline.
 */
int report_info_json(struct image *img, struct json **info, struct err *err);
int report_info(struct strbuf *out, struct image *img,
		enum report_format how, struct err *err);
/* The human form of what report_info_json() made. */
void report_info_text(struct strbuf *out, const struct json *info);

/* The list of snapshots as info has it: nothing when there are none; and one of
 * them as an object of info.json. */
void report_snapshots_text(struct strbuf *out,
			   const struct snapshot_info *items, size_t n);
struct json *report_snapshot_json(const struct snapshot_info *s);

/* The summary of a check that has run (findings went to res->say).  @name:
 * "filename" of the JSON form. */
void report_check(struct strbuf *out, const struct check_result *res,
		  const char *name, const char *format,
		  enum report_format how);
/* What check -r says of what it has put right; nothing when that was nothing.
 * Human form only. */
void report_check_fixed(struct strbuf *out, const struct check_result *res);
/* imgctl check's exit code: 0 clean, 2 corruptions, 3 leaks, 1 errors. */
int report_check_code(const struct check_result *res);

/* What a new image would take. */
void report_measure(struct strbuf *out, const struct measure *m,
		    enum report_format how);

/*
 * map in pieces: memory does not grow with the extents.  @start beyond the end
 * gives an empty map; @length UINT64_MAX = to the end.
 */
struct map_cursor {
	struct view view;
	enum report_format how;
	uint64_t at, end;
	bool started, ended;
	bool listed;            /* an entry was printed */
	bool shows_compressed;  /* as qemu-img does in 10.0 */
	bool has_pending;
	struct run pending;     /* grows until the next one differs */
};
void map_cursor_init(struct map_cursor *c, const struct view *v,
		     enum report_format how, uint64_t start, uint64_t length);
/*
 * Adds the next piece to @out: the work is bounded, so it may be nothing yet.
 * 1: call again, 0: that was the last, negative errno: @err says why (what was added to @out before still
 * counts: a human map prints its header and then fails on compressed data).
 */
int map_cursor_next(struct map_cursor *c, struct strbuf *out,
		    struct err *err);

#endif
