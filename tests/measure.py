#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 300
"""measure: the numbers are qemu-img's, for empty disks, images, snapshots and
bitmaps, and true: the file that convert makes is not larger than what is
required, which is hardly more than the file takes; the same disk with every
cluster allocated is not larger than "fully allocated".  CASES=N: as many
cases (make check-measure: 200)."""

import json
import random

from testlib import *

requires("qemu-img", "qemu-io")
os.environ["IMGCTL_QEMU_COMPAT"] = "7.2"


def same(*args):
    ours = subprocess.run(["imgctl", "measure", *args], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    theirs = subprocess.run(["qemu-img", "measure", *args], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ours.stdout == theirs.stdout and \
        ours.returncode == theirs.returncode, (args, ours, theirs)
    return ours.stdout


def options(rnd):
    o = {}
    if rnd.random() < 0.7:
        o["cluster_size"] = 1 << rnd.randrange(9, 22)
    if rnd.random() < 0.3:
        o["refcount_bits"] = 1 << rnd.randrange(7)
    if o.get("cluster_size", 65536) >= 16384 and rnd.random() < 0.3:
        o["extended_l2"] = "on"
    if rnd.random() < 0.2 and "extended_l2" not in o:
        o["compat"] = "0.10"
        o.pop("refcount_bits", None)
    return ",".join(f"{k}={v}" for k, v in o.items())


def source(rnd):
    """A file's format.  (Zeroes that are stored as such would count as data
    here, and convert leaves them out.)"""
    fmt = rnd.choice(["raw", "qcow2", "qcow2", "vmdk", "qed"])
    size = rnd.randrange(1, 32 << 11) * 512
    run("qemu-img", "create", "-q", "-f", fmt, "src", str(size))
    cmds = []
    for _ in range(rnd.randrange(6)):
        off = rnd.randrange(size // 512) * 512
        n = min(size - off, rnd.randrange(1, 4000) * 512)
        cmds += ["-c", f"write -P {rnd.randrange(1, 256)} {off} {n}"]
    if cmds:
        run("qemu-io", "-f", fmt, *cmds, "src")
    return fmt


def numbers(fmt, opts):
    args = ["-o", opts] if opts else []
    return json.loads(same("-O", "qcow2", *args, "--output=json", "-f", fmt,
                           "src"))


def one(rnd, number):
    fmt, opts = source(rnd), options(rnd)
    m = numbers(fmt, opts)
    args = ["-o", opts] if opts else []
    run("imgctl", "convert", "-f", fmt, "-O", "qcow2", *args, "src", "dst")
    made = os.stat("dst").st_size
    assert made <= m["required"], (opts, made, m)
    # The numbers are QEMU's, which counts L1, an L2 and the rest of the last
    # cluster even where the file lacks them: from 512 KiB on, three clusters are
    # more than a mebibyte.
    few = 3 * int(dict(x.split("=") for x in opts.split(",") if x)
                  .get("cluster_size", 65536))
    assert m["required"] <= 1.02 * made + max(MIB, few), (opts, made, m)
    if number % 4 == 0:
        run("imgctl", "convert", "-S", "0", "-f", fmt, "-O", "qcow2", *args,
            "src", "dst")
        full = os.stat("dst").st_size
        # Refcount tables that became too small while the image grew stay
        # in a file of tiny clusters, in QEMU's as in ours.
        tiny = full // 500 if few < 3 * 4096 else 0
        assert full <= m["fully-allocated"] + tiny, (opts, full, m)
    same("-O", "raw", "-f", fmt, "src")
    os.unlink("src")
    os.unlink("dst")


def empty(rnd):
    size = rnd.choice([0, 1, 511, 1000, 1 << 20, rnd.randrange(1 << 45),
                       rnd.randrange(1 << 34)])
    opts = options(rnd)
    same("-O", "qcow2", *(["-o", opts] if opts else []), "--size", str(size))
    same("--size", str(size))


def beside():
    """Snapshots and bitmaps of a source."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "s.qcow2", "8M")
    run("qemu-io", "-c", "write -P 1 0 1M", "s.qcow2")
    run("qemu-img", "snapshot", "-c", "one", "s.qcow2")
    run("qemu-io", "-c", "write -P 2 2M 3M", "s.qcow2")
    for args in ["-l", "one"], ["-l", "1"], ["-l", "snapshot.name=one"], \
            ["-l", "none"], []:
        same("-O", "qcow2", *args, "s.qcow2")
    run("qemu-img", "snapshot", "-d", "one", "s.qcow2")
    for i, g in enumerate([512, 4096, 65536, 1 << 20]):
        run("qemu-img", "bitmap", "--add", "-g", str(g), "s.qcow2", "b" * i +
            "x")
        for opts in "cluster_size=512", "cluster_size=64k", "compat=0.10":
            text = same("-O", "qcow2", "-o", opts, "s.qcow2")
            assert ("bitmaps size" in text) == (opts != "compat=0.10")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "s.qcow2", "-F",
        "qcow2", "top.qcow2", "9M")
    run("qemu-io", "-c", "write -P 2 7M 100k", "-c", "write -z 0 100k",
        "top.qcow2")
    same("-O", "qcow2", "top.qcow2")
    same("-O", "qcow2", "-o", "backing_file=s.qcow2", "top.qcow2")


def main():
    rnd = random.Random(7)
    for i in range(int(os.environ.get("CASES", "80"))):
        one(rnd, i)
        empty(rnd)
    beside()


main()
