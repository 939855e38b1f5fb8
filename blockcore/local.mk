# One file per line: two people who add a line each do not conflict.
libimgcore_a_SOURCES += blockcore/blockcore.h
libimgcore_a_SOURCES += blockcore/codec.h
libimgcore_a_SOURCES += blockcore/err.h
libimgcore_a_SOURCES += blockcore/file.h
libimgcore_a_SOURCES += blockcore/job.h
libimgcore_a_SOURCES += blockcore/json.h
libimgcore_a_SOURCES += blockcore/options.h
libimgcore_a_SOURCES += blockcore/spec.h
libimgcore_a_SOURCES += blockcore/strbuf.h
libimgcore_a_SOURCES += blockcore/util.h
libimgcore_a_SOURCES += blockcore/err.c
libimgcore_a_SOURCES += blockcore/strbuf.c
libimgcore_a_SOURCES += blockcore/codec.c
libimgcore_a_SOURCES += blockcore/codec-zstd.c
libimgcore_a_SOURCES += blockcore/json.c
libimgcore_a_SOURCES += blockcore/json-parse.c
libimgcore_a_SOURCES += blockcore/json-write.c
libimgcore_a_SOURCES += blockcore/options.c
libimgcore_a_SOURCES += blockcore/size.c
libimgcore_a_SOURCES += \
	blockcore/blockcore.h blockcore/codec.h blockcore/err.h \
	blockcore/file.h blockcore/job.h blockcore/json.h \
	blockcore/options.h blockcore/spec.h blockcore/strbuf.h \
	blockcore/util.h \
	blockcore/err.c blockcore/strbuf.c
libimgcore_a_SOURCES += blockcore/codec.c blockcore/codec-zstd.c
libimgcore_a_SOURCES += blockcore/create.h blockcore/report.h
libimgcore_a_SOURCES += blockcore/report.c
libimgcore_a_SOURCES += blockcore/report-map.c
libimgcore_a_SOURCES += blockcore/create.c
