#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# When umount returns the daemon has ended and all is durable: a hundred times
# a dirty write, umount, and a program that locks and checks the image at once.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires_fuse
requires qemu-img

imgctl create -q -f qcow2 a.qcow2 64M
random_file data 70000
for i in $(seq 100); do
	mount_img -o rw a.qcow2 m
	dd if=data of=m/disk bs=70000 seek="$i" conv=notrunc status=none
	"$top_builddir/umount.fuse.imgfs" "$tmp/m"
	assert_eq "$(daemons_here)" "" "daemons after umount $i"
	qemu-img check -q a.qcow2 || fail "qemu-img check after umount $i"
done
qemu-img convert -O raw a.qcow2 a.raw
for i in 1 50 100; do
	cmp -n 70000 -i 0:$((i * 70000)) data a.raw
done

# Options of umount(8) reach it; -l does not wait.
mount_img a.qcow2 m
exec 5<m/disk
assert_fails "$top_builddir/umount.fuse.imgfs" "$tmp/m"
assert_contains "$(cat err)" "busy"
"$top_builddir/umount.fuse.imgfs" "$tmp/m" -l -n
pid=$(daemon_of m)
alive "$pid" || fail "the daemon ended under an open file"
exec 5<&-
wait_until 10 gone "$pid" || fail "the daemon outlived a lazy umount"

# A second place where it is mounted keeps the daemon, and not umount.
mkdir m2
mount_img a.qcow2 m
mount --bind m m2
timeout 10 "$top_builddir/umount.fuse.imgfs" "$tmp/m"
cmp -n 70000 -i 70000:0 m2/disk data
pid=$(daemons_here)
timeout 10 "$top_builddir/umount.fuse.imgfs" "$tmp/m2"
gone "$pid" || fail "the daemon outlived umount"
