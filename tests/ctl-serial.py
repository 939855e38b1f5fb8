#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One command at a time changes an image: while a job that does is paused, every
other one is EBUSY and names it, by ctl and by mkdir; those that only look go on,
and so do readers and writers; when it has ended all of them can be done.  And
commands of ten processes at once come one after the other."""

import json
import random

from testlib import *

requires_fuse()
requires("qemu-img", "qemu-io")

run("qemu-img", "create", "-q", "-f", "raw", "b.raw", "8M")
run("qemu-io", "-f", "raw", "-c", "write -P 5 0 1M", "b.raw")
run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "b.raw", "-F", "raw",
    "a.qcow2")
run("qemu-img", "snapshot", "-c", "s", "a.qcow2")
run("qemu-img", "bitmap", "--add", "a.qcow2", "b0")
m = mount("a.qcow2", options="rw")


def ctl(line):
    fd = os.open(m + "/ctl", os.O_RDWR)
    try:
        e = errname(os.write, fd, line.encode())
        return e, os.pread(fd, 65536, 0).decode().strip()
    finally:
        os.close(fd)


def state(number):
    with open(f"{m}/jobs/{number}") as f:
        return json.load(f)["state"]


def steer(number, word):
    with open(f"{m}/jobs/{number}", "w") as f:
        f.write(word)


CHANGES = "snapshot -c x", "snapshot -a s", "snapshot -d x", \
    "bitmap --add b1", "bitmap --merge b0 b1", "bitmap --clear b0", \
    "bitmap --disable b0", "bitmap --remove b1", "resize +1M", \
    "amend -o lazy_refcounts=on", "amend -o refcount_bits=32", \
    "rebase -u -b b.raw -F raw", "rebase -b b.raw -F raw", "commit", \
    "check -r leaks"
number = ctl("resize --preallocation=full 256M &")[1]
steer(number, "pause")
wait_until(10, lambda: state(number) == "paused", "not paused")
for line in CHANGES:
    e, text = ctl(line)
    assert e == "EBUSY" and f"Job {number} (resize) is in the way" in text, \
        (line, e, text)
for name in "snapshots/x", "bitmaps/b1":
    assert errname(os.mkdir, f"{m}/{name}") == "EBUSY", name
for line in "snapshot -l", "measure -O qcow2", "check", "flush":
    assert ctl(line)[0] == "ok", line
with open(m + "/disk", "r+b", buffering=0) as f:
    assert f.read(512) == b"\5" * 512
    f.seek(4096)
    f.write(b"new")
steer(number, "cancel")
wait_until(10, lambda: state(number) == "cancelled", "not cancelled")
os.unlink(f"{m}/jobs/{number}")
for line in CHANGES:
    e, text = ctl(line)
    assert e == "ok", (line, e, text)

# Ten at once: each adds to the size, and makes what it takes away again.
size = os.stat(m + "/disk").st_size
pids = []
for i in range(10):
    pids.append(os.fork())
    if not pids[-1]:
        rnd, code = random.Random(i), 1
        try:
            for _ in range(4):
                for line in f"snapshot -c p{i}", "resize +64k", \
                        f"bitmap --add p{i}", f"snapshot -d p{i}", \
                        f"bitmap --remove p{i}", "amend -o refcount_bits=%d" \
                        % rnd.choice((16, 32)):
                    e, text = ctl(line)
                    assert e == "ok", (line, e, text)
            code = 0
        finally:
            os._exit(code)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0, "a command failed"
wait_until(10, lambda: os.stat(m + "/disk").st_size == size + 40 * 65536,
           "a resize was lost")
assert os.listdir(m + "/snapshots") == ["s"]
assert os.listdir(m + "/bitmaps") == ["b0"]
umount(m)
run("qemu-img", "check", "-q", "a.qcow2")
