#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 300
"""commit and rebase of random chains end as qemu-img's do.

Each round makes a chain with qemu-img and qemu-io, and lets both programs do the
same to a copy.  What every image of the chain reads as must be the same, images
must be sound, and a rebase stores no more clusters than qemu-img's.
"""
import json
import os
import random
import shutil
import subprocess
import sys

import testlib
from testlib import IMGCTL, MIB, run

testlib.requires("qemu-img", "qemu-io")
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 1
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 6
rnd = random.Random(SEED)


def scribble(path, fmt, size, n):
    commands = []
    for _ in range(n):
        off = rnd.randrange(0, size, 512)
        length = min(size - off, rnd.choice([512, 4096, 65536, 300000 // 512
                                             * 512, MIB]))
        what = rnd.choice(["write -P %d" % rnd.randrange(256),
                           "write -P %d" % rnd.randrange(256), "write -z",
                           "discard"])
        commands += ["-c", f"{what} {off} {length}"]
    subprocess.run(["qemu-io", "-f", fmt] + commands + [path],
                   stdout=subprocess.DEVNULL, check=True)


def options(fmt):
    if fmt != "qcow2":
        return []
    return ["-o", rnd.choice(["cluster_size=64k", "cluster_size=4k",
                              "cluster_size=512", "compat=0.10",
                              "extended_l2=on,cluster_size=64k"])]


def chain(folder, depth, sizes, tops):
    """base, 1 ... the top; the list of (name, format)."""
    os.mkdir(folder)
    base = rnd.choice(["raw", "qcow2"])
    made = [("base", base)]
    run("qemu-img", "create", "-q", "-f", base, *options(base), f"{folder}/base",
        str(sizes[0]))
    scribble(f"{folder}/base", base, sizes[0], 12)
    for i in range(1, depth):
        fmt = rnd.choice(tops)
        below, below_fmt = made[-1]
        run("qemu-img", "create", "-q", "-f", fmt, *options(fmt), "-b", below,
            "-F", below_fmt, f"{folder}/{i}", str(sizes[i]))
        scribble(f"{folder}/{i}", fmt, sizes[i], 10)
        made.append((str(i), fmt))
    return made


def content(folder, name, fmt):
    raw = f"{folder}/{name}.out"
    run("qemu-img", "convert", "-f", fmt, "-O", "raw", f"{folder}/{name}", raw)
    with open(raw, "rb") as f:
        data = f.read()
    os.unlink(raw)
    return data


def check(folder, name, fmt):
    if fmt in ("qcow2", "qed"):
        run("qemu-img", "check", "-q", "-f", fmt, f"{folder}/{name}")


def stored(folder, name, fmt):
    text = run("qemu-img", "map", "-f", fmt, "--output=json",
               f"{folder}/{name}")
    return sum(e["length"] for e in json.loads(text)
               if e["depth"] == 0 and e["present"])


def twins(made):
    shutil.copytree("c", "theirs")
    shutil.copytree("c", "ours")


def same(made, names):
    for name, fmt in made:
        if name in names:
            a, b = (content(d, name, fmt) for d in ("theirs", "ours"))
            assert a == b, f"seed {SEED}: {name} differs"
            check("ours", name, fmt)


def commit_round():
    depth = rnd.choice([2, 2, 3, 4])
    size = rnd.choice([2 * MIB, 3 * MIB + 512 * 7])
    sizes = [size] * depth
    if rnd.random() < 0.5:
        sizes = [rnd.choice([MIB, 2 * MIB, 4 * MIB]) for _ in range(depth)]
    made = chain("c", depth, sizes, ["qcow2", "qcow2", "qed", "qcow"])
    top, fmt = made[-1]
    args = ["commit", "-q", "-f", fmt]
    if rnd.random() < 0.3:
        args.append("-d")
    at = depth - 2
    if depth > 2 and rnd.random() < 0.6:
        at = rnd.randrange(depth - 1)
        args += ["-b", made[at][0]]
    want = content("c", top, fmt)
    twins(made)
    theirs = subprocess.run(["qemu-img"] + args + [top], cwd="theirs",
                            stderr=subprocess.PIPE)
    ours = subprocess.run([IMGCTL] + args + [top], cwd="ours",
                          stderr=subprocess.PIPE)
    assert theirs.returncode == ours.returncode, \
        (SEED, args, theirs, ours, made, sizes)
    if not ours.returncode:
        assert content("ours", top, fmt) == want, (args, made, sizes)
        same(made, [name for name, _ in made[:at + 1]] + [top])


def rebase_round():
    depth = rnd.choice([2, 3])
    sizes = [rnd.choice([2 * MIB, 3 * MIB, 2 * MIB + 512 * 9])
             for _ in range(depth)]
    made = chain("c", depth, sizes, ["qcow2", "qcow2", "qcow2", "qed"])
    top, fmt = made[-1]
    new, new_fmt = "new", rnd.choice(["raw", "qcow2"])
    how = rnd.randrange(4)
    if how == 0:        # a cousin of the base
        new_fmt = made[0][1]
        shutil.copy("c/base", "c/new")
        scribble("c/new", new_fmt, sizes[0], 3)
    elif how == 1:      # another one of any size
        size = rnd.choice([MIB, 2 * MIB, 4 * MIB])
        run("qemu-img", "create", "-q", "-f", new_fmt, "c/new", str(size))
        scribble("c/new", new_fmt, size, 8)
    elif how == 2:      # further down the chain, or the same
        new, new_fmt = made[rnd.randrange(depth - 1)]
    else:               # none
        new, new_fmt = "", None
    args = ["rebase", "-f", fmt, "-b", new]
    if new_fmt:
        args += ["-F", new_fmt]
    want = content("c", top, fmt)
    twins(made)
    theirs = subprocess.run(["qemu-img"] + args + [top], cwd="theirs",
                            stderr=subprocess.PIPE)
    ours = subprocess.run([IMGCTL] + args + [top], cwd="ours",
                          stderr=subprocess.PIPE)
    assert theirs.returncode == ours.returncode, (SEED, args, theirs, ours)
    assert content("ours", top, fmt) == want, (SEED, args, made, sizes)
    same(made, [top])
    info = run("qemu-img", "info", f"c/{top}")
    a, b = (stored(d, top, fmt) for d in ("theirs", "ours"))
    # Of a cluster with subclusters qemu-img may store a part.
    assert b <= a or "extended l2: true" in info, f"seed {SEED}: {b} bytes stored, qemu-img {a}"
    for d in "theirs", "ours":
        info = json.loads(run("qemu-img", "info", "--output=json",
                              f"{d}/{top}"))
        assert info.get("backing-filename", "") == new, info


for i in range(ROUNDS):
    SEED = int(sys.argv[1]) + i if len(sys.argv) > 1 else i + 1
    rnd.seed(SEED)
    for one in commit_round, rebase_round:
        one()
        for d in "c", "theirs", "ours":
            shutil.rmtree(d, ignore_errors=True)
