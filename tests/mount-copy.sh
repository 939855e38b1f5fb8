#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Ordinary programs copy to and from `disk`: every byte arrives, O_TRUNC of the
# target shortens nothing, copies are sparse, mappings read.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img python3 sha256sum

random_file data 3000000
truncate -s 16M in.raw
dd if=data of=in.raw bs=64k seek=20 conv=notrunc status=none
dd if=data of=in.raw bs=1000 seek=12345 count=1111 conv=notrunc status=none
sum=$(sha256sum < in.raw)

# copy_with COMMAND...: in.raw -> m/disk, seen by qemu-img after umount.
copy_with() {
	qemu-img create -q -f qcow2 a.qcow2 16M
	mount_img -o rw a.qcow2 m
	"$@"
	assert_eq "$(stat -c %s m/disk)" 16777216 "size after: $*"
	assert_eq "$(sha256sum < m/disk)" "$sum" "read back after: $*"
	umount_img m
	qemu-img check -q a.qcow2
	qemu-img compare -q -f raw -F qcow2 in.raw a.qcow2
}

copy_with cp in.raw m/disk
copy_with cp --sparse=always in.raw m/disk
copy_with cp --sparse=never in.raw m/disk
copy_with dd if=in.raw of=m/disk bs=1M status=none
copy_with dd if=in.raw of=m/disk bs=64k oflag=direct status=none
copy_with dd if=in.raw of=m/disk bs=4k conv=notrunc,fsync status=none
# shellcheck disable=SC2016
copy_with sh -c 'cat in.raw > m/disk'

# From the mount.
mount_img a.qcow2 m
cp m/disk copied
assert_same in.raw copied
cp --sparse=always m/disk copied
assert_same in.raw copied
[ "$(stat -c %b copied)" -lt 16000 ] || fail "the copy has no holes"
dd if=m/disk of=copied bs=1M iflag=direct status=none
assert_same in.raw copied
tail -c 5000000 m/disk > tail.out
tail -c 5000000 in.raw | cmp - tail.out
assert_eq "$(sha256sum < m/disk)" "$sum" "sha256sum"
python3 - <<'END'
import mmap
with open('m/disk', 'rb') as f, open('in.raw', 'rb') as g:
    assert mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)[:] \
        == g.read()
END
assert_fails dd if=data of=m/disk bs=4k count=1 conv=notrunc status=none
umount_img m

# A chain: only the overlay changes.
sum=$(sha256sum < a.qcow2)
qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2
mount_img -o rw top.qcow2 m
dd if=data of=m/disk bs=100000 seek=3 count=7 conv=notrunc status=none
cp m/disk copied
cp m/backing/disk base.out
assert_same in.raw base.out
assert_fails dd if=data of=m/backing/disk bs=4k count=1 conv=notrunc \
	status=none
umount_img m
dd if=data of=in.raw bs=100000 seek=3 count=7 conv=notrunc status=none
assert_same in.raw copied
qemu-img compare -q -f raw -F qcow2 in.raw top.qcow2
assert_eq "$(sha256sum < a.qcow2)" "$sum" "the base changed"
