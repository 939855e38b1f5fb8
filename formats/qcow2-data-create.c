/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-data-create.c - the data file of a new image: looked at before anything
 * is changed, emptied when the image itself has been made.
 *
 * Refuses to know what the image looks like.
 */
#include "qcow2.h"

#include <fcntl.h>
#include <unistd.h>

static int cannot(const char *name, int code, struct err *err)
{
	return err_errno(err, code, "Could not create '%s'", name);
}

/* Could a file be made in the folder of @name? */
static int folder_check(const char *name, struct err *err)
{
	const char *slash = strrchr(name, '/');
	size_t len = slash ? (size_t)(slash - name) + 1 : 0;
	autofree char *folder = len ? strndup(name, len) : strdup(".");

	if (!folder)
		return -ENOMEM;
	return access(folder, W_OK | X_OK) ? cannot(name, -errno, err) : 0;
}

int qcow2_data_check(const char *name, struct err *err)
{
	struct stat st;

	if (stat(name, &st))
		return errno == ENOENT ? folder_check(name, err) :
		       cannot(name, -errno, err);
	if (S_ISDIR(st.st_mode))
		return cannot(name, -EISDIR, err);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return cannot(name, -EINVAL, err);
	return access(name, R_OK | W_OK) ? cannot(name, -errno, err) : 0;
}

/* Is it one that can hold @size bytes?  A file is made longer to see it, and
 * has its length back at once. */
static int room_check(struct file *f, uint64_t size, struct err *err)
{
	struct stat st;
	uint64_t have;
	int ret = file_stat(f, &st);

	if (!ret)
		ret = file_size(f, &have);
	if (ret || have >= size)
		return ret ? err_errno(err, ret, "Could not get the size of"
				       " the data file") : 0;
	if (S_ISBLK(st.st_mode))
		return err_set(err, -EFBIG, "Cannot grow device files");
	ret = file_truncate(f, size);
	if (!ret)
		ret = file_truncate(f, have);
	return ret ? err_errno(err, ret, "Could not resize the data file") : 0;
}

int qcow2_data_target(const char *name, uint64_t size, struct file **f,
		      bool *created, struct err *err)
{
	const unsigned perm = PERM_WRITE | PERM_RESIZE;
	const unsigned flags = FILE_RDWR | FILE_CREATE;
	int ret = file_open_path(name, flags | FILE_EXCL, NULL, f, NULL);

	*created = !ret;
	if (ret)
		ret = file_open_path(name, flags, NULL, f, NULL);
	if (ret)
		return cannot(name, ret, err);
	ret = file_lock(*f, perm, perm, err);
	if (!ret)
		ret = room_check(*f, size, err);
	if (!ret)
		return 0;
	if (*created)
		unlink(name);
	file_unref(*f);
	*f = NULL;
	return ret;
}

static int device_empty(struct file *f, uint64_t size, struct err *err)
{
	int ret = file_zero(f, 0, size, ZERO_MAY_UNMAP);

	return ret ? err_errno(err, ret, "Could not clear the data file") : 0;
}

int qcow2_data_empty(struct file *f, const char *name,
		     const struct options *o, uint64_t size,
		     enum preallocation mode, struct err *err)
{
	struct stat st;
	int ret = file_stat(f, &st);

	if (!ret && S_ISBLK(st.st_mode))
		return device_empty(f, size, err);
	if (!ret)
		ret = file_truncate(f, 0);
	if (!ret) {
		protocol_apply(name, o);
		ret = file_truncate(f, size);
	}
	if (ret)
		return err_errno(err, ret, "Could not resize the data file");
	ret = preallocate(f, 0, size, mode, err);
	if (!ret)
		ret = file_sync(f);
	return ret ? err_errno(err, ret, "Could not write the data file") : 0;
}
