/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * protocol.c - what every create offers because the image is a file: the
 * options preallocation, nocow and extent_size_hint, and how they are applied.
 *
 * Knows file attributes and how space is made real.  Refuses to know what is
 * stored in the file.
 */
#include "blockcore.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#define EXTENT_HINT_DEFAULT (1 * MiB)
#define FILL_CHUNK (1 * MiB)

const struct option_spec protocol_create_options[] = {
	{ "size", OPTION_SIZE, "Virtual disk size", NULL },
	{ "nocow", OPTION_BOOL,
	  "Turn off copy-on-write (valid only on btrfs)", NULL },
	{ "preallocation", OPTION_STRING,
	  "Preallocation mode (allowed values: off, falloc, full)", NULL },
	{ "extent_size_hint", OPTION_SIZE,
	  "Extent size hint for the image file, 0 to disable", NULL },
	{ NULL, OPTION_STRING, NULL, NULL },
};

int preallocation_parse(const char *text, enum preallocation *mode,
			struct err *err)
{
	static const char *const names[] = {
		[PREALLOC_OFF] = "off",
		[PREALLOC_METADATA] = "metadata",
		[PREALLOC_FALLOC] = "falloc",
		[PREALLOC_FULL] = "full",
	};

	if (!text)
		text = "off";
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(text, names[i])) {
			*mode = (enum preallocation)i;
			return 0;
		}
	return err_set(err, -EINVAL, "invalid parameter value: %s", text);
}

/* Really writes: afterwards the range is data, not an unwritten extent. */
static int fill_zeroes(struct file *f, uint64_t off, uint64_t len)
{
	autofree void *buf = calloc(1, FILL_CHUNK);
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	while (len && !ret) {
		uint64_t n = min_u64(len, FILL_CHUNK);

		ret = file_write(f, buf, n, off);
		off += n;
		len -= n;
	}
	return ret;
}

int preallocate(struct file *f, uint64_t off, uint64_t len,
		enum preallocation mode, struct err *err)
{
	int ret = 0;

	if (!len)
		return 0;
	if (mode == PREALLOC_FALLOC)
		ret = file_allocate(f, off, len);
	else if (mode == PREALLOC_FULL)
		ret = fill_zeroes(f, off, len);
	if (!ret)
		return 0;
	return err_errno(err, ret, mode == PREALLOC_FULL ?
			 "Could not write zeros for preallocation" :
			 "Could not preallocate new data");
}

/* btrfs: no copy-on-write for this file. */
static void set_nocow(int fd)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags))
		return;
	flags |= FS_NOCOW_FL;
	(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

/* XFS: the unit in which space is handed to this file.  Who asked for it is told
 * when a file system knows such attributes but not this one. */
static void set_extent_hint(int fd, uint64_t hint, bool asked)
{
	struct fsxattr attr;

	if (hint > UINT32_MAX || ioctl(fd, FS_IOC_FSGETXATTR, &attr))
		return;
	attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
	attr.fsx_extsize = (uint32_t)hint;
	if (ioctl(fd, FS_IOC_FSSETXATTR, &attr) && asked && errno != ENOTTY)
		warn("Failed to set extent size hint: %s", strerror(errno));
}

void protocol_apply(const char *path, const struct options *o)
{
	uint64_t hint = options_num(o, "extent_size_hint",
				    EXTENT_HINT_DEFAULT);
	autoclose int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return;
	if (options_bool(o, "nocow", false))
		set_nocow(fd);
	if (hint)
		set_extent_hint(fd, hint,
				options_has(o, "extent_size_hint"));
}
