libimgcore_a_SOURCES += formats/formats.c
libimgcore_a_SOURCES += formats/protocol.c
libimgcore_a_SOURCES += formats/raw.c
