#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is written to disk is seen in a partition, although the kernel had cached
# its pages: at its next open, and soon in a file that is open.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires sfdisk

truncate -s 8M a.raw
printf 'label: dos\nstart=2048, size=4096\n' | sfdisk -q a.raw
mount_img -o rw a.raw m
put() {
	printf %s "$1" | dd of=m/disk bs=512 seek=2048 conv=notrunc status=none
}
put one
assert_eq "$(head -c 3 m/partitions/1)" one
put two
assert_eq "$(head -c 3 m/partitions/1)" two "at the next open"
exec 3<m/partitions/1
assert_eq "$(head -c 3 "/proc/$$/fd/3")" two
put six
# /proc's path would open it anew: read by the descriptor we have.
read_again() {
	[ "$(python3 -c 'import os, sys
sys.stdout.write(os.pread(3, 3, 0).decode())')" = six ]
}
wait_until 5 read_again || fail "an open partition shows old data"
