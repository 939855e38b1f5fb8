#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# ls takes no lock; an image is locked while a file of it is open and for idle=
# seconds after, then closed; a removed one frees its space.  A single image
# stays locked until it is unmounted, unless idle= is given.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img qemu-io

mkdir src
qemu-img create -q -f qcow2 src/base.qcow2 4M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 src/top.qcow2
qemu-img create -q -f raw src/r.raw 4M

# Can a VM start on it?
vm_starts() {
	qemu-io -f "$1" -c 'write 0 64k' "$2" >/dev/null 2>&1
}
vm_waits() {
	! vm_starts "$@" || fail "$2 is not locked $3"
}
is_open() {
	for d in $(daemon_of "$tmp/m"); do
		ls -l "/proc/$d/fd" | grep -q "/$1" && return 0
	done
	return 1
}
is_closed() {
	! is_open "$1"
}

mount_img -o idle=1 src "$tmp/m"
ls -lR m >/dev/null
stat m/*/disk >/dev/null
for i in base.qcow2 top.qcow2 r.raw; do
	is_closed $i || fail "ls leaves $i open"
done
vm_starts qcow2 src/top.qcow2 || fail "ls has locked an image"
vm_starts qcow2 src/base.qcow2 || fail "ls has locked an image"
vm_starts raw src/r.raw || fail "ls has locked a raw image"

# While it is open, and for a second after.
exec 3<m/top.qcow2/disk 4<m/r.raw/disk
vm_waits qcow2 src/top.qcow2 "while its disk is open"
vm_waits qcow2 src/base.qcow2 "while its overlay is open"
vm_waits raw src/r.raw "while its disk is open"
sleep 1.5
vm_waits qcow2 src/top.qcow2 "although its disk is still open"
assert_contains "$(cat m/top.qcow2/status)" "open for reading" status
exec 3<&- 4<&-
vm_waits qcow2 src/top.qcow2 "just after its last user"
wait_until 5 is_closed top.qcow2 || fail "an idle image stays open"
wait_until 5 is_closed base.qcow2
vm_starts qcow2 src/top.qcow2 || fail "an idle image stays locked"
assert_contains "$(cat m/top.qcow2/status)" "closed" status

# What another one wrote meanwhile is seen, whatever the kernel had cached.
cat m/r.raw/disk >/dev/null
wait_until 5 is_closed r.raw
qemu-io -f raw -c 'write -P 65 0 4k' src/r.raw >/dev/null
assert_eq "$(head -c 2 m/r.raw/disk)" AA "data written while it was closed"

# A removed image.
cat m/r.raw/disk >/dev/null
rm src/r.raw
ls m >/dev/null
wait_until 3 is_closed r.raw || fail "a removed image keeps its space"
umount_img "$tmp/m"

mount_img src/top.qcow2 "$tmp/m"
vm_waits qcow2 src/top.qcow2 "as a single image"
sleep 1
vm_waits qcow2 src/top.qcow2 "as a single image"
umount_img "$tmp/m"

mount_img -o idle=0 src/top.qcow2 "$tmp/m"
cat m/disk >/dev/null
wait_until 5 is_closed top.qcow2 || fail "idle= of a single image"
vm_starts qcow2 src/top.qcow2
umount_img "$tmp/m"
