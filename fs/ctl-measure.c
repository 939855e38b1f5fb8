/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-measure.c - `measure [-O FORMAT] [-o OPTIONS] [-l SNAPSHOT] [--output
 * human|json]`: what `imgctl measure` prints of the image is what is read back,
 * of a disk that may be written meanwhile.
 */
#include "fs/ctl.h"

#include "create.h"
#include "measure.h"
#include "report.h"
#include "snapshot.h"

enum { OPT_OUTPUT = 256 };

struct ctl_measure {
	const char *target, *snapshot;
	const char **lists;
	size_t nr_lists;
	enum report_format output;
};

static int take_option(struct ctl_measure *cm, int id, const char *arg,
		       struct err *err)
{
	switch (id) {
	case 'O':
		cm->target = arg;
		return 0;
	case 'l':
		cm->snapshot = arg;
		return 0;
	case 'o':
		if (!options_list_valid(arg))
			return err_set(err, -EINVAL,
				       "Invalid option list: %s", arg);
		cm->lists[cm->nr_lists++] = arg;
		return 0;
	}
	if (strcmp(arg, "json") && strcmp(arg, "human"))
		return err_set(err, -EINVAL, "--output expects 'human' or"
			       " 'json', not '%s'", arg);
	cm->output = *arg == 'j' ? REPORT_JSON : REPORT_HUMAN;
	return 0;
}

static int parse(struct ctl_call *c, struct ctl_measure *cm, struct err *err)
{
	static const struct ctl_option options[] = {
		{ 'O', "target-format", true }, { 'o', "options", true },
		{ 'l', "snapshot", true }, { OPT_OUTPUT, "output", true },
		{ 0, NULL, false },
	};
	const char *arg;
	int id, ret = 0;

	while (!ret && (id = ctl_next(c, options, &arg, err)) > 0)
		ret = take_option(cm, id, arg, err);
	if (!ret)
		ret = id;
	if (!ret && c->nr_operands)
		ret = err_set(err, -EINVAL, "measure takes no operands here");
	return ret;
}

static int measure(struct ctl_call *c, const struct ctl_measure *cm,
		   const struct view *v, struct err *err)
{
	struct measure_source src = {
		.view = v, .size = round_up(v->size, SECTOR_SIZE),
	};
	const struct format *fmt;
	struct options *o = NULL;
	struct measure m;
	int ret = measure_options(cm->target, cm->lists, cm->nr_lists, &fmt,
				  &o, err);

	if (!ret)
		ret = measure_run(fmt, o, &src, &m, err);
	options_free(o);
	if (!ret)
		report_measure(&c->out, &m, cm->output);
	return ret;
}

static int measure_snapshot(struct ctl_call *c, const struct ctl_measure *cm,
			    struct err *err)
{
	struct snapshot_key key;
	struct options *keep;
	struct view v;
	int ret = snapshot_key_parse(cm->snapshot, &key, &keep, err);

	if (ret)
		return ret;
	ret = image_snapshot_view(c->img, &key, &v, err);
	options_free(keep);
	if (ret) {
		err_prefix(err, "Failed to load snapshot: ");
		return err_errno(err, ret, "Failed to load snapshot");
	}
	ret = measure(c, cm, &v, err);
	image_view_close(&v);
	return ret;
}

int ctl_measure(struct ctl_call *c, struct err *err)
{
	autofree const char **lists = calloc((size_t)c->argc + 1,
					     sizeof(*lists));
	struct ctl_measure cm = { .lists = lists };
	int ret = lists ? parse(c, &cm, err) : -ENOMEM;
	struct view v;

	/* A snapshot must not be deleted meanwhile. */
	if (!ret)
		ret = cm.snapshot ? ctl_read_settled(c, err) :
				    ctl_read(c, err);
	if (ret)
		return ret;
	if (cm.snapshot)
		return measure_snapshot(c, &cm, err);
	v = c->img->live;
	v.size = image_size(c->img);
	return measure(c, &cm, &v, err);
}
