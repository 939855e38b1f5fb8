# imgfs's sources, but for main.c, are a library, so that unit tests can link
# parts of them.  One file per line.
noinst_LIBRARIES += libimgfs.a
libimgfs_a_SOURCES =
libimgfs_a_SOURCES += fs/options.h
libimgfs_a_SOURCES += fs/options.c
libimgfs_a_SOURCES += fs/fs.h
libimgfs_a_SOURCES += fs/work.h
libimgfs_a_SOURCES += fs/work.c
