# The commands are a library, so that unit tests can link parts of them.
noinst_LIBRARIES += libimgtools.a
libimgtools_a_SOURCES =
libimgtools_a_SOURCES += tools/tools.h
libimgtools_a_SOURCES += tools/cmdline.h
libimgtools_a_SOURCES += tools/progress.h
libimgtools_a_SOURCES += tools/beyond.h
libimgtools_a_SOURCES += tools/beyond.c
libimgtools_a_SOURCES += tools/check.c
libimgtools_a_SOURCES += tools/cmdline.c
libimgtools_a_SOURCES += tools/compare.c
libimgtools_a_SOURCES += tools/convert.c
libimgtools_a_SOURCES += tools/convert.h
libimgtools_a_SOURCES += tools/convert-target.c
libimgtools_a_SOURCES += tools/create.c
libimgtools_a_SOURCES += tools/guard.c
libimgtools_a_SOURCES += tools/help.c
libimgtools_a_SOURCES += tools/info.c
libimgtools_a_SOURCES += tools/map.c
libimgtools_a_SOURCES += tools/object.c
libimgtools_a_SOURCES += tools/open.c
libimgtools_a_SOURCES += tools/progress.c
libimgtools_a_SOURCES += tools/say.c
libimgtools_a_SOURCES += tools/trace.c

bin_PROGRAMS += imgctl
imgctl_SOURCES = tools/imgctl.c
imgctl_LDADD = libimgtools.a $(CORE_LIBS)
