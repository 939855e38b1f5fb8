#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reserved bits of L1 and L2 entries, and subclusters of what is compressed: the
image is read and written as QEMU does, only check tells of them.  Of entries
that say nothing sensible QEMU's sentence."""
import os
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from testlib import IMGCTL, TOP, requires, run  # noqa: E402

IMGIO = os.path.join(TOP, "tests", "imgio")
HOST = 0x00fffffffffffe00
AT = 3          # the cluster whose entry is changed
UNIT = 65536


def change(name, subclusters, l1=0, l2=0, words=None):
    """Bits of the first L1 entry and of an L2 entry; or the latter's words."""
    with open(name, "r+b") as f:
        def u64(at):
            f.seek(at)
            return struct.unpack(">Q", f.read(8))[0]

        def put(at, value):
            f.seek(at)
            f.write(struct.pack(">Q", value))

        root = u64(40)
        entry = (u64(root) & HOST) + AT * (16 if subclusters else 8)
        put(root, u64(root) | l1)
        put(entry, u64(entry) | l2)
        for i, word in (words or {}).items():
            put(entry + 8 * i, word)


def make(subclusters, packed, **how):
    run("qemu-img", "convert", "-O", "qcow2", *(["-c"] if packed else []), "-o",
        f"extended_l2={'on' if subclusters else 'off'}", "src", "a.qcow2")
    change("a.qcow2", subclusters, **how)


def run_any(*args):
    p = subprocess.run(args, capture_output=True, text=True,
                       env=dict(os.environ, IMGCTL_QEMU_COMPAT="7.2"))
    return p.returncode, p.stdout, p.stderr


def readable(*args, **how):
    make(*args, **how)
    for image in "b.qcow2", "theirs.qcow2":
        shutil.copy("a.qcow2", image)
    found = run_any(IMGCTL, "check", "b.qcow2")
    assert found == run_any("qemu-img", "check", "b.qcow2"), found
    run(IMGCTL, "convert", "-O", "raw", "a.qcow2", "a.raw")
    run("cmp", "src", "a.raw")
    # Into the cluster, over it as a whole, and beside it.
    for commands in ([f"write -P 7 {AT * UNIT + 1000} 3000",
                      f"write -P 8 {(AT + 1) * UNIT - 512} 1024"],
                     [f"write -P 9 {AT * UNIT} {UNIT}", "write -P 1 0 512"],
                     [f"write -z -u {AT * UNIT} {UNIT}"]):
        words = sum((["-c", c] for c in commands), [])
        run(IMGIO, "-f", "qcow2", *words, "b.qcow2")
        run("qemu-io", *words, "theirs.qcow2")
        run("qemu-img", "compare", "b.qcow2", "theirs.qcow2")


def refused(**how):
    make(True, False, **how)
    said = [run_any(p, "compare", "-f", "raw", "-F", "qcow2", "src",
                    "a.qcow2")[2].splitlines()[0] for p in ("qemu-img", IMGCTL)]
    assert said[0] == said[1], said


requires("qemu-img", "qemu-io")
with open("src", "wb") as f:
    for i in range(16):
        f.write(b"%07d\n" % i * (UNIT // 8))
for subclusters in False, True:
    for bits in 1 << 8, 1 << 56:
        readable(subclusters, False, l1=bits)
        readable(subclusters, True, l1=bits)
        readable(subclusters, False, l2=bits)
for second in 0xff, 0xff << 32, (1 << 64) - 1:
    readable(True, True, words={1: second})
for words in ({1: 1 << 32 | 1}, {1: 1 << 63 | 1 << 31}, {0: 0, 1: 0xff},
              {0: 0, 1: 1 << 32 | 1}):
    refused(words=words)
