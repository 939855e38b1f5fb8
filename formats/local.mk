libimgcore_a_SOURCES += formats/formats.c
