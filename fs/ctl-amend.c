/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ctl-amend.c - `amend -o OPTIONS...`: nobody else uses the image meanwhile.
 */
#include "fs/ctl.h"

#include "amend.h"

enum { OPT_FORCE = 256 };       /* accepted: it means nothing here */

static int parse(struct ctl_call *c, const char **lists, size_t *n,
		 struct err *err)
{
	static const struct ctl_option options[] = {
		{ 'o', "options", true }, { OPT_FORCE, "force", false },
		{ 'p', "progress", false }, { 'q', "quiet", false },
		{ 0, NULL, false },
	};
	const char *arg;
	int id;

	while ((id = ctl_next(c, options, &arg, err)) > 0) {
		if (id != 'o')
			continue;
		if (!options_list_valid(arg))
			return err_set(err, -EINVAL,
				       "Invalid option list: %s", arg);
		lists[(*n)++] = arg;
	}
	if (id < 0)
		return id;
	if (c->nr_operands)
		return err_set(err, -EINVAL, "amend takes no operands");
	if (!*n)
		return err_set(err, -EINVAL, "Must specify options (-o)");
	return 0;
}

int ctl_amend(struct ctl_call *c, struct err *err)
{
	autofree const char **lists = calloc((size_t)c->argc + 1,
					     sizeof(*lists));
	size_t n = 0;
	int ret = lists ? parse(c, lists, &n, err) : -ENOMEM;

	if (!ret)
		ret = ctl_change(c, err);
	/* Its size may become smaller, and the kernel knows the old one. */
	for (size_t i = 0; !ret && i < n; i++)
		if (!strncmp(lists[i], "size=", 5) ||
		    strstr(lists[i], ",size="))
			ret = ctl_disk_closed(c, err);
	if (ret)
		return ret;
	ctl_alone_begin(c);
	ret = amend_run(c->img, lists, n, &c->progress, err);
	ctl_alone_end(c);
	return ret;
}
