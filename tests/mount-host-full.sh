#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The host's disk is full in the middle of a write: the writer hears of it, what
# was there before is there, and once there is space the mount goes on.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires_fuse
requires qemu-img

mkdir host
mount -t tmpfs -o size=24m none host
random_file data 8388608

for fmt in qcow2 raw; do
	qemu-img create -q -f $fmt host/a.img 64M
	mount_img -o "rw,format=$fmt" host/a.img m
	dd if=data of=m/disk bs=64k conv=notrunc,fsync status=none
	rc=0
	dd if=/dev/urandom of=m/disk bs=64k seek=200 count=800 \
		conv=notrunc status=none 2>err || rc=$?
	[ $rc -ne 0 ] || fail "$fmt: a write to a full host succeeded"
	assert_contains "$(cat err)" 'No space left on device' "$fmt"
	# Not the end of it: what is there can be read and overwritten.
	cmp -n 8388608 data m/disk
	dd if=data of=m/disk bs=64k count=4 conv=notrunc status=none || :
	dd if=m/disk bs=1M count=8 iflag=direct status=none | cmp - data
	mount -o remount,size=128m host
	dd if=data of=m/disk bs=64k seek=300 conv=notrunc,fsync status=none
	cmp -n 8388608 data m/disk
	cmp -i 0:19660800 -n 8388608 data m/disk
	umount_img m
	[ $fmt = raw ] || qemu-img check -q host/a.img
	qemu-img convert -q -f $fmt -O raw host/a.img copied
	cmp -n 8388608 data copied
	cmp -i 0:19660800 -n 8388608 data copied
	rm -f host/a.img copied
	mount -o remount,size=24m host
done
