/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-snapshot.c - `snapshot -l | -c NAME | -d SNAPSHOT | -a SNAPSHOT [--force]`,
 * and in the words of mkdir, rmdir and rename in snapshots/ (by ID and name,
 * which need not be the only one of it).
 */
#include "fs/ctl.h"
#include "fs/snapshots.h"

#include "report.h"
#include "snapshot.h"

enum { OPT_FORCE = 256, OPT_DELETE_EXACTLY, OPT_RENAME_EXACTLY };

static int list(struct ctl_call *c, struct err *err)
{
	struct snapshot_list l;
	int ret = ctl_read(c, err);

	if (!ret)
		ret = image_snapshots(c->img, &l, err);
	if (ret)
		return ret;
	report_snapshots_text(&c->out, l.items, l.n);
	snapshot_list_free(&l);
	return 0;
}

static int worded(int ret, const char *what, const char *name, struct err *err)
{
	err_prefix(err, "Could not %s snapshot '%s': ", what, name);
	return ret ? err_errno(err, ret, "Could not %s snapshot '%s'", what,
			       name) : 0;
}

static int create(struct ctl_call *c, const char *name, struct err *err)
{
	int ret = ctl_change(c, err);

	if (!ret)
		ret = image_snapshot_create(c->img, name, NULL, &c->progress,
					    err);
	return worded(ret, "create", name, err);
}

/* Which one @key means, for good. */
static int resolve(struct ctl_call *c, const struct snapshot_key *key,
		   struct snapshot_info *found, struct err *err)
{
	struct snapshot_list l;
	int ret = image_snapshots(c->img, &l, err);
	ssize_t i;

	if (ret)
		return ret;
	i = snapshot_find(&l, key);
	if (i >= 0) {
		*found = l.items[i];
		l.items[i] = (struct snapshot_info) { NULL };
	}
	snapshot_list_free(&l);
	return i >= 0 ? 0 : err_set(err, -ENOENT, "snapshot not found");
}

static int delete(struct ctl_call *c, const struct snapshot_key *key,
		  struct err *err)
{
	struct snapshot_info s = { NULL };
	struct snapshot_key exact;
	int ret = ctl_change(c, err);

	if (!ret)
		ret = resolve(c, key, &s, err);
	if (ret)
		return worded(ret, "delete", key->any ? key->any : key->name,
			      err);
	exact = (struct snapshot_key) { .id = s.id, .name = s.name };
	ret = snapshot_delete_begin(c->m, s.id, s.name);
	if (ret) {
		ret = err_set(err, ret, "its disk is open");
	} else {
		ret = image_snapshot_delete(c->img, &exact, &c->progress, err);
		snapshot_delete_end(c->m, s.id, s.name);
	}
	worded(ret, "delete", s.name, err);
	free(s.id);
	free(s.name);
	return ret;
}

static int apply(struct ctl_call *c, const char *text, bool force,
		 struct err *err)
{
	struct snapshot_key key = { .any = text };
	int ret = ctl_change(c, err);

	if (!ret)
		ret = ctl_disk_idle(c, force, err);
	if (!ret)
		ret = image_snapshot_apply(c->img, &key, &c->progress, err);
	return worded(ret, "apply", text, err);
}

static int rename_to(struct ctl_call *c, const struct snapshot_key *key,
		     const char *name, struct err *err)
{
	int ret = ctl_change(c, err);

	if (!ret)
		ret = image_snapshot_rename(c->img, key, name, err);
	return worded(ret, "rename", key->name, err);
}

static int run_exactly(struct ctl_call *c, int action, struct err *err)
{
	struct snapshot_key key;
	bool rename = action == OPT_RENAME_EXACTLY;

	if (c->nr_operands != (rename ? 3 : 2))
		return err_set(err, -EINVAL, "snapshot takes an ID and a name");
	key = (struct snapshot_key) {
		.id = c->operands[0], .name = c->operands[1],
	};
	return rename ? rename_to(c, &key, c->operands[2], err) :
			delete(c, &key, err);
}

static int run(struct ctl_call *c, int action, const char *arg, bool force,
	       struct err *err)
{
	const struct snapshot_key key = { .any = arg, .name_first = true };

	if (action >= OPT_DELETE_EXACTLY)
		return run_exactly(c, action, err);
	if (c->nr_operands)
		return err_set(err, -EINVAL, "snapshot: what is '%s'?",
			       c->operands[0]);
	switch (action) {
	case 'c':
		return create(c, arg, err);
	case 'd':
		return delete(c, &key, err);
	case 'a':
		return apply(c, arg, force, err);
	default:
		return list(c, err);
	}
}

int ctl_snapshot(struct ctl_call *c, struct err *err)
{
	static const struct ctl_option options[] = {
		{ 'l', "list", false },
		{ 'c', "create", true },
		{ 'd', "delete", true },
		{ 'a', "apply", true },
		{ 'q', "quiet", false },
		{ OPT_FORCE, "force", false },
		{ OPT_DELETE_EXACTLY, "delete-exactly", false },
		{ OPT_RENAME_EXACTLY, "rename-exactly", false },
		{ 0, NULL, false },
	};
	const char *arg, *value = NULL;
	bool force = false;
	int id, action = 0;

	while ((id = ctl_next(c, options, &arg, err)) > 0) {
		if (id == OPT_FORCE)
			force = true;
		if (id == OPT_FORCE || id == 'q')
			continue;
		if (action)
			return err_set(err, -EINVAL, "Cannot mix '-l', '-a',"
				       " '-c', '-d'");
		action = id;
		value = arg;
	}
	return id < 0 ? id : run(c, action, value, force, err);
}
