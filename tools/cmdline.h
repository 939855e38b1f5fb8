/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cmdline.h - options of a subcommand, in the grammar of getopt_long and in
 * qemu-img's words: options may stand after operands, "--" ends them, short
 * ones cluster, long ones may be abbreviated.
 *
 *	while ((id = cmdline_next(cl, &arg)) != CMD_END)
 *		switch (id) {
 *		case CMD_STOP:
 *			return cl->rc;
 *		case 'f': how.format = arg; break;
 *		case OPT_IMAGE_OPTS: how.image_opts = true; break;
 *		}
 *	if (cl->nr_operands != 1)
 *		return usage_error(cl, "Expecting one image file name");
 *
 * Errors, -h and --help are dealt with inside: CMD_STOP.  --safe is too.
 */
#ifndef TOOLS_CMDLINE_H
#define TOOLS_CMDLINE_H

#include "util.h"

struct command;

enum option_flag {
	OPT_LONG_10  = 1 << 0,  /* the long name exists only in 10.0 */
	OPT_ONLY_10  = 1 << 1,  /* the option exists only in 10.0 */
	OPT_ALIAS    = 1 << 2,  /* not shown in help */
	OPT_BEYOND   = 1 << 3,  /* ours: does not exist under the name
				 * qemu-img */
	OPT_FILE     = 1 << 4,  /* its argument is the name of a file */
};

/* Ids of options without a letter (others use their letter). */
enum {
	OPT_IMAGE_OPTS = 256,
	OPT_OBJECT,
	OPT_OUTPUT,
	OPT_BACKING_CHAIN,
	OPT_TARGET_IMAGE_OPTS,
	OPT_TARGET_IS_ZERO,
	OPT_SALVAGE,
	OPT_BITMAPS,
	OPT_SKIP_BROKEN,
	OPT_COMMAND,            /* first of a command's own */
};

/* A table ends with id == 0. */
struct cmd_option {
	int id;                 /* its letter, or >= 256 */
	const char *name;       /* long name, or NULL */
	const char *arg;        /* NULL: takes none; else its name in help */
	const char *help;
	unsigned flags;
};

/* Lines that many tables share. */
#define OPTIONS_COMMON \
	{ OPT_OBJECT, "object", "OBJDEF", \
	  "define an object such as a secret (type,id=ID,...)", 0 }
#define OPTION_IMAGE_OPTS \
	{ OPT_IMAGE_OPTS, "image-opts", NULL, \
	  "file names are option strings: driver=..,file.filename=..", 0 }
#define OPTION_SHARE \
	{ 'U', "force-share", NULL, \
	  "open an image that another process writes to", 0 }

enum { CMD_END = -1, CMD_STOP = -2 };

struct cmdline {
	const struct command *cmd;      /* NULL: the options before it */
	const struct cmd_option *options;
	int argc, at;
	char **argv;            /* argv[0] is the command's name */
	const char *cluster;    /* rest of "-abc" */
	bool in_order;          /* stop at the first operand */
	char **operands;        /* valid after CMD_END */
	int nr_operands;
	int rc;                 /* valid after CMD_STOP */
};

void cmdline_init(struct cmdline *cl, const struct command *cmd, int argc,
		  char **argv);
void cmdline_free(struct cmdline *cl);
/* The next option's id with its argument in *arg (NULL if it takes none). */
int cmdline_next(struct cmdline *cl, const char **arg);

/* "imgctl: TEXT" and the line "Try 'imgctl --help' ..."; returns 1. */
int usage_error(const struct cmdline *cl, const char *fmt, ...)
	printf_like(2, 3);
void usage_tail(const struct cmdline *cl);

/* "Usage: ..." of one command (made from its tables), or of all. */
void help_command(const struct command *cmd);
void help_all(void);
/* -V */
void version_print(void);
/* Ends with a NULL name; imgctl.c. */
extern const struct command *const commands[];

#endif
