# imgfs's sources, but for main.c, are a library, so that unit tests can link
# parts of them.  One file per line.
noinst_LIBRARIES += libimgfs.a
libimgfs_a_SOURCES =
libimgfs_a_SOURCES += fs/options.h
libimgfs_a_SOURCES += fs/options.c
libimgfs_a_SOURCES += fs/fs.h
libimgfs_a_SOURCES += fs/work.h
libimgfs_a_SOURCES += fs/work.c
libimgfs_a_SOURCES += fs/fsmain.h
libimgfs_a_SOURCES += fs/background.c
libimgfs_a_SOURCES += fs/message.c
libimgfs_a_SOURCES += fs/mount8.c
libimgfs_a_SOURCES += fs/partitions.h
libimgfs_a_SOURCES += fs/partitions.c
libimgfs_a_SOURCES += fs/partitions-gpt.c
libimgfs_a_SOURCES += fs/partitions-mbr.c

bin_PROGRAMS += imgfs
imgfs_SOURCES = fs/main.c
imgfs_LDADD = libimgfs.a $(CORE_LIBS) $(FUSE_LIBS)
libimgfs_a_SOURCES += fs/passthrough.h
libimgfs_a_SOURCES += fs/passthrough.c
libimgfs_a_SOURCES += fs/reply.c
libimgfs_a_SOURCES += fs/notify.h
libimgfs_a_SOURCES += fs/notify.c
libimgfs_a_SOURCES += fs/node.c
libimgfs_a_SOURCES += fs/mimage.h
libimgfs_a_SOURCES += fs/mimage.c
libimgfs_a_SOURCES += fs/chain-files.c
libimgfs_a_SOURCES += fs/life.c
libimgfs_a_SOURCES += fs/facts.c
libimgfs_a_SOURCES += fs/status.c
libimgfs_a_SOURCES += fs/folder.h
libimgfs_a_SOURCES += fs/folder.c
libimgfs_a_SOURCES += fs/peek.c
libimgfs_a_SOURCES += fs/tree.h
libimgfs_a_SOURCES += fs/tree.c
libimgfs_a_SOURCES += fs/session.h
libimgfs_a_SOURCES += fs/session.c
libimgfs_a_SOURCES += fs/capabilities.c
libimgfs_a_SOURCES += fs/handle.c
libimgfs_a_SOURCES += fs/identity.c
libimgfs_a_SOURCES += fs/loop.h
libimgfs_a_SOURCES += fs/loop.c
libimgfs_a_SOURCES += fs/mount.c

# What mount(8) and umount(8) run for us; they look in $(mounthelperdir) only.
mounthelper_PROGRAMS = umount.fuse.imgfs
umount_fuse_imgfs_SOURCES = fs/umount.c
umount_fuse_imgfs_LDADD =
mounthelper_SCRIPTS = mount.imgfs
EXTRA_DIST += fs/mount.imgfs.in
CLEANFILES += mount.imgfs

# Not over a helper that is there already.
install-exec-hook:
	cd '$(DESTDIR)$(mounthelperdir)' && \
		{ test -e umount.fuse || ln -s umount.fuse.imgfs umount.fuse; }

uninstall-hook:
	cd '$(DESTDIR)$(mounthelperdir)' && \
		{ test "$$(readlink umount.fuse)" != umount.fuse.imgfs || \
		rm -f umount.fuse; }

mount.imgfs: fs/mount.imgfs.in Makefile
	$(AM_V_GEN)sed 's|@bindir@|$(bindir)|' $(srcdir)/fs/mount.imgfs.in >$@.tmp
	$(AM_V_at)chmod 755 $@.tmp && mv $@.tmp $@
libimgfs_a_SOURCES += fs/escape.h
libimgfs_a_SOURCES += fs/escape.c
libimgfs_a_SOURCES += fs/bitmaps.h
libimgfs_a_SOURCES += fs/bitmaps.c
libimgfs_a_SOURCES += fs/bitmap-files.c
libimgfs_a_SOURCES += fs/ctl-bitmap.c
libimgfs_a_SOURCES += fs/slow.h
libimgfs_a_SOURCES += fs/slow.c
libimgfs_a_SOURCES += fs/disk.h
libimgfs_a_SOURCES += fs/disk.c
libimgfs_a_SOURCES += fs/disk-range.c
libimgfs_a_SOURCES += fs/blocks.c
libimgfs_a_SOURCES += fs/views.h
libimgfs_a_SOURCES += fs/views.c
libimgfs_a_SOURCES += fs/views-map.c
libimgfs_a_SOURCES += fs/views-check.c
libimgfs_a_SOURCES += fs/ctl.h
libimgfs_a_SOURCES += fs/ctl-int.h
libimgfs_a_SOURCES += fs/ctl.c
libimgfs_a_SOURCES += fs/ctl-words.c
libimgfs_a_SOURCES += fs/ctl-run.c
libimgfs_a_SOURCES += fs/ctl-calls.c
libimgfs_a_SOURCES += fs/ctl-amend.c
libimgfs_a_SOURCES += fs/ctl-check.c
libimgfs_a_SOURCES += fs/ctl-flush.c
libimgfs_a_SOURCES += fs/ctl-measure.c
libimgfs_a_SOURCES += fs/ctl-commit.c
libimgfs_a_SOURCES += fs/ctl-rebase.c
libimgfs_a_SOURCES += fs/ctl-resize.c
libimgfs_a_SOURCES += fs/ctl-snapshot.c
libimgfs_a_SOURCES += fs/snapshots.c
libimgfs_a_SOURCES += fs/snapshots.h
libimgfs_a_SOURCES += fs/snapshot-disk.c
libimgfs_a_SOURCES += fs/change.c
libimgfs_a_SOURCES += fs/jobs.c
