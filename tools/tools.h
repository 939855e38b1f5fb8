/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tools.h - what the subcommands of imgctl share: the program's name, its
 * messages, opening an image for a command, and the table of commands.
 *
 * stdout carries results, stderr everything else.  Every message begins with
 * prog_name(): "imgctl", or "qemu-img" when called by that name.
 */
#ifndef TOOLS_H
#define TOOLS_H

#include "blockcore.h"
#include "cmdline.h"
#include "options.h"
#include "report.h"

#include <stdio.h>

/* ---- the program and its messages ---------------------------------------- */

const char *prog_name(void);
/* Called as qemu-img: what goes beyond QEMU is off (beyond.h). */
bool prog_is_qemu_img(void);
void prog_set_name(const char *argv0);

/* A command that changes an image goes on when its reader has gone. */
void stdout_outlive(void);

/* "imgctl: TEXT\n" on stderr. */
void say_error(const char *fmt, ...) printf_like(1, 2);
/* The sentence of @err behind "imgctl: ", then its hint as it is. */
void say_err(const struct err *err);
/* "imgctl: warning: TEXT\n" */
void say_warning(const char *fmt, ...) printf_like(1, 2);

/* -T before the command: 0, or 1 after an error was printed. */
int trace_option(const char *text);

/* ---- opening -------------------------------------------------------------- */

/* What the options of a command say about how to open an image. */
struct open_how {
	const char *format;     /* -f; NULL probes */
	bool image_opts;        /* --image-opts */
	unsigned flags;         /* image_flag */
	enum cache_mode cache;
};
/* NULL after an error: "imgctl: Could not open 'NAME': ..." was printed. */
struct image *tool_open(const char *name, const struct open_how *how);
/* The image below @img, which was opened without its chain. */
int tool_open_below(const struct image *img, const struct open_how *how,
		    struct image **below, struct err *err);
/* -l: @img shows the snapshot that @text names; false after an error was
 * printed.  NULL: nothing to do. */
bool tool_load_snapshot(struct image *img, const char *text);
/* Is @text a value of -l?  False after an error was printed. */
bool tool_snapshot_key(const char *text);
/* --safe was given. */
void tool_set_safe(void);
/* -T, -t: false after "Invalid @what option: TEXT" (@what: "cache" or
 * "source cache") was printed. */
bool tool_cache(const char *text, const char *what, enum cache_mode *mode);
/* --output: false after the error (and, in 10.0's words, the tail). */
bool tool_output(struct cmdline *cl, const char *text,
		 enum report_format *how);
/* Sizes on the command line: false after "Invalid @what specified..." was
 * printed.  Both bounds are allowed values. */
bool tool_size(const char *what, const char *text, uint64_t min, uint64_t max,
	       uint64_t *bytes);
/* -o: false after "Invalid option list: TEXT" was printed (empty, or an item
 * is). */
bool tool_option_list(const char *text);
/* image_opts && format: prints the sentence; every command does this. */
bool tool_opts_conflict(const struct open_how *how);

/* --object: false after the error, or after help was printed (*rc tells). */
bool object_add(const char *definition, int *rc);

/* ---- mounts ------------------------------------------------------------------- */

/*
 * If @file lies in a mount of imgfs, or is an image file that one holds open, the
 * command is given to that mount's `ctl` in place of being run here: with the
 * options of @cl (all have been taken) but those that say how to open a file, the
 * operands but @file, and @last behind them (may be NULL).  True: *@rc is the
 * exit code, and what there was to say has been said; @done (may be NULL) is
 * printed when it ended well.
 */
bool mounted_run(const struct cmdline *cl, const char *file, const char *last,
		 const char *done, int *rc);
/* The same for who prints what comes back himself: @text, or *@ret < 0 after the
 * error was printed. */
bool mounted_ask(const struct cmdline *cl, const char *file, const char *last,
		 char *text, size_t room, int *ret);
/* Does @file lie in a mount? */
bool mounted_is_inside(const char *file);

/* ---- interrupts ----------------------------------------------------------- */

/*
 * A target that this command itself has created: SIGINT, SIGTERM and SIGHUP
 * remove it (only if the name still leads to the same inode) and end the
 * program by that signal.  guard_disarm() when the target is complete or is to
 * stay; guard_remove() removes it now (a failed command).
 */
void guard_arm(const char *path, const struct stat *st);
void guard_disarm(void);
void guard_remove(void);
/* A source that is cut off while we look at the host's own pages of it
 * (file_lend()) ends the command as an interrupt does, with a sentence. */
void guard_reads(void);

/* ---- commands ------------------------------------------------------------- */

struct command {
	const char *name;
	const char *operands;   /* help: "FILE [SIZE]" */
	const char *help;       /* one or more sentences */
	const struct cmd_option *options;
	int (*run)(struct cmdline *cl);         /* exit code */
};

extern const struct command cmd_amend, cmd_bench, cmd_bitmap, cmd_check,
			    cmd_commit, cmd_compare, cmd_convert, cmd_create, cmd_dd,
			    cmd_info, cmd_map, cmd_measure, cmd_rebase, cmd_resize,
			    cmd_snapshot;

#endif
