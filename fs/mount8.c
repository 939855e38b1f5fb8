/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount8.c - did somebody ask for "rw"?
 *
 * mount(8) puts "rw" into what it hands to every helper, asked or not, and a
 * mount of ours is read-only unless asked.  So the command line of mount(8),
 * our parent, and the line of fstab that it followed are looked at.  Knows
 * their grammar as far as options go; when in doubt rw was meant.
 */
#include "fsmain.h"

#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>

/* Is @word an item of the list @opts? */
static bool list_has(const char *opts, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = opts; (p = strstr(p, word)); p += n)
		if ((p == opts || p[-1] == ',') && (!p[n] || p[n] == ','))
			return true;
	return false;
}

/* A whole file of /proc; NUL-terminated once more, NULL if there is none. */
static char *proc_read(pid_t pid, const char *what, size_t *len)
{
	struct strbuf sb = STRBUF_INIT;
	char path[64], buf[4096];
	autoclose int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		strbuf_add(&sb, buf, (size_t)n);
	strbuf_puts(&sb, "");
	*len = sb.len;
	return strbuf_take(&sb);
}

static pid_t parent_of(pid_t pid)
{
	autofree char *stat = NULL;
	const char *p;
	size_t len;
	int ppid;

	stat = proc_read(pid, "stat", &len);
	p = stat ? strrchr(stat, ')') : NULL;
	return p && sscanf(p, ") %*c %d", &ppid) == 1 ? ppid : 0;
}

/* mount(8) above us: the parent, or one shell further (mount.fuse starts one);
 * 0: somebody else. */
static pid_t mount8_find(void)
{
	pid_t pid = getppid();

	for (int i = 0; i < 2 && pid > 1; i++, pid = parent_of(pid)) {
		autofree char *comm = NULL;
		size_t len;

		comm = proc_read(pid, "comm", &len);
		if (comm && !strcmp(comm, "mount\n"))
			return pid;
	}
	return 0;
}

static bool is_rw_flag(const char *arg)
{
	return !strcmp(arg, "--rw") || !strcmp(arg, "--read-write") ||
	       (arg[0] == '-' && arg[1] != '-' && arg[1] != 'o' &&
		strcspn(arg, "wotTLUN") < strlen(arg) &&
		arg[strcspn(arg, "wotTLUN")] == 'w');
}

/* What the argument @arg (followed by @next, or "") gives to -o, or NULL. */
static const char *options_of(const char *arg, const char *next)
{
	size_t at;

	if (!strncmp(arg, "--options=", 10))
		return arg + 10;
	if (!strcmp(arg, "--options"))
		return next;
	if (arg[0] != '-' || arg[1] == '-')
		return NULL;
	at = strcspn(arg, "otTLUN");
	if (arg[at] != 'o')
		return NULL;
	return arg[at + 1] ? arg + at + 1 : next;
}

static bool arguments_ask(const char *args, size_t len)
{
	for (const char *p = args; p < args + len; p += strlen(p) + 1) {
		const char *next = p + strlen(p) + 1;
		const char *opts = options_of(p, next < args + len ? next : "");

		if (is_rw_flag(p) || (opts && list_has(opts, "rw")))
			return true;
	}
	return false;
}

static bool fstab_asks(const char *mountpoint)
{
	FILE *f = setmntent("/etc/fstab", "re");
	const struct mntent *m;
	bool rw = false;

	if (!f)
		return false;
	while ((m = getmntent(f))) {
		autofree char *dir = realpath(m->mnt_dir, NULL);

		if (!strcmp(m->mnt_dir, mountpoint) ||
		    (dir && !strcmp(dir, mountpoint)))
			rw = list_has(m->mnt_opts, "rw");
	}
	endmntent(f);
	return rw;
}

bool mount8_default_rw(const char *mountpoint)
{
	pid_t pid = mount8_find();
	autofree char *args = NULL;
	size_t len;

	args = pid ? proc_read(pid, "cmdline", &len) : NULL;
	return args && !arguments_ask(args, len) && !fstab_asks(mountpoint);
}
