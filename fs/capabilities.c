/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * capabilities.c - what is agreed with the kernel when a session begins.  Knows
 * FUSE's flags and which of them which libfuse has (F2, F3, F30).
 */
#include "fs/session.h"

static void want(struct fuse_conn_info *conn, unsigned flag, bool on)
{
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	if (on)
		fuse_set_feature_flag(conn, flag);
	else
		fuse_unset_feature_flag(conn, flag);
#else
	if (on)
		conn->want |= flag & conn->capable;
	else
		conn->want &= ~flag;
#endif
}

/* F2: every capability explicitly, and those that a newer libfuse brought where
 * it is there (F30). */
static const struct {
	unsigned flag;
	bool on;
	const char *name;
} capabilities[] = {
	{ FUSE_CAP_ASYNC_READ, true, "async_read" },
	{ FUSE_CAP_ASYNC_DIO, true, "async_dio" },
	{ FUSE_CAP_IOCTL_DIR, true, "ioctl_dir" },
	{ FUSE_CAP_READDIRPLUS, true, "readdirplus" },
	{ FUSE_CAP_READDIRPLUS_AUTO, true, "readdirplus_auto" },
	{ FUSE_CAP_ATOMIC_O_TRUNC, false, NULL },
	{ FUSE_CAP_AUTO_INVAL_DATA, false, NULL },
	{ FUSE_CAP_SPLICE_READ, false, NULL },
	{ FUSE_CAP_SPLICE_WRITE, false, NULL },
	{ FUSE_CAP_SPLICE_MOVE, false, NULL },
	{ FUSE_CAP_HANDLE_KILLPRIV, false, NULL },
	{ FUSE_CAP_FLOCK_LOCKS, false, NULL },
	{ FUSE_CAP_POSIX_LOCKS, false, NULL },
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	{ FUSE_CAP_PARALLEL_DIROPS, true, "parallel_dirops" },
	{ FUSE_CAP_HANDLE_KILLPRIV_V2, true, "handle_killpriv_v2" },
#ifdef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
	{ FUSE_CAP_DIRECT_IO_ALLOW_MMAP, true, "direct_io_allow_mmap" },
#endif
#else
	{ FUSE_CAP_PARALLEL_DIROPS, false, NULL },
#endif
};

void session_capabilities(struct strbuf *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		if (capabilities[i].on)
			strbuf_printf(out, " %s", capabilities[i].name);
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17) && defined(FUSE_CAP_PASSTHROUGH)
	strbuf_puts(out, " passthrough");
#endif
}

void session_negotiate(const struct fs_options *o, struct fuse_conn_info *conn)
{
	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		want(conn, capabilities[i].flag, capabilities[i].on);
	want(conn, FUSE_CAP_WRITEBACK_CACHE, o->cache == FS_CACHE_WRITEBACK);
	conn->max_write = o->max_write;         /* F3 */
	conn->max_read = options_max_read(o);
	conn->time_gran = 1;
}
