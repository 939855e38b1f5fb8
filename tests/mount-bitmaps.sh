#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# bitmaps/ of a mount: mkdir, rmdir, the files of one, the same by ctl; names
# that cannot be file names; what is written through the mount is recorded, kept
# when it is unmounted, and never believed after a kill.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
. "$top_srcdir/tests/lib-bitmap.sh"
requires_fuse
requires qemu-img qemu-nbd python3

# dirty MAP: "START+LENGTH ..." of a map.json.
dirty() {
	python3 -c 'import json, sys
print(" ".join("%d+%d" % (r["start"], r["length"])
               for r in json.load(open(sys.argv[1])) if r["dirty"]))' "$1"
}

put() {
	dd if=/dev/zero of=m/disk bs=64k seek="$1" count="$2" conv=notrunc \
		status=none
}

qemu-img create -q -f qcow2 a.qcow2 64M
mount_img -o rw a.qcow2 m
assert_eq "$(ls m/bitmaps)" ""
put 0 4
mkdir m/bitmaps/b0
assert_eq "$(dirty m/bitmaps/b0/map.json)" ""
put 16 2
put 512 1
assert_eq "$(dirty m/bitmaps/b0/map.json)" "1048576+131072 33554432+65536"
assert_contains "$(cat m/bitmaps/b0/info.json)" '"count": 196608'
assert_eq "$(cat m/bitmaps/b0/enabled)" 1
# While it is written to as well.
assert_contains "$(cat m/info)" "name: b0"
# Holes and zeroes are writes.
fallocate -p -o 4M -l 1M m/disk
echo 'bitmap --add -g 4k --merge b0 b1' > m/ctl
put 32 1
assert_eq "$(dirty m/bitmaps/b1/map.json)" \
	"1048576+131072 2097152+65536 4194304+1048576 33554432+65536"
echo 'bitmap --clear b1' > m/ctl
assert_eq "$(dirty m/bitmaps/b1/map.json)" ""
echo 0 > m/bitmaps/b1/enabled
put 100 1
assert_eq "$(cat m/bitmaps/b1/enabled)" 0
assert_eq "$(dirty m/bitmaps/b1/map.json)" ""
echo 1 > m/bitmaps/b1/enabled
put 101 1
assert_eq "$(dirty m/bitmaps/b1/map.json)" 6619136+65536

# A snapshot is applied: what is different is dirty, also in one that is not in
# the file yet.
mkdir m/snapshots/s
put 103 1
echo 'bitmap --clear b1' > m/ctl
echo 'snapshot -a s' > m/ctl
assert_eq "$(dirty m/bitmaps/b1/map.json)" 6750208+65536
rmdir m/snapshots/s
echo 'bitmap --clear b1' > m/ctl
put 101 1

# What cannot be.
assert_fails mkdir m/bitmaps/b0
assert_fails rmdir m/bitmaps/nosuch
assert_fails sh -c 'echo "bitmap --merge nosuch b0" > m/ctl'
assert_contains "$(head -n 1 m/status)" "Dirty bitmap 'nosuch' not found"
assert_fails sh -c 'echo "bitmap b0" > m/ctl'
assert_fails sh -c 'echo "bitmap --add -g 1000 x" > m/ctl'
assert_fails sh -c 'echo 2 > m/bitmaps/b0/enabled'
assert_fails mv m/bitmaps/b0 m/bitmaps/b9
# Each action on the result of the one before; those before a failing one stay.
assert_fails sh -c 'echo "bitmap --add --disable --merge nosuch x" > m/ctl'
assert_eq "$(cat m/bitmaps/x/enabled)" 0
rmdir m/bitmaps/x

# Any name.
long=$(printf 'ä%.0s' $(seq 255))
for name in 'a/b' . .. '50%' '%41' ' x ' "$long"; do
	imgctl_name=$(printf %s "$name" | sed "s/'/'\\\\''/g")
	echo "bitmap --add -- '$imgctl_name'" > m/ctl
done
ls m/bitmaps > names
assert_eq "$(wc -l < names)" 9
for shown in 'a%2Fb' '%2E' '%2E.' '50%' '%2541' ' x '; do
	grep -qxF -- "$shown" names || fail "'$shown' is not listed"
	rmdir "m/bitmaps/$shown"
done
shown=$(grep '^ä' names)
assert_eq "$(python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))["name"])' "m/bitmaps/$shown/info.json")" \
	"$long"
rmdir "m/bitmaps/$shown"
mkdir 'm/bitmaps/c%2Fd'
assert_contains "$(cat 'm/bitmaps/c%2Fd/info.json')" '"name": "c/d"'
rmdir 'm/bitmaps/c%2Fd'
assert_fails mkdir m/bitmaps/%41

# Kept, and QEMU sees the same.
was0=$(dirty m/bitmaps/b0/map.json)
was1=$(dirty m/bitmaps/b1/map.json)
umount_img m
qemu-img check -q a.qcow2
assert_eq "$(qemu_dirty a.qcow2 b0)" "$was0"
assert_eq "$(qemu_dirty a.qcow2 b1)" "$was1"
assert_eq "$(state a.qcow2 b1)" auto:4096

# Read-only: all can be seen, nothing changed.
mount_img a.qcow2 m
assert_eq "$(dirty m/bitmaps/b0/map.json)" "$was0"
assert_fails mkdir m/bitmaps/b2
assert_fails rmdir m/bitmaps/b0
assert_fails sh -c 'echo 0 > m/bitmaps/b0/enabled'
umount_img m

# A kill: what was recorded is not believed, whatever was stored before.
mount_img -o rw a.qcow2 m
exec 5<>m/disk
put 200 1
rmdir m/bitmaps/b1
mkdir m/bitmaps/b2
sync m/disk
kill_img m
exec 5>&-
assert_eq "$(state a.qcow2 b0)" in-use,auto:65536
qemu-img check -q a.qcow2
mount_img -o rw a.qcow2 m
assert_contains "$(cat m/bitmaps/b0/info.json)" '"inconsistent": true'
assert_fails cat m/bitmaps/b0/map.json
assert_fails sh -c 'echo "bitmap --clear b0" > m/ctl'
for b in m/bitmaps/*; do
	rmdir "$b"
done
umount_img m
qemu-img check -q a.qcow2

# A format without them has no such directory; a backing file's can be seen.
qemu-img create -q -f raw r.raw 1M
mount_img -o rw r.raw m
[ ! -e m/bitmaps ] || fail "raw images have no bitmaps"
assert_fails sh -c 'echo "bitmap --add x" > m/ctl'
umount_img m
imgctl bitmap --add a.qcow2 below
qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2
mount_img -o rw top.qcow2 m
assert_eq "$(ls m/backing/bitmaps)" below
assert_eq "$(dirty m/backing/bitmaps/below/map.json)" ""
assert_fails rmdir m/backing/bitmaps/below
umount_img m
