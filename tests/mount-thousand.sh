#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A folder of 1,000 images: ls opens none, ls -l takes few requests (F2), and
# all of them can be read with few descriptors.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img

mkdir src m
qemu-img create -q -f qcow2 src/0001.qcow2 1M
i=2
while [ $i -le 1000 ]; do
	cp src/0001.qcow2 "src/$(printf %04d $i).qcow2"
	i=$((i + 1))
done

requests() {
	grep -c 'unique: [0-9]*, opcode' log
}
background imgfs -d src m 2>log
wait_until 10 mountpoint -q m
ls m >/dev/null
assert_eq "$(ls m | wc -l)" 1000 "images"
ls -l m >/dev/null      # the first one also asks for an xattr, once
before=$(requests)
ls -l m >long
after=$(requests)
assert_eq "$(grep -c '^dr-xr-xr-x.*qcow2$' long)" 1000 "ls -l"
[ $((after - before)) -le 10 ] ||
	fail "ls -l takes $((after - before)) requests"
! ls -l "/proc/$pid/fd" | grep -q qcow2 || fail "ls leaves an image open"
umount_img m

# Each image stays open for idle= seconds: there is not room for all.
(
	ulimit -n 256
	mount_img -o idle=60 src m
	for d in $(daemon_of m); do
		prlimit --pid "$d" --nofile=256:256 2>/dev/null || true
	done
	cat m/*/disk | wc -c >size
)
assert_eq "$(cat size)" 1048576000 "bytes of all"
assert_eq "$(ls m | wc -l)" 1000 "images when descriptors are short"
assert_eq "$(ls -lR m | grep -c ' disk$')" 1000 "disks"
for d in $(daemon_of m); do
	[ "$(ls "/proc/$d/fd" | wc -l)" -le 256 ] || fail "too many descriptors"
done
