#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command of ctl that can be cancelled, cancelled at random moments (fifty of
each with POINTS=50, make check-cancel; the default is a slice):
snapshots made, applied and deleted, resize with preallocation, amend (up and
down), bitmaps merged.  The image is sound without leaks, the disk and each
snapshot read as before or as after the command, and the command run again ends
well.  (commit and rebase: ctl-commit.py.)"""
import json
import random

from testlib import *

requires_fuse()
requires("qemu-img", "qemu-io")
rnd = random.Random(11)
POINTS = int(os.environ.get("POINTS", "10"))
SIZE, NEW = 24 * MIB, 40 * MIB
NAME = "c.qcow2"


def raw(*how):
    run("qemu-img", "convert", *how, "-O", "raw", NAME, "out")
    with open("out", "rb") as f:
        return f.read()


run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", NAME,
    str(SIZE))
run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 16M", NAME)
run("qemu-img", "snapshot", "-c", "a", NAME)
run("qemu-io", "-f", "qcow2", "-c", "write -P 2 8M 16M", NAME)
run("qemu-img", "snapshot", "-c", "b", NAME)
A, B = raw("-l", "a"), raw()
run("qemu-img", "bitmap", "--add", NAME, "dirty")
run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", NAME)
run("qemu-img", "bitmap", "--add", NAME, "other")


class Mounted:
    def __init__(self):
        self.m = mount(NAME, options="rw")
        self.fd = os.open(self.m + "/ctl", os.O_RDWR)

    def ctl(self, line):
        os.write(self.fd, line.encode())
        return os.pread(self.fd, 65536, 0).decode()

    def disk(self):
        with open(self.m + "/disk", "rb") as f:
            return f.read()

    def state(self, number):
        with open(f"{self.m}/jobs/{number}") as f:
            return json.load(f)["state"]

    def cancelled(self, line, after):
        """Starts a job, cancels it; True: it was, False: it had ended well."""
        number = self.ctl(line + " &").strip()
        time.sleep(after)
        try:
            with open(f"{self.m}/jobs/{number}", "w") as f:
                f.write("cancel")
        except OSError:
            pass                            # it was faster
        wait_until(30, lambda: self.state(number) not in ("running", "paused"),
                   line)
        end = self.state(number)
        assert end in ("done", "cancelled"), (line, end)
        os.unlink(f"{self.m}/jobs/{number}")
        return end == "cancelled"

    def close(self):
        os.close(self.fd)
        umount(self.m)
        r = subprocess.run(["qemu-img", "check", NAME], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert r.returncode == 0, r.stdout
        assert raw("-l", "a") == A and raw("-l", "b") == B


def took(g, line):
    begin = time.monotonic()
    g.ctl(line)
    return time.monotonic() - begin


def many(what, command, redo):
    """command(g) is a line and the contents it may leave (before, after);
    redo(g, cancelled) completes it or undoes it."""
    g = Mounted()
    line, _ = command(g)
    full = took(g, line)
    redo(g, False)
    n = 0
    for i in range(POINTS):
        line, contents = command(g)
        was = g.cancelled(line, rnd.random() * full)
        n += was
        want = contents[not was]
        if want is not None:
            assert g.disk() == want, (line, was)
        redo(g, was)
        if i % 5 == 4:
            said = g.ctl("check")
            assert said.startswith("No errors"), (line, was, said[-400:])
    g.close()
    print(f"{what}: {n} of {POINTS} cancelled, {full * 1000:.0f} ms")
    return n


def make(g):
    return "snapshot -c new", (None, None)


def unmake(g, was):
    names = os.listdir(g.m + "/snapshots")
    assert ("new" in names) == (not was), (names, was)
    if not was:
        g.ctl("snapshot -d new")


def delete(g):
    g.ctl("snapshot -c new")
    return "snapshot -d new", (None, None)


def undelete(g, was):
    names = os.listdir(g.m + "/snapshots")
    assert ("new" in names) == was, (names, was)
    if was:
        g.ctl("snapshot -d new")


turn = [0]
def apply(g):
    """From b to a, from a to b."""
    was, will = ((B, A), (A, B))[turn[0] % 2]
    return "snapshot -a " + ("a", "b")[turn[0] % 2], (was, will)


def applied(g, was):
    if was:
        g.ctl("snapshot -a " + ("a", "b")[turn[0] % 2])
    turn[0] += 1


def grow(g):
    return f"resize --preallocation=full {NEW}", \
        (B, B + bytes(NEW - SIZE))


def shrunk(g, was):
    assert os.stat(g.m + "/disk").st_size == (SIZE if was else NEW)
    if not was:
        g.ctl(f"resize --shrink {SIZE}")


bits = [0]
def amend(g):
    return f"amend -o refcount_bits={(64, 16)[bits[0] % 2]}", (B, B)


def amended(g, was):
    with open(g.m + "/info.json") as f:
        now = json.load(f)["format-specific"]["data"]["refcount-bits"]
    assert now == ((16, 64) if was else (64, 16))[bits[0] % 2], (now, was)
    if was:
        g.ctl(amend(g)[0])
    bits[0] += 1


def merge(g):
    g.ctl("bitmap --clear other")
    return "bitmap --merge dirty other", (B, B)


def merged(g, was):
    with open(g.m + "/bitmaps/other/map.json") as f:
        dirty = any(r["dirty"] for r in json.load(f))
    assert dirty == (not was), was


g = Mounted()
g.ctl("snapshot -a b")
g.close()
total = [many("create", make, unmake), many("delete", delete, undelete),
         many("apply", apply, applied)]
g = Mounted()
g.ctl("snapshot -a b")
g.close()
total += [many("resize", grow, shrunk), many("amend", amend, amended)]
many("merge", merge, merged)               # it takes no time
# When a moment falls is the machine's: of ten all may be too late.
assert (min(total) if POINTS >= 50 else sum(total)) > 0, total
