/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-check.c - `check [-r leaks|all] [--output human|json]`: what `imgctl check`
 * prints is what is read back.
 *
 * Looking goes on beside reads and writes; a repair has the image for itself,
 * with nobody who has its disk open.  One that is marked as corrupt cannot be
 * opened for writing by anything else.  What is left wrong is an error: EUCLEAN;
 * errors that may be of changes during the look are EBUSY.
 */
#include "fs/ctl.h"
#include "fs/disk.h"

#include "report.h"

#include <inttypes.h>

enum { TRIES = 4 };             /* of a check that the image ran away from */
#define FINDINGS_MAX (64 * KiB)

struct ctl_check {
	struct ctl_call *c;
	struct check_result res;
	unsigned fix;           /* check_fix */
	enum report_format output;
	bool changed;           /* the image, under the last look at it */
};

enum { OPT_OUTPUT = 256 };

static void say(void *data, const char *line)
{
	struct ctl_call *c = data;

	if (c->out.len < FINDINGS_MAX)
		strbuf_printf(&c->out, "%s\n", line);
}

static void result_clear(struct ctl_check *k)
{
	k->res = (struct check_result) {
		.say = say, .data = k->c, .cancel = &k->c->progress.cancel,
		.leaks_fixed = k->res.leaks_fixed,
		.corruptions_fixed = k->res.corruptions_fixed,
	};
}

static int look(struct ctl_check *k)
{
	struct ctl_call *c = k->c;
	unsigned tries = 0;
	uint64_t changes;
	int ret;

	do {
		strbuf_free(&c->out);
		result_clear(k);
		/* What was dropped is counted until then (rule 16). */
		ret = mimage_flush(c->m);
		changes = image_changes(c->img);
		if (!ret)
			ret = c->img->fmt->admin->check(c->img, &k->res);
		k->changed = changes != image_changes(c->img);
	} while (!ret && report_check_code(&k->res) && k->changed &&
		 ++tries < TRIES);
	return ret;
}

static int repair(struct ctl_check *k, struct err *err)
{
	struct ctl_call *c = k->c;
	int ret;

	ctl_alone_begin(c);
	ret = c->wrote ? image_repair_held(c->img, k->fix, &k->res) :
			 image_repair_shut(c->img, k->fix, &k->res, err);
	if (!ret && (k->res.leaks_fixed || k->res.corruptions_fixed)) {
		if (k->output == REPORT_HUMAN)
			report_check_fixed(&c->out, &k->res);
		result_clear(k);
		ret = c->img->fmt->admin->check(c->img, &k->res);
	}
	k->changed = false;
	ctl_alone_end(c);
	if (!c->wrote)
		ctl_tell_changed(c);
	return ret;
}

static int take_option(struct ctl_check *k, int id, const char *arg,
		       struct err *err)
{
	bool all = arg && !strcmp(arg, "all");
	bool json = arg && !strcmp(arg, "json");

	if (id == 'r') {
		if (!all && strcmp(arg, "leaks"))
			return err_set(err, -EINVAL, "--repair (-r) expects"
				       " 'leaks' or 'all' not '%s'", arg);
		k->fix = CHECK_FIX_LEAKS | (all ? CHECK_FIX_ERRORS : 0);
	} else if (id == OPT_OUTPUT) {
		if (!json && strcmp(arg, "human"))
			return err_set(err, -EINVAL, "--output expects 'human'"
				       " or 'json', not '%s'", arg);
		k->output = json ? REPORT_JSON : REPORT_HUMAN;
	}
	return 0;
}

static int parse(struct ctl_check *k, struct err *err)
{
	static const struct ctl_option options[] = {
		{ 'r', "repair", true }, { OPT_OUTPUT, "output", true },
		{ 'q', "quiet", false }, { 0, NULL, false },
	};
	const char *arg;
	int id, ret = 0;

	while (!ret && (id = ctl_next(k->c, options, &arg, err)) > 0)
		ret = take_option(k, id, arg, err);
	if (!ret)
		ret = id;
	if (!ret && k->c->nr_operands)
		ret = err_set(err, -EINVAL, "check takes no operands");
	return ret;
}

static int outcome(struct ctl_check *k, int ret, struct err *err)
{
	struct image *img = k->c->img;
	const struct check_result *res = &k->res;

	if (ret == -EINTR)
		return -ECANCELED;
	if (ret)
		return err_errno(err, ret, "Check failed");
	if (res->check_errors)
		return err_set(err, -EIO, "%" PRIu64 " internal errors have"
			       " occurred during the check.",
			       res->check_errors);
	if (res->corruptions && k->changed)
		return err_set(err, -EBUSY, "%" PRIu64 " errors were found, but"
			       " the image was changed meanwhile",
			       res->corruptions);
	if (res->corruptions)
		return err_set(err, -EUCLEAN, "%" PRIu64 " errors were found on"
			       " the image.", res->corruptions);
	report_check(&k->c->out, res, img->name, img->fmt->name, k->output);
	return 0;
}

/* The image as -r needs it. */
static int begin_repair(struct ctl_call *c, struct err *err)
{
	int ret = ctl_change(c, err);

	/* Marked as corrupt: it is read and not written until that is gone. */
	if (ret != -EUCLEAN)
		return ret;
	err_clear(err);
	return ctl_read_settled(c, err);
}

int ctl_check(struct ctl_call *c, struct err *err)
{
	struct ctl_check k = { .c = c };
	const struct format_admin *admin;
	int ret = parse(&k, err);

	if (!ret)
		ret = k.fix ? begin_repair(c, err) : ctl_read(c, err);
	if (ret)
		return ret;
	admin = c->img->fmt->admin;
	if (!admin || !admin->check || (k.fix && !admin->repair))
		return err_set(err, -EOPNOTSUPP,
			       "This image format does not support checks");
	ret = k.fix ? ctl_disk_closed(c, err) : 0;
	if (ret)
		return ret;
	result_clear(&k);
	return outcome(&k, k.fix ? repair(&k, err) : look(&k), err);
}
