# Tests.  To add one, write one line in the block of its kind below:
#
#   UNIT_TESTS   += tests/unit/test-NAME	a C program, cmocka, whose only
#						source is tests/unit/test-NAME.c
#   SCRIPT_TESTS += tests/NAME.sh (or .py)	an executable script
#   TEST_FILES   += tests/...			a file that a test reads
#   tests_libtest_a_SOURCES += tests/lib/NAME.c	code that unit tests share
#
# A test runs under tests/run: at most 240 seconds, or what a script's line
# "# timeout: SECONDS" says (a C program's: "timeout: SECONDS" in a comment of
# its source).  Exit 0 passed, 77 skipped (says why), all else failed.

UNIT_TESTS =
SCRIPT_TESTS =
TEST_FILES =
tests_libtest_a_SOURCES =

# ---- unit tests ----
UNIT_TESTS += tests/unit/test-bits
UNIT_TESTS += tests/unit/test-cmdline
tests_unit_test_cmdline_LDADD = libimgtools.a $(LDADD)
UNIT_TESTS += tests/unit/test-codec
UNIT_TESTS += tests/unit/test-convert
UNIT_TESTS += tests/unit/test-amend
UNIT_TESTS += tests/unit/test-change-backing
UNIT_TESTS += tests/unit/test-file
UNIT_TESTS += tests/unit/test-file-image
UNIT_TESTS += tests/unit/test-process
UNIT_TESTS += tests/unit/test-posix
UNIT_TESTS += tests/unit/test-policy
UNIT_TESTS += tests/unit/test-lock
UNIT_TESTS += tests/unit/test-image
UNIT_TESTS += tests/unit/test-job-power
UNIT_TESTS += tests/unit/test-power
UNIT_TESTS += tests/unit/test-qcow2-repair
UNIT_TESTS += tests/unit/test-tables-repair
UNIT_TESTS += tests/unit/test-dmg
UNIT_TESTS += tests/unit/test-format-power
UNIT_TESTS += tests/unit/test-qcow2-raw
UNIT_TESTS += tests/unit/test-progress
UNIT_TESTS += tests/unit/test-resize
UNIT_TESTS += tests/unit/test-spec
UNIT_TESTS += tests/unit/test-snapshots
tests_unit_test_progress_LDADD = libimgtools.a $(LDADD)
UNIT_TESTS += tests/unit/test-partitions
tests_unit_test_partitions_LDADD = libimgfs.a $(LDADD)
UNIT_TESTS += tests/unit/test-fs-options
tests_unit_test_fs_options_LDADD = libimgfs.a $(LDADD)

UNIT_TESTS += tests/unit/test-races

# ---- shared by unit tests ----
tests_libtest_a_SOURCES += tests/lib/testfile.h
tests_libtest_a_SOURCES += tests/lib/trap.c
tests_libtest_a_SOURCES += tests/lib/power.c
tests_libtest_a_SOURCES += tests/lib/testfmt.h
tests_libtest_a_SOURCES += tests/lib/testfmt.c
tests_libtest_a_SOURCES += tests/lib/hammer.c
tests_libtest_a_SOURCES += tests/lib/crash.h
tests_libtest_a_SOURCES += tests/lib/crash.c

# ---- scripts ----
SCRIPT_TESTS += tests/bench-command.sh
SCRIPT_TESTS += tests/bitmap.sh
SCRIPT_TESTS += tests/bitmap-hostile.py
TEST_FILES += tests/lib-bitmap.sh
SCRIPT_TESTS += tests/bochs.sh
SCRIPT_TESTS += tests/cloop.sh
SCRIPT_TESTS += tests/compare.sh
SCRIPT_TESTS += tests/convert-backing.sh
SCRIPT_TESTS += tests/convert-concat.sh
SCRIPT_TESTS += tests/convert-copy.sh
SCRIPT_TESTS += tests/convert-cut-off.sh
SCRIPT_TESTS += tests/convert-device.sh
SCRIPT_TESTS += tests/convert-enospc.sh
SCRIPT_TESTS += tests/convert-interrupt.sh
SCRIPT_TESTS += tests/dd.sh
SCRIPT_TESTS += tests/convert-layout.sh
SCRIPT_TESTS += tests/convert-level.sh
SCRIPT_TESTS += tests/convert-memory.sh
SCRIPT_TESTS += tests/convert-progress.sh
SCRIPT_TESTS += tests/convert-salvage.sh
SCRIPT_TESTS += tests/convert-sparse.sh
SCRIPT_TESTS += tests/diff-qemu-img/run.py
SCRIPT_TESTS += tests/dist.sh
SCRIPT_TESTS += tests/image-names.sh
SCRIPT_TESTS += tests/imgctl-create.sh
SCRIPT_TESTS += tests/imgctl-info.sh
SCRIPT_TESTS += tests/imgctl-map-stream.py
SCRIPT_TESTS += tests/imgctl-mounted.sh
SCRIPT_TESTS += tests/incremental.py
SCRIPT_TESTS += tests/layers.sh
SCRIPT_TESTS += tests/locks.py
SCRIPT_TESTS += tests/man.sh
SCRIPT_TESTS += tests/qcow2-data.sh
SCRIPT_TESTS += tests/qcow2-dirty.sh
SCRIPT_TESTS += tests/qcow2-enospc.sh
SCRIPT_TESTS += tests/qcow2-hostile.py
SCRIPT_TESTS += tests/qcow2-layout.sh
SCRIPT_TESTS += tests/qcow2-autoclear.sh
SCRIPT_TESTS += tests/qcow2-limits.sh
SCRIPT_TESTS += tests/qcow2-packed.sh
SCRIPT_TESTS += tests/qcow2-reserved.py
SCRIPT_TESTS += tests/qcow2-subclusters.py
SCRIPT_TESTS += tests/write-enospc.py
SCRIPT_TESTS += tests/write-random.py
SCRIPT_TESTS += tests/qcow2-nocow.sh
SCRIPT_TESTS += tests/qcow2-snapshots.sh
SCRIPT_TESTS += tests/measure.py
SCRIPT_TESTS += tests/resize.py
SCRIPT_TESTS += tests/size-kill.py
SCRIPT_TESTS += tests/snapshot.sh
SCRIPT_TESTS += tests/mount-snapshots.sh
SCRIPT_TESTS += tests/mount-snapshots-fio.sh
SCRIPT_TESTS += tests/mount-passthrough.sh
SCRIPT_TESTS += tests/snapshot-kill.sh
SCRIPT_TESTS += tests/admin-enospc.py

SCRIPT_TESTS += tests/judge.sh
SCRIPT_TESTS += tests/judge-formats.sh
SCRIPT_TESTS += tests/dmg.py
TEST_FILES += tests/mkdmg.py
SCRIPT_TESTS += tests/other-programs.sh
SCRIPT_TESTS += tests/parallels.sh
SCRIPT_TESTS += tests/parallels-bitmaps.sh
SCRIPT_TESTS += tests/parallels-bundle.sh
SCRIPT_TESTS += tests/qcow-qed.sh
SCRIPT_TESTS += tests/formats
SCRIPT_TESTS += tests/golden/run.py
SCRIPT_TESTS += tests/broken/run.py
TEST_FILES += tests/mkdiff.py tests/mkhdd.py tests/transcript.py tests/golden tests/broken
SCRIPT_TESTS += tests/interop.sh
SCRIPT_TESTS += tests/vhdx-rules.py
SCRIPT_TESTS += tests/vpc-azure.sh
SCRIPT_TESTS += tests/parents-hostile.py
SCRIPT_TESTS += tests/parents-outside.sh
SCRIPT_TESTS += tests/vhdx.sh
SCRIPT_TESTS += tests/vhdx-log.sh
SCRIPT_TESTS += tests/vhdx-parent.sh
SCRIPT_TESTS += tests/vdi.sh
SCRIPT_TESTS += tests/vdi-check.sh
SCRIPT_TESTS += tests/vdi-parent.sh
SCRIPT_TESTS += tests/vpc.sh
SCRIPT_TESTS += tests/vpc-parent.sh
SCRIPT_TESTS += tests/qcow2-check.py
SCRIPT_TESTS += tests/qcow2-repair.py
SCRIPT_TESTS += tests/qcow2-repair-mix.py
TEST_FILES += tests/qcow2-repair.differences
SCRIPT_TESTS += tests/qcow2-create.py

SCRIPT_TESTS += tests/mount-bitmaps.sh
SCRIPT_TESTS += tests/mount-bitmaps-full.sh
SCRIPT_TESTS += tests/mount-helpers.sh
SCRIPT_TESTS += tests/mount-old-formats.sh
SCRIPT_TESTS += tests/mount-read-again.sh
SCRIPT_TESTS += tests/mount-life-dead.sh
SCRIPT_TESTS += tests/mount-life-log.sh
SCRIPT_TESTS += tests/mount-life-signals.sh
SCRIPT_TESTS += tests/mount-life-start.sh
SCRIPT_TESTS += tests/mount-life-umount.sh
SCRIPT_TESTS += tests/mount-life-user.sh
SCRIPT_TESTS += tests/mount-partitions.sh
SCRIPT_TESTS += tests/mount-base-busy.sh
SCRIPT_TESTS += tests/mount-broken.sh
SCRIPT_TESTS += tests/mount-folder.sh
SCRIPT_TESTS += tests/mount-identity.py
SCRIPT_TESTS += tests/mount-idle.sh
SCRIPT_TESTS += tests/mount-modes.sh
SCRIPT_TESTS += tests/mount-share.sh
SCRIPT_TESTS += tests/mount-slow-open.sh
SCRIPT_TESTS += tests/mount-thousand.sh
SCRIPT_TESTS += tests/mount-write-lock.sh
SCRIPT_TESTS += tests/outlive.sh
SCRIPT_TESTS += tests/mount-flush-timer.sh
SCRIPT_TESTS += tests/mount-partition-pages.sh
SCRIPT_TESTS += tests/mount-refused.sh
SCRIPT_TESTS += tests/mount-slow-peek.sh
SCRIPT_TESTS += tests/mount-story.sh
SCRIPT_TESTS += tests/mount-sync-failed.sh
SCRIPT_TESTS += tests/mount-timeouts.sh

SCRIPT_TESTS += tests/mount-copy.sh
SCRIPT_TESTS += tests/mount-copy-range.py
SCRIPT_TESTS += tests/mount-end.sh
SCRIPT_TESTS += tests/mount-fallocate.py
SCRIPT_TESTS += tests/mount-fio.sh
SCRIPT_TESTS += tests/mount-holes.py
SCRIPT_TESTS += tests/mount-host-full.sh
SCRIPT_TESTS += tests/mount-trunc.sh
SCRIPT_TESTS += tests/mount-kill.py
SCRIPT_TESTS += tests/mount-workers.py
SCRIPT_TESTS += tests/vmdk-read.sh
SCRIPT_TESTS += tests/vmdk-write.sh
SCRIPT_TESTS += tests/vmdk-others.py
SCRIPT_TESTS += tests/views.sh
SCRIPT_TESTS += tests/mount-requests.sh
SCRIPT_TESTS += tests/views-many-extents.py
SCRIPT_TESTS += tests/mount-loop.sh
SCRIPT_TESTS += tests/commit-kill.py
SCRIPT_TESTS += tests/commit-rebase.py
SCRIPT_TESTS += tests/ctl.sh
SCRIPT_TESTS += tests/ctl-cancel.py
SCRIPT_TESTS += tests/ctl-serial.py
SCRIPT_TESTS += tests/ctl-size.py
SCRIPT_TESTS += tests/ctl-jobs.py
SCRIPT_TESTS += tests/ctl-commit.py

# ---- data ----
TEST_FILES += tests/testlib.py
TEST_FILES += tests/diff-qemu-img/allowed
TEST_FILES += tests/diff-qemu-img/fixtures
TEST_FILES += tests/diff-qemu-img/lines
# waiting for the engine:
TEST_FILES += tests/fuzz/mutate
TEST_FILES += tests/mutate.sh
TEST_FILES += tests/mount-helpers.sh
TEST_FILES += tests/mount-parts.sh
TEST_FILES += tests/fuzz/run
TEST_FILES += tests/bench/bench
TEST_FILES += tests/rate.sh
TEST_FILES += tests/snapshot-latency.sh
TEST_FILES += tests/clone.sh

# ---- programs that scripts use ----
# qemu-io's commands for every format of ours: see its head
check_PROGRAMS += tests/imgio
tests_imgio_SOURCES = tests/imgio.c
tests_imgio_LDADD = $(CORE_LIBS)

# ---- machinery ----
check_LIBRARIES += tests/libtest.a
check_PROGRAMS += $(UNIT_TESTS)
dist_check_SCRIPTS += $(SCRIPT_TESTS) tests/run tests/report tests/chroot
dist_check_SCRIPTS += tests/coverage tests/valgrind
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

check_PROGRAMS += tests/soak
tests_soak_SOURCES = tests/soak.c
SCRIPT_TESTS += tests/memory.sh

# ---- the judge ----
check_PROGRAMS += tests/judge/judge
tests_judge_judge_SOURCES = tests/judge/judge.c tests/judge/judge.h \
	tests/judge/admin.c tests/judge/bitmaps.c tests/judge/disks.c \
	tests/judge/work.c tests/judge/world.c
TEST_FILES += tests/judge/make-vmdk.py

# ---- further targets ----
# A second tree, configured otherwise, made from what `make dist` would pack (a
# configured source folder refuses builds outside of itself).
OTHER_BUILD = \
	other_build() { \
		rm -rf "$$1"; dir=$$1; shift; \
		$(MAKE) -s distdir distdir="$$dir" && chmod -R u+w "$$dir" && \
		cd "$$dir" && ./configure -q "$$@" && $(MAKE) -s; \
	}

# Tests that bound memory or compare times say nothing about a sanitized build.
NOT_SANITIZED = tests/memory.sh tests/views-many-extents.py
SANITIZED_TESTS = $(filter-out $(NOT_SANITIZED),$(TESTS))
SAN_ENV = TEST_TIMEOUT_FACTOR=5 \
	ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:log_path=$(abs_top_builddir)/sanitizer \
	UBSAN_OPTIONS=print_stacktrace=1:log_path=$(abs_top_builddir)/sanitizer \
	TSAN_OPTIONS=halt_on_error=1:log_path=$(abs_top_builddir)/sanitizer
# A daemon's finding fails no test by itself: its log does.
SAN_VERDICT = tests/report . && \
	if ls "$(abs_top_builddir)"/sanitizer.* 2>/dev/null; then false; fi

# The judge at full length.
check-judge: all tests/judge/judge$(EXEEXT)
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		CRASHES=44 $(srcdir)/tests/judge.sh

# 200 power failures and more for each format; FORMATS="vdi vpc" for some.
check-judge-formats: all tests/judge/judge$(EXEEXT)
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		CRASHES=50 $(srcdir)/tests/judge-formats.sh $(FORMATS)

# Commands of ctl, cancelled at fifty random moments each.
check-cancel: all
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		POINTS=50 $(srcdir)/tests/ctl-cancel.py

check-measure: all
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		CASES=200 $(srcdir)/tests/measure.py

check-repair: all
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		MIX_ROUNDS=1000 MIX_SEED=2 $(srcdir)/tests/qcow2-repair-mix.py

# Ten images of a tebibyte for a minute.
check-soak: all tests/soak$(EXEEXT)
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		SOAK_SECONDS=60 SOAK_IMAGES=10 $(srcdir)/tests/memory.sh

.PHONY: check-judge check-judge-formats check-soak check-cancel check-measure
.PHONY: check-repair check-kill check-asan check-tsan check-trixie fuzz bench
check-asan:
	rm -f sanitizer.*
	$(OTHER_BUILD); other_build build-asan CFLAGS='-g -O1' \
		--enable-sanitizer=address,undefined && \
	{ $(SAN_ENV) FUZZ_ROUNDS=2000 $(MAKE) -k check \
		TESTS='$(SANITIZED_TESTS)' >check.log 2>&1; $(SAN_VERDICT); }

# Without address randomisation: gcc 12's run-time does not know the memory
# layout of newer kernels.
check-tsan:
	rm -f sanitizer.*
	$(OTHER_BUILD); other_build build-tsan CFLAGS='-g -O1' \
		--enable-sanitizer=thread && \
	{ $(SAN_ENV) setarch -R $(MAKE) -k check \
		TESTS='$(SANITIZED_TESTS)' >check.log 2>&1; $(SAN_VERDICT); }

# How many lines the tests execute, for each source (gcov).
coverage:
	$(OTHER_BUILD); other_build build-coverage \
		CFLAGS='-g -O1 --coverage -fprofile-update=atomic' && \
	{ chmod -R a+rwX . && TEST_TIMEOUT_FACTOR=3 $(MAKE) -k check \
		TESTS='$(SANITIZED_TESTS)' >check.log 2>&1; \
	tests/report . || :; tests/coverage .; }

# What needs no mount and bounds neither time nor memory, under valgrind.
NOT_VALGRIND = tests/unit/test-power tests/unit/test-races \
	tests/unit/test-progress
VALGRIND_TESTS = tests/bochs.sh tests/cloop.sh tests/compare.sh \
	tests/convert-backing.sh tests/convert-concat.sh \
	tests/convert-layout.sh tests/convert-level.sh \
	tests/convert-salvage.sh tests/image-names.sh tests/imgctl-create.sh \
	tests/imgctl-info.sh tests/qcow-qed.sh tests/qcow2-layout.sh \
	tests/qcow2-snapshots.sh tests/vmdk-read.sh
check-valgrind: all $(check_PROGRAMS)
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		$(srcdir)/tests/valgrind build-valgrind \
		$(filter-out $(NOT_VALGRIND),$(UNIT_TESTS)) $(VALGRIND_TESTS)

# The rate limit of convert, by the clock: 64 MiB at 16 MiB/s.
check-rate: all
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		$(srcdir)/tests/rate.sh

# What convert -C takes on XFS and btrfs, by the clock.
check-clone: all
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		$(srcdir)/tests/run $(srcdir)/tests/clone.sh

# The longest write while snapshots of a busy disk of 1 TiB are made.
check-snapshot-latency: all
	top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' \
		$(srcdir)/tests/run $(srcdir)/tests/snapshot-latency.sh

.PHONY: coverage check-valgrind check-rate check-clone check-snapshot-latency

# BENCH='--runs 9 --only convert' make bench: needs QEMU and fio.
bench: all
	top_builddir='$(abs_top_builddir)' $(srcdir)/tests/bench/bench $(BENCH)

# Fuzzing (clang's libFuzzer; tests/fuzz/README): each driver on whole images.
#	FUZZ_SECONDS=600 make fuzz FORMATS='vmdk vdi'	and how many lines it ran
#	make fuzz-planted [FORMATS=vmdk]		planted bugs are found
FUZZ_SOURCES = tests/fuzz/fuzz-image.c tests/fuzz/sketch.c \
	tests/fuzz/sketch.h tests/fuzz/mend.c
EXTRA_PROGRAMS += tests/fuzz/fuzz-image
tests_fuzz_fuzz_image_SOURCES = $(FUZZ_SOURCES)
tests_fuzz_fuzz_image_LDADD = $(CORE_LIBS)
tests_fuzz_fuzz_image_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
FORMATS = vmdk vdi vpc vhdx qcow2 qcow qed parallels bochs cloop dmg

FUZZ_CC = clang

build-fuzz: all tests/imgio$(EXEEXT)
	rm -rf $@ && $(MAKE) -s distdir distdir=$@ && chmod -R u+w $@ && \
	cd $@ && ./configure -q CC='$(FUZZ_CC)' \
		CFLAGS='-g -O1 -fprofile-instr-generate -fcoverage-mapping' \
		--enable-sanitizer=address,undefined,fuzzer-no-link && \
	$(MAKE) -s tests/fuzz/fuzz-image$(EXEEXT)

fuzz: build-fuzz
	top_builddir='$(abs_top_builddir)' $(srcdir)/tests/fuzz/run $(FORMATS)
fuzz-planted: build-fuzz
	top_builddir='$(abs_top_builddir)' $(srcdir)/tests/fuzz/plant $(FORMATS)
.PHONY: build-fuzz fuzz-planted

# The same target in any build: the seeds, and a slice of what they become.
check_PROGRAMS += tests/fuzz/replay
tests_fuzz_replay_SOURCES = $(FUZZ_SOURCES) tests/fuzz/replay.c
tests_fuzz_replay_LDADD = $(CORE_LIBS)
SCRIPT_TESTS += tests/fuzz-seeds.sh
TEST_FILES += tests/fuzz/README tests/fuzz/lines tests/fuzz/make-seeds \
	tests/fuzz/plant tests/fuzz/fold tests/mkvmdk.py
FUZZ_FORMATS = bochs cloop dmg parallels qcow qcow2 qed vdi vhdx vmdk vpc
TEST_FILES += $(FUZZ_FORMATS:%=tests/fuzz/seeds/%.sh)
# Bugs to be found, three for each:
FUZZ_PLANTED = vmdk vdi vpc vhdx qcow qed parallels bochs cloop dmg
TEST_FILES += $(FUZZ_PLANTED:%=tests/fuzz/planted/%-1.patch) \
	$(FUZZ_PLANTED:%=tests/fuzz/planted/%-2.patch) \
	$(FUZZ_PLANTED:%=tests/fuzz/planted/%-3.patch)

# 50 kills of the daemon under load; SEED=N for the same ones again.
check-kill: all
	KILLS=50 top_builddir='$(abs_top_builddir)' $(srcdir)/tests/mount-kill.py

# Debian 13: newer compiler, libfuse 3.17, QEMU 10.  Needs root, debootstrap.
check-trixie:
	cd $(srcdir) && tests/chroot trixie check

clean-local:
	-rm -rf fuzzing build-asan build-tsan build-fuzz build-coverage build-valgrind
