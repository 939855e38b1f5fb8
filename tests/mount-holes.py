#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""SEEK_DATA and SEEK_HOLE follow the map; st_blocks tells cp and tar the truth.

The map is qemu-img's.  No blocks is said only of what has no data, and fewer
than the size only of what has holes (F14).
"""
import errno
import json
import os

import testlib
from testlib import MIB, run

SIZE = 64 * MIB


def data_runs(name):
    """What qemu-img says is not zero, merged."""
    runs = []
    for e in json.loads(run("qemu-img", "map", "--output=json", name)):
        if e["zero"]:
            continue
        if runs and runs[-1][1] == e["start"]:
            runs[-1][1] += e["length"]
        else:
            runs.append([e["start"], e["start"] + e["length"]])
    return runs


def seek_runs(path):
    runs = []
    fd = os.open(path, os.O_RDONLY)
    at = 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            assert e.errno == errno.ENXIO
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        runs.append([start, at])
    size = os.fstat(fd).st_size
    for beyond in size, size + 1:
        for whence in os.SEEK_DATA, os.SEEK_HOLE:
            assert testlib.errname(os.lseek, fd, beyond, whence) == "ENXIO"
    os.close(fd)
    return runs


def settled_blocks(fd, want):
    """Exact after the count in the background."""
    testlib.wait_until(10, lambda: os.fstat(fd).st_blocks == want,
                       f"st_blocks is not {want}")


def write(fd, off, n, byte=b"x"):
    assert os.pwrite(fd, byte * n, off) == n


def growing(name, unit, options):
    with testlib.mounted(name, options=options) as m:
        disk = m + "/disk"
        assert os.stat(disk).st_blocks > 0, "unknown is not none"
        fd = os.open(disk, os.O_RDWR)
        settled_blocks(fd, 0)
        want = 0
        for off in 5 * MIB, 0, SIZE - MIB:
            write(fd, off, MIB)
            want += MIB // 512
            settled_blocks(fd, want)
        write(fd, 30 * MIB, 1)
        settled_blocks(fd, want + unit // 512)
        os.fsync(fd)
        run("tar", "cSf", "t.tar", "-C", m, "disk")
        run("cp", disk, "copy")
        run("cmp", disk, "copy")
        assert os.stat("copy").st_blocks * 512 <= 5 * MIB
        run("fallocate", "-p", "-o", str(5 * MIB), "-l", str(MIB), disk)
        settled_blocks(fd, want - MIB // 512 + unit // 512)
        os.close(fd)
        os.makedirs("t", exist_ok=True)
        run("tar", "xf", "t.tar", "-C", "t")
        run("cmp", "copy", "t/disk")
        fd = os.open(disk, os.O_RDWR)
        for off in range(0, SIZE, MIB):
            write(fd, off, MIB)
        settled_blocks(fd, SIZE // 512)
        os.close(fd)


def scattered():
    """Many extents, some packed, over a base with holes of its own."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "32M")
    io = ["-c", "write 1M 3M", "-c", "write 20M 64k", "-c", "write 31M 1M"]
    run("qemu-io", "-f", "qcow2", *io, "base.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F",
        "qcow2", "top.qcow2", str(SIZE))
    io = []
    for i in range(100):
        io += ["-c", f"write {i * 640}k {i % 9 * 4 + 4}k"]
    io += ["-c", "write -c 64000k 64k", "-c", "write -z 2M 1M"]
    run("qemu-io", "-f", "qcow2", *io, "top.qcow2")
    want = data_runs("top.qcow2")
    assert len(want) > 50
    with testlib.mounted("top.qcow2") as m:
        assert seek_runs(m + "/disk") == want
        assert seek_runs(m + "/backing/disk") == data_runs("base.qcow2")
        fd = os.open(m + "/disk", os.O_RDONLY)
        settled_blocks(fd, sum(e - s for s, e in want) // 512)
        os.close(fd)


testlib.requires_fuse()
testlib.requires("qemu-img", "qemu-io", "tar", "fallocate")
run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", str(SIZE))
growing("a.qcow2", 65536, "rw")
os.truncate(os.open("a.raw", os.O_RDWR | os.O_CREAT), SIZE)
growing("a.raw", 4096, "rw,format=raw")
scattered()
