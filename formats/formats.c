/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* formats.c - the table of formats, in probing order. */
#include "blockcore.h"

extern const struct format bochs_format;
extern const struct format cloop_format;
extern const struct format dmg_format;
extern const struct format qcow2_format;
extern const struct format qcow_format;
extern const struct format qed_format;
extern const struct format parallels_bundle_format;
extern const struct format parallels_format;
extern const struct format raw_format;
extern const struct format vhdx_format;
extern const struct format vmdk_format;
extern const struct format vdi_format;
extern const struct format vpc_format;

const struct format *const formats[] = {
	&qcow2_format,
	&qcow_format,
	&qed_format,
	&vmdk_format,
	&vhdx_format,
	&parallels_format,
	&parallels_bundle_format,
	&bochs_format,
	&dmg_format,
	&cloop_format,
	&vdi_format,
	&vpc_format,
	&raw_format,
	NULL,
};

const struct format *format_find(const char *name)
{
	for (const struct format *const *f = formats; *f; f++)
		if (!strcmp((*f)->name, name))
			return (*f)->ours_alone && probe_as_qemu ? NULL : *f;
	return NULL;
}
