/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot.c - `imgctl snapshot`: lists, makes, applies and deletes the
 * snapshots inside an image.
 */
#include "tools.h"
#include "beyond.h"
#include "bitmap.h"
#include "snapshot.h"

static const struct cmd_option snapshot_options[] = {
	{ 'f', "format", "FMT", "format of the image (default: probe)",
	  OPT_ONLY_10 },
	OPTION_IMAGE_OPTS,
	{ 'l', "list", NULL, "list the snapshots", OPT_LONG_10 },
	{ 'c', "create", "NAME", "make one of what the disk holds now",
	  OPT_LONG_10 },
	{ 'a', "apply", "SNAPSHOT", "the disk becomes what the snapshot holds:"
	  " what was written since is lost", OPT_LONG_10 },
	{ 'd', "delete", "SNAPSHOT", "delete it", OPT_LONG_10 },
	{ 'q', "quiet", NULL, "print nothing but errors", OPT_LONG_10 },
	OPTION_SHARE,
	OPTIONS_COMMON,
	{ 0, NULL, NULL, NULL, 0 },
};

struct snapshot_cmd {
	struct open_how how;
	int action;             /* its option's letter; 0: none given */
	const char *arg;        /* NAME or SNAPSHOT */
};

/* ---- the actions ------------------------------------------------------------- */

static int list(struct image *img)
{
	struct snapshot_list all;
	autostrbuf out = STRBUF_INIT;
	autoerr err = ERR_INIT;
	int ret = image_snapshots(img, &all, &err);

	if (ret && ret != -EOPNOTSUPP) {
		err_errno(&err, ret, "Could not read the snapshots");
		say_err(&err);
		return 1;
	}
	report_snapshots_text(&out, all.items, all.n);
	snapshot_list_free(&all);
	fwrite(out.text, 1, out.len, stdout);
	return 0;
}

static int create(struct image *img, const char *name)
{
	autoerr err = ERR_INIT;
	int ret = image_snapshot_create(img, name, NULL, NULL, &err);

	if (!ret)
		return 0;
	if (qemu_compat() < 100)
		say_error("Could not create snapshot '%s': %d (%s)", name, ret,
			  strerror(-ret));
	else
		say_error("Could not create snapshot '%s': %s", name,
			  strerror(-ret));
	return 1;
}

static int delete(struct image *img, const char *text)
{
	struct snapshot_key key = { .any = text, .name_first = true };
	autoerr err = ERR_INIT;
	int ret;

	if (beyond_qemu(BEYOND_DELETE_ID, NULL))
		key = (struct snapshot_key) { .name = text };
	ret = image_snapshot_delete(img, &key, NULL, &err);
	if (!ret)
		return 0;
	if (ret == -EOPNOTSUPP || ret == -ENOENT)
		say_error("Could not delete snapshot '%s': snapshot not found",
			  text);
	else
		say_error("Could not delete snapshot '%s': %s", text,
			  err.code ? err_text(&err) : strerror(-ret));
	return 1;
}

static int apply(struct image *img, const char *text)
{
	struct snapshot_key key = { .any = text };
	autoerr err = ERR_INIT;
	int ret = 0;

	if (beyond_qemu(BEYOND_APPLY, NULL) && bitmaps_any(img))
		ret = err_set(&err, -EBUSY, "Device has active dirty bitmaps");
	if (!ret)
		ret = image_snapshot_apply(img, &key, NULL, &err);
	if (!ret)
		return 0;
	if (ret == -EOPNOTSUPP)
		say_error("Could not apply snapshot '%s': Block driver does"
			  " not support snapshots", text);
	else if (ret == -EBUSY || ret == -EUCLEAN)
		say_error("Could not apply snapshot '%s': %s", text,
			  err_text(&err));
	else
		say_error("Could not apply snapshot '%s': Failed to load"
			  " snapshot: %s", text, strerror(-ret));
	return 1;
}

static int act(const struct snapshot_cmd *s, struct image *img)
{
	pause_point("command");
	switch (s->action) {
	case 'c':
		return create(img, s->arg);
	case 'd':
		return delete(img, s->arg);
	case 'a':
		return apply(img, s->arg);
	case 'l':
		return list(img);
	default:        /* 7.2 does nothing, 10.0 lists */
		return qemu_compat() < 100 ? 0 : list(img);
	}
}

static int snapshot_file(const struct snapshot_cmd *s, const char *name)
{
	struct image *img = tool_open(name, &s->how);
	int ret, rc;

	if (!img)
		return 1;
	rc = act(s, img);
	ret = image_close(img);
	if (ret && !rc) {
		say_error("Could not close '%s': %s", name, strerror(-ret));
		rc = 1;
	}
	return rc;
}

/* ---- the command line -------------------------------------------------------- */

static int take_action(struct cmdline *cl, struct snapshot_cmd *s, int id,
		       const char *arg)
{
	if (s->action)
		return usage_error(cl, "Cannot mix '-l', '-a', '-c', '-d'");
	s->action = id;
	s->arg = arg;
	return 0;
}

static int snapshot_run(struct cmdline *cl)
{
	struct snapshot_cmd s = { .action = 0 };
	const char *arg;
	int id, rc;

	while ((id = cmdline_next(cl, &arg)) != CMD_END)
		switch (id) {
		case CMD_STOP:
			return cl->rc;
		case 'f':
			s.how.format = arg;
			break;
		case 'q':
			break;
		case 'U':
			s.how.flags |= IMAGE_SHARE;
			break;
		case OPT_IMAGE_OPTS:
			s.how.image_opts = true;
			break;
		case OPT_OBJECT:
			if (!object_add(arg, &rc))
				return rc;
			break;
		default:
			rc = take_action(cl, &s, id, arg);
			if (rc)
				return rc;
		}
	if (cl->nr_operands != 1)
		return usage_error(cl, "Expecting one image file name");
	if (tool_opts_conflict(&s.how))
		return 1;
	if (s.action && s.action != 'l') {
		stdout_outlive();
		s.how.flags |= IMAGE_RDWR;
	}
	if (!s.how.image_opts &&
	    mounted_run(cl, cl->operands[0], NULL, NULL, &rc))
		return rc;
	return snapshot_file(&s, cl->operands[0]);
}

const struct command cmd_snapshot = {
	.name = "snapshot",
	.operands = "FILE",
	.help = "Lists the snapshots inside an image, or makes, applies or"
		" deletes one. -d looks for a name first, then for an ID, -a the"
		" other way round.",
	.options = snapshot_options,
	.run = snapshot_run,
};
