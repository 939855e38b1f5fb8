#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# An image that is locked, corrupt, of an unknown feature or without its backing
# file keeps its directory: status says why, info says what it can, and the
# others are served.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img qemu-io mkfifo

mkdir src
for i in good locked cut feature; do
	qemu-img create -q -f qcow2 src/$i.qcow2 4M
	qemu-io -c 'write -P 65 0 64k' src/$i.qcow2 >/dev/null
done
qemu-img create -q -f qcow2 src/gone.qcow2 4M
qemu-img create -q -f qcow2 -b gone.qcow2 -F qcow2 src/orphan.qcow2
rm src/gone.qcow2
truncate -s 100 src/cut.qcow2
# Incompatible feature bit 47.
printf '\000\000\200\000\000\000\000\000' |
	dd of=src/feature.qcow2 bs=1 seek=72 conv=notrunc status=none

mkfifo commands
exec 6<>commands
background sh -c 'exec qemu-io -f qcow2 src/locked.qcow2 <commands >/dev/null'
holds() {
	cat "/proc/$pid"/fdinfo/* 2>/dev/null | grep -q 'OFDLCK.* 201'
}
wait_until 5 holds

mount_img -o rw,idle=1 src m
assert_eq "$(ls m | tr '\n' ' ')" \
	"cut.qcow2 feature.qcow2 good.qcow2 locked.qcow2 orphan.qcow2 "
ls -lR m >/dev/null || fail "the listing fails because of one image"
assert_eq "$(head -c 2 m/good.qcow2/disk)" AA

for i in locked cut feature orphan; do
	assert_fails head -c 1 m/$i.qcow2/disk
	line=$(head -n 1 m/$i.qcow2/status)
	[ "$line" != ok ] || fail "status of $i says ok"
	echo "$i: $line"
done
assert_contains "$(cat m/locked.qcow2/status)" 'lock' "status: locked"
assert_contains "$(cat m/feature.qcow2/status)" 'nsupported' "status: feature"
assert_contains "$(cat m/orphan.qcow2/status)" 'gone.qcow2' "status: orphan"

# What can be said without the rest.
for i in locked orphan; do
	assert_contains "$(cat m/$i.qcow2/info)" "virtual size: 4 MiB" "info"
	assert_eq "$(stat -c %s m/$i.qcow2/disk)" 4194304 "size of $i"
done
assert_eq "$(python3 -c 'import os
try: open("m/locked.qcow2/disk").close()
except OSError as e: print(os.strerror(e.errno))')" "Text file busy"

# Once it is free it is served.
end_process "$pid"
assert_eq "$(head -c 2 m/locked.qcow2/disk)" AA
assert_eq "$(head -n 1 m/locked.qcow2/status)" ok
umount_img m

# A single image: a sentence, and no mount.
assert_rc 1 imgfs src/cut.qcow2 m
assert_contains "$(cat err)" "cut.qcow2" "message"
assert_rc 1 imgfs src/missing.qcow2 m
assert_contains "$(cat err)" "missing.qcow2" "message"
mountpoint -q m && fail "mounted nevertheless"
exit 0
