/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl.h - commands on an image of the mount, whoever gives them: a line written
 * to `ctl`, mkdir, rmdir and rename in snapshots/ and bitmaps/, a job.
 *
 * How to add a command.  In fs/ctl-NAME.c:
 *
 *	int ctl_name(struct ctl_call *c, struct err *err)
 *	{
 *		static const struct ctl_option options[] = {
 *			{ 'b', NULL, true }, { OPT_SHRINK, "shrink", false },
 *			{ 0, NULL, false },
 *		};
 *		const char *arg;
 *		int id, ret;
 *
 *		while ((id = ctl_next(c, options, &arg, err)) > 0)
 *			...
 *		if (id < 0)
 *			return id;		syntax: -EINVAL
 *		ret = ctl_change(c, err);	or ctl_read(), or neither
 *		if (ret)
 *			return ret;
 *		return the_work(c->img, c->operands[0], &c->progress, err);
 *	}
 *
 * and a line in the table of ctl-run.c.  A command returns 0 or a negative errno
 * with a sentence (blueprint 1: EINVAL syntax, EOPNOTSUPP the format cannot,
 * EBUSY in the way, EROFS, EEXIST, ENOENT ...); what it puts into c->out is what
 * the caller reads back instead of "ok".
 *
 * From ctl_change() until the command returns:
 *   - no other changing command runs on this image: who comes meanwhile waits,
 *     or is told -EBUSY when the one that runs is a job;
 *   - the image is open for writing (-EROFS without -o rw, -EBUSY when it is the
 *     base of an open overlay, -ETXTBSY ...), c->img is its top layer, and the
 *     gate is held shared: reads and writes of the disk go on beside it;
 *   - c->progress.cancel is set when the caller is interrupted, the job
 *     cancelled or the mount ended: long work calls progress_step() at its safe
 *     points, and hands on the -ECANCELED that it answers (to an interrupted
 *     caller it becomes -EINTR).  Pause and rate of a job are in there, too.
 * Afterwards the frame flushes the image (what ended well is durable), makes the
 * kernel forget attributes and pages of all files of the image, and gives the
 * access back.  A command that must be alone with the image for an instant
 * brackets it with ctl_alone_begin() and ctl_alone_end().
 *
 * A directory whose entries are commands has dir_ops (fs.h) whose make, remove
 * and rename only say in words which command it is: `mkdir snapshots/x` is
 * { "snapshot", "-c", "x" }.  The frame runs it, answers after a second at the
 * latest, and lets it go on as a job.  While it does ctl_pending() says so,
 * ctl_wait() waits for it, and rmdir of that name cancels it.
 */
#ifndef FS_CTL_H
#define FS_CTL_H

#include "fs/slow.h"

#include "job.h"
#include "strbuf.h"

enum { CTL_WORDS_MAX = 2048 };  /* a write has 4096 bytes */

/* ---- words ------------------------------------------------------------------- */

/* Strings in one piece of memory, or one each; ends with NULL. */
struct words {
	char **word;
	int nr;
};

/*
 * Cuts one line as a shell does: blanks separate, '...' and "..." and \ quote.
 * *@job: it ends in a word & that is not quoted (which is left out).  -EINVAL: a
 * quote is not closed.
 */
int words_parse(const char *line, struct words *w, bool *job, struct err *err);
/* Appends a copy.  Without memory the program ends. */
void words_add(struct words *w, const char *word);
void words_free(struct words *w);

/* ---- a command being run --------------------------------------------------------- */

enum ctl_state {
	CTL_RUNNING, CTL_DONE,
};

struct ctl_call {
	/* For the command: */
	struct mimage *m;
	int argc;
	char **argv;                    /* argv[0] is the command's word */
	char **operands;                /* after ctl_next() has said 0 */
	int nr_operands;
	struct image *img;              /* after ctl_read(), ctl_change() */
	struct progress progress;
	struct strbuf out;

	/* The frame's: */
	struct words words;
	const struct ctl_command *cmd;
	int at;                         /* ctl_next() */
	const char *cluster;
	bool has_image, changes, alone, wrote;
	struct long_work use;
	enum node_kind dir;             /* mkdir ... in this directory, of ... */
	char *subject;                  /* ... this name; NULL: it is a line */
	bool in_order;                  /* ctl_call_start_in_turn() */
	_Atomic bool interrupted;       /* by the caller: -EINTR */
	struct work work;
	/* mount.calls' lock: */
	struct ctl_call *next;
	unsigned refs;
	unsigned job;                   /* number in jobs/; 0: is none */
	enum ctl_state state;
	uint64_t ended;                 /* when done: the how many-eth */
	int result;                     /* ... */
	char *sentence;                 /* ... and in words; NULL: ok */
	bool dismissed;
	unsigned turns;                 /* changes of its state */
};

struct ctl_command {
	const char *word;
	int (*run)(struct ctl_call *c, struct err *err);
};

/* The commands, each in fs/ctl-NAME.c. */
int ctl_bitmap(struct ctl_call *c, struct err *err);
int ctl_commit(struct ctl_call *c, struct err *err);
int ctl_flush(struct ctl_call *c, struct err *err);
int ctl_measure(struct ctl_call *c, struct err *err);
int ctl_rebase(struct ctl_call *c, struct err *err);
int ctl_amend(struct ctl_call *c, struct err *err);
int ctl_check(struct ctl_call *c, struct err *err);
int ctl_resize(struct ctl_call *c, struct err *err);
int ctl_snapshot(struct ctl_call *c, struct err *err);

/* Options as getopt_long takes them: letters cluster, long names may be cut
 * short, operands may stand in between, "--" ends them.  Ends with id 0. */
struct ctl_option {
	int id;                 /* its letter, or >= 256 */
	const char *name;       /* long name, or NULL */
	bool arg;
};
/* The next option's id with its argument; 0: no more (the operands are there
 * then); -EINVAL with a sentence. */
int ctl_next(struct ctl_call *c, const struct ctl_option *options,
	     const char **arg, struct err *err);

/* Makes c->img the image, open for reading; the gate is held shared. */
int ctl_read(struct ctl_call *c, struct err *err);
/* The same, and no command changes the image meanwhile. */
int ctl_read_settled(struct ctl_call *c, struct err *err);
/* See above. */
int ctl_change(struct ctl_call *c, struct err *err);
/* For what changes an image that could only be read: what the frame tells the
 * kernel after ctl_change(). */
void ctl_tell_changed(struct ctl_call *c);
/* Opens a second image for reading, to be closed by the caller.  Its name is
 * relative to the image and leads where names in images may lead. */
int ctl_open_image(struct ctl_call *c, const char *name, const char *format,
		   unsigned flags, struct image **img, struct err *err);
/* Between the two nobody else uses the image: reads and writes of its files
 * wait.  Short.  Only after ctl_change() or ctl_read_settled(). */
void ctl_alone_begin(struct ctl_call *c);
void ctl_alone_end(struct ctl_call *c);
/* -EBUSY with a sentence while `disk` or a partition is open; the second one
 * unless @force (which does not help under cache=writeback: F7). */
int ctl_disk_closed(struct ctl_call *c, struct err *err);
int ctl_disk_idle(struct ctl_call *c, bool force, struct err *err);

/* ---- running it --------------------------------------------------------------------- */

/* Takes the words.  NULL: no memory. */
struct ctl_call *ctl_call_new(struct mimage *m, struct words *w_take);
void ctl_call_unref(struct ctl_call *c);
/* Here and now.  The outcome is in status and in @err. */
int ctl_call_run(struct ctl_call *c, struct err *err);
/* In the background, as a job.  False: CTL_JOBS of the image have not ended yet.
 * The last CTL_KEPT of an image that have ended can be read, and the last
 * CTL_KEPT_IN_TURN of those that are jobs because they took long. */
enum { CTL_JOBS = 16, CTL_KEPT = 64, CTL_KEPT_IN_TURN = 8 };
bool ctl_call_start(struct ctl_call *c);
/* In the background, as a job only when ctl_call_wait() says so; after all that were started so before it on the
 * same image.  False: CTL_IN_TURN of them have not ended yet. */
enum { CTL_IN_TURN = 32 };      /* each holds a thread that waits */
bool ctl_call_start_in_turn(struct ctl_call *c);
/* Waits at most @ms; true: it has ended (*@ret).  False: it is a job now. */
bool ctl_call_wait(struct ctl_call *c, unsigned ms, int *ret);
/* Cancels it at its next safe point. */
void ctl_call_cancel(struct ctl_call *c);

/* Is a mkdir of @name in directories of kind @dir still going on? */
bool ctl_pending(struct mimage *m, enum node_kind dir, const char *name);
/* All such names, allocated: how many. */
size_t ctl_pending_names(struct mimage *m, enum node_kind dir,
			 char *names[CTL_IN_TURN]);
/* Waits until none is; its result, or -ENOENT: there was none.  -EINTR when
 * *@cancel is set. */
int ctl_wait(struct mimage *m, enum node_kind dir, const char *name,
	     _Atomic bool *cancel);
/* Cancels it and waits for its end.  False: there was none. */
bool ctl_cancel(struct mimage *m, enum node_kind dir, const char *name);

struct ctl_calls *ctl_calls_new(void);
/* Everything is cancelled, nothing begins any more. */
void ctl_calls_stop(struct mount *mnt);
void ctl_calls_free(struct mount *mnt);

#endif
