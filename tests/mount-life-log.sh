#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Where a fault of the background is told: log=FILE, syslog, or stderr with -f;
# one line for one fault, however often it is met, and no guest data.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires_fuse
requires unshare python3 qemu-img qemu-io

# An L2 entry with bits that no version of the format has.
qemu-img create -q -f qcow2 a.qcow2 64M
qemu-io -c 'write -P 65 0 1M' a.qcow2 >/dev/null
python3 - <<'END'
import struct
with open("a.qcow2", "r+b") as f:
    f.seek(40)
    f.seek(struct.unpack(">Q", f.read(8))[0])
    table = struct.unpack(">Q", f.read(8))[0] & 0xfffffffffffe00
    f.seek(table)
    f.write(bytes.fromhex("8000000000001234"))
END
mkdir m

meet_fault() {
	for i in 1 2 3; do
		assert_fails head -c 10 m/disk
	done
}

one_line() {
	assert_eq "$(grep -c 'a.qcow2: Image is corrupt' "$1")" 1 "lines in $1"
	assert_eq "$(grep -c AAAA "$1" || :)" 0 "guest data in $1"
}

mount_img -o log=log a.qcow2 m
meet_fault
umount_img m
one_line log

"$IMGFS" -f a.qcow2 m 2>foreground &
started="$started $!"
wait_until 10 test -f m/disk
meet_fault
umount_img m
wait $!
one_line foreground

# syslog: a /dev of our own with a socket that writes down what it is sent.
cat > syslog.py <<'END'
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("dev/log")
with open("syslog", "wb", buffering=0) as out:
    while True:
        out.write(s.recv(4096) + b"\n")
END
mkdir dev
background python3 syslog.py
wait_until 10 test -S dev/log
export tmp
unshare -m --propagation private sh -ec '
	touch dev/fuse dev/null
	mount --bind /dev/fuse dev/fuse
	mount --bind /dev/null dev/null
	mount --rbind dev /dev
	imgfs a.qcow2 m
	head -c 10 m/disk 2>/dev/null || :
	head -c 10 m/disk 2>/dev/null || :
	umount -i m'
told() {
	grep -q 'a.qcow2: Image is corrupt' syslog
}
wait_until 10 told || fail "nothing in syslog"
one_line syslog
assert_contains "$(cat syslog)" "imgfs["
