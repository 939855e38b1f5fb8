/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mimage.c - one image of the mount: opened and locked for its first user,
 * locked for writing for its first writer, and closed again.
 *
 * Knows who uses an image and what state it is in.  When it is closed is
 * life.c's business; what its files show is not known here.
 *
 * One thread at a time changes the state: it sets busy under the lock, works
 * without it, and holds the gate exclusively at the moment of change, so that
 * nothing is in flight then.
 */
#include "fs/mimage.h"
#include "fs/bitmaps.h"
#include "json.h"

#include <stdio.h>
#include <time.h>

/* ---- the list ------------------------------------------------------------- */

struct mimage *mimage_new(struct mount *mnt, const char *name,
			  const char *path, struct json *node)
{
	struct mimage *m = calloc(1, sizeof(*m));
	pthread_rwlockattr_t attr;

	BUG_ON(!m);
	m->mnt = mnt;
	m->refs = 1;
	m->name = strdup(name);
	m->path = path ? strdup(path) : NULL;
	m->title = m->name;
	BUG_ON(!m->name || (path && !m->path));
	m->node = node;
	m->id_base = node_new_base(mnt->nodes);
	/* A change of state must not starve under readers. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&m->gate, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	with_lock(&mnt->lock);
	m->next = mnt->images;
	mnt->images = m;
	return m;
}

static void mimage_free(struct mimage *m)
{
	BUG_ON(m->image);
	disk_forget(m);
	report_forget(m);
	bitmaps_forget(m);
	snapshots_forget(m);
	facts_unref(m->facts);
	json_free(m->node);
	pthread_rwlock_destroy(&m->gate);
	pthread_mutex_destroy(&m->lock);
	pthread_cond_destroy(&m->changed);
	free(m->name);
	free(m->path);
	free(m->files);
	free(m->outcome);
	free(m->trouble);
	free(m->failed);
	free(m);
}

struct mimage *mimage_ref(struct mimage *m)
{
	with_lock(&m->mnt->lock);
	m->refs++;
	return m;
}

void mimage_unref(struct mimage *m)
{
	struct mount *mnt = m->mnt;
	struct mimage **p;
	bool last;

	pthread_mutex_lock(&mnt->lock);
	last = !--m->refs;
	if (last) {
		for (p = &mnt->images; *p != m; p = &(*p)->next)
			;
		*p = m->next;
	}
	pthread_mutex_unlock(&mnt->lock);
	if (last)
		mimage_free(m);
}

struct mimage **mount_images(struct mount *mnt, bool open_only, size_t *n)
{
	struct mimage **list, *m;
	size_t all = 0;

	with_lock(&mnt->lock);
	for (m = mnt->images; m; m = m->next)
		all++;
	list = calloc(all + 1, sizeof(*list));
	BUG_ON(!list);
	*n = 0;
	for (m = mnt->images; m; m = m->next)
		if (!open_only || m->is_open) {
			m->refs++;
			list[(*n)++] = m;
		}
	return list;
}

/* ---- files ------------------------------------------------------------------ */

int mimage_check_path(struct mimage *m)
{
	struct file_id now;
	struct stat st;

	if (m->gone)
		return -ESTALE;
	if (m->fixed || !m->path)
		return 0;
	if (stat(m->path, &st))
		return -ESTALE;
	file_id_of(&st, &now);
	with_lock(&m->lock);
	return file_id_same_file(&now, &m->id) ? 0 : -ESTALE;
}

/* ---- opening ------------------------------------------------------------------ */

void mimage_args(const struct mimage *m, unsigned flags,
		 struct image_args *args)
{
	memset(args, 0, sizeof(*args));
	args->node = m->node;
	args->flags = flags;
	args->cache = CACHE_WRITEBACK;
	args->policy = m->mnt->policy;
	args->self_policy = m->fixed ? NULL : m->mnt->sources;
}

int mimage_open_with(struct mimage *m, const struct image_args *args,
		     struct image **img, struct err *err)
{
	int ret;

	for (;;) {
		autoerr now = ERR_INIT;

		ret = image_open(args, img, &now);
		if (ret && (ret == -EMFILE || ret == -ENFILE) &&
		    life_make_room(m->mnt))
			continue;
		if (ret) {
			err_errno(&now, ret, "Could not open the image");
			err_move(err, &now);
		}
		return ret;
	}
}

/* What the mount needs of an image that it holds. */
static unsigned held_flags(const struct fs_options *o)
{
	unsigned flags = IMAGE_ALONE;

	if (o->share)
		flags = IMAGE_SHARE;
	else if (o->rw)
		flags |= IMAGE_RDWR_LATER;
	if (o->growable)
		flags |= IMAGE_RESIZE;
	if (!o->discard_ignore)
		flags |= IMAGE_DISCARD;
	return flags;
}

/* The path may lead to another file than when it was looked at. */
static int opened_right_file(struct mimage *m, const struct image *img)
{
	struct file_id id;
	struct stat st;

	if (file_stat(img->file, &st))
		return 0;
	file_id_of(&st, &id);
	with_lock(&m->lock);
	if (!m->fixed && !file_id_same_file(&id, &m->id))
		return -ESTALE;
	m->id = id;
	return 0;
}

/* The image becomes visible to all: gate held exclusively, lock not. */
static void set_image(struct mimage *m, struct image *img)
{
	unsigned n;
	struct file_id *files = chain_ids(img, &n);

	with_lock(&m->lock);
	m->opened++;
	if (!file_ids_equal(files, n, m->files, m->nr_files))
		m->same_since = m->opened;
	free(m->files);
	m->files = files;
	m->nr_files = n;
	m->image = img;
	m->writable = false;
}

/* An open image keeps itself in the list. */
static void set_open(struct mimage *m, bool open)
{
	pthread_mutex_lock(&m->mnt->lock);
	m->is_open = open;
	m->refs += open ? 1 : 0;
	pthread_mutex_unlock(&m->mnt->lock);
	if (!open)
		mimage_unref(m);
}

static int open_image(struct mimage *m, struct err *err)
{
	struct image_args args;
	struct image *img;
	int ret;

	mimage_args(m, held_flags(m->mnt->opt), &args);
	pause_point("mimage-open");
	ret = mimage_open_with(m, &args, &img, err);
	if (ret) {
		err_prefix(err, "Could not open '%s': ", m->title);
		return ret;
	}
	ret = opened_right_file(m, img);
	if (ret) {
		image_close(img);
		return ret;
	}
	pthread_rwlock_wrlock(&m->gate);
	set_image(m, img);
	pthread_rwlock_unlock(&m->gate);
	set_open(m, true);
	return 0;
}

/* Who holds the gate for long is asked to leave. */
static void gate_close(struct mimage *m)
{
	pthread_mutex_lock(&m->lock);
	for (struct long_work *w = m->long_work; w; w = w->next) {
		w->again = true;
		w->cancel = true;
	}
	pthread_mutex_unlock(&m->lock);
	pthread_rwlock_wrlock(&m->gate);
}

/* ---- the write lock -------------------------------------------------------------- */

/* The open image of the mount whose chain rests on @m's file, with a reference,
 * or NULL. */
static struct mimage *overlay_of(struct mimage *m)
{
	size_t n;
	autofree struct mimage **list = mount_images(m->mnt, true, &n);
	struct mimage *found = NULL;

	for (size_t i = 0; i < n; i++) {
		struct mimage *o = list[i];
		bool uses = false;

		pthread_mutex_lock(&o->lock);
		for (unsigned f = 1; f < o->nr_files && o != m; f++)
			uses |= file_id_same_file(&o->files[f], &m->id);
		pthread_mutex_unlock(&o->lock);
		if (uses && !found)
			found = o;
		else
			mimage_unref(o);
	}
	return found;
}

static int may_write(struct mimage *m, struct err *err)
{
	struct mimage *o;

	if (m->mnt->opt->share)
		return err_set(err, -EROFS, "'%s' is shared with its writers:"
			       " read-only", m->title);
	o = overlay_of(m);
	if (!o)
		return 0;
	err_set(err, -EBUSY, "'%s' is the base of '%s', which is open",
		m->title, o->title);
	mimage_unref(o);
	return -EBUSY;
}

static void set_writable(struct mimage *m, bool writable)
{
	with_lock(&m->lock);
	m->writable = writable;
}

static int upgrade_image(struct mimage *m, struct err *err)
{
	int ret = may_write(m, err);

	if (ret)
		return ret;
	gate_close(m);
	ret = image_upgrade(m->image, err);
	if (!ret)
		set_writable(m, true);
	pthread_rwlock_unlock(&m->gate);
	return ret;
}

/* ---- users ---------------------------------------------------------------- */

/* Under the lock. */
static bool is_ready(const struct mimage *m, enum mimage_use use)
{
	return m->image && (use == MIMAGE_READ || (m->writable && !m->failed));
}

static void count_user(struct mimage *m, enum mimage_use use)
{
	if (use == MIMAGE_WRITE)
		m->writers++;
	else
		m->readers++;
}

/* The state is ours to change; afterwards it is not. */
static void wait_busy(struct mimage *m)
{
	while (m->busy)
		pthread_cond_wait(&m->changed, &m->lock);
}

static void end_busy(struct mimage *m)
{
	m->busy = false;
	pthread_cond_broadcast(&m->changed);
}

/* Under the lock, by users only: housekeeping is no use of an image. */
static void note_idle(struct mimage *m)
{
	if (!m->readers && !m->writers)
		clock_gettime(CLOCK_MONOTONIC, &m->idle_since);
}

static int prepare(struct mimage *m, enum mimage_use use, struct err *err)
{
	int ret = 0;

	if (!m->image)
		ret = open_image(m, err);
	if (!ret && use == MIMAGE_WRITE && !m->writable)
		ret = upgrade_image(m, err);
	return ret;
}

/* Under the lock; comes back with it. */
static int change_for(struct mimage *m, enum mimage_use use, struct err *err)
{
	autoerr now = ERR_INIT;
	int ret;

	m->busy = true;
	pthread_mutex_unlock(&m->lock);
	ret = prepare(m, use, &now);
	pthread_mutex_lock(&m->lock);
	if (!ret)
		count_user(m, use);
	if (ret != -ESTALE)
		mimage_trouble(m, ret ? err_text(&now) : NULL);
	note_idle(m);
	end_busy(m);
	err_move(err, &now);
	life_kick(m->mnt);
	return ret;
}

int mimage_get(struct mimage *m, enum mimage_use use, struct err *err)
{
	int ret = 0;

	if (use == MIMAGE_WRITE && !m->mnt->opt->rw)
		return err_set(err, -EROFS, "Mounted without rw");
	if (m->mnt->opt->share)
		mimage_read_anew(m);
	pthread_mutex_lock(&m->lock);
	wait_busy(m);
	if (use == MIMAGE_WRITE && m->failed)
		ret = err_set(err, -EIO, "%s", m->failed);
	else if (is_ready(m, use))
		count_user(m, use);
	else
		ret = change_for(m, use, err);
	pthread_mutex_unlock(&m->lock);
	return ret;
}

bool mimage_get_fast(struct mimage *m, enum mimage_use use)
{
	with_lock(&m->lock);
	if (m->busy || !is_ready(m, use) || m->mnt->opt->share)
		return false;
	count_user(m, use);
	return true;
}

void mimage_put(struct mimage *m, enum mimage_use use)
{
	bool idle, kick;

	pthread_mutex_lock(&m->lock);
	if (use == MIMAGE_WRITE)
		m->writers--;
	else
		m->readers--;
	idle = !m->readers && !m->writers;
	note_idle(m);
	/* What is due at once; the rest has time until the next tick. */
	kick = (m->writable && !m->writers) ||
	       (idle && (m->gone || !m->mnt->opt->idle));
	pthread_mutex_unlock(&m->lock);
	if (kick)
		life_kick(m->mnt);
}

void mimage_enter(struct mimage *m)
{
	pthread_rwlock_rdlock(&m->gate);
}

void mimage_leave(struct mimage *m)
{
	pthread_rwlock_unlock(&m->gate);
}

/* In the list first: who closes the gate meanwhile must know of us. */
void mimage_enter_long(struct mimage *m, struct long_work *w)
{
	pthread_mutex_lock(&m->lock);
	w->next = m->long_work;
	m->long_work = w;
	if (m->mnt->ending)
		w->cancel = true;
	pthread_mutex_unlock(&m->lock);
	mimage_enter(m);
}

void mimage_leave_long(struct mimage *m, struct long_work *w)
{
	struct long_work **p;

	mimage_leave(m);
	with_lock(&m->lock);
	for (p = &m->long_work; *p != w; p = &(*p)->next)
		;
	*p = w->next;
}

void mimage_enter_alone(struct mimage *m)
{
	gate_close(m);
}

struct image *mimage_layer(struct mimage *m, unsigned layer)
{
	struct image *img = m->image;

	while (img && layer--)
		img = img->backing;
	return img;
}

struct image *mimage_borrow(struct mimage *m)
{
	pthread_mutex_lock(&m->lock);
	wait_busy(m);
	if (!m->image) {
		pthread_mutex_unlock(&m->lock);
		return NULL;
	}
	m->readers++;
	pthread_mutex_unlock(&m->lock);
	mimage_enter(m);
	return m->image;
}

void mimage_give_back(struct mimage *m)
{
	mimage_leave(m);
	mimage_put(m, MIMAGE_READ);
}

/* ---- writing ----------------------------------------------------------------- */

void mimage_wrote(struct mimage *m)
{
	atomic_fetch_add_explicit(&m->changes, 1, memory_order_relaxed);
}

static bool is_broken(const struct image *img)
{
	bool broken = img->file->broken;

	for (unsigned i = 0; i < img->nr_children; i++)
		broken |= img->children[i].file->broken != 0;
	return broken;
}

int mimage_flush(struct mimage *m)
{
	uint64_t changes = m->changes;
	bool broken;
	int ret;

	mimage_enter(m);
	ret = image_flush(m->image);
	broken = ret && is_broken(m->image);
	mimage_leave(m);
	if (ret) {
		mimage_sync_failed(m, ret, broken);
		return ret;
	}
	with_lock(&m->lock);
	if (m->writers)
		mimage_durable(m);
	/* What the flush wrote has changed the file's times. */
	if (m->flushed < changes && atomic_exchange(&m->asked, false))
		notify_inode(m->mnt, node_ino(m, NODE_DISK, 0, 0), false);
	m->flushed = max_u64(m->flushed, changes);
	return 0;
}

/* ---- closing ------------------------------------------------------------------ */

enum condition { NO_WRITERS, NO_USERS, ANYHOW };

/* From writable to read-only.  What fails for want of space is tried again: the
 * image stays as it is.  Busy. */
static int downgrade_image(struct mimage *m)
{
	autoerr err = ERR_INIT;
	bool broken;
	int ret;

	gate_close(m);
	ret = image_downgrade(m->image, &err);
	broken = ret && is_broken(m->image);
	if (!ret)
		set_writable(m, false);
	pthread_rwlock_unlock(&m->gate);
	if (ret) {
		mimage_sync_failed(m, ret, broken);
		return ret;
	}
	with_lock(&m->lock);
	mimage_durable(m);
	return 0;
}

/* May the state be changed now?  Then it is ours. */
static bool begin_busy(struct mimage *m, enum condition cond)
{
	with_lock(&m->lock);
	if (cond == ANYHOW)
		wait_busy(m);
	if (m->busy || !m->image)
		return false;
	if (cond != ANYHOW && m->writers)
		return false;
	if (cond == NO_USERS && m->readers)
		return false;
	m->busy = true;
	return true;
}

static void finish_busy(struct mimage *m)
{
	with_lock(&m->lock);
	end_busy(m);
}

void mimage_downgrade(struct mimage *m)
{
	if (!begin_busy(m, NO_WRITERS))
		return;
	/* Most of the work is done while readers go on. */
	if (m->writable && !mimage_flush(m))
		(void)downgrade_image(m);
	finish_busy(m);
}

/* The gate is closed.  What the files are like is noted while their descriptors
 * are still ours. */
static int close_image(struct mimage *m)
{
	struct image *img = m->image;
	unsigned n;
	struct file **files = chain_files(img, &n);
	struct file_id *ids;
	int ret;

	disk_closed(m);
	ret = image_close(img);
	ids = files_ids(files, n);
	with_lock(&m->lock);
	m->image = NULL;
	m->writable = false;
	free(m->files);
	m->files = ids;
	m->nr_files = n;
	return ret;
}

bool mimage_close(struct mimage *m, bool force, int *ret)
{
	bool wrote;

	*ret = 0;
	if (!begin_busy(m, force ? ANYHOW : NO_USERS))
		return false;
	wrote = m->writable;
	*ret = wrote ? mimage_flush(m) : 0;
	if (wrote && !*ret && !force && !m->failed)
		*ret = downgrade_image(m);
	if (*ret && !force && !m->failed) {
		/* A full host: nothing is lost as long as it stays open. */
		finish_busy(m);
		return false;
	}
	gate_close(m);
	*ret = close_image(m);
	pthread_rwlock_unlock(&m->gate);
	if (*ret && wrote)
		mimage_sync_failed(m, *ret, true);
	finish_busy(m);
	set_open(m, false);
	mimage_changed(m, false);
	return true;
}

static void swap_image(struct mimage *m, struct image *img)
{
	struct image *old;

	gate_close(m);
	old = m->image;
	disk_closed(m);
	set_image(m, img);
	pthread_rwlock_unlock(&m->gate);
	image_close(old);
	mimage_changed(m, true);
}

void mimage_read_anew(struct mimage *m)
{
	autoerr err = ERR_INIT;
	struct image_args args;
	struct image *img;

	if (!begin_busy(m, NO_WRITERS))
		return;
	if (mimage_files_changed(m)) {
		mimage_args(m, held_flags(m->mnt->opt), &args);
		if (!mimage_open_with(m, &args, &img, &err))
			swap_image(m, img);
	}
	pthread_mutex_lock(&m->lock);
	mimage_trouble(m, err.code ? err_text(&err) : NULL);
	pthread_mutex_unlock(&m->lock);
	finish_busy(m);
}
