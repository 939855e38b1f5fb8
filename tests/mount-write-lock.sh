#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Under rw an image is locked for reading until its disk is opened for writing,
# and again after the last close; without rw nothing writes.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img qemu-io

mkdir src
qemu-img create -q -f qcow2 src/a.qcow2 4M

# Another reader is refused exactly while we are a writer.
reads() {
	qemu-io -r -f qcow2 -c 'read 0 4k' src/a.qcow2 >/dev/null 2>&1
}

mount_img -o rw,idle=60 src m
exec 3<m/a.qcow2/disk
reads || fail "a reader of ours keeps other readers out"
exec 4<>m/a.qcow2/disk
! reads || fail "no write lock while disk is open for writing"
assert_contains "$(cat m/a.qcow2/status)" "open for writing" status
exec 5<>m/a.qcow2/disk
printf hello >&5
exec 5<&-
! reads || fail "the write lock was given back too early"
exec 4<&-
wait_until 5 reads || fail "the write lock outlives the last close"
assert_eq "$(qemu-io -r -f qcow2 -c 'read -v 0 16' src/a.qcow2 |
	grep -c hello)" 1 "what was written"
assert_eq "$(head -c 5 m/a.qcow2/disk)" hello

# A reader elsewhere: opening for writing is refused, reading goes on.
exec 5<m/a.qcow2/disk
mkfifo commands
exec 6<>commands
background sh -c 'exec qemu-io -r -f qcow2 src/a.qcow2 <commands >/dev/null \
	3<&- 5<&-'
holds() {
	cat "/proc/$pid"/fdinfo/* 2>/dev/null | grep -q 'OFDLCK.* 201'
}
wait_until 5 holds
rc=0
sh -c 'exec 4<>m/a.qcow2/disk' 2>err || rc=$?
[ $rc -ne 0 ] || fail "written beside another reader"
assert_contains "$(cat m/a.qcow2/status)" 'lock' "status"
head -c 5 m/a.qcow2/disk >/dev/null
exec 3<&- 5<&-
end_process "$pid"
umount_img m
qemu-img check -q src/a.qcow2 || fail "not clean"

mount_img src m
rc=0
sh -c 'exec 4<>m/a.qcow2/disk' 2>err || rc=$?
[ $rc -ne 0 ] || fail "opened for writing without rw"
assert_fails dd if=/dev/zero of=m/a.qcow2/disk bs=4k count=1 status=none
assert_contains "$(cat err)" "$([ "$(id -u)" -ne 0 ] && echo denied ||
	echo 'Read-only')" "the error"
