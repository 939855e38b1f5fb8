/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main.c - from the command line to a served mount and back.
 *
 * Knows the order: options, checks of the mount point, background, mount, end;
 * and the process's limits.  Refuses to know images and requests: session.c.
 */
#include "fsmain.h"
#include "session.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

/* ---- the mount point ----------------------------------------------------- */

/* statfs, because the kernel may remember a dead folder's attributes. */
static int mountpoint_stat(const char *path, struct err *err)
{
	struct statfs fs;
	struct stat st;

	if (!stat(path, &st) && !statfs(path, &fs)) {
		if (S_ISDIR(st.st_mode))
			return 0;
		return err_set(err, -ENOTDIR, "The mount point '%s' is not a"
			       " folder", path);
	}
	if (errno == ENOTCONN)
		return err_set(err, -ENOTCONN, "A file system whose daemon died"
			       " is still mounted on '%s': unmount it first",
			       path);
	return err_errno(err, -errno, "Could not use the mount point '%s'",
			 path);
}

static bool is_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	return !strncmp(path, folder, n) &&
	       (!path[n] || path[n] == '/' || !strcmp(folder, "/"));
}

/* F29: what lies below the mount point is out of reach once we are mounted; a
 * mount that reads itself hangs. */
static int sources_check(const struct fs_options *o, struct err *err)
{
	for (unsigned i = 0; i < o->nr_sources; i++) {
		autofree char *real = realpath(o->sources[i], NULL);

		if (real && is_below(real, o->mountpoint))
			return err_set(err, -EINVAL, "The source '%s' lies"
				       " below the mount point '%s'",
				       o->sources[i], o->mountpoint);
	}
	return 0;
}

/* Makes it absolute: the daemon unmounts it later, from wherever it is. */
static int mountpoint_check(struct fs_options *o, struct err *err)
{
	int rc = mountpoint_stat(o->mountpoint, err);
	char *real;

	if (rc)
		return rc;
	real = realpath(o->mountpoint, NULL);
	if (!real)
		return err_errno(err, -errno, "Could not use the mount point"
				 " '%s'", o->mountpoint);
	free(o->mountpoint);
	o->mountpoint = real;
	return sources_check(o, err);
}

/* ---- the process --------------------------------------------------------- */

/* An image holds a few files open; folders have thousands of images. */
static void raise_nofile(void)
{
	const rlim_t enough = 65536;
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return;
	if (lim.rlim_max < enough) {
		struct rlimit more = { enough, enough };

		if (!setrlimit(RLIMIT_NOFILE, &more))
			return;
	}
	lim.rlim_cur = lim.rlim_max < enough ? lim.rlim_max : enough;
	setrlimit(RLIMIT_NOFILE, &lim);
}

/* Relative sources are opened again and again: they need our folder. */
static void leave_folder(const struct fs_options *o)
{
	for (unsigned i = 0; i < o->nr_sources; i++)
		if (o->sources[i][0] != '/')
			return;
	for (unsigned i = 0; i < o->nr_allow_path; i++)
		if (o->allow_path[i][0] != '/')
			return;
	if (chdir("/"))
		log_line("chdir: %s", strerror(errno));
}

static void process_prepare(const struct fs_options *o)
{
	raise_nofile();
	/* A limit of file sizes is EFBIG for who writes, not our end. */
	signal(SIGXFSZ, SIG_IGN);
	/* F28: no help against every deadlock, and not for users. */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	cache_set_bound(o->cache_size);
	if (!o->foreground)
		leave_folder(o);
}

/* ---- what libfuse is told ------------------------------------------------ */

static void add_flag(char **opts, const char *flag, bool wanted)
{
	if (wanted && fuse_opt_add_opt(opts, flag))
		abort();
}

/* F3, F25, F26: only what libfuse knows. */
static char *libfuse_options(const struct fs_options *o)
{
	autostrbuf name = STRBUF_INIT;
	char max_read[32];
	char *opts = NULL;

	strbuf_printf(&name, "fsname=%s", o->sources[0]);
	if (fuse_opt_add_opt_escaped(&opts, name.text))
		abort();
	snprintf(max_read, sizeof(max_read), "max_read=%u",
		 options_max_read(o));
	add_flag(&opts, max_read, true);
	add_flag(&opts, "subtype=imgfs", true);
	add_flag(&opts, "default_permissions", true);
	add_flag(&opts, "allow_other", o->allow_other);
	add_flag(&opts, "allow_root", o->allow_root);
	add_flag(&opts, "auto_unmount", o->auto_unmount);
	add_flag(&opts, "noexec", o->noexec);
	add_flag(&opts, "ro", o->ro);
	add_flag(&opts, "debug", o->debug);
	add_flag(&opts, o->context, o->context);
	return opts;
}

static int attach(struct mount *mnt, const struct fs_options *o,
		  struct err *err)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	autofree char *opts = libfuse_options(o);
	int rc;

	if (fuse_opt_add_arg(&args, "imgfs") || fuse_opt_add_arg(&args, "-o") ||
	    fuse_opt_add_arg(&args, opts))
		abort();
	rc = mount_attach(mnt, &args, err);
	fuse_opt_free_args(&args);
	return rc;
}

/* ---- life ---------------------------------------------------------------- */

static void on_ready(void *data)
{
	const struct fs_options *o = data;

	if (!o->foreground)
		message_background();
	background_ready();
}

static int serve(const struct fs_options *o, struct err *err)
{
	struct mount *mnt = mount_new(o, err);
	int rc, end;

	if (!mnt)
		return err->code ? err->code : -EIO;
	rc = attach(mnt, o, err);
	if (!rc) {
		rc = mount_serve(mnt, on_ready, (void *)o);
		if (rc)
			err_errno(err, rc, "Could not serve '%s'",
				  o->mountpoint);
	}
	end = mount_free(mnt);
	if (end && !rc)
		err_errno(err, end, "Could not write everything");
	return rc ? rc : end;
}

static int options_settle(struct fs_options *o, struct err *err)
{
	int rc = mountpoint_check(o, err);

	if (rc)
		return rc;
	if (o->rw && mount8_default_rw(o->mountpoint))
		o->rw = false;
	return fs_options_check(o, err);
}

/* Returns in the child of background_fork(), or in the only process. */
static int mount_run(struct fs_options *o, struct err *err)
{
	int rc = options_settle(o, err);

	if (rc)
		return rc;
	rc = message_open(o, err);
	if (rc)
		return rc;
	if (!o->foreground) {
		rc = background_fork();
		if (rc)
			return err_errno(err, rc, "Could not go to the"
					 " background");
	}
	process_prepare(o);
	return serve(o, err);
}

static void print_help(void)
{
	autostrbuf sb = STRBUF_INIT;

	fs_options_help(&sb);
	fputs(sb.text, stdout);
}

static void print_version(void)
{
	autostrbuf flags = STRBUF_INIT;

	session_capabilities(&flags);
	puts("imgfs version " PACKAGE_VERSION);
	printf("libfuse version %s\n", fuse_pkgversion());
	printf("capabilities asked for:%s\n", flags.text);
	/* Starts a program that prints, too. */
	fflush(stdout);
	fuse_lowlevel_version();
}

static int run(struct fs_options *o, int argc, char **argv, struct err *err)
{
	int rc = fs_options_parse(o, argc, argv, err);

	if (rc) {
		err_hint(err, "Try 'imgfs --help' for more information\n");
		return rc;
	}
	switch (o->action) {
	case FS_HELP:
		print_help();
		return 0;
	case FS_VERSION:
		print_version();
		return 0;
	default:
		return mount_run(o, err);
	}
}

int main(int argc, char **argv)
{
	autoerr err = ERR_INIT;
	struct fs_options o;
	int rc;

	rc = run(&o, argc, argv, &err);
	if (rc)
		background_failed(&err);
	fs_options_free(&o);
	return rc ? 1 : 0;
}
