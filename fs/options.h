/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * options.h - imgfs's command line as one struct, constant once it is parsed.
 *
 * Knows the words of imgfs(1).  Refuses to know what they lead to.
 */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include "err.h"
#include "strbuf.h"

#include <stdint.h>
#include <sys/types.h>

enum fs_cache {
	FS_CACHE_DEFAULT,       /* kernel's pages kept, flush at close */
	FS_CACHE_NONE,          /* every open of disk is a direct one (F6) */
	FS_CACHE_WRITEBACK,     /* F7: the kernel gathers small writes */
	FS_CACHE_UNSAFE,        /* no flush at close (F10) */
};

/* What the rest of the program shall do. */
enum fs_action { FS_MOUNT, FS_HELP, FS_VERSION };

enum {
	FS_IDLE_DEFAULT      = 5,               /* seconds */
	FS_MAX_READ          = 256 << 10,       /* F3: larger buffers are cold */
	FS_MAX_WRITE_LIMIT   = 1 << 20,
	FS_THREADS_LIMIT     = 1000,
};
#define FS_CACHE_SIZE_DEFAULT   (256 * MiB)
#define FS_CACHE_SIZE_MIN       (1 * MiB)

struct fs_options {
	enum fs_action action;

	char **sources;         /* at least one when action is FS_MOUNT */
	unsigned nr_sources;
	char *mountpoint;

	bool rw;                /* writable; else we answer EROFS (F25) */
	bool ro;                /* "ro" was given: MS_RDONLY too (F25) */
	bool share;             /* -U: read what others write */
	bool raw;               /* list every regular file of a folder */
	bool growable;          /* writes past the end of raw images grow */
	bool discard_ignore;    /* discard=ignore */
	bool no_passthrough;    /* the kernel reads no image by itself */
	enum fs_cache cache;
	char *format;           /* of every source, or NULL: probe */

	bool idle_given;        /* a single image: close it when idle */
	unsigned idle;          /* seconds */
	uint64_t cache_size;    /* bytes, for cache_set_bound() */
	uint32_t max_write;     /* bytes (F3) */
	unsigned threads;       /* 0: as F4 says */

	bool has_uid, has_gid, has_umask;
	uid_t uid;
	gid_t gid;
	mode_t umask;

	char **allow_path;
	unsigned nr_allow_path;

	bool allow_other;       /* both imply default_permissions (F25), */
	bool allow_root;        /* which is always on */
	bool auto_unmount;
	bool foreground;        /* -f, and implied by -d */
	bool debug;             /* -d */
	bool noexec;
	char *context;          /* SELinux options as given, or NULL */
	char *log;              /* a file, or NULL: syslog / stderr */
};

/* The longest read that the kernel may ask for. */
static inline uint32_t options_max_read(const struct fs_options *o)
{
	return o->max_write < FS_MAX_READ ? o->max_write : FS_MAX_READ;
}

/*
 * Parses the whole command line; both orders of mount(8) and of our own usage
 * are taken.  What mount(8) adds for itself is swallowed (F26).  0 or -EINVAL
 * with a sentence; @o must be freed either way.
 */
int fs_options_parse(struct fs_options *o, int argc, char **argv,
		     struct err *err);
/* What cannot be together.  Apart from parsing, because main.c may find that
 * nobody asked for the "rw" that mount(8) gave. */
int fs_options_check(const struct fs_options *o, struct err *err);
void fs_options_free(struct fs_options *o);
/* The text of --help, made from the table of options. */
void fs_options_help(struct strbuf *out);

#endif
