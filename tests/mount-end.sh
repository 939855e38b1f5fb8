#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The end of a disk: writes across it are cut, from it on ENOSPC, also with
# O_DIRECT; no truncate shortens it; growable images grow, where the format can.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img python3

random_file data 3145728

# past_end DISK FILE: one MiB more than fits.
past_end() {
	for flags in '' oflag=direct; do
		# shellcheck disable=SC2086
		assert_fails dd if=data of="$1" bs=256k conv=notrunc $flags
		assert_contains "$(cat err)" 'No space left on device' "$flags"
		assert_eq "$(stat -c %s "$1")" 2097152 "size of the disk"
		cmp -n 2097152 data "$1"
	done
}

# errno_of CODE: python's name of the error that CODE raises.
errno_of() {
	python3 - "$1" <<'END'
import errno, os, sys
try:
    exec(sys.argv[1])
    print('ok')
except OSError as e:
    print(errno.errorcode[e.errno])
END
}

for fmt in raw qcow2; do
	qemu-img create -q -f $fmt a.$fmt 2M
	mount_img -o rw a.$fmt m
	past_end m/disk
	# Across the end: short.
	assert_eq "$(errno_of 'print(os.pwrite(os.open("m/disk", os.O_RDWR),
		b"x" * 8192, 2097152 - 4096))')" "4096
ok" "a write across the end"
	assert_eq "$(errno_of 'os.pwrite(os.open("m/disk", os.O_RDWR), b"x",
		2097152)')" ENOSPC "a write at the end"
	assert_eq "$(errno_of 'os.truncate("m/disk", 0)')" ok "O_TRUNC"
	assert_eq "$(errno_of 'os.truncate("m/disk", 2097152)')" ok "same size"
	assert_eq "$(errno_of 'os.truncate("m/disk", 4096)')" EPERM "shrink"
	assert_eq "$(errno_of 'os.truncate("m/disk", 2097153)')" EFBIG "grow"
	assert_eq "$(stat -c %s m/disk)" 2097152 "size afterwards"
	cmp -n 2000000 data m/disk
	umount_img m
	assert_eq "$(qemu-img info --output=json a.$fmt |
		sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | tail -n 1)" \
		2097152 "virtual size"
done
assert_eq "$(stat -c %s a.raw)" 2097152 "size of the raw file"

for fmt in raw qcow2; do
	mount_img -o rw,growable a.$fmt m
	dd if=data of=m/disk bs=1M count=3 conv=notrunc status=none
	assert_eq "$(stat -c %s m/disk)" 3145728 "grown by writing"
	cmp data m/disk
	truncate -s 4M m/disk
	assert_eq "$(stat -c %s m/disk)" 4194304 "grown by truncate"
	assert_eq "$(errno_of 'os.truncate("m/disk", 4096)')" EPERM "shrink"
	cat data >> m/disk
	umount_img m
	truncate -s 4M data.want
	dd if=data of=data.want bs=1M conv=notrunc status=none
	cat data >> data.want
	qemu-img convert -f $fmt -O raw a.$fmt grown
	assert_same data.want grown
	rm data.want
done
assert_same grown a.raw

qemu-img create -q -f vdi a.vdi 2M
mount_img -o rw,growable a.vdi m
assert_eq "$(errno_of 'os.truncate("m/disk", 4194304)')" ENOTSUP vdi
assert_eq "$(stat -c %s m/disk)" 2097152 "size"
umount_img m
