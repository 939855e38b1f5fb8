#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 240
# fio --verify on `disk`: several jobs, buffered and direct, with trims and
# flushes between; every cache mode; the image is sound afterwards.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires fio qemu-img

# verify NAME OPTIONS...: four jobs on a quarter of the disk each.
verify() {
	name=$1
	shift
	fio --name="$name" --filename=m/disk --numjobs=4 --size=16M \
		--offset_increment=16M --bsrange=512-65536 --bs_unaligned \
		--verify=crc32c --verify_fatal=1 --do_verify=1 \
		--group_reporting --randrepeat=1 --allow_file_create=0 \
		--minimal "$@" >log 2>&1 || { cat log; fail "fio $name"; }
}

for how in '' ,cache=none ,cache=writeback ,cache=unsafe; do
	rm -f a.qcow2
	qemu-img create -q -f qcow2 -o cluster_size=16k a.qcow2 64M
	mount_img -o "rw$how" a.qcow2 m
	verify buffered --rw=randwrite --ioengine=psync --fsync=64
	verify direct --rw=randwrite --ioengine=libaio --iodepth=16 \
		--direct=1 --bsrange=4k-64k --bs_unaligned=0
	umount_img m
	qemu-img check -q a.qcow2
done

# A guest that trims what it wrote: through a loop device, which alone sends
# discards.
if [ "$(id -u)" -eq 0 ] && losetup -f >/dev/null 2>&1; then
	mount_img -o rw a.qcow2 m
	loop_attach --direct-io=on m/disk
	fio --name=trim --filename="$loop" --numjobs=2 --size=32M \
		--offset_increment=32M --rw=randtrimwrite --ioengine=libaio \
		--iodepth=8 --direct=1 --bs=16k --verify=crc32c \
		--verify_fatal=1 --do_verify=1 --minimal >log 2>&1 ||
		{ cat log; fail "fio with trims"; }
	loop_detach "$loop"
	umount_img m
	qemu-img check -q a.qcow2
fi
