#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""copy_file_range between disks of one mount: the bytes, the holes, the end."""
import os

import testlib
from testlib import MIB, run


def copy_all(src, dst, n, at=0, to=0):
    done = 0
    while done < n:
        k = os.copy_file_range(src, dst, n - done, at + done, to + done)
        if not k:
            break
        done += k
    return done


testlib.requires_fuse()
testlib.requires("qemu-img")
data = os.urandom(3 * MIB + 12345)
os.mkdir("src")
run("qemu-img", "create", "-q", "-f", "qcow2", "src/a.qcow2", "16M")
run("qemu-img", "create", "-q", "-f", "raw", "src/b.raw", "8M")
with testlib.mounted("src", options="rw") as m:
    a = os.open(m + "/a.qcow2/disk", os.O_RDWR)
    b = os.open(m + "/b.raw/disk", os.O_RDWR)
    os.pwrite(a, data, MIB + 17)
    os.pwrite(b, b"\xff" * 8 * MIB, 0)
    # Zeroes and data, unaligned, from a to b.
    assert copy_all(a, b, 6 * MIB, 0, 999) == 6 * MIB
    want = bytearray(b"\xff" * 8 * MIB)
    src = bytes(MIB + 17) + data + bytes(16 * MIB - MIB - 17 - len(data))
    want[999:999 + 6 * MIB] = src[:6 * MIB]
    assert os.pread(b, 8 * MIB, 0) == want
    # Inside one disk.
    assert copy_all(a, a, MIB, MIB, 9 * MIB) == MIB
    assert os.pread(a, MIB, 9 * MIB) == src[MIB:2 * MIB]
    # Up to the end of the source, and of the target.
    assert copy_all(b, a, 2 * MIB, 7 * MIB, 12 * MIB) == MIB
    assert os.copy_file_range(a, b, MIB, 0, 8 * MIB - 100) == 100
    for _ in range(2):
        assert testlib.errname(os.copy_file_range, a, b, 10, 0, 8 * MIB) \
            == "ENOSPC"
    os.close(a)
    os.close(b)
    # Out of the mount: the program copies by itself.
    run("cp", m + "/a.qcow2/disk", "out")
    run("cmp", m + "/a.qcow2/disk", "out")
run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", "out",
    "src/a.qcow2")
run("qemu-img", "check", "-q", "src/a.qcow2")
