/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file-lock.c - QEMU's image locks (locking.md).
 *
 * Knows which bytes stand for which permission and how a conflict is told:
 * read locks of the open file description, taken first and tested after, so
 * that of two who race at most one wins.  Refuses to know who needs which
 * permission: image.c does.
 */
#include "file-internal.h"

#include <fcntl.h>
#include <unistd.h>

enum {
	NR_PERMS = 4,           /* consistent read .. resize */
	BYTE_USED = 100,
	BYTE_UNSHARED = 200,
};

static const char *const perm_names[NR_PERMS] = {
	"consistent read", "write", "write unchanged", "resize",
};

static int ofd_lock(int fd, int cmd, short type, unsigned byte, short *found)
{
	struct flock fl = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)byte,
		.l_len = 1,
	};

	if (fcntl(fd, cmd, &fl) < 0)
		return -errno;
	if (found)
		*found = fl.l_type;
	return 0;
}

static unsigned byte_of(unsigned i)
{
	return i < NR_PERMS ? BYTE_USED + i : BYTE_UNSHARED + i - NR_PERMS;
}

/* Bits 0..3 are bytes 100.., bits 4..7 bytes 200... */
static unsigned byte_set(unsigned used, unsigned unshared)
{
	return used | unshared << NR_PERMS;
}

static void drop(int fd, unsigned set)
{
	unsigned i;

	for (i = 0; i < 2 * NR_PERMS; i++)
		if (set & 1u << i)
			ofd_lock(fd, F_OFD_SETLK, F_UNLCK, byte_of(i), NULL);
}

static int take(int fd, unsigned set, struct err *err)
{
	unsigned i;
	int ret;

	for (i = 0; i < 2 * NR_PERMS; i++) {
		if (!(set & 1u << i))
			continue;
		ret = ofd_lock(fd, F_OFD_SETLK, F_RDLCK, byte_of(i), NULL);
		if (!ret)
			continue;
		drop(fd, set & ((1u << i) - 1));
		if (ret == -EAGAIN || ret == -EACCES)
			ret = -ETXTBSY;
		return err_set(err, ret, "Failed to lock byte %u", byte_of(i));
	}
	return 0;
}

static int conflict(const char *how, unsigned i, const char *name,
		    struct err *err)
{
	err_set(err, -ETXTBSY, "Failed to get %s\"%s\" lock", how,
		perm_names[i]);
	err_hint(err, "Is another process using the image [%s]?\n", name);
	return -ETXTBSY;
}

/* Does anybody else hold @byte?  A write lock would be refused then. */
static int byte_free(int fd, unsigned byte, bool *is_free)
{
	short found = F_UNLCK;
	int ret = ofd_lock(fd, F_OFD_GETLK, F_WRLCK, byte, &found);

	*is_free = found == F_UNLCK;
	return ret;
}

static int test(int fd, const char *name, unsigned used, unsigned unshared,
		struct err *err)
{
	bool is_free;
	unsigned i;
	int ret;

	for (i = 0; i < NR_PERMS; i++) {
		if (!(used & 1u << i))
			continue;
		ret = byte_free(fd, BYTE_UNSHARED + i, &is_free);
		if (ret)
			return err_errno(err, ret, "Failed to test locks");
		if (!is_free)
			return conflict("", i, name, err);
	}
	for (i = 0; i < NR_PERMS; i++) {
		if (!(unshared & 1u << i))
			continue;
		ret = byte_free(fd, BYTE_USED + i, &is_free);
		if (ret)
			return err_errno(err, ret, "Failed to test locks");
		if (!is_free)
			return conflict("shared ", i, name, err);
	}
	return 0;
}

/* Kernels and file systems without such locks. */
static bool cannot_lock(int fd)
{
	int ret = ofd_lock(fd, F_OFD_GETLK, F_WRLCK, BYTE_USED, NULL);

	return ret == -EINVAL || ret == -ENOLCK || ret == -ENOSYS ||
	       ret == -EOPNOTSUPP;
}

int file_locks_set(struct file_locks *l, int fd, const char *name,
		   unsigned used, unsigned unshared, struct err *err)
{
	unsigned held, want = byte_set(used, unshared);
	int ret;

	with_lock(&l->lock);
	if (l->mode == LOCK_MODE_OFF)
		return 0;
	if (cannot_lock(fd))
		return l->mode == LOCK_MODE_AUTO ? 0 :
		       err_set(err, -ENOTSUP, "locking=on was specified, but"
			       " the file system of '%s' has no such locks",
			       name);
	held = byte_set(l->used, l->unshared);
	ret = take(fd, want & ~held, err);
	if (ret)
		return ret;
	ret = test(fd, name, used, unshared, err);
	drop(fd, ret ? want & ~held : held & ~want);
	if (ret)
		return ret;
	l->used = used;
	l->unshared = unshared;
	return 0;
}

int file_locks_move(struct file_locks *l, int from, int to, const char *name)
{
	unsigned used, unshared, held;
	int ret;

	with_lock(&l->lock);
	used = l->used;
	unshared = l->unshared;
	held = byte_set(used, unshared);
	if (dup3(to, from, O_CLOEXEC) < 0)
		return -errno;
	l->used = l->unshared = 0;
	if (!held)
		return 0;
	ret = take(from, held, NULL);
	if (!ret)
		ret = test(from, name, used, unshared, NULL);
	if (ret) {
		drop(from, held);
		return ret;
	}
	l->used = used;
	l->unshared = unshared;
	return 0;
}
