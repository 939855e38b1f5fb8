#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# -o share reads an image that a VM writes; what the VM allocates is seen, also
# through a file that is open, and nothing keeps the VM from anything.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img qemu-io mkfifo

mkdir src
qemu-img create -q -f qcow2 src/a.qcow2 4M
qemu-io -c 'write -P 65 0 64k' src/a.qcow2 >/dev/null

mkfifo commands
exec 6<>commands
background sh -c 'exec qemu-io -f qcow2 src/a.qcow2 <commands >vm'
holds() {
	cat "/proc/$pid"/fdinfo/* 2>/dev/null | grep -q 'OFDLCK.* 201'
}
wait_until 5 holds
mount_img src m
assert_fails head -c 1 m/a.qcow2/disk
umount_img m

mount_img -o share src m
exec 3<m/a.qcow2/disk
assert_eq "$(dd bs=2 count=1 status=none <&3)" AA
assert_contains "$(cat m/a.qcow2/status)" "shared: may be inconsistent"

# The VM allocates, and flushes.
vm_does() {
	echo "$1" >&6
	sleep 0.3       # it takes one line per wake-up
}
vm_does 'write -P 66 64k 64k'
vm_does 'write -P 67 0 64k'
vm_does flush
seen() {
	[ "$(dd if=m/a.qcow2/disk bs=2 count=1 status=none)" = CC ] &&
	[ "$(dd if=m/a.qcow2/disk bs=64k skip=1 count=1 status=none |
		head -c 2)" = BB ]
}
wait_until 10 seen || fail "what the VM wrote is not seen"
again() {
	[ "$(dd bs=64k count=1 status=none <&3 | head -c 2)" = BB ]
}
dd bs=65534 count=1 status=none <&3 >/dev/null
wait_until 10 again || fail "an open file shows old data"
exec 3<&-
# Writing is out of the question.
assert_fails dd if=/dev/zero of=m/a.qcow2/disk bs=1 count=1 status=none
echo quit >&6
wait_until 10 gone "$pid" || fail "the VM hangs"
