#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 240
"""commit and rebase killed at any moment: the image is sound and reads as before,
and run again they end as if nothing had happened.  And the manual's recipe for
what differs between two images.
"""
import json
import os
import random
import shutil
import subprocess
import time

import testlib
from testlib import IMGCTL, MIB, run

testlib.requires("qemu-img", "qemu-io")
rnd = random.Random(3)
SIZE = 32 * MIB
KILLS = 8


def io(path, fmt, *commands):
    args = [a for c in commands for a in ("-c", c)]
    run("qemu-io", "-f", fmt, *args, path)


def content(path):
    run("qemu-img", "convert", "-O", "raw", path, "out")
    with open("out", "rb") as f:
        return f.read()


os.mkdir("c")
for name, seed in ("base", 1), ("new", 2):
    run("qemu-img", "create", "-q", "-f", "raw", f"c/{name}", str(SIZE))
    io(f"c/{name}", "raw", *[f"write -P {seed + i} {i}M 700k"
                             for i in range(0, 30, 2)])
run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw",
    "c/top")
io("c/top", "qcow2", *[f"write -P {100 + i} {i}M 300k" for i in range(30)],
   "write -z 5M 3M")
want = content("c/top")

for args in (["commit", "-q"], ["rebase", "-b", "new", "-F", "raw"],
             ["rebase", "-b", ""]):
    # How long it takes, for moments that fall into it.
    shutil.copytree("c", "d")
    begin = time.monotonic()
    run(IMGCTL, *args, "top", cwd="d")
    took = time.monotonic() - begin
    whole = run("qemu-img", "map", "--output=json", "d/top")
    shutil.rmtree("d")
    killed = 0
    for i in range(KILLS):
        shutil.copytree("c", "d")
        p = subprocess.Popen([IMGCTL] + args + ["top"], cwd="d")
        time.sleep(rnd.random() * took)
        p.kill()
        killed += p.wait() != 0
        assert content("d/top") == want, (args, i)
        code = subprocess.run(["qemu-img", "check", "-q", "d/top"]).returncode
        assert code in (0, 3), (args, i, code)  # leaks at most
        run(IMGCTL, *args, "top", cwd="d")
        assert content("d/top") == want, (args, i)
        run("qemu-img", "check", "-q", "-r", "leaks", "d/top")
        if args[0] == "commit":
            assert content("d/base") == want
            assert all(e["depth"] for e in json.loads(
                run("qemu-img", "map", "--output=json", "d/top"))), i
        shutil.rmtree("d")
    print(args, "killed", killed, "of", KILLS)
    assert killed > 0, "it was always faster"

# imgctl(1), rebase: only the differing clusters are stored.
shutil.copy("c/base", "c/modified")
io("c/modified", "raw", "write -P 200 1M 64k", "write -P 201 9M 4k",
   "write -z 20M 64k")
run(IMGCTL, "create", "-q", "-f", "qcow2", "-b", "modified", "-F", "raw",
    "c/diff")
run(IMGCTL, "rebase", "-b", "base", "-F", "raw", "diff", cwd="c")
want = content("c/modified")
os.unlink("c/modified")
assert content("c/diff") == want
stored = [e for e in json.loads(run("qemu-img", "map", "--output=json",
                                    "c/diff")) if e["depth"] == 0]
assert sum(e["length"] for e in stored) == 3 * 65536, stored
assert [e["start"] for e in stored] == [MIB, 9 * MIB, 20 * MIB], stored
# Again with -c: the same content, compressed.
run(IMGCTL, "create", "-q", "-f", "qcow2", "-b", "diff", "-F", "qcow2",
    "c/packed")
run(IMGCTL, "rebase", "-c", "-b", "base", "-F", "raw", "packed", cwd="c")
assert content("c/packed") == want
run("qemu-img", "check", "-q", "c/packed")
assert os.path.getsize("c/packed") < os.path.getsize("c/diff")
