#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 240
# A day of an administrator: a folder with the image of a running machine, a
# chain of three, a split VMDK and a text file; a raw disk is copied onto an
# image, its partitions are used as block devices, machines start meanwhile; in
# the end the daemon is killed in the middle of writing.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires_fuse
requires_loop
requires qemu-img qemu-io qemu-storage-daemon mke2fs sfdisk partx fstrim \
	python3

# A machine runs on the image $1 until end_process "$pid".
machine() {
	rm -f ready
	background qemu-storage-daemon --pidfile ready \
		--blockdev "driver=file,node-name=f,filename=$1" \
		--blockdev driver=qcow2,node-name=q,file=f \
		--export type=fuse,id=e,node-name=q,mountpoint="$PWD/vm",writable=on
	wait_until 20 test -s ready || fail "no machine starts on $1"
}

mkdir src
: >vm
for i in running idle base; do
	qemu-img create -q -f qcow2 src/$i.qcow2 256M
done
qemu-io -c 'write -P 1 0 1M' src/base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 src/middle.qcow2
qemu-io -c 'write -P 2 512k 1M' src/middle.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 src/top.qcow2
qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse src/split.vmdk 3G
qemu-io -c 'write -P 3 2100M 1M' src/split.vmdk >/dev/null
echo "not an image" >src/notes.txt
qemu-img convert -O raw src/top.qcow2 top.want
machine src/running.qcow2
running=$pid

# A raw disk with a partition and a file system.
mkdir files
cp "$top_srcdir/ARCHITECTURE.md" files/
dd if=/usr/bin/python3 of=files/big bs=1M count=5 status=none
cp files/big files/gone
truncate -s 256M disk.raw
printf 'label: gpt\nstart=1MiB, size=250MiB\n' | sfdisk -q disk.raw
mke2fs -q -t ext4 -d files -E offset=1048576 disk.raw 250M

mount_img -o rw,idle=1 src m
assert_eq "$(ls m | tr '\n' ' ')" \
	"base.qcow2 idle.qcow2 middle.qcow2 running.qcow2 split.vmdk top.qcow2 "
cmp top.want m/top.qcow2/disk
assert_eq "$(dd if=m/split.vmdk/disk bs=1M skip=2100 count=1 status=none |
	tr -d '\003' | wc -c)" 0 "bytes of the split disk"
# What runs is locked, and says so.
assert_fails dd if=/dev/zero of=m/running.qcow2/disk bs=4k count=1 \
	conv=notrunc status=none
assert_contains "$(cat m/running.qcow2/status)" "lock"

cp --sparse=always disk.raw m/idle.qcow2/disk
loop_attach -P m/idle.qcow2/disk
# Not every kernel reads partition tables.
wait_until 2 test -b "${loop}p1" || partx -a "$loop"
wait_until 10 test -b "${loop}p1" || fail "no partition"
mkdir guest
mount "${loop}p1" guest
cmp files/ARCHITECTURE.md guest/ARCHITECTURE.md
# A machine starts on an image that nobody has open.
cat m/base.qcow2/info >/dev/null
closed() {
	grep -q closed m/base.qcow2/status
}
cat m/top.qcow2/disk >/dev/null
wait_until 20 closed || fail "not closed"
qemu-io -r -c 'read -P 1 0 4k' src/base.qcow2 | grep -q "read 4096"
rm guest/gone
sync -f guest/ARCHITECTURE.md
before=$(stat -c %b src/idle.qcow2)
fstrim guest
sync -f guest/ARCHITECTURE.md
umount guest
loop_detach "$loop"
python3 -c "import os; os.fsync(os.open('m/idle.qcow2/disk', os.O_RDWR))"
[ "$(stat -c %b src/idle.qcow2)" -lt $((before - 8000)) ] ||
	fail "fstrim gave nothing back: $before, $(stat -c %b src/idle.qcow2)"
umount_img m

# One starts on the image just written.
end_process "$running"
qemu-img check -q src/idle.qcow2
machine src/idle.qcow2
python3 - <<'END'
with open('vm', 'rb') as f:
    f.seek(510)
    assert f.read(2) == b'\x55\xaa'
END
end_process "$pid"

# Killed in the middle of writing; what was synced before stays.
mount_img -o rw src m
dd if=/usr/bin/python3 of=m/running.qcow2/disk bs=64k seek=100 count=80 \
	conv=notrunc,fsync status=none
background dd if=/dev/urandom of=m/running.qcow2/disk bs=64k seek=1000 \
	conv=notrunc status=none
sleep 0.4
kill_img m
end_process "$pid"
rc=0
qemu-img check -q src/running.qcow2 || rc=$?
[ $rc -eq 0 ] || [ $rc -eq 3 ] || fail "qemu-img check: $rc"
qemu-img convert -O raw src/running.qcow2 after.raw
dd if=after.raw bs=64k skip=100 count=80 status=none |
	cmp -n $((80 << 16)) - /usr/bin/python3 ||
	fail "what was synced is lost"
