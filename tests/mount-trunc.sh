#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# O_TRUNC does not even blink: who reads meanwhile never comes up short.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img

random_file data 8388608
qemu-img convert -q -f raw -O qcow2 data a.qcow2
mount_img -o rw a.qcow2 m

truncating() {
	while [ ! -e stop ]; do
		: > m/disk
	done
}
background truncating

i=0
while [ $i -lt 40 ]; do
	dd if=m/disk bs=128k status=none | cmp - data
	assert_eq "$(stat -c %s m/disk)" 8388608 "size"
	i=$((i + 1))
done
touch stop
wait "$pid"
umount_img m
