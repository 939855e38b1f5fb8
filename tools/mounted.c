/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mounted.c - an image that is mounted by imgfs is changed by that mount: its
 * locks keep everybody else out.
 *
 * Knows how a mount is found: by /proc/self/mountinfo and the ioctl that all its
 * files answer (identity.h).  Refuses to know what a command does: it goes to
 * `ctl` in the words that it was given in.
 */
#include "tools.h"
#include "beyond.h"

#include "identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* ---- mounts --------------------------------------------------------------------- */

/* \040 and the like of mountinfo, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++)
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
				       (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	*to = 0;
}

/* One line: the mount point (in @line) and device, if it is a mount of ours. */
static char *parse_line(char *line, dev_t *dev)
{
	unsigned major, minor;
	int at = 0, end = 0;

	if (!strstr(line, " - fuse.imgfs "))
		return NULL;
	if (sscanf(line, "%*d %*d %u:%u %*s %n%*s%n", &major, &minor, &at,
		   &end) != 2 || !end)
		return NULL;
	line[end] = 0;
	*dev = makedev(major, minor);
	unescape(line + at);
	return line + at;
}

/* Calls @fn with each until it says true. */
static bool each_mount(bool (*fn)(const char *point, dev_t dev, void *data),
		       void *data)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	autofree char *line = NULL;
	bool found = false;
	size_t room = 0;
	char *point;
	dev_t dev;

	while (f && !found && getline(&line, &room, f) > 0) {
		point = parse_line(line, &dev);
		found = point && fn(point, dev, data);
	}
	if (f)
		fclose(f);
	return found;
}

static bool ask(const char *path, struct imgfs_identity *id)
{
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK |
				O_NOCTTY);

	return fd >= 0 && !ioctl(fd, IMGFS_IOC_IDENTITY, id) &&
	       id->version == 1;
}

/* ---- which image ------------------------------------------------------------------- */

struct search {
	dev_t dev;              /* of the path, or of the image file */
	ino_t ino;
	char name[256];         /* of the image in the mount */
	char *ctl;              /* out; the caller frees it */
};

static void found(struct search *s, const char *point, const char *name)
{
	if (asprintf(&s->ctl, "%s%s%s/ctl", point, *name ? "/" : "", name) < 0)
		s->ctl = NULL;
}

static bool is_mount(const char *point, dev_t dev, void *data)
{
	struct search *s = data;

	if (dev != s->dev)
		return false;
	found(s, point, s->name);
	return true;
}

/* Images beyond those that the root tells of: one by one. */
static bool look_in_folder(const char *point, struct search *s)
{
	DIR *dir = opendir(point);
	struct dirent *e;
	bool is = false;

	while (dir && !is && (e = readdir(dir))) {
		struct imgfs_identity id;
		autofree char *path = NULL;

		if (e->d_name[0] == '.' ||
		    asprintf(&path, "%s/%s", point, e->d_name) < 0)
			continue;
		is = ask(path, &id) && id.flags & IMGFS_IS_OPEN &&
		     id.dev == s->dev && id.ino == s->ino;
		if (is)
			found(s, point, e->d_name);
	}
	if (dir)
		closedir(dir);
	return is;
}

static bool holds_file(const char *point, dev_t dev, void *data)
{
	struct search *s = data;
	struct imgfs_identity id;
	uint32_t n = ARRAY_SIZE(id.open);

	(void)dev;
	if (!ask(point, &id))
		return false;
	for (uint32_t i = 0; i < n && i < id.nr_open; i++)
		if (id.open[i].dev == s->dev && id.open[i].ino == s->ino) {
			found(s, point, id.open[i].name);
			return true;
		}
	return id.nr_open > n && look_in_folder(point, s);
}

/* Does the name lead to an image of a mount: its directory, a file in it? */
static bool in_mount(const char *file, struct search *s)
{
	struct imgfs_identity id;

	if (!ask(file, &id) || id.layer || id.kind == IMGFS_KIND_FOLDER)
		return false;
	snprintf(s->name, sizeof(s->name), "%s", id.name);
	return each_mount(is_mount, s);
}

/* A mount that keeps others out has a lock of locking.md.  To ask all mounts
 * holds them for a moment: they cannot be unmounted then. */
static bool may_be_open(const char *file)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
			   .l_start = 100, .l_len = 200 };
	autoclose int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	return fd < 0 || fcntl(fd, F_OFD_GETLK, &l) || l.l_type != F_UNLCK;
}

static bool find(const char *file, struct search *s)
{
	struct stat st;

	if (stat(file, &st))
		return false;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	if (in_mount(file, s))
		return true;
	return S_ISREG(st.st_mode) && may_be_open(file) &&
	       each_mount(holds_file, s);
}

/* ---- the words ----------------------------------------------------------------------- */

static void add_word(struct strbuf *out, const char *word)
{
	strbuf_puts(out, out->len ? " '" : "'");
	for (; *word; word++)
		if (*word == '\'')
			strbuf_puts(out, "'\\''");
		else
			strbuf_putc(out, *word);
	strbuf_putc(out, '\'');
}

/* How to open a file is no business of the mount's. */
static bool is_ours(int id)
{
	return id == OPT_OBJECT || id == OPT_IMAGE_OPTS ||
	       (id < 256 && strchr("fqptTU", id));
}

/* Names mean what they mean here, not in the folder of the image. */
static void add_name(struct strbuf *out, const char *name)
{
	autofree char *whole = realpath(name, NULL);

	add_word(out, whole ? whole : name);
}

static void add_option(struct strbuf *out, const struct cmdline *cl, int id,
		       const char *arg)
{
	const struct cmd_option *o = cl->options;
	char word[64];

	while (o->id && o->id != id)
		o++;
	if (id < 256)
		snprintf(word, sizeof(word), "-%c", id);
	else
		snprintf(word, sizeof(word), "--%s", o->name);
	add_word(out, word);
	if (arg && o->flags & OPT_FILE)
		add_name(out, arg);
	else if (arg)
		add_word(out, arg);
}

/* The command line is walked once more. */
static void line_make(struct strbuf *out, const struct cmdline *cl,
		      const char *file, const char *last)
{
	struct cmdline again;
	const char *arg;
	int id;

	cmdline_init(&again, cl->cmd, cl->argc, cl->argv);
	add_word(out, cl->cmd->name);
	while ((id = cmdline_next(&again, &arg)) >= 0)
		if (!is_ours(id))
			add_option(out, &again, id, arg);
	strbuf_puts(out, " --");
	for (int i = 0; i < again.nr_operands; i++)
		if (again.operands[i] != file)
			add_word(out, again.operands[i]);
	if (last)
		add_word(out, last);
	cmdline_free(&again);
}

/* ---- the command ------------------------------------------------------------------------ */

/* What came of it: the answer's text, which ends in a newline. */
static int send_line(const char *ctl, const struct strbuf *line, char *text,
		     size_t room)
{
	autoclose int fd = open(ctl, O_RDWR | O_CLOEXEC);
	ssize_t n;
	int ret = 0;

	*text = 0;
	if (fd < 0)
		return -errno;
	if (write(fd, line->text, line->len) < 0)
		ret = -errno;
	n = pread(fd, text, room - 1, 0);
	text[n > 0 ? n : 0] = 0;
	return ret;
}

static void tell_failure(int ret, char *text)
{
	char *rest = strchr(text, '\n');

	if (!rest) {
		say_error("%s", strerror(-ret));
		return;
	}
	*rest++ = 0;
	say_error("%s", text);
	fputs(rest, stderr);
}

bool mounted_is_inside(const char *file)
{
	struct search s = { .dev = 0 };
	bool is = in_mount(file, &s);

	free(s.ctl);
	return is;
}

bool mounted_ask(const struct cmdline *cl, const char *file, const char *last,
		 char *text, size_t room, int *ret)
{
	autostrbuf line = STRBUF_INIT;
	struct search s = { .dev = 0 };

	if (beyond_qemu(BEYOND_MOUNT, NULL) || !find(file, &s) || !s.ctl)
		return false;
	line_make(&line, cl, file, last);
	*ret = send_line(s.ctl, &line, text, room);
	free(s.ctl);
	if (*ret)
		tell_failure(*ret, text);
	return true;
}

bool mounted_run(const struct cmdline *cl, const char *file, const char *last,
		 const char *done, int *rc)
{
	char text[65536];
	int ret;

	if (!mounted_ask(cl, file, last, text, sizeof(text), &ret))
		return false;
	if (!ret && strcmp(text, "ok\n"))
		fputs(text, stdout);
	else if (!ret && done)
		puts(done);
	*rc = ret ? 1 : 0;
	return true;
}
