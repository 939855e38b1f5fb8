/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount.c - a mount from its sources to its end: what is looked at before there
 * is a mount, the threads that serve it, and the order in which all of it stops
 * so that nothing written is lost.
 */
#include "fs/ctl.h"
#include "fs/folder.h"
#include "fs/loop.h"
#include "fs/notify.h"
#include "fs/session.h"
#include "json.h"
#include "spec.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/sysmacros.h>

/* ---- sources -------------------------------------------------------------------- */

static bool is_folder(const char *source)
{
	struct stat st;

	return !stat(source, &st) && S_ISDIR(st.st_mode);
}

/* The file at the bottom of a specification, or NULL. */
static const char *node_file(const struct json *node)
{
	const char *name = NULL;

	for (; node && !name; node = json_get(node, "file"))
		name = json_get_str(node, "filename");
	return name;
}

static int allow_folder_of(struct policy *p, const char *path,
			   struct err *err)
{
	autofree char *copy = strdup(path);

	BUG_ON(!copy);
	return policy_allow(p, dirname(copy), err);
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* @path may be NULL: an image without a file. */
static struct mimage *source_image(struct mount *mnt, const char *source,
				   const char *path, struct json *node)
{
	autofree char *name = folders_new_name(
		mnt, last_part(path ? path : source));
	struct mimage *m = mimage_new(mnt, mnt->single ? "" : name, path, node);
	struct stat st;

	m->fixed = true;
	if (mnt->single)
		m->title = mnt->opt->sources[0];
	if (path && !stat(path, &st))
		file_id_of(&st, &m->id);
	return m;
}

/* A name, json:{...}, or an option list: driver=qcow2,file.filename=a.img */
static int source_parse(struct mount *mnt, const char *source,
			struct json **node, struct err *err)
{
	const char *format = mnt->opt->format;

	if (strncmp(source, "driver=", 7))
		return spec_parse(source, SPEC_NAME, format, node, err);
	if (format)
		return err_set(err, -EINVAL, "'format' and 'driver=' exclude"
			       " each other");
	return spec_parse(source, SPEC_IMAGE_OPTS, NULL, node, err);
}

static int add_image(struct mount *mnt, const char *source, struct err *err)
{
	struct json *node;
	const char *path;
	struct stat st;
	int ret;

	ret = source_parse(mnt, source, &node, err);
	if (ret)
		return ret;
	path = node_file(node);
	if (path && stat(path, &st))
		ret = err_errno(err, -errno, "Could not open '%s'", path);
	if (!ret && path)
		ret = allow_folder_of(mnt->policy, path, err);
	if (ret) {
		json_free(node);
		return ret;
	}
	folders_add_image(mnt, source_image(mnt, source, path, node));
	return 0;
}

static int add_folder(struct mount *mnt, const char *path, struct err *err)
{
	int ret = policy_allow(mnt->policy, path, err);

	if (!ret)
		ret = policy_allow(mnt->sources, path, err);
	return ret ? ret : folders_add(mnt, path, err);
}

static int add_sources(struct mount *mnt, struct err *err)
{
	const struct fs_options *o = mnt->opt;
	int ret = 0;

	mnt->single = o->nr_sources == 1 && !is_folder(o->sources[0]);
	for (unsigned i = 0; i < o->nr_sources && !ret; i++)
		ret = is_folder(o->sources[i]) ?
			      add_folder(mnt, o->sources[i], err) :
			      add_image(mnt, o->sources[i], err);
	for (unsigned i = 0; i < o->nr_allow_path && !ret; i++)
		ret = policy_allow(mnt->policy, o->allow_path[i], err);
	return ret;
}

/* The root is always known. */
static void make_root(struct mount *mnt)
{
	struct mimage *m = mnt->single ? mnt->images : NULL;

	mnt->root = node_get(mnt, m, m ? NODE_IMAGE : NODE_FOLDER, 0, 0);
}

/* Locked or broken: better said now than in status. */
static int open_single(struct mount *mnt, struct err *err)
{
	struct mimage *m = mnt->root->m;
	int ret;

	if (!m || mnt->opt->idle_given)
		return 0;
	ret = mimage_get(m, MIMAGE_READ, err);
	if (!ret)
		mimage_put(m, MIMAGE_READ);
	return ret;
}

struct mount *mount_new(const struct fs_options *opt, struct err *err)
{
	struct mount *mnt = calloc(1, sizeof(*mnt));

	BUG_ON(!mnt);
	mnt->opt = opt;
	pthread_mutex_init(&mnt->scan, NULL);
	pthread_mutex_init(&mnt->lock, NULL);
	pthread_mutex_init(&mnt->passing, NULL);
	pthread_mutex_init(&mnt->handle_lock, NULL);
	mnt->policy = policy_new();
	mnt->sources = policy_new();
	mnt->nodes = node_table_new();
	mnt->folders = folders_new();
	mnt->calls = ctl_calls_new();
	if (!add_sources(mnt, err)) {
		make_root(mnt);
		if (!open_single(mnt, err))
			return mnt;
	}
	mount_free(mnt);
	return NULL;
}

/* ---- mounting --------------------------------------------------------------------- */

/* F29: nothing may lead back into ourselves.  Asks no daemon: it is us. */
static void deny_own_files(struct mount *mnt)
{
	struct statx sx;

	if (statx(AT_FDCWD, mnt->opt->mountpoint, AT_STATX_DONT_SYNC |
		  AT_NO_AUTOMOUNT, STATX_TYPE, &sx))
		return;
	mnt->dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
	policy_deny_dev(mnt->policy, mnt->dev);
	policy_deny_dev(mnt->sources, mnt->dev);
}

int mount_attach(struct mount *mnt, struct fuse_args *args, struct err *err)
{
	mnt->se = fuse_session_new(args, &session_ops, sizeof(session_ops),
				   mnt);
	if (!mnt->se)
		return err_set(err, -EINVAL, "Could not start libfuse");
	if (fuse_session_mount(mnt->se, mnt->opt->mountpoint)) {
		fuse_session_destroy(mnt->se);
		mnt->se = NULL;
		return err_set(err, -EIO, "Could not mount on '%s'",
			       mnt->opt->mountpoint);
	}
	deny_own_files(mnt);
	return 0;
}

/* ---- serving -------------------------------------------------------------------------- */

enum { WORKERS = 16, COMMANDS = 64, OPENERS = 16, HOUSEWORK = 4, PEEKERS = 8 };

static int start_threads(struct mount *mnt)
{
	mnt->workers = work_pool_new(WORKERS);
	mnt->commands = work_pool_new(COMMANDS);
	mnt->openers = work_pool_new(OPENERS);
	mnt->housework = work_pool_new(HOUSEWORK);
	mnt->peekers = work_pool_new(PEEKERS);
	mnt->notifier = notifier_start(mnt->se);
	if (!mnt->workers || !mnt->commands || !mnt->openers || !mnt->housework ||
	    !mnt->peekers || !mnt->notifier)
		return -ENOMEM;
	return life_start(mnt);
}

static unsigned nr_threads(const struct fs_options *o)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (o->threads)
		return o->threads;
	return (unsigned)max_u64(10, 2 * (uint64_t)(cores > 0 ? cores : 1) + 8);
}

int mount_serve(struct mount *mnt, void (*ready)(void *data), void *data)
{
	int ret;

	mnt->ready = ready;
	mnt->ready_data = data;
	if (fuse_set_signal_handlers(mnt->se))
		return -EIO;
	ret = start_threads(mnt);
	return ret ? ret : loop_run(mnt->se, nr_threads(mnt->opt));
}

/* ---- the end --------------------------------------------------------------------------- */

/* Nobody waits for a long work's answer any more. */
static void cancel_long_work(struct mount *mnt)
{
	size_t n;
	autofree struct mimage **list = mount_images(mnt, false, &n);

	for (size_t i = 0; i < n; i++) {
		pthread_mutex_lock(&list[i]->lock);
		for (struct long_work *w = list[i]->long_work; w; w = w->next)
			w->cancel = true;
		pthread_mutex_unlock(&list[i]->lock);
		mimage_unref(list[i]);
	}
}

static void stop_threads(struct mount *mnt)
{
	mnt->ending = true;
	ctl_calls_stop(mnt);
	cancel_long_work(mnt);
	notifier_stop(mnt->notifier);
	work_pool_free(mnt->workers);
	work_pool_free(mnt->commands);
	work_pool_free(mnt->openers);
	work_pool_free(mnt->peekers);
	session_release_all(mnt);
	life_stop(mnt);
	work_pool_free(mnt->housework);
	mnt->workers = mnt->commands = mnt->openers = NULL;
	mnt->peekers = mnt->housework = NULL;
}

static int close_images(struct mount *mnt)
{
	size_t n;
	autofree struct mimage **list = mount_images(mnt, true, &n);
	int ret, first = 0;

	pause_point("mount-end");
	for (size_t i = 0; i < n; i++) {
		mimage_close(list[i], true, &ret);
		if (!first)
			first = ret;
		mimage_unref(list[i]);
	}
	return first;
}

static void end_session(struct mount *mnt)
{
	if (!mnt->se)
		return;
	fuse_remove_signal_handlers(mnt->se);
	fuse_session_unmount(mnt->se);
	notifier_free(mnt->notifier);
	mnt->notifier = NULL;
	fuse_session_destroy(mnt->se);
	mnt->se = NULL;
}

int mount_free(struct mount *mnt)
{
	int ret;

	if (!mnt)
		return 0;
	stop_threads(mnt);
	ret = close_images(mnt);
	end_session(mnt);
	ctl_calls_free(mnt);
	if (mnt->root)
		node_unref(mnt->root);
	folders_free(mnt);
	node_table_free(mnt->nodes);
	life_free(mnt);
	policy_free(mnt->policy);
	policy_free(mnt->sources);
	pthread_mutex_destroy(&mnt->scan);
	pthread_mutex_destroy(&mnt->lock);
	pthread_mutex_destroy(&mnt->handle_lock);
	pthread_mutex_destroy(&mnt->passing);
	free(mnt);
	return ret;
}
