# sources of tests/

# codecs
check_PROGRAMS += tests/unit/test-codec
TESTS += tests/unit/test-codec
tests_unit_test_codec_SOURCES = tests/unit/test-codec.c
tests_unit_test_codec_LDADD = $(CORE_LIBS) -lcmocka
