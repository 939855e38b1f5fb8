#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A slice of the fuzzers (tests/fuzz/README) in this build: of each format the
# seeds, and FUZZ_ROUNDS images that they become when bytes change.  No driver
# crashes, hangs or contradicts itself.
# timeout: 240
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires python3

for script in "$top_srcdir"/tests/fuzz/seeds/*.sh; do
	format=$(basename "$script" .sh)
	"$top_srcdir/tests/fuzz/make-seeds" "$format" "seeds-$format"
	[ -n "$(ls "seeds-$format")" ] || continue
	FUZZ_FORMAT=$format "$top_builddir/tests/fuzz/replay" -k failing \
		-n "${FUZZ_ROUNDS:-100}" -s "${FUZZ_SEED:-1}" \
		"seeds-$format"/* >out 2>&1 || {
		tail -n 40 out
		cp failing "$top_builddir/failing-$format" 2>/dev/null || :
		fail "$format: see $top_builddir/failing-$format"
	}
done
