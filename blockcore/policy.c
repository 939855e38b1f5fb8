/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * policy.c - opening files by name, and where names out of an image may lead
 * (blueprint 1, "Names inside an image").
 *
 * Under a policy a name is walked component by component with descriptors, so
 * that nobody can swap a folder for a link in between.  A single openat2(2)
 * with RESOLVE_BENEATH does less: it refuses absolute links that lead back
 * into a root, and it would look into our own mount, which waits for us (F29).
 * Each step uses it where the kernel has it.
 *
 * Without a policy this file knows only what must not be opened: FIFOs and
 * sockets, on which others hang.
 */
#include "file.h"
#include "strbuf.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define MAX_LINKS 40
#define MAX_DEPTH 256           /* folders below a root */
#define MAX_DENIED 16

struct root {
	char *given;            /* absolute, as the user wrote it */
	char *real;             /* without symbolic links */
	int fd;
};

struct policy {
	struct root *roots;
	size_t nr_roots;
	char *cwd;              /* what relative names are relative to */
	dev_t denied[MAX_DENIED];
	_Atomic unsigned nr_denied;
};

/* ---- building one -------------------------------------------------------- */

struct policy *policy_new(void)
{
	struct policy *p = calloc(1, sizeof(*p));

	BUG_ON(!p);
	p->cwd = getcwd(NULL, 0);
	return p;
}

void policy_free(struct policy *p)
{
	size_t i;

	if (!p)
		return;
	for (i = 0; i < p->nr_roots; i++) {
		free(p->roots[i].given);
		free(p->roots[i].real);
		close(p->roots[i].fd);
	}
	free(p->roots);
	free(p->cwd);
	free(p);
}

/* The next component of *@path, which moves behind it; NULL at the end. */
static const char *next_part(const char **path, size_t *len)
{
	const char *part;

	*path += strspn(*path, "/");
	part = *path;
	*len = strcspn(part, "/");
	*path += *len;
	return *len ? part : NULL;
}

static bool is_part(const char *part, size_t len, const char *what)
{
	return len == strlen(what) && !memcmp(part, what, len);
}

/* One step along an absolute name, by its letters alone. */
static void letters_step(struct strbuf *at, const char *part, size_t len)
{
	if (is_part(part, len, "."))
		return;
	if (is_part(part, len, "..")) {
		while (at->len && at->text[at->len - 1] != '/')
			at->len--;
		if (at->len)
			at->len--;
		if (at->text)
			at->text[at->len] = 0;
		return;
	}
	strbuf_putc(at, '/');
	strbuf_add(at, part, len);
}

static char *absolute(const struct policy *p, const char *path)
{
	struct strbuf sb = STRBUF_INIT;

	if (*path != '/')
		strbuf_printf(&sb, "%s/", p->cwd ? p->cwd : "");
	strbuf_puts(&sb, path);
	return strbuf_take(&sb);
}

/* "/a/b" without ".", ".." and double slashes; "" is the root. */
static char *plain_letters(const struct policy *p, const char *path)
{
	autofree char *abs = absolute(p, path);
	struct strbuf sb = STRBUF_INIT;
	const char *rest = abs, *part;
	size_t len;

	while ((part = next_part(&rest, &len)))
		letters_step(&sb, part, len);
	return strbuf_take(&sb);
}

int policy_allow(struct policy *p, const char *dir, struct err *err)
{
	autofree char *real = realpath(dir, NULL);
	struct root *grown;
	int fd;

	if (!real)
		return err_errno(err, -errno, "Could not open '%s'", dir);
	fd = open(real, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, -errno, "Could not open '%s'", dir);
	grown = realloc(p->roots, (p->nr_roots + 1) * sizeof(*grown));
	BUG_ON(!grown);
	p->roots = grown;
	grown[p->nr_roots++] = (struct root) {
		.given = plain_letters(p, dir),
		.real = plain_letters(p, real),
		.fd = fd,
	};
	return 0;
}

void policy_deny_dev(struct policy *p, dev_t dev)
{
	unsigned n = atomic_load(&p->nr_denied);

	BUG_ON(n >= MAX_DENIED);
	p->denied[n] = dev;
	atomic_store(&p->nr_denied, n + 1);
}

static bool dev_denied(const struct policy *p, dev_t dev)
{
	unsigned i, n = atomic_load(&p->nr_denied);

	for (i = 0; i < n; i++)
		if (p->denied[i] == dev)
			return true;
	return false;
}

/* ---- walking ------------------------------------------------------------- */

/* Where a name has led so far: the folders from a root downwards. */
struct walk {
	const struct policy *policy;
	const struct root *root;
	int dirs[MAX_DEPTH];    /* below the root; not the root itself */
	int depth;
	unsigned links;
	struct strbuf rest;     /* what is still to be walked */
};

enum { OUTSIDE = -EACCES, OWN_MOUNT = -EDEADLK };

static int here(const struct walk *w)
{
	return w->depth ? w->dirs[w->depth - 1] : w->root->fd;
}

static void climb(struct walk *w, int depth)
{
	while (w->depth > depth)
		close(w->dirs[--w->depth]);
}

static const struct root *root_at(const struct policy *p, const char *at)
{
	size_t i;

	for (i = 0; i < p->nr_roots; i++)
		if (!strcmp(p->roots[i].given, at) ||
		    !strcmp(p->roots[i].real, at))
			return &p->roots[i];
	return NULL;
}

/* From an absolute name to a root and what lies below it.  Outside of the
 * roots names go by their letters: nothing there is looked at. */
static int walk_from_top(struct walk *w, const char *abs)
{
	autostrbuf at = STRBUF_INIT;
	const struct root *root;
	const char *part;
	char *rest;
	size_t len;

	strbuf_puts(&at, "");
	while (!(root = root_at(w->policy, at.len ? at.text : ""))) {
		part = next_part(&abs, &len);
		if (!part)
			return OUTSIDE;
		letters_step(&at, part, len);
	}
	climb(w, 0);
	w->root = root;
	rest = strdup(abs);
	BUG_ON(!rest);
	strbuf_free(&w->rest);
	strbuf_puts(&w->rest, rest);
	free(rest);
	return 0;
}

/* ".." of a root itself: what lies beside it may be allowed, too. */
static int leave_root(struct walk *w, const char *rest)
{
	autostrbuf abs = STRBUF_INIT;

	strbuf_printf(&abs, "%s/../%s", w->root->real, rest);
	/* Not back into the same root by way of its own letters. */
	if (++w->links > MAX_LINKS)
		return -ELOOP;
	autofree char *plain = plain_letters(w->policy, abs.text);

	return walk_from_top(w, plain);
}

/* One component, never through a link. */
static int open_part(int dir, const char *name, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_NOFOLLOW | O_CLOEXEC),
		.mode = flags & O_CREAT ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));

	/* Old kernels; filters that forbid what they do not know. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		fd = openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
	return fd < 0 ? -errno : fd;
}

/* Without asking the file's server: it may be us. */
static int look(int fd, struct statx *sx)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC |
		     AT_NO_AUTOMOUNT, STATX_TYPE | STATX_INO, sx) < 0 ?
	       -errno : 0;
}

static int follow_link(struct walk *w, int fd, const char *rest)
{
	char target[PATH_MAX];
	autostrbuf next = STRBUF_INIT;
	ssize_t n;

	if (++w->links > MAX_LINKS)
		return -ELOOP;
	n = readlinkat(fd, "", target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = 0;
	strbuf_printf(&next, "%s/%s", target, rest);
	if (*target == '/')
		return walk_from_top(w, next.text);
	strbuf_free(&w->rest);
	strbuf_puts(&w->rest, next.text);
	return 0;
}

/* The component @name, which more follows after, or which is looked at before
 * it is opened.  1: it is no folder and no link: @fd stays open. */
static int enter(struct walk *w, const char *name, const char *rest, int *fd)
{
	struct statx sx;
	int ret, step = open_part(here(w), name, O_PATH, 0);

	if (step < 0)
		return step;
	ret = look(step, &sx);
	if (!ret && dev_denied(w->policy, makedev(sx.stx_dev_major,
						  sx.stx_dev_minor)))
		ret = OWN_MOUNT;
	if (!ret && S_ISLNK(sx.stx_mode)) {
		ret = follow_link(w, step, rest);
	} else if (!ret && S_ISDIR(sx.stx_mode)) {
		if (w->depth == MAX_DEPTH) {
			ret = -ENAMETOOLONG;
		} else {
			w->dirs[w->depth++] = step;
			return 0;
		}
	} else if (!ret) {
		*fd = step;
		return S_ISREG(sx.stx_mode) ? 1 : -ENOTSUP;
	}
	close(step);
	return ret;
}

/* Reads @name, then what it was followed by; the text of w->rest is replaced
 * on the way. */
static int take_part(struct walk *w, char **name, char **rest)
{
	const char *at = w->rest.text, *part;
	size_t len;

	part = next_part(&at, &len);
	if (!part)
		return 0;
	*name = strndup(part, len);
	*rest = strdup(at + strspn(at, "/"));
	BUG_ON(!*name || !*rest);
	strbuf_free(&w->rest);
	strbuf_puts(&w->rest, *rest);
	return 1;
}

/* Opens @name, the last component, which is a regular file or missing. */
static int open_last(struct walk *w, const char *name, int oflags, mode_t mode)
{
	struct statx sx;
	int ret, fd = open_part(here(w), name, oflags | O_NONBLOCK | O_NOCTTY,
				mode);

	if (fd < 0)
		return fd == -ELOOP ? OUTSIDE : fd;
	ret = look(fd, &sx);
	if (!ret && !S_ISREG(sx.stx_mode))
		ret = -ENOTSUP;
	if (!ret && dev_denied(w->policy, makedev(sx.stx_dev_major,
						  sx.stx_dev_minor)))
		ret = OWN_MOUNT;
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

static int walk_part(struct walk *w, const char *name, const char *rest,
		     int oflags, mode_t mode, int *fd)
{
	int found = -1, ret;

	if (!strcmp(name, "."))
		return 0;
	if (!strcmp(name, "..")) {
		if (!w->depth)
			return leave_root(w, rest);
		climb(w, w->depth - 1);
		return 0;
	}
	ret = enter(w, name, rest, &found);
	if (found >= 0)
		close(found);
	if (ret == 1 && *rest)
		return -ENOTDIR;
	if (ret == 1 || (ret == -ENOENT && !*rest && oflags & O_CREAT)) {
		ret = open_last(w, name, oflags, mode);
		if (ret >= 0)
			*fd = ret;
	}
	return ret < 0 ? ret : 0;
}

static int walk(struct walk *w, int oflags, mode_t mode)
{
	int fd = -1, ret;

	for (;;) {
		autofree char *name = NULL;
		autofree char *rest = NULL;

		if (!take_part(w, &name, &rest))
			return -EISDIR;
		ret = walk_part(w, name, rest, oflags, mode, &fd);
		if (ret || fd >= 0)
			return ret ? ret : fd;
	}
}

static int open_under(const struct policy *p, const char *path, int oflags,
		      mode_t mode)
{
	autofree char *abs = absolute(p, path);
	struct walk w = { .policy = p };
	int ret = walk_from_top(&w, abs);

	if (!ret)
		ret = walk(&w, oflags, mode);
	climb(&w, 0);
	strbuf_free(&w.rest);
	return ret;
}

/* ---- opening ------------------------------------------------------------- */

static int not_regular(const char *path, struct err *err)
{
	return err_set(err, -ENOTSUP, "'file' driver requires '%s' to be a"
		       " regular file", path);
}

static bool hangs(mode_t mode)
{
	return !S_ISREG(mode) && !S_ISBLK(mode) && !S_ISCHR(mode);
}

/* Not opened at all: somebody's pipe.  (A socket is ENXIO, a folder for
 * writing EISDIR, by themselves.) */
static bool is_fifo(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISFIFO(st.st_mode);
}

static int open_plain(const char *path, int oflags, mode_t mode,
		      struct err *err)
{
	struct stat st;
	int fd;

	if (!(oflags & O_EXCL) && is_fifo(path))
		return not_regular(path, err);
	fd = open(path, oflags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
	if (fd < 0)
		return err_errno(err, -errno, "Could not open '%s'", path);
	if (fstat(fd, &st) < 0 || hangs(st.st_mode)) {
		close(fd);
		return not_regular(path, err);
	}
	return fd;      /* O_NONBLOCK means nothing to files and disks */
}

int policy_open(const struct policy *p, const char *path, int oflags,
		mode_t mode, struct err *err)
{
	int fd = p ? open_under(p, path, oflags, mode) :
		     open_plain(path, oflags, mode, err);

	if (fd >= 0 || !p)
		return fd;
	switch (fd) {
	case OUTSIDE:
		return err_set(err, fd, "Could not open '%s': it lies outside"
			       " of the folders that may be read; -o"
			       " allow-path=DIR adds one", path);
	case OWN_MOUNT:
		return err_set(err, fd, "Could not open '%s': it lies in this"
			       " mount itself", path);
	case -ENOTSUP:
	case -EISDIR:
		return not_regular(path, err);
	}
	return err_errno(err, fd, "Could not open '%s'", path);
}
