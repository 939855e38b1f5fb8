#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What is written is on the host's disk after some seconds, though the file
# stays open and nobody asked (F11).
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img python3

qemu-img create -q -f qcow2 a.qcow2 4M
mount_img -o rw a.qcow2 m
# A copy made behind the engine's back is what a crash would leave.
as_crashed() {
	cp a.qcow2 copy.qcow2
	qemu-img convert -U -O raw copy.qcow2 copy.raw 2>/dev/null &&
	[ "$(dd if=copy.raw bs=64k skip=16 count=1 status=none |
		head -c 5)" = hello ]
}
# Each close(2) would flush.
cat >writer.py <<'END'
import os, time
fd = os.open("m/disk", os.O_RDWR)
os.pwrite(fd, b"hello", 1 << 20)
open("written", "w").close()
time.sleep(60)
END
background python3 writer.py
wait_until 10 test -e written
! as_crashed || fail "metadata is written at once: this test shows nothing"
wait_until 15 as_crashed || fail "not written after 15 seconds"
