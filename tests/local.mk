# Tests.  To add one, write one line in the block of its kind below:
#
#   UNIT_TESTS   += tests/unit/test-NAME	a C program, cmocka, whose only
#						source is tests/unit/test-NAME.c
#   SCRIPT_TESTS += tests/NAME.sh (or .py)	an executable script
#   TEST_FILES   += tests/...			a file that a test reads
#   tests_libtest_a_SOURCES += tests/lib/NAME.c	code that unit tests share
#
# A test runs under tests/run: at most 120 seconds, or what a script's line
# "# timeout: SECONDS" says (a C program's: "timeout: SECONDS" in a comment of
# its source).  Exit 0 passed, 77 skipped (says why), all else failed.

UNIT_TESTS =
SCRIPT_TESTS =
TEST_FILES =
tests_libtest_a_SOURCES =

# ---- unit tests ----
UNIT_TESTS += tests/unit/test-codec

# ---- shared by unit tests ----

# ---- scripts ----

# ---- data ----

# ---- machinery ----
check_LIBRARIES += tests/libtest.a
check_PROGRAMS += $(UNIT_TESTS)
dist_check_SCRIPTS += $(SCRIPT_TESTS) tests/run tests/report
TESTS += $(UNIT_TESTS) $(SCRIPT_TESTS)
EXTRA_DIST += $(TEST_FILES) tests/lib.sh

# What unit tests (programs without an LDADD of their own) link to.
LDADD = tests/libtest.a $(CORE_LIBS) -lcmocka

TEST_EXTENSIONS = .sh .py
LOG_COMPILER = $(SHELL) $(top_srcdir)/tests/run
SH_LOG_COMPILER = $(LOG_COMPILER)
PY_LOG_COMPILER = $(LOG_COMPILER)
AM_TESTS_ENVIRONMENT = \
	top_srcdir='$(abs_top_srcdir)'; export top_srcdir; \
	top_builddir='$(abs_top_builddir)'; export top_builddir;
