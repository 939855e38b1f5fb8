libimgcore_a_SOURCES += formats/formats.c
libimgcore_a_SOURCES += formats/protocol.c
libimgcore_a_SOURCES += formats/raw.c
libimgcore_a_SOURCES += formats/qcow2.h
libimgcore_a_SOURCES += formats/qcow2-alloc.c
libimgcore_a_SOURCES += formats/qcow2-map.c
libimgcore_a_SOURCES += formats/qcow2-open.c
