#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A file that takes long to look at is listed when it has been looked at; until
# then ls answers without it.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img mkfifo

mkdir src m
for i in a b c; do
	qemu-img create -q -f qcow2 src/$i.qcow2 4M
done
mkfifo fifo
IMGFS_PAUSE=peek:fifo imgfs src m
timeout 5 ls m >first || fail "ls waits for a slow file"
exec 7>fifo
assert_eq "$(wc -l <first)" 2 "images that were looked at"
timeout 5 ls m >second || fail "ls waits for a slow file"
assert_eq "$(cat second)" "$(cat first)"
slow=$(printf 'a.qcow2\nb.qcow2\nc.qcow2\n' | grep -vxFf first)
[ ! -e "m/$slow" ] || fail "found before it was looked at"
echo >&7
exec 7>&-
wait_until 5 test -e "m/$slow" || fail "never found"
assert_eq "$(ls m | wc -l)" 3
