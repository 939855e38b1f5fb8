#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small image with 16.7 million extents: its L1 entries share one L2 table.

map.json streams within bounded memory, whoever reads it can be interrupted,
and stat, lseek and df answer at once meanwhile.
"""
import os
import signal
import subprocess
import time

import testlib
from testlib import MIB, run

CLUSTER = 65536
L1 = 2048


def make(name):
    """Every second entry of the shared table is data: none of them merge."""
    size = L1 * (CLUSTER // 8) * CLUSTER
    run("qemu-img", "create", "-q", "-f", "qcow2", name, str(size))
    with open(name, "r+b") as f:
        l1 = int.from_bytes(os.pread(f.fileno(), 8, 40), "big")
        l2, data = 4 * CLUSTER, 5 * CLUSTER
        assert l1 + L1 * 8 <= l2
        f.truncate(6 * CLUSTER)
        f.seek(data)
        f.write(b"x" * CLUSTER)
        f.seek(l1)
        f.write(l2.to_bytes(8, "big") * L1)
        f.seek(l2)
        f.write((data.to_bytes(8, "big") + bytes(8)) * (CLUSTER // 16))
    return size


def resident(pid):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024


def interrupted_within(seconds, args, sig):
    """Starts the reader, lets it run, ends it by @sig."""
    p = subprocess.Popen(args, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    time.sleep(0.7)
    assert p.poll() is None, "it has ended by itself"
    begin = time.monotonic()
    p.send_signal(sig)
    p.wait(20)
    took = time.monotonic() - begin
    assert took < seconds, f"{args} took {took:.1f} s to end"


testlib.requires_fuse()
testlib.requires("qemu-img")
make("a.qcow2")
with testlib.mounted("a.qcow2") as m:
    pid = testlib.mounts[m]
    begin = time.monotonic()
    assert os.stat(m + "/map.json").st_size == 0
    assert os.stat(m + "/disk").st_blocks > 0
    fd = os.open(m + "/disk", os.O_RDONLY)
    assert os.fstat(fd).st_blocks > 0
    assert os.lseek(fd, CLUSTER, os.SEEK_DATA) == 2 * CLUSTER
    assert os.lseek(fd, CLUSTER, os.SEEK_HOLE) == CLUSTER
    took = time.monotonic() - begin
    assert took < 1, f"stat and lseek took {took:.1f} s"
    os.close(fd)

    # Ten megabytes of it are what imgctl prints.
    n = 10 * MIB
    with open(m + "/map.json", "rb") as f:
        got = f.read(n)
    p = subprocess.Popen([testlib.IMGCTL, "map", "-U", "--output=json",
                          "a.qcow2"], stdout=subprocess.PIPE)
    want = p.stdout.read(n)
    p.kill()
    p.wait()
    p.stdout.close()
    assert got == want

    # A read behind the cursor starts again.
    fd = os.open(m + "/map.json", os.O_RDONLY)
    for off in 0, 3 * MIB + 7, 1000, 0, 5 * MIB:
        assert os.pread(fd, 5000, off) == want[off:off + 5000]
    os.close(fd)

    interrupted_within(1, ["cat", m + "/map.json"], signal.SIGINT)
    interrupted_within(1, ["cat", m + "/map.json"], signal.SIGKILL)
    # All of it at once: the read lasts, and must end when it is told to.
    far = f"import os; os.pread(os.open('{m}/map.json', 0), 1, 1500 << 20)"
    for sig in signal.SIGINT, signal.SIGKILL:
        interrupted_within(1, ["python3", "-c", far], sig)
    used = resident(pid)
    assert used < 64 * MIB, f"{used} bytes resident"
