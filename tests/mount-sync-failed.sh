#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A sync that failed is told by fsync and close, outlives the closing of the
# image, and ends all writing until the image is mounted anew.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires_fuse
requires qemu-img strace

mkdir src
qemu-img create -q -f qcow2 src/a.qcow2 4M
mount_img -o rw,idle=1 src m
d=$(daemon_of m)
printf good | dd of=m/a.qcow2/disk conv=notrunc,fsync status=none

background strace -qq -f -o /dev/null -e trace=fdatasync,fsync \
	-e inject=fdatasync,fsync:error=EIO -p "$d"
traced() {
	! grep -q 'TracerPid:.0$' "/proc/$d/status"
}
wait_until 10 traced || skip "strace cannot attach"
assert_fails dd if=/dev/zero of=m/a.qcow2/disk bs=64k seek=8 count=1 \
	conv=notrunc,fsync status=none
end_process "$pid"
assert_contains "$(head -n 1 m/a.qcow2/status)" "durable" status

closed() {
	grep -q closed m/a.qcow2/status
}
wait_until 15 closed || fail "it is never closed"
assert_contains "$(head -n 1 m/a.qcow2/status)" "durable" "status after closing"
assert_fails dd if=/dev/zero of=m/a.qcow2/disk bs=4k count=1 conv=notrunc \
	status=none
assert_contains "$(cat err)" "nput/output error" "the error"
assert_eq "$(head -c 4 m/a.qcow2/disk)" good "reading goes on"
exec 6<m/a.qcow2/disk   # open again, for reading
if echo flush >m/a.qcow2/ctl 2>/dev/null; then
	fail "a flush that cannot be made good is acknowledged"
fi
exec 6<&-
umount_img m || true

mount_img -o rw src m
printf anew | dd of=m/a.qcow2/disk conv=notrunc,fsync status=none
umount_img m
# 0, or 3: leaks.
rc=0
qemu-img check -q src/a.qcow2 || rc=$?
[ $rc -eq 0 ] || [ $rc -eq 3 ] || fail "qemu-img check: $rc"
