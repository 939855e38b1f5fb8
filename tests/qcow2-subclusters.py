#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Extended L2 entries: what is stored, zeroed or given back is marked by
subclusters, and only what was touched is filled from below.

The same commands are given to qemu-io and to our engine, on twin images.  After
them each L2 entry says the same of each of its subclusters (and whether it has a
host cluster), qemu-img reads the same from both, through the chain and from
snapshots, and finds no fault in either.

What may differ: where nothing is below (no backing file, or behind its end)
QEMU marks zeroes where nothing was stored; ours leaves them as they were, which
reads the same.  See also fair().

    tests/qcow2-subclusters.py [SEED [ROUNDS]]      more of it
"""
import json
import os
import random
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from testlib import IMGCTL, MIB, TOP, requires, run  # noqa: E402

IMGIO = os.path.join(TOP, "tests", "imgio")
ALL = (1 << 32) - 1
SHAPES = [
    (16384, MIB, ""),
    (16384, MIB, ",data_file=@/d"),
    (131072, 4 * MIB + 512, ",compression_type=zstd"),
    (131072, 4 * MIB, ",data_file=@/d"),
    (2 * MIB, 8 * MIB, ""),
]


class Image:
    """The L2 entries of the live disk, read without anybody's help."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.bytes = f.read()
        self.size = 1 << self.u32(20)
        # Behind its end nothing is stored either.
        self.below = os.path.getsize("base.raw") if self.u64(8) else 0
        self.entries = dict(self.walk())

    def u32(self, at):
        return struct.unpack_from(">I", self.bytes, at)[0]

    def u64(self, at):
        return struct.unpack_from(">Q", self.bytes.ljust(at + 8, b"\0")
                                  if at + 8 > len(self.bytes) else self.bytes,
                                  at)[0]

    def walk(self):
        per = self.size // 16
        for i in range(self.u32(36)):
            table = self.u64(self.u64(40) + 8 * i) & 0xfffffffffffe00
            for j in range(per if table else 0):
                e = self.u64(table + 16 * j), self.u64(table + 16 * j + 8)
                if e != (0, 0):
                    yield i * per + j, e

    def over(self, i):
        """The subclusters of cluster @i that have something below."""
        n = -(-(self.below - i * self.size) // (self.size // 32))
        return (1 << max(0, min(n, 32))) - 1

    def states(self):
        """{cluster: (what it has, its data bits, its zero bits)}"""
        found = {}
        for i, (entry, subs) in self.entries.items():
            what = "packed" if entry >> 62 & 1 else \
                "host" if entry & 0xfffffffffffe00 or entry >> 63 else "none"
            zero = subs >> 32 & self.over(i)
            if what != "none" or subs & ALL or zero:
                found[i] = what, subs & ALL, zero
        return found


def both(name, commands, options="-d unmap"):
    """qemu-io on q/NAME, ours on o/NAME."""
    args = [a for c in commands for a in ("-c", c)]
    run("qemu-io", *options.split(), "-f", "qcow2", *args, "q/" + name)
    run(IMGIO, *options.split(), "-f", "qcow2", *args, "o/" + name)


def alike(name, what):
    q, o = Image("q/" + name), Image("o/" + name)
    for i in sorted(set(q.states()) | set(o.states())):
        a, b = q.states().get(i), o.states().get(i)
        if a != b:
            sys.exit(f"{what}: cluster {i} is {b}, with QEMU {a}")
    for who in "qo":
        run("qemu-img", "check", "-q", f"{who}/{name}")
        run(IMGCTL, "check", "-q", f"{who}/{name}")
    run("qemu-img", "compare", "-q", "q/" + name, "o/" + name)
    if o.below and the_map("q/" + name) != the_map("o/" + name):
        sys.exit(f"{what}: the maps differ")


def the_map(image):
    """qemu-img's; where its host clusters lie does not cut it, nor where the
    file has holes below data."""
    merged = []
    for e in json.loads(run("qemu-img", "map", "--output=json", image)):
        kind = e["depth"], e["data"] or e["zero"], e["data"]
        if merged and merged[-1][1] == kind:
            merged[-1][0] += e["length"]
        else:
            merged.append([e["length"], kind])
    return merged


def create(name, options, size, backing=None):
    for who in "qo":
        os.makedirs(who, exist_ok=True)
        args = ["-b", f"{os.getcwd()}/{backing}", "-F", "raw"] \
            if backing else []
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
            "extended_l2=on," + options.replace("@", who), *args,
            f"{who}/{name}", str(size))


def base(size):
    with open("base.raw", "wb") as f:
        f.write(b"".join(bytes([1 + i % 251]) * 512
                         for i in range(size // 512)))


# ---- by hand ---------------------------------------------------------------

def a_write_of_4k():
    """The case that everybody meets: a file system's block in a cluster of
    128 KiB."""
    base(MIB)
    create("small", "cluster_size=128k", MIB, "base.raw")
    both("small", ["write -P 7 4k 4k"])
    entry = Image("o/small").states()
    if entry != {0: ("host", 2, 0)}:
        sys.exit(f"a write of 4 KiB stores {entry}")
    alike("small", "4 KiB")
    both("small", ["write -P 8 9k 512", "write -z 40k 8k", "write -z 5k 8k",
                   "write -z -u 300k 100k", "write -P 9 300k 1k"])
    alike("small", "what follows it")


def a_snapshot_beside():
    """A cluster that a snapshot has too moves, and takes all of its data along:
    nothing that was there may be gone, however new the place is."""
    base(MIB)
    for backing in None, "base.raw":
        create("snap", "cluster_size=128k", MIB, backing)
        both("snap", ["write -P 1 8k 4k", "write -P 2 20k 4k",
                      "write -z 28k 4k", "write -P 3 128k 4k",
                      "write -z 132k 4k"])
        for who in "qo":
            run("qemu-img", "snapshot", "-c", "s", who + "/snap")
        both("snap", ["write -P 4 12k 512", "write -P 5 132k 512",
                      "write -P 6 100k 8k"])
        alike("snap", "a snapshot")
        for who in "qo":
            run("qemu-img", "convert", "-l", "s", "-O", "raw", who + "/snap",
                who + "/s.raw")
        run("cmp", "q/s.raw", "o/s.raw")
        run("qemu-io", "-f", "qcow2", "-c", "read -P 1 8k 4k", "-c",
            "read -P 2 20k 4k", "-c", "read -P 3 128k 4k", "o/snap")


def allocate():
    """Space for clusters that have it in part only; content stays."""
    base(MIB)
    create("alloc", "cluster_size=64k", MIB, "base.raw")
    both("alloc", ["write -P 1 2k 2k", "write -z 6k 4k", "write -z 64k 8k",
                   "write -P 2 200k 1k"])
    run(IMGIO, "-f", "qcow2", "-c", "allocate 0 1M", "o/alloc")
    left = {what for what, _, _ in Image("o/alloc").states().values()}
    if left != {"host"} or len(Image("o/alloc").states()) != 16:
        sys.exit(f"allocated: {Image('o/alloc').states()}")
    run("qemu-img", "compare", "-q", "q/alloc", "o/alloc")
    run("qemu-img", "check", "-q", "o/alloc")


def rebased():
    """What comes from below is stored by subclusters, too."""
    base(MIB)
    with open("base.raw", "rb") as f:
        old = bytearray(f.read())
    old[70000:70500] = bytes(500)
    with open("other.raw", "wb") as f:
        f.write(old)
    create("top", "cluster_size=64k", MIB, "base.raw")
    both("top", ["write -P 1 10k 1k"])
    before = run("qemu-img", "convert", "-O", "raw", "o/top", "want.raw")
    run(IMGCTL, "rebase", "-b", os.path.abspath("other.raw"), "-F", "raw",
        "o/top")
    run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", "want.raw",
        "o/top")
    run("qemu-img", "check", "-q", "o/top")
    stored = sum(bin(d).count("1")
                 for _, d, _ in Image("o/top").states().values())
    if stored > 32 + 2 or before:
        sys.exit(f"rebase stored {stored} subclusters")


# ---- by chance -------------------------------------------------------------

def a_command(rng, size, cluster):
    unit = rng.choice([512, cluster // 32, cluster // 32, cluster])
    off = rng.randrange(size // unit) * unit
    n = min(size - off, unit * (1 + int(40 * rng.random() ** 4)))
    p = rng.randrange(1, 255)
    kind = rng.random()
    if kind < 0.5:
        return f"write -P {p} {off} {n}"
    if kind < 0.8:
        return f"write -z {rng.choice(['', '-u'])} {off} {n}"
    off = off // cluster * cluster
    return f"discard {off} {min(cluster, size - off)}"


def packs_anew(rng, size, cluster):
    """Compressed data goes where nothing is stored."""
    taken = Image("o/r").entries
    free = [i for i in range(size // cluster) if i not in taken]
    both("r", [f"write -c -P {rng.randrange(1, 255)} {i * cluster} {cluster}"
               for i in rng.sample(free, min(2, len(free)))])


def fair(command, cluster):
    """Where a part of a compressed cluster is to be zeroes, QEMU writes all of
    the request's zeroes as data."""
    word = command.split()
    off, n = int(word[-2]), int(word[-1])
    whole = Image("o/r").states()
    return "-z" not in word or not any(
        what == "packed" and off // cluster <= i < -(-(off + n) // cluster)
        for i, (what, _, _) in whole.items())


def play(rng, options, cluster, size, backing, packs):
    create("r", options, size, backing)
    for turn in range(2):
        if packs:
            packs_anew(rng, size, cluster)
        commands = [a_command(rng, size, cluster) for _ in range(12)]
        commands = [c for c in commands if fair(c, cluster)]
        both("r", commands)
        alike("r", f"{options}, {backing}: " + "; ".join(commands))
        if turn == 0 and packs:
            for who in "qo":
                run("qemu-img", "snapshot", "-c", "s", who + "/r")
    if packs:
        for who in "qo":
            run("qemu-img", "snapshot", "-d", "s", who + "/r")
        both("r", ["write -P 77 1k 1k"])
        alike("r", f"{options}, {backing}: without the snapshot")


def main():
    requires("qemu-img", "qemu-io")
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    a_write_of_4k()
    a_snapshot_beside()
    allocate()
    rebased()
    for s in range(seed, seed + rounds):
        for cluster, size, more in SHAPES:
            for backing in None, "base.raw":
                base(size if s % 2 else size * 5 // 8 // 512 * 512)
                play(random.Random(f"{s} {cluster} {backing} {more}"),
                     f"cluster_size={cluster}{more}", cluster, size, backing,
                     "data" not in more)


main()
