#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 120
"""The daemon is killed at random moments under load: nothing that had been
synced is lost, and qemu-img check finds nothing but leaks.

Every sector carries its number and a version.  After each kill it must hold
what was last synced or something written after it.  The writers know what that
is; fio makes noise in the other half of the disk.  KILLS=50 for more rounds
(make check-kill), SEED=N for the same ones again.
"""
import ctypes
import errno
import os
import random
import struct
import subprocess
import sys
import threading
import time

import testlib
from testlib import MIB, run

KILLS = int(os.environ.get("KILLS", "8"))
SEED = int(os.environ.get("SEED", "0")) or int(time.time())
WRITERS = 4
EACH = 8 * MIB
SIZE = 64 * MIB
SECTOR = 512
PUNCH = 3
libc = ctypes.CDLL(None, use_errno=True)


def stamp(sector, version):
    """What a sector holds; version 0: nothing."""
    if not version:
        return bytes(SECTOR)
    return struct.pack("<QQ", sector, version) * (SECTOR // 16)


class Writer(threading.Thread):
    """Writes, punches and syncs its part until the daemon is gone."""

    def __init__(self, path, number, allowed):
        super().__init__()
        self.fd = os.open(path, os.O_RDWR)
        self.first = number * EACH // SECTOR
        self.allowed = allowed          # sector -> versions it may hold
        self.rnd = random.Random(SEED * 1000 + version[0] + number)
        self.wrong = None

    def run(self):
        try:
            while True:
                self.step()
        except OSError as e:
            # EIO: a part of a page that could not be read before the write.
            if not killing or e.errno not in (errno.ENOTCONN, errno.EIO,
                                              errno.ECONNABORTED):
                self.wrong = e
        finally:
            try:
                os.close(self.fd)
            except OSError:
                pass

    def step(self):
        what = self.rnd.random()
        if what < 0.08:
            return self.sync()
        n = self.rnd.choice((1, 3, 8, 8, 8, 40, 128))
        at = self.first + self.rnd.randrange(EACH // SECTOR - n)
        if what < 0.2:
            return self.put(at, n, 0)
        with version_lock:
            version[0] += 1
            v = version[0]
        self.put(at, n, v)

    def put(self, at, n, v):
        # Before the call: it may have an effect even if it fails.
        for s in range(at, at + n):
            self.allowed.setdefault(s, [0]).append(v)
        if v:
            data = b"".join(stamp(s, v) for s in range(at, at + n))
            os.pwrite(self.fd, data, at * SECTOR)
        elif libc.fallocate(self.fd, PUNCH, ctypes.c_long(at * SECTOR),
                            ctypes.c_long(n * SECTOR)):
            raise OSError(ctypes.get_errno(), "fallocate")

    def sync(self):
        os.fsync(self.fd)
        for s, versions in self.allowed.items():
            del versions[:-1]


def verify(allowed):
    rc = subprocess.run(["qemu-img", "check", "-q", "a.qcow2"],
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL).returncode
    assert rc in (0, 3), f"qemu-img check: {rc}"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "a.raw")
    with open("a.raw", "rb") as f:
        disk = f.read()
    for part in allowed:
        for s, versions in part.items():
            got = disk[s * SECTOR:(s + 1) * SECTOR]
            found = [v for v in set(versions) if got == stamp(s, v)]
            assert found, f"sector {s} holds none of {versions}: {got[:16]}"
            part[s] = found


def one_round(number, allowed):
    options = "rw" + rnd.choice(["", ",cache=none", ",max_write=64k"])
    m = testlib.mount("a.qcow2", options=options)
    disk = m + "/disk"
    fio = subprocess.Popen(
        ["fio", "--name=noise", "--filename=" + disk, "--rw=randwrite",
         "--bsrange=4k-64k", "--offset=32M", "--size=32M", "--direct=1",
         "--ioengine=libaio", "--iodepth=8", "--time_based", "--runtime=60",
         "--fsync=40", "--thread", "--allow_file_create=0"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killing.clear()
    writers = [Writer(disk, i, allowed[i]) for i in range(WRITERS)]
    for w in writers:
        w.start()
    time.sleep(rnd.uniform(0.05, 0.8))
    killing.append(m)
    testlib.kill(m)
    for w in writers:
        w.join(20)
        assert not w.is_alive(), "a writer hangs"
        assert not w.wrong, f"a writer's call failed: {w.wrong}"
    fio.kill()
    fio.wait()
    verify(allowed)
    synced = sum(len(v) == 1 for part in allowed for v in part.values())
    print(f"kill {number}: {options}, {version[0]} writes, {synced} sectors")


testlib.requires_fuse()
testlib.requires("qemu-img", "fio")
print(f"SEED={SEED}", flush=True)
rnd = random.Random(SEED)
version = [0]
version_lock = threading.Lock()
killing = []
allowed = [{} for _ in range(WRITERS)]
cluster = rnd.choice(["512", "4k", "16k", "64k", "2M"])
run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
    f"cluster_size={cluster}", "a.qcow2", str(SIZE))
print("cluster_size", cluster, flush=True)
for k in range(KILLS):
    one_round(k, allowed)
sys.stdout.flush()
