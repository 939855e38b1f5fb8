#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Somebody who heeds no lock cuts off the source while convert works on the
# host's own pages of it: before it has looked at them a sentence and no target,
# while it stores them zeroes, as reading behind the end gives.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"

# cut_at POINT: the exit code is left in $rc.
cut_at() {
	random_file src.raw 2097152
	paused "$1" imgctl convert -O raw src.raw out 2> err
	truncate -s 1M src.raw
	resume
	rc=0
	wait "$pid" || rc=$?
}

cut_at convert-lent
assert_eq "$rc" 1 "exit code"
assert_eq "$(cat err)" "imgctl: a source became shorter while it was read" \
	"what it says"
[ ! -e out ] || fail "the target was left"

cut_at convert-store
assert_eq "$rc" 0 "exit code"
truncate -s 2M src.raw
cmp src.raw out

# rebase looks at both chains so.  The image keeps its backing file.
random_file src.raw 2097152
imgctl create -q -f qcow2 -b src.raw -F raw top.qcow2
random_file new.raw 2097152
paused rebase-lent imgctl rebase -b new.raw -F raw top.qcow2 2> err
truncate -s 1M src.raw
resume
rc=0
wait "$pid" || rc=$?
assert_eq "$rc" 1 "exit code of rebase"
assert_eq "$(cat err)" "imgctl: a source became shorter while it was read" \
	"what rebase says"
imgctl info top.qcow2 | grep -q '^backing file: src.raw' ||
	fail "the backing file was changed"
imgctl check -q top.qcow2
