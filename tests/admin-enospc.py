#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A command that changes an image on a host's disk that is full, or becomes so:
tried at many amounts of free space from nothing on, a little more each time.  It
succeeds, or says that there is no space; nothing leaks, the disk reads as before
and the snapshots are those that were there.  commit and rebase that found no
space end well when they are run again and there is some."""

import json

from testlib import *

requires("qemu-img", "qemu-io")

tmpfs("full", "8m")


def make(cluster, more):
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
        f"cluster_size={cluster}{more}", "t.qcow2", "64M")
    qio = ["qemu-io", "t.qcow2"]
    for i in range(1, 60, 13):
        qio += ["-c", f"write -P {i} {i}M 64k"]
    run(*qio)
    run("qemu-img", "snapshot", "-c", "s1", "t.qcow2")
    run("qemu-io", "-c", "write -P 99 1M 64k", "-c", "write -P 98 50M 64k",
        "t.qcow2")
    run("qemu-img", "snapshot", "-c", "s2", "t.qcow2")
    run("qemu-io", "-c", "write -P 97 14M 64k", "t.qcow2")


def told(name):
    info = json.loads(run("qemu-img", "info", "--output=json", name))
    return (info["virtual-size"], info["format-specific"],
            [(s["id"], s["name"]) for s in info.get("snapshots", [])])


def once(free, args):
    """Did it succeed?"""
    shutil.copyfile("t.qcow2", "full/t.qcow2")
    fill("full", free)
    r = subprocess.run(["imgctl", *args], text=True, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT)
    where = f"{args} with {free} free: {r.stdout}"
    c = subprocess.run(["qemu-img", "check", "full/t.qcow2"], text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert c.returncode == 0, where + c.stdout
    if r.returncode:
        assert r.returncode == 1 and "No space left" in r.stdout, where
        assert told("full/t.qcow2") == told("t.qcow2"), where
        run("qemu-img", "compare", "t.qcow2", "full/t.qcow2")
    for name in os.listdir("full"):
        os.unlink("full/" + name)
    return r.returncode == 0


def swept(step, *args):
    """So many times it was refused."""
    args = [a.replace("IMG", "full/t.qcow2") for a in args]
    for n in range(100):
        if once(n * step, args):
            return n
    raise AssertionError(f"{args} never succeeds")


for cluster, step, more in (("512", 4096, ""), ("4k", 4096, ",refcount_bits=64"),
                            ("64k", 20480, "")):
    make(cluster, more)
    refused = [swept(step, "snapshot", *a, "IMG") for a in
               (("-c", "s3"), ("-d", "s1"), ("-a", "s1"))]
    assert min(refused) > 1, refused
    refused += [swept(step, "resize", "IMG", "256M"),
                swept(step, "amend", "-o", "refcount_bits=8", "IMG")]
    print(cluster, "refused:", refused)


def again(free, args, top, looked_at):
    """Refused for want of space with @free bytes, then there is enough."""
    run("qemu-img", "convert", "-O", "raw", top, "before")
    fill("full", free)
    for code in 1, 0:
        r = subprocess.run(["imgctl", *args], text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert r.returncode == code, (free, args, r.stdout)
        assert not code or "No space left" in r.stdout, r.stdout
        run("qemu-img", "check", "-q", looked_at)
        run("qemu-img", "compare", "-q", "-F", "raw", top, "before")
        if code:
            os.unlink("full/filler")
    for name in os.listdir("full"):
        os.unlink("full/" + name)


for name in "old.raw", "new.raw":
    run("qemu-img", "create", "-q", "-f", "raw", name, "8M")
run("qemu-io", "-f", "raw", "-c", "write -P 9 1M 2M", "old.raw")
for free in 0, 4096, 70000, 1000000:
    run("qemu-img", "create", "-q", "-f", "qcow2", "full/b.qcow2", "8M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "full/b.qcow2", "-F",
        "qcow2", "top.qcow2")
    run("qemu-io", "-c", "write -P 2 100k 1M", "-c", "write -P 3 5M 700k",
        "top.qcow2")
    again(free, ("commit", "top.qcow2"), "top.qcow2", "full/b.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", f"{tmp}/old.raw",
        "-F", "raw", "full/t.qcow2")
    again(free, ("rebase", "-b", f"{tmp}/new.raw", "-F", "raw",
                 "full/t.qcow2"), "full/t.qcow2", "full/t.qcow2")
