/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * umount.c - umount.fuse.imgfs and umount.fuse, which umount(8) runs for our
 * mounts: the first when it has the type from mountinfo, the second when it has
 * it from statfs(2), which knows no subtypes.  That is so wherever
 * /run/mount/utab exists (util-linux 2.38), and then any FUSE file system may
 * come here: another one's is unmounted and nothing else.
 *
 * The kernel's umount(2) returns before the daemon has heard of it (F27).  Who
 * unmounts wants to start a virtual machine, or pull a disk: so this waits for
 * the daemon's end.  Knows the ioctl that tells the daemon's process.  Refuses
 * to wait for a mount that is still there elsewhere.
 */
#include "fs.h"

#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

struct unmount {
	const char *dir;
	bool wait;              /* not after -l, -f */
	char *argv[12];         /* umount -i ... DIR */
	int argc;
	dev_t dev;              /* of the mount */
	int pidfd;              /* of its daemon, or -1 */
	bool copies;            /* mounted in other places too */
};

static int usage(void)
{
	fputs("Usage: umount.fuse.imgfs MOUNTPOINT [-flnrv] [-N NAMESPACE]"
	      " [-t TYPE]\n", stderr);
	return 1;
}

static void pass_on(struct unmount *u, const char *arg)
{
	if ((size_t)u->argc < ARRAY_SIZE(u->argv) - 1)
		u->argv[u->argc++] = (char *)arg;
}

static bool arguments_parse(struct unmount *u, int argc, char **argv)
{
	int c;

	pass_on(u, "umount");
	pass_on(u, "-i");
	while ((c = getopt(argc, argv, "flnrvN:t:")) != -1) {
		switch (c) {
		case 'f': pass_on(u, "-f"); u->wait = false; break;
		case 'l': pass_on(u, "-l"); u->wait = false; break;
		case 'n': pass_on(u, "-n"); break;
		case 'r': pass_on(u, "-r"); break;
		case 'v': pass_on(u, "-v"); break;
		case 'N': case 't': break;
		default: return false;
		}
	}
	if (optind != argc - 1)
		return false;
	u->dir = argv[optind];
	pass_on(u, u->dir);
	return true;
}

/* ---- is it ours? ------------------------------------------------------------- */

/* mountinfo writes blanks, newlines and backslashes in octal. */
static bool same_path(const char *escaped, const char *path)
{
	for (; *escaped && *path; escaped++, path++) {
		unsigned c = (unsigned char)*escaped;

		if (*escaped == '\\' && sscanf(escaped + 1, "%3o", &c) == 1)
			escaped += 3;
		if (c != (unsigned char)*path)
			return false;
	}
	return !*escaped && !*path;
}

/* The file system there is not asked: it may be one that hangs. */
static bool is_ours(const char *dir)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *at = NULL, *type;
	bool ours = false;      /* the last one is on top */
	size_t cap = 0;

	if (!f)
		return false;
	while (getline(&line, &cap, f) > 0) {
		free(at);
		if (sscanf(line, "%*s %*s %*s %*s %ms", &at) != 1)
			at = NULL;
		type = strstr(line, " - ");
		if (at && type && same_path(at, dir))
			ours = !strncmp(type + 3, "fuse.imgfs ", 11);
	}
	free(at);
	free(line);
	fclose(f);
	return ours;
}

static bool called_for_any_fuse(const char *program)
{
	const char *slash = strrchr(program, '/');

	return !strcmp(slash ? slash + 1 : program, "umount.fuse");
}

/* ---- is it mounted elsewhere too? ------------------------------------------- */

/* How many mounts of @dev does that file of /proc list? */
static unsigned mountinfo_count(const char *path, dev_t dev)
{
	FILE *f = fopen(path, "re");
	unsigned maj, min, n = 0;
	char *line = NULL;
	size_t cap = 0;

	if (!f)
		return 0;
	while (getline(&line, &cap, f) > 0)
		n += sscanf(line, "%*d %*d %u:%u", &maj, &min) == 2 &&
			makedev(maj, min) == dev;
	free(line);
	fclose(f);
	return n;
}

/* The name space of a process in which we see no more than in our own? */
static bool same_namespace(const char *mountinfo)
{
	int n = (int)(strrchr(mountinfo, '/') - mountinfo);
	struct stat theirs, ours;
	char path[64];

	snprintf(path, sizeof(path), "%.*s/ns/mnt", n, mountinfo);
	return stat(path, &theirs) || stat("/proc/self/ns/mnt", &ours) ||
	       theirs.st_ino == ours.st_ino;
}

/* More than @here mounts in our own name space, or one in another? */
static bool mounted_elsewhere(dev_t dev, unsigned here)
{
	bool found = mountinfo_count("/proc/self/mountinfo", dev) > here;
	glob_t g;

	if (found || glob("/proc/[0-9]*/mountinfo", GLOB_NOSORT, NULL, &g))
		return found;
	for (size_t i = 0; i < g.gl_pathc && !found; i++)
		found = !same_namespace(g.gl_pathv[i]) &&
			mountinfo_count(g.gl_pathv[i], dev);
	globfree(&g);
	return found;
}

/* ---- the work ------------------------------------------------------------ */

/* A dead mount answers nothing: then there is nobody to wait for. */
static void daemon_find(struct unmount *u)
{
	autoclose int fd = open(u->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct imgfs_identity id;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || ioctl(fd, IMGFS_IOC_IDENTITY, &id) < 0)
		return;
	u->dev = st.st_dev;
	u->pidfd = pidfd_open((pid_t)id.pid, 0);
	u->copies = mounted_elsewhere(st.st_dev, 1);
}

/* Runs umount(8) proper; its exit code. */
static int umount_run(struct unmount *u)
{
	pid_t pid = fork();
	int status;

	if (pid < 0) {
		perror("umount.fuse.imgfs: fork");
		return 1;
	}
	if (!pid) {
		execvp(u->argv[0], u->argv);
		perror("umount.fuse.imgfs: umount");
		_exit(1);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/*
 * Once it is unmounted another file system may get the number @dev: who was
 * mounted in one place only is waited for without looking again.
 */
static void daemon_wait(const struct unmount *u)
{
	struct pollfd p = { .fd = u->pidfd, .events = POLLIN };

	if (!u->copies) {
		while (poll(&p, 1, -1) < 0 && errno == EINTR)
			;
		return;
	}
	while (poll(&p, 1, 100) <= 0)
		if (mounted_elsewhere(u->dev, 0))
			return;
}

int main(int argc, char **argv)
{
	struct unmount u = { .wait = true, .pidfd = -1 };
	int rc;

	if (!arguments_parse(&u, argc, argv))
		return usage();
	if (called_for_any_fuse(argv[0]) && !is_ours(u.dir))
		u.wait = false;
	if (u.wait)
		daemon_find(&u);
	rc = umount_run(&u);
	if (!rc && u.pidfd >= 0)
		daemon_wait(&u);
	return rc;
}
