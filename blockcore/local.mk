libimgcore_a_SOURCES += \
	blockcore/blockcore.h blockcore/codec.h blockcore/err.h \
	blockcore/file.h blockcore/job.h blockcore/json.h \
	blockcore/options.h blockcore/spec.h blockcore/strbuf.h \
	blockcore/util.h \
	blockcore/err.c blockcore/strbuf.c
libimgcore_a_SOURCES += blockcore/codec.c blockcore/codec-zstd.c
	blockcore/err.c blockcore/strbuf.c \
	blockcore/json.c \
	blockcore/json-parse.c \
	blockcore/json-write.c \
	blockcore/options.c \
	blockcore/size.c
