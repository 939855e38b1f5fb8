/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * help.c - what --help and --version print, made from the tables of commands
 * and formats, so that it cannot speak of what is not there.
 */
#include "config.h"

#include "tools.h"

enum { HELP_COLUMN = 30, HELP_WIDTH = 78 };

/* Prints words from column @at on, later lines indented to @indent. */
static void wrap(const char *text, size_t at, size_t indent)
{
	while (*text) {
		size_t n = strcspn(text, " ");

		if (at > indent && at + 1 + n > HELP_WIDTH) {
			printf("\n%*s", (int)indent, "");
			at = indent;
		} else if (at > indent) {
			putchar(' ');
			at++;
		}
		printf("%.*s", (int)n, text);
		at += n;
		text += n;
		text += strspn(text, " ");
	}
	putchar('\n');
}

static bool shown(const struct cmd_option *o)
{
	if (o->flags & OPT_ALIAS)
		return false;
	return !((o->flags & OPT_BEYOND) && prog_is_qemu_img());
}

static void help_option(const struct cmd_option *o)
{
	bool letter = o->id < 256;
	char left[80];
	int n;

	n = snprintf(left, sizeof(left), "  %c%c%s%s%s%s%s", letter ? '-' : ' ',
		     letter ? o->id : ' ', letter && o->name ? ", " : "  ",
		     o->name ? "--" : "", o->name ? o->name : "",
		     o->arg ? " " : "", o->arg ? o->arg : "");
	fputs(left, stdout);
	if (n >= HELP_COLUMN) {
		putchar('\n');
		n = 0;
	}
	printf("%*s", HELP_COLUMN - n, "");
	wrap(o->help, HELP_COLUMN, HELP_COLUMN);
}

static const struct cmd_option safe_option = {
	OPT_COMMAND, "safe", NULL, "follow names found inside an image only"
	" below the image's folder (also: IMGCTL_SAFE=1)", 0
};
static const struct cmd_option help_itself = {
	'h', "help", NULL, "print this help and exit", 0
};

void help_command(const struct command *cmd)
{
	printf("Usage:\n  %s %s [OPTION]... %s\n\n", prog_name(), cmd->name,
	       cmd->operands);
	wrap(cmd->help, 0, 0);
	puts("\nOptions:");
	for (const struct cmd_option *o = cmd->options; o->id; o++)
		if (shown(o))
			help_option(o);
	if (!prog_is_qemu_img())
		help_option(&safe_option);
	help_option(&help_itself);
}

static void list_formats(const char *head)
{
	autostrbuf text = STRBUF_INIT;

	strbuf_puts(&text, head);
	for (const struct format *const *f = formats; *f; f++)
		if (!(*f)->ours_alone || !prog_is_qemu_img())
			strbuf_printf(&text, " %s", (*f)->name);
	wrap(text.text, 0, 2);
}

void help_all(void)
{
	printf("Usage:\n  %s [-h] [-V] COMMAND [OPTION]... [OPERAND]...\n\n"
	       "Makes, looks at and converts disk images.\n\nCommands:\n",
	       prog_name());
	for (const struct command *const *c = commands; *c; c++)
		printf("  %-9s %s\n", (*c)->name, (*c)->operands);
	printf("\n\"%s COMMAND --help\" tells more about one of them.\n\n"
	       "  -h, --help      print this help and exit\n"
	       "  -V, --version   print the version and exit\n"
	       "  -T, --trace X   accepted for qemu-img's sake, without"
	       " effect\n\n"
	       "Sizes are bytes or end in k, M, G, T, P or E, powers of 1024.\n"
	       "Never change an image that a running machine or another"
	       " process uses.\n\n", prog_name());
	list_formats("Supported formats:");
}

void version_print(void)
{
	if (prog_is_qemu_img())
		printf("qemu-img version 10.0.0 (imgctl %s)\n",
		       PACKAGE_VERSION);
	else
		printf("imgctl %s\n", PACKAGE_VERSION);
	fputs("Libraries: zlib zstd nettle", stdout);
#ifdef HAVE_LIBDEFLATE
	fputs(" libdeflate", stdout);
#endif
#ifdef HAVE_LIBISAL
	fputs(" libisal", stdout);
#endif
#ifdef HAVE_LIBURING
	fputs(" liburing", stdout);
#endif
	putchar('\n');
	list_formats("Formats:");
}
