#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A daemon that was killed: ENOTCONN at once, what was fsynced is in the image,
# which has leaks at most; a start on the dead mount point says what to do;
# auto_unmount leaves no dead mount point.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img timeout

random_file data 2097152
imgctl create -q -f qcow2 a.qcow2 64M
mount_img -o rw a.qcow2 m
pid=$(daemon_of m)
dd if=data of=m/disk bs=64k conv=notrunc,fsync status=none
exec 5<>m/disk
dd if=data bs=64k status=none >&5
kill -9 "$pid"
wait_until 10 gone "$pid"
rc=0
timeout 5 cat m/disk >/dev/null 2>err || rc=$?
[ $rc -ne 0 ] && [ $rc -ne 124 ] || fail "reading a dead mount: $rc"
assert_contains "$(cat err)" "not connected" "errno"
exec 5>&-

assert_rc 1 "$IMGFS" a.qcow2 m
assert_contains "$(cat err)" "unmount it first" "a start on a dead mount point"

rc=0
qemu-img check -q a.qcow2 || rc=$?
[ $rc -eq 0 ] || [ $rc -eq 3 ] || fail "qemu-img check: $rc"
qemu-img convert -O raw a.qcow2 a.raw
cmp -n 2097152 data a.raw || fail "fsynced bytes are lost"

if [ "$(id -u)" -eq 0 ]; then
	timeout 10 "$top_builddir/umount.fuse.imgfs" "$tmp/m"
else
	fusermount3 -u m
fi
assert_eq "$(mounts_here)" "" "mounts"
mount_img a.qcow2 m
cmp -n 2097152 data m/disk
umount_img m

# Needs fusermount3, also for root.  It gives up when it looks at the mount point
# before the kernel has let go of the daemon's device: that is rare.
command -v fusermount3 >/dev/null || exit 0
no_mounts() {
	[ -z "$(mounts_here)" ]
}
for try in 1 2 3; do
	mount_img -o auto_unmount,allow_root a.qcow2 m
	kill -9 "$(daemon_of m)"
	wait_until 5 no_mounts && exit 0
	echo "try $try: auto_unmount did not"
	umount -i -l m 2>/dev/null || fusermount3 -u -z m
done
fail "auto_unmount never does"
