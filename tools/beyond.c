/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* beyond.c - the one table of what goes beyond QEMU; see beyond.h. */
#include "beyond.h"

#include "tools.h"

static const struct {
	enum beyond what;
	const char *format;     /* NULL: whatever the format */
} table[] = {
	{ BEYOND_CHECK, "vpc" },
	{ BEYOND_CHECK, "qcow" },
	{ BEYOND_CHECK, "luks" },
	{ BEYOND_CHECK, "bochs" },
	{ BEYOND_CHECK, "cloop" },
	{ BEYOND_CHECK, "dmg" },
	{ BEYOND_REPAIR, "vmdk" },
	{ BEYOND_REPAIR, "vdi" },
	{ BEYOND_COMMIT, "parallels" },
	{ BEYOND_GROW, "qcow" },
	{ BEYOND_GROW, "vmdk" },
	{ BEYOND_GROW, "vdi" },
	{ BEYOND_GROW, "vpc" },
	{ BEYOND_GROW, "vhdx" },
	{ BEYOND_MOUNT, NULL },
	{ BEYOND_LEVEL, NULL },
	{ BEYOND_APPLY, NULL },
	{ BEYOND_DELETE_ID, NULL },
	{ BEYOND_SAFE, NULL },
};

bool beyond_qemu(enum beyond what, const char *format)
{
	if (!prog_is_qemu_img())
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].what == what &&
		    (!table[i].format ||
		     (format && !strcmp(table[i].format, format))))
			return true;
	return false;
}
