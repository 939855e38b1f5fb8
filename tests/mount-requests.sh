#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the kernel asks: no GETXATTR per write (F12), no READ for what it has
# kept (F6), and nothing waits for an answer at the end (F24).
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img mountpoint

qemu-img create -q -f qcow2 a.qcow2 8M
mkdir m
background "$IMGFS" -d -o rw a.qcow2 "$tmp/m" >log 2>&1
daemon=$pid
wait_until 10 mountpoint -q m || { cat log; fail "not mounted"; }

count() {
	grep -c "opcode: $1 " log || :
}

dd if=/dev/zero of=m/disk bs=4k count=500 conv=notrunc status=none
[ "$(count WRITE)" -ge 500 ] || fail "only $(count WRITE) writes"
[ "$(count GETXATTR)" -le 1 ] || fail "$(count GETXATTR) GETXATTR"

cat m/disk > copy
before=$(count READ)
[ "$before" -gt 0 ] || fail "no READ"
cat m/disk | cmp - copy
assert_eq "$(count READ)" "$before" "READs after a second cat"

# Every kind of request was answered.
cat m/info m/status m/map.json m/check >/dev/null 2>&1 || :
echo flush > m/ctl
echo bad > m/ctl 2>/dev/null || :
fallocate -p -o 0 -l 4096 m/disk
ls -lR m >/dev/null
minor=$(($(stat -c %d m) & 255 | ($(stat -c %d m) >> 12 & 1048320)))
mkdir conn
mount -t fusectl none conn 2>/dev/null || :
waiting=conn/$minor/waiting
# RELEASE and FORGET come after close has returned: they get their time.
none_waits() {
	[ "$(cat "$waiting")" = 0 ]
}
if [ -r "$waiting" ]; then
	wait_until 10 none_waits || fail "$(cat "$waiting") requests without an answer"
fi
umount -i m 2>/dev/null || fusermount3 -u m
wait_until 10 gone "$daemon" || fail "the daemon does not end"
