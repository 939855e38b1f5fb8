/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * options.c - from argv to struct fs_options, by one table that also makes the
 * help.  Knows each word's type and range and what mount(8) adds (F26).
 * Refuses to know what a value leads to: formats are looked up and files opened
 * elsewhere.
 */
#include "options.h"

#include "blockcore/options.h"

#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>

enum kind {
	FLAG_ON,        /* the bool at .field becomes true ... */
	FLAG_OFF,       /* ... or false */
	NUMBER,         /* unsigned, in [.min, .max] */
	SIZE,           /* uint64_t or uint32_t bytes, in [.min, .max] */
	TEXT,           /* char * */
	CUSTOM,         /* .set() judges and stores */
};

struct word {
	const char *name;
	enum kind kind;
	size_t field;
	uint64_t min, max;
	int (*set)(struct fs_options *o, const char *value, struct err *err);
	const char *arg;        /* for help; NULL: no value */
	const char *help;       /* NULL: not shown */
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static int bad_value(struct err *err, const char *name, const char *expected)
{
	return err_set(err, -EINVAL, "Parameter '%s' expects %s", name,
		       expected);
}

/* Decimal or, with @base 8, octal; nothing around it. */
static bool number_parse(const char *text, int base, uint64_t max, uint64_t *n)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*n = strtoull(text, &end, base);
	return !*end && !errno && *n <= max;
}

/* ---- values with rules of their own -------------------------------------- */

static int set_ro(struct fs_options *o, const char *value, struct err *err)
{
	(void)value, (void)err;
	o->rw = false;
	o->ro = true;
	return 0;
}

static int set_rw(struct fs_options *o, const char *value, struct err *err)
{
	(void)value, (void)err;
	o->rw = true;
	o->ro = false;
	return 0;
}

static int set_cache(struct fs_options *o, const char *value, struct err *err)
{
	if (!strcmp(value, "none"))
		o->cache = FS_CACHE_NONE;
	else if (!strcmp(value, "writeback"))
		o->cache = FS_CACHE_WRITEBACK;
	else if (!strcmp(value, "unsafe"))
		o->cache = FS_CACHE_UNSAFE;
	else
		return bad_value(err, "cache",
				 "'none', 'writeback' or 'unsafe'");
	return 0;
}

static int set_discard(struct fs_options *o, const char *value,
		       struct err *err)
{
	o->discard_ignore = !strcmp(value, "ignore");
	if (o->discard_ignore || !strcmp(value, "unmap"))
		return 0;
	return bad_value(err, "discard", "'unmap' or 'ignore'");
}

static int set_idle(struct fs_options *o, const char *value, struct err *err)
{
	uint64_t n;

	if (!number_parse(value, 10, INT_MAX, &n))
		return bad_value(err, "idle", "a number of seconds");
	o->idle = (unsigned)n;
	o->idle_given = true;
	return 0;
}

static int set_uid(struct fs_options *o, const char *value, struct err *err)
{
	const struct passwd *pw = getpwnam(value);
	uint64_t n = pw ? pw->pw_uid : 0;

	if (!pw && !number_parse(value, 10, UINT32_MAX - 1, &n))
		return bad_value(err, "uid", "a user's name or number");
	o->uid = (uid_t)n;
	o->has_uid = true;
	return 0;
}

static int set_gid(struct fs_options *o, const char *value, struct err *err)
{
	const struct group *gr = getgrnam(value);
	uint64_t n = gr ? gr->gr_gid : 0;

	if (!gr && !number_parse(value, 10, UINT32_MAX - 1, &n))
		return bad_value(err, "gid", "a group's name or number");
	o->gid = (gid_t)n;
	o->has_gid = true;
	return 0;
}

static int set_umask(struct fs_options *o, const char *value, struct err *err)
{
	uint64_t n;

	if (!number_parse(value, 8, 0777, &n))
		return bad_value(err, "umask", "an octal number up to 777");
	o->umask = (mode_t)n;
	o->has_umask = true;
	return 0;
}

static int set_allow_path(struct fs_options *o, const char *value,
			  struct err *err)
{
	if (!*value)
		return bad_value(err, "allow-path", "a folder");
	o->allow_path = must(reallocarray(o->allow_path, o->nr_allow_path + 1,
					  sizeof(*o->allow_path)));
	o->allow_path[o->nr_allow_path++] = must(strdup(value));
	return 0;
}

/* SELinux labels go to the kernel as they are. */
static int set_context(struct fs_options *o, const char *word,
		       const char *value)
{
	autostrbuf sb = STRBUF_INIT;

	if (o->context)
		strbuf_printf(&sb, "%s,", o->context);
	strbuf_printf(&sb, "%s=%s", word, value);
	free(o->context);
	o->context = strbuf_take(&sb);
	return 0;
}

/* ---- the table ----------------------------------------------------------- */

#define FIELD(f) offsetof(struct fs_options, f)

static const struct word words[] = {
	{ .name = "ro", .kind = CUSTOM, .set = set_ro,
	  .help = "read-only (default); with ro given, ctl is closed too" },
	{ .name = "rw", .kind = CUSTOM, .set = set_rw,
	  .help = "disks may be written" },
	{ .name = "share", .kind = FLAG_ON, .field = FIELD(share),
	  .help = "read images that others have open for writing" },
	{ .name = "idle", .kind = CUSTOM, .set = set_idle, .arg = "SECONDS",
	  .help = "close images this long after their last use (5)" },
	{ .name = "format", .kind = TEXT, .field = FIELD(format),
	  .arg = "NAME", .help = "format of every source, instead of looking" },
	{ .name = "raw", .kind = FLAG_ON, .field = FIELD(raw),
	  .help = "list every regular file of a folder" },
	{ .name = "growable", .kind = FLAG_ON, .field = FIELD(growable),
	  .help = "writing past the end makes a raw image grow" },
	{ .name = "discard", .kind = CUSTOM, .set = set_discard, .arg = "HOW",
	  .help = "unmap (default), or ignore: space is kept" },
	{ .name = "no-passthrough", .kind = FLAG_ON,
	  .field = FIELD(no_passthrough),
	  .help = "the kernel reads no image file by itself" },
	{ .name = "cache", .kind = CUSTOM, .set = set_cache, .arg = "MODE",
	  .help = "none, writeback or unsafe" },
	{ .name = "cache-size", .kind = SIZE, .field = FIELD(cache_size),
	  .min = FS_CACHE_SIZE_MIN, .max = INT64_MAX, .arg = "SIZE",
	  .help = "bound of the metadata in memory (256M)" },
	{ .name = "max_write", .kind = SIZE, .field = FIELD(max_write),
	  .min = 4096, .max = FS_MAX_WRITE_LIMIT, .arg = "SIZE",
	  .help = "largest request (256k)" },
	{ .name = "threads", .kind = NUMBER, .field = FIELD(threads),
	  .min = 1, .max = FS_THREADS_LIMIT, .arg = "N",
	  .help = "most requests served at once" },
	{ .name = "allow-path", .kind = CUSTOM, .set = set_allow_path,
	  .arg = "FOLDER",
	  .help = "names inside images may lead here (repeatable)" },
	{ .name = "uid", .kind = CUSTOM, .set = set_uid, .arg = "ID",
	  .help = "owner of all files" },
	{ .name = "gid", .kind = CUSTOM, .set = set_gid, .arg = "ID",
	  .help = "group of all files" },
	{ .name = "umask", .kind = CUSTOM, .set = set_umask, .arg = "OCTAL",
	  .help = "permission bits that no file has" },
	{ .name = "allow_other", .kind = FLAG_ON, .field = FIELD(allow_other),
	  .help = "other users may use the mount" },
	{ .name = "allow_root", .kind = FLAG_ON, .field = FIELD(allow_root),
	  .help = "root may use the mount" },
	{ .name = "auto_unmount", .kind = FLAG_ON,
	  .field = FIELD(auto_unmount),
	  .help = "unmount when the daemon dies" },
	{ .name = "log", .kind = TEXT, .field = FIELD(log), .arg = "FILE",
	  .help = "messages go there instead of syslog" },
	{ .name = "debug", .kind = FLAG_ON, .field = FIELD(debug) },
	{ .name = "noexec", .kind = FLAG_ON, .field = FIELD(noexec) },
	{ .name = "exec", .kind = FLAG_OFF, .field = FIELD(noexec) },
};

/* What mount(8) and fstab add: dev and suid must not be obeyed, the rest means
 * nothing here, or is always on (default_permissions). */
static const char *const ignored[] = {
	"default_permissions", "defaults", "dev", "nodev", "suid", "nosuid",
	"auto", "noauto", "nofail", "user", "nouser", "users", "owner", "group",
	"_netdev", "_rnetdev", "comment", "helper", "uhelper", "async", "sync",
	"dirsync", "atime", "noatime", "diratime", "nodiratime", "relatime",
	"norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime",
	"iversion", "noiversion", "mand", "nomand", "silent", "loud",
	"nosymfollow", "symfollow", "fsname", "subtype",
};

/* With or without a value; x-... is for whoever reads fstab. */
static bool for_others(const char *name)
{
	if (!strncmp(name, "x-", 2) || !strncmp(name, "X-", 2))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		if (!strcmp(ignored[i], name))
			return true;
	return false;
}

static bool is_context(const char *name)
{
	return !strcmp(name, "context") || !strcmp(name, "fscontext") ||
	       !strcmp(name, "defcontext") || !strcmp(name, "rootcontext");
}

static const struct word *word_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(words[i].name, name))
			return &words[i];
	return NULL;
}

/* ---- one "name" or "name=value" ------------------------------------------ */

static int set_number(void *field, const struct word *w, const char *value,
		      struct err *err)
{
	uint64_t n;

	if (!number_parse(value, 10, UINT64_MAX, &n))
		return bad_value(err, w->name, "a number");
	if (n < w->min || n > w->max)
		return err_set(err, -EINVAL, "Parameter '%s' expects a value"
			       " from %" PRIu64 " to %" PRIu64, w->name, w->min,
			       w->max);
	*(unsigned *)field = (unsigned)n;
	return 0;
}

static int set_size(void *field, const struct word *w, const char *value,
		    struct err *err)
{
	uint64_t n;

	if (size_parse(value, &n) != SIZE_OK) {
		bad_value(err, w->name,
			  "a non-negative number below 2^64");
		err_hint(err, "%s", SIZE_HINT);
		return -EINVAL;
	}
	if (n < w->min || n > w->max)
		return err_set(err, -EINVAL, "Value '%s' is out of range for"
			       " parameter '%s'", value, w->name);
	if (w->field == FIELD(max_write))
		*(uint32_t *)field = (uint32_t)n;
	else
		*(uint64_t *)field = n;
	return 0;
}

static int set_text(void *field, const struct word *w, const char *value,
		    struct err *err)
{
	char **text = field;

	if (!*value)
		return err_set(err, -EINVAL, "Parameter '%s' is empty",
			       w->name);
	free(*text);
	*text = must(strdup(value));
	return 0;
}

static int word_set(struct fs_options *o, const struct word *w,
		    const char *value, struct err *err)
{
	void *field = (char *)o + w->field;

	if (w->arg && !value)
		return err_set(err, -EINVAL, "Parameter '%s' needs a value:"
			       " %s=%s", w->name, w->name, w->arg);
	if (!w->arg && value)
		return err_set(err, -EINVAL, "Parameter '%s' takes no value",
			       w->name);
	switch (w->kind) {
	case NUMBER:
		return set_number(field, w, value, err);
	case SIZE:
		return set_size(field, w, value, err);
	case TEXT:
		return set_text(field, w, value, err);
	case CUSTOM:
		return w->set(o, value, err);
	default:
		*(bool *)field = w->kind == FLAG_ON;
		return 0;
	}
}

static int item_set(struct fs_options *o, char *item, struct err *err)
{
	char *value = strchr(item, '=');
	const struct word *w;

	if (value)
		*value++ = '\0';
	if (!*item || for_others(item))
		return 0;
	if (is_context(item) && value)
		return set_context(o, item, value);
	w = word_find(item);
	if (!w)
		return err_set(err, -EINVAL, "Invalid parameter '%s'", item);
	return word_set(o, w, value, err);
}

/* "a,b=c\,d": the next item of *@list, a backslash undone; mount(8)'s
 * context="a,b" keeps its quotes and commas. */
static char *item_next(const char **list)
{
	struct strbuf sb = STRBUF_INIT;
	bool quoted = false;
	const char *p;

	strbuf_puts(&sb, "");
	for (p = *list; *p && (quoted || *p != ','); p++) {
		if (*p == '\\' && p[1])
			p++;
		else if (*p == '"')
			quoted = !quoted;
		strbuf_putc(&sb, *p);
	}
	*list = *p ? p + 1 : p;
	return strbuf_take(&sb);
}

static int list_parse(struct fs_options *o, const char *list, struct err *err)
{
	int rc = 0;

	while (*list && !rc) {
		autofree char *item = item_next(&list);

		rc = item_set(o, item, err);
	}
	return rc;
}

/* ---- the command line ---------------------------------------------------- */

static int operands_take(struct fs_options *o, int n, char **args,
			 struct err *err)
{
	if (n < 1)
		return err_set(err, -EINVAL, "Expecting a source and a mount"
			       " point");
	if (n < 2)
		return err_set(err, -EINVAL, "Expecting a mount point behind"
			       " '%s'", args[0]);
	o->sources = must(calloc((size_t)n, sizeof(*o->sources)));
	for (int i = 0; i < n - 1; i++)
		o->sources[o->nr_sources++] = must(strdup(args[i]));
	o->mountpoint = must(strdup(args[n - 1]));
	return 0;
}

int fs_options_check(const struct fs_options *o, struct err *err)
{
	if (o->rw && o->share)
		return err_set(err, -EINVAL, "'share' is for reading: it"
			       " excludes 'rw'");
	if (o->growable && !o->rw)
		return err_set(err, -EINVAL, "'growable' needs 'rw'");
	if (o->allow_other && o->allow_root)
		return err_set(err, -EINVAL, "'allow_other' and 'allow_root'"
			       " exclude each other");
	return 0;
}

static int unknown_option(const char *arg, struct err *err)
{
	if (!strncmp(arg, "--", 2))
		return err_set(err, -EINVAL, "unrecognized option '%s'", arg);
	return err_set(err, -EINVAL, "invalid option -- '%c'", optopt);
}

static int arguments_parse(struct fs_options *o, int argc, char **argv,
			   struct err *err)
{
	static const struct option names[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int id, rc = 0;

	optind = 0;
	opterr = 0;
	while (!rc && (id = getopt_long(argc, argv, ":o:fdhV", names,
					NULL)) != -1) {
		switch (id) {
		case 'o': rc = list_parse(o, optarg, err); break;
		case 'f': o->foreground = true; break;
		case 'd': o->debug = true; break;
		case 'h': o->action = FS_HELP; return 0;
		case 'V': o->action = FS_VERSION; return 0;
		case ':':
			return err_set(err, -EINVAL, "option requires an"
				       " argument -- '%c'", optopt);
		default:
			return unknown_option(argv[optind - 1], err);
		}
	}
	return rc ? rc : operands_take(o, argc - optind, argv + optind, err);
}

int fs_options_parse(struct fs_options *o, int argc, char **argv,
		     struct err *err)
{
	int rc;

	*o = (struct fs_options){
		.action = FS_MOUNT,
		.idle = FS_IDLE_DEFAULT,
		.cache_size = FS_CACHE_SIZE_DEFAULT,
		.max_write = FS_MAX_WRITE_LIMIT,
	};
	rc = arguments_parse(o, argc, argv, err);
	if (rc || o->action != FS_MOUNT)
		return rc;
	o->foreground |= o->debug;
	return 0;
}

static void list_free(char **list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

void fs_options_free(struct fs_options *o)
{
	list_free(o->sources, o->nr_sources);
	list_free(o->allow_path, o->nr_allow_path);
	free(o->mountpoint);
	free(o->format);
	free(o->context);
	free(o->log);
	*o = (struct fs_options){ .action = FS_MOUNT };
}

void fs_options_help(struct strbuf *out)
{
	strbuf_puts(out,
		"Usage: imgfs [-df] [-o OPTION[,OPTION]...] SOURCE..."
		" MOUNTPOINT\n\n"
		"Shows the disk images SOURCE (images, or folders of images)"
		" as files below\nMOUNTPOINT: the guest's disk, its"
		" partitions, info, map and check.\n\n"
		"  -f                      stay in the foreground\n"
		"  -d                      the same, and print each request\n"
		"  -h, --help              print this help and exit\n"
		"  -V, --version           print versions and exit\n\n"
		"Options for -o:\n");
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		const struct word *w = &words[i];
		char left[40];

		if (!w->help)
			continue;
		snprintf(left, sizeof(left), "%s%s%s", w->name,
			 w->arg ? "=" : "", w->arg ? w->arg : "");
		strbuf_printf(out, "  %-23s %s\n", left, w->help);
	}
	strbuf_puts(out, "\nimgfs(1) and imgfs-tree(7) tell more.\n");
}
