/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine.h - what the engine's own files share with image.c and with tests.
 * Formats, fs/ and tools/ include blockcore.h only.
 */
#ifndef BLOCKCORE_ENGINE_H
#define BLOCKCORE_ENGINE_H

#include "blockcore.h"

/*
 * Called by image.c: before fmt->open() (which may read metadata through the
 * engine), and after fmt->close().  The engine reads img->page, img->unit and
 * img->size when it uses them.
 */
struct engine *engine_new(struct image *img);
void engine_free(struct engine *eng);
/*
 * Back to the state before the first change: flushes, hands out what was
 * retired, runs fmt->clean if fmt->dirty ran, syncs.  Nothing is in flight.
 * For image_close() and image_downgrade().
 */
int engine_clean(struct image *img);

/* The image is about to be writable: its bitmaps are loaded, and record.  And it
 * is no more: they are those of the file (bitmap.c). */
int bitmaps_begin(struct image *img, struct err *err);
void bitmaps_end(struct image *img);
/* Who does not store them again after a failure says so, if there is anything
 * to lose. */
bool bitmaps_roughly(struct image *img, int ret);
void bitmaps_lost(struct image *img, int ret);

/* The image that @f shows as a file (file_from_image_take()), or NULL. */
struct image *image_of_file(struct file *f);

/*
 * The format that @p looks like (the table is in probing order, the surest
 * answer wins); never NULL (probe.c).
 */
const struct format *probe_format(const struct probe *p);
/* raw.md, "The sector-0 guard": would this write make the first sector of the
 * raw, probed image @img probe as another format?  0, or -EPERM. */
int probe_guard(struct image *img, const void *buf, size_t len, uint64_t off);

/*
 * Off-switches of the engine's mechanisms.  For tests only: each one breaks a
 * rule, and the judge must notice (imgfs-internals(7)).
 */
struct knobs {
	bool no_stages;         /* rule 4: no sync between stages */
	bool no_claims;         /* rule 2 */
	bool no_epochs;         /* rule 1b: space is handed out at once after
				 * the flush, readers or not */
	bool no_quarantine;     /* rules 1a, 16: ... even before the flush */
	bool no_gate;           /* rule 5: pages are copied one by one while
				 * changes go on */
	bool no_sticky;         /* rule 6: a failed sync is forgotten */
	bool no_forget;         /* rule 17: stale pages stay cached */
	bool no_dirty_mark;     /* rule 12 */
	bool no_job_flush;      /* commit: the top is emptied before the base is
				 * durable; rebase: the new name is written
				 * before what was pulled */
	bool no_bitmap_mark;    /* rule 12: bitmaps never say "in use" */
	bool no_barriers;       /* repair_barrier() lets the next write pass:
				 * headers before the log, counts before maps */
	bool no_log_crc;        /* rule 19: a torn entry of a journal counts */
	bool no_apply_at_once;  /* a snapshot is applied to a small disk as to
				 * a large one: in two steps */
	bool no_log_sync;       /* rule 19: pages go to their places while the
				 * journal's entry is on its way */
	/* Not a switch: the file that a child is instead of the one of that
	 * name, with a reference (the judge's disks). */
	struct file *(*child)(const char *name);
};
extern struct knobs knobs;

#endif
