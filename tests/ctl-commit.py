#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 240
"""commit and rebase through ctl, while the disk is written: what the guest has
written is there afterwards, in the mount and for qemu-img, images are sound, and
cancelled at any moment they end well when they are run again.
"""
import os
import random
import subprocess
import threading
import time

import testlib
from testlib import MIB, errname, run

testlib.requires_fuse()
testlib.requires("qemu-img", "qemu-io")
SIZE = 24 * MIB
rnd = random.Random(7)


def make(folder):
    os.makedirs(folder)
    run("qemu-img", "create", "-q", "-f", "raw", f"{folder}/base", str(SIZE))
    run("qemu-io", "-f", "raw", "-c", "write -P 1 0 8M", f"{folder}/base")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw",
        f"{folder}/mid")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 2M 8M", f"{folder}/mid")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "mid", "-F", "qcow2",
        f"{folder}/top")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 3 4M 12M", f"{folder}/top")


def content(path, fmt):
    run("qemu-img", "convert", "-f", fmt, "-O", "raw", path, "out")
    with open("out", "rb") as f:
        return f.read()


def command(m, text):
    fd = os.open(f"{m}/ctl", os.O_RDWR)
    try:
        return errname(os.write, fd, text.encode()), \
            os.pread(fd, 4096, 0).decode()
    finally:
        os.close(fd)


class Writer(threading.Thread):
    """Writes until stop() to a disk whose content it knows."""

    def __init__(self, path, data):
        super().__init__()
        self.fd = os.open(path, os.O_RDWR)
        self.data = bytearray(data)
        self.ending = False
        self.start()

    def run(self):
        r = random.Random(1)
        while not self.ending:
            off = r.randrange(0, SIZE, 512)
            n = min(SIZE - off, r.choice([512, 4096, 70000 // 512 * 512]))
            piece = bytes([r.randrange(256)]) * n
            os.pwrite(self.fd, piece, off)
            self.data[off:off + n] = piece

    def stop(self):
        self.ending = True
        self.join()
        got = os.pread(self.fd, SIZE, 0)
        os.close(self.fd)
        assert got == self.data, "the disk does not hold what was written"
        return bytes(got)


def sound(path):
    run("qemu-img", "check", "-q", "-f", "qcow2", path)


# commit beside a writer; then once more, and down to the base.
make("a")
m = testlib.mount("a/top", options="rw")
w = Writer(f"{m}/disk", content("a/top", "qcow2"))
time.sleep(0.2)
for text in "commit", "commit -d", "commit -b base":
    assert command(m, text) == ("ok", "ok\n"), command(m, text)
assert command(m, "commit -b nosuch")[1].startswith(
    "Did not find 'nosuch' in the backing chain of")
assert command(m, "commit x")[0] == "EINVAL"
data = w.stop()
with open(f"{m}/backing/backing/disk", "rb") as f:
    below = f.read()            # no stale pages either (pitfall 9)
assert command(m, "commit -b base")[0] == "ok"
with open(f"{m}/backing/backing/disk", "rb") as f:
    assert f.read() == data
testlib.umount(m)
assert content("a/top", "qcow2") == data
assert content("a/base", "raw") == data
sound("a/top"), sound("a/mid")

# What is refused.
with testlib.mounted("a/top") as m:
    assert command(m, "commit")[0] == "EROFS"
    assert command(m, "rebase -b base -F raw")[0] == "EROFS"
with testlib.mounted("a/base", options="rw") as m:
    assert command(m, "commit") == \
        ("EINVAL", "Image does not have a backing file\n")
    assert command(m, "rebase -b x -F raw")[0] == "EOPNOTSUPP"

# A job is in the way of others, and can be paused, paced and cancelled.
make("b")
m = testlib.mount("b/top", options="rw")
want = content("b/top", "qcow2")
fd = os.open(f"{m}/ctl", os.O_RDWR)
os.write(fd, b"commit -r 1M &")
number = os.pread(fd, 16, 0).decode().strip()
busy = command(m, "rebase -b base -F raw")
assert busy[0] == "EBUSY" and f"Job {number} (commit)" in busy[1], busy
with open(f"{m}/jobs/{number}") as f:
    text = f.read()
assert '"state": "running"' in text and '"rate": 1048576' in text, text
with open(f"{m}/jobs/{number}", "w") as f:
    f.write("cancel")


def state():
    with open(f"{m}/jobs/{number}") as f:
        return f.read()


testlib.wait_until(10, lambda: '"state": "cancelled"' in state(), state())
os.unlink(f"{m}/jobs/{number}")
with open(f"{m}/disk", "rb") as f:
    assert f.read() == want
# An interrupted caller gets EINTR soon.
p = subprocess.Popen(["sh", "-c", f"echo commit -r 1M > {m}/ctl"])
time.sleep(0.3)
begin = time.monotonic()
p.kill()
p.wait()
assert time.monotonic() - begin < 5
assert command(m, "commit") == ("ok", "ok\n")
os.close(fd)
testlib.umount(m)
assert content("b/top", "qcow2") == want
assert content("b/mid", "qcow2") == want
sound("b/top")

# rebase beside a writer: onto the base, onto nothing, onto a new one.
make("c")
run("qemu-img", "create", "-q", "-f", "raw", "c/new", "16M")
run("qemu-io", "-f", "raw", "-c", "write -P 3 0 16M", "c/new")
m = testlib.mount("c/top", options="rw")
assert command(m, "rebase -b nosuch -F raw")[0] == "ENOENT"
assert command(m, "rebase -b new")[0] == "EINVAL"
w = Writer(f"{m}/disk", content("c/top", "qcow2"))
for text, depth in ("-b base -F raw", 1), ("-b ''", 0), ("-b new -F raw", 1), \
        ("-b mid -F qcow2", 2):
    assert command(m, "rebase " + text) == ("ok", "ok\n"), text
    assert os.path.exists(f"{m}/backing") == (depth > 0), text
    assert os.path.exists(f"{m}/backing/backing") == (depth > 1), text
assert command(m, "rebase -u -b base -F raw")[0] == "EBUSY"
data = w.stop()
testlib.umount(m)
assert content("c/top", "qcow2") == data
sound("c/top")

# Cancelled at fifty moments; each is begun again.
make("d")
want = content("d/top", "qcow2")
m = testlib.mount("d/top", options="rw")
for i in range(50):
    fd = os.open(f"{m}/ctl", os.O_RDWR)
    what = ("commit -d", "rebase -b base -F raw", "rebase -b mid -F qcow2",
            "commit -b base")[i % 4]
    os.write(fd, f"{what} &".encode())
    number = os.pread(fd, 16, 0).decode().strip()
    os.close(fd)
    time.sleep(rnd.random() * 0.05)
    try:
        with open(f"{m}/jobs/{number}", "w") as f:
            f.write("cancel")
    except OSError:
        pass                    # it was faster
    testlib.wait_until(20, lambda: '"running"' not in state(), what)
    os.unlink(f"{m}/jobs/{number}")
    if i % 10 == 9:
        with open(f"{m}/disk", "rb") as f:
            assert f.read() == want, what
assert command(m, "rebase -b base -F raw") == ("ok", "ok\n")
assert command(m, "commit") == ("ok", "ok\n")
testlib.umount(m)
assert content("d/top", "qcow2") == want
assert content("d/base", "raw") == want
sound("d/top"), sound("d/mid")
