#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# An image that takes long to open, or a file that takes long to look at, keeps
# nobody waiting but its own users (F20, F33).
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img mkfifo

mkdir src m
for i in a b; do
	qemu-img create -q -f qcow2 src/$i.qcow2 4M
done

# quick COMMAND...: ends at once.
quick() {
	timeout 3 "$@" || fail "does not answer: $*"
}

mkfifo fifo
IMGFS_PAUSE=mimage-open:fifo imgfs -o idle=60 src m
cat m/a.qcow2/disk >/dev/null &
cats=$!
started="$started $cats"
exec 7>fifo
# A thread waits in the opening of a.
quick ls m >/dev/null
quick ls -l m/b.qcow2 >/dev/null
quick stat m/b.qcow2/disk >/dev/null
quick cat m/b.qcow2/info >/dev/null
alive $cats || fail "the open did not wait"
echo >&7
wait $cats
exec 7>&-
