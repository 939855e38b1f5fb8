# sources of tools/
# A program of every build once the engine is in
EXTRA_PROGRAMS += imgctl
imgctl_SOURCES =
imgctl_SOURCES += tools/tools.h tools/cmdline.h tools/progress.h
imgctl_SOURCES += tools/beyond.h
imgctl_SOURCES += tools/imgctl.c
imgctl_SOURCES += tools/beyond.c
imgctl_SOURCES += tools/check.c
imgctl_SOURCES += tools/cmdline.c
imgctl_SOURCES += tools/create.c
imgctl_SOURCES += tools/guard.c
imgctl_SOURCES += tools/help.c
imgctl_SOURCES += tools/info.c
imgctl_SOURCES += tools/map.c
imgctl_SOURCES += tools/object.c
imgctl_SOURCES += tools/open.c
imgctl_SOURCES += tools/progress.c
imgctl_SOURCES += tools/say.c
imgctl_LDADD = $(CORE_LIBS)
