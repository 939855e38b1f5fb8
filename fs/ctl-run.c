/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-run.c - runs commands on images of the mount; see ctl.h.
 *
 * Knows the table of commands, who may change an image when, and what has to be
 * told to the kernel afterwards.  Refuses to know what a command does, and
 * where it came from.
 */
#include "fs/ctl-int.h"
#include "fs/disk.h"

#include "json.h"
#include "spec.h"

/* One line for each command; it is in fs/ctl-NAME.c. */
static const struct ctl_command commands[] = {
	{ "amend", ctl_amend },
	{ "bitmap", ctl_bitmap },
	{ "check", ctl_check },
	{ "commit", ctl_commit },
	{ "flush", ctl_flush },
	{ "measure", ctl_measure },
	{ "rebase", ctl_rebase },
	{ "resize", ctl_resize },
	{ "snapshot", ctl_snapshot },
};

/* imgctl's words for what is about other files, or only asks. */
static const char *const elsewhere[] = {
	"bench", "compare", "convert", "create", "dd", "info", "map",
};

static bool listed(const char *word, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(word, list[i]))
			return true;
	return false;
}

static int no_command(const char *word, struct err *err)
{
	if (listed(word, elsewhere, ARRAY_SIZE(elsewhere)))
		return err_set(err, -EINVAL,
			       "%s is a command of imgctl, not of ctl", word);
	return err_set(err, -EINVAL, "Unknown command '%.64s'", word);
}

static const struct ctl_command *find_command(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(word, commands[i].word))
			return &commands[i];
	return NULL;
}

/* ---- one changes it at a time --------------------------------------------------- */

/* Who changes the image, or was there before and has not ended yet.  Under the
 * lock. */
static struct ctl_call *other_change(const struct ctl_calls *l,
				     const struct ctl_call *c)
{
	bool before = true;

	for (struct ctl_call *o = l->list; o; o = o->next) {
		if (o == c)
			before = false;
		else if (o->m == c->m &&
			 (o->changes || (before && o->in_order &&
					 o->state != CTL_DONE)))
			return o;
	}
	return NULL;
}

/* What somebody has started on purpose may take hours. */
static bool is_in_the_way(const struct ctl_call *o)
{
	return o->job && (!o->in_order || atomic_load(&o->progress.pause));
}

static int in_the_way(const struct ctl_call *job, struct err *err)
{
	return err_set(err, -EBUSY, "Job %u (%s) is in the way", job->job,
		       job->words.word[0]);
}

static int cancelled(const struct ctl_call *c, struct err *err)
{
	return atomic_load(&c->interrupted) ?
		       err_set(err, -EINTR, "Interrupted") :
		       err_set(err, -ECANCELED, "Cancelled");
}

/* Takes the right to change the image. */
static int change_begin_call(struct ctl_call *c, struct err *err)
{
	struct ctl_calls *l = c->m->mnt->calls;
	struct ctl_call *o;

	with_lock(&l->lock);
	while ((o = other_change(l, c))) {
		if (is_in_the_way(o))
			return in_the_way(o, err);
		if (atomic_load(&c->progress.cancel))
			return cancelled(c, err);
		ctl_changed_wait(l);
	}
	c->changes = true;
	return 0;
}

static void change_end_call(struct ctl_call *c)
{
	struct ctl_calls *l = c->m->mnt->calls;

	with_lock(&l->lock);
	c->changes = false;
	pthread_cond_broadcast(&l->changed);
}

/* ---- the image --------------------------------------------------------------------- */

static int get_image(struct ctl_call *c, enum mimage_use use, struct err *err)
{
	int ret = mimage_check_path(c->m);

	if (ret)
		return err_errno(err, ret, "The image");
	ret = mimage_get(c->m, use, err);
	if (ret)
		return err_errno(err, ret, "Could not open the image");
	c->has_image = true;
	mimage_enter_long(c->m, &c->use);
	c->img = c->m->image;
	return 0;
}

int ctl_read(struct ctl_call *c, struct err *err)
{
	BUG_ON(c->has_image);
	return get_image(c, MIMAGE_READ, err);
}

int ctl_read_settled(struct ctl_call *c, struct err *err)
{
	int ret;

	BUG_ON(c->has_image);
	ret = change_begin_call(c, err);
	return ret ? ret : get_image(c, MIMAGE_READ, err);
}

int ctl_change(struct ctl_call *c, struct err *err)
{
	int ret;

	BUG_ON(c->has_image);
	if (!c->m->mnt->opt->rw)
		return err_set(err, -EROFS, "Mounted without rw");
	ret = change_begin_call(c, err);
	if (!ret)
		ret = get_image(c, MIMAGE_WRITE, err);
	c->wrote = !ret;
	return ret;
}

int ctl_open_image(struct ctl_call *c, const char *name, const char *format,
		   unsigned flags, struct image **img, struct err *err)
{
	const char *from = spec_file(c->img->node);
	struct image_args args;
	autojson *node = NULL;
	int ret;

	mimage_args(c->m, flags, &args);
	args.self_policy = args.policy;
	ret = spec_parse_child(name, from ? from : c->img->file->name, format,
			       &node, err);
	args.node = node;
	if (!ret)
		ret = mimage_open_with(c->m, &args, img, err);
	return ret ? err_errno(err, ret, "Could not open '%s'", name) : 0;
}

void ctl_alone_begin(struct ctl_call *c)
{
	BUG_ON(!c->changes || c->alone);
	mimage_leave_long(c->m, &c->use);
	mimage_enter_alone(c->m);
	c->alone = true;
}

/* The image is still the same: only who has it for himself changes it, and
 * nobody closes it while there is a user. */
void ctl_alone_end(struct ctl_call *c)
{
	BUG_ON(!c->alone);
	c->alone = false;
	mimage_leave(c->m);
	mimage_enter_long(c->m, &c->use);
}

static bool disk_is_open(struct mimage *m)
{
	struct mount *mnt = m->mnt;

	with_lock(&mnt->handle_lock);
	for (struct handle *h = mnt->handles; h; h = h->next)
		if (h->node->m == m && !h->node->layer &&
		    (h->node->kind == NODE_DISK ||
		     h->node->kind == NODE_PARTITION))
			return true;
	return false;
}

int ctl_disk_closed(struct ctl_call *c, struct err *err)
{
	if (!disk_is_open(c->m))
		return 0;
	if (c->m->mnt->opt->cache == FS_CACHE_WRITEBACK)
		return err_set(err, -EBUSY, "The disk is open, and the kernel"
			       " may keep writes to it (cache=writeback)");
	return err_set(err, -EBUSY, "The disk is open");
}

int ctl_disk_idle(struct ctl_call *c, bool force, struct err *err)
{
	bool writeback = c->m->mnt->opt->cache == FS_CACHE_WRITEBACK;

	if (writeback || !disk_is_open(c->m))
		return ctl_disk_closed(c, err);
	return force ? 0 : err_set(err, -EBUSY, "The disk is open (--force goes"
				   " on)");
}

void ctl_tell_changed(struct ctl_call *c)
{
	mimage_wrote(c->m);
	blocks_anew(c->m);
	mimage_changed(c->m, true);
	/* Who reads after a command must not find pages of before. */
	if (!c->subject)
		notify_settle(c->m->mnt);
}

/* What it has changed is durable, and known to all. */
static int settle(struct ctl_call *c, int ret, struct err *err)
{
	int flushed = mimage_flush(c->m);

	ctl_tell_changed(c);
	if (ret || !flushed)
		return ret;
	return err_errno(err, flushed, "Could not flush the image");
}

static int give_back(struct ctl_call *c, int ret, struct err *err)
{
	if (c->alone)
		ctl_alone_end(c);
	if (c->has_image)
		mimage_leave_long(c->m, &c->use);
	c->img = NULL;
	if (c->wrote)
		ret = settle(c, ret, err);
	if (c->has_image)
		mimage_put(c->m, c->wrote ? MIMAGE_WRITE : MIMAGE_READ);
	if (c->changes)
		change_end_call(c);
	c->has_image = c->wrote = false;
	return ret;
}

/* ---- the whole of it ------------------------------------------------------------------ */

static int run_command(struct ctl_call *c, struct err *err)
{
	int ret;

	c->cmd = find_command(c->argv[0]);
	if (!c->cmd)
		return no_command(c->argv[0], err);
	ret = atomic_load(&c->progress.cancel) ? cancelled(c, err) :
	      c->cmd->run(c, err);
	ret = give_back(c, ret, err);
	if (ret && atomic_load(&c->interrupted) &&
	    (ret == -ECANCELED || ret == -EINTR)) {
		err_clear(err);
		ret = cancelled(c, err);
	}
	return ret;
}

int ctl_call_run(struct ctl_call *c, struct err *err)
{
	int ret;

	ctl_call_list(c);
	ret = run_command(c, err);
	if (ret)
		err_errno(err, ret, "%s", c->argv[0]);
	mimage_outcome(c->m, ret ? err_text(err) : NULL);
	ctl_call_done(c, ret, ret ? err_text(err) : NULL);
	return ret;
}
