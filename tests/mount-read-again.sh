#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What was written through a mount is read from the image, not from the kernel's
# pages, when its last writer has gone: the image is as long as it became, in
# every format that is written.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse

random_file data 5000000
truncate -s 12M data
for fmt in raw qcow2 qcow qed parallels vdi vpc vhdx vmdk; do
	imgctl create -q -f $fmt a.img 12M
	cp data want
	truncate -s "$(imgctl info --output=json a.img |
		sed -n 's/^    "virtual-size": \([0-9]*\).*/\1/p')" want
	mount_img -o rw a.img m
	for times in 1 2; do
		dd if=want of=m/disk bs=1M seek=$((times * 5 - 5)) \
			skip=$((times * 5 - 5)) count=5 conv=notrunc status=none
		wait_until 10 grep -q "open for reading" m/status
		head -c $((times * 5242880)) want >part
		dd if=m/disk bs=1M count=$((times * 5)) iflag=direct \
			status=none >got || fail "$fmt is not read"
		cmp got part || fail "$fmt is read otherwise"
		[ -n "$(cat m/map)" ] && [ -n "$(cat m/info)" ] || fail "no map of $fmt"
	done
	umount_img m
	imgctl compare -q -f $fmt -F raw a.img want
	rm a.img
done
