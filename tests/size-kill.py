#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""resize and amend killed at random moments, and resize cancelled as a job on a
mount: the image is sound (leaks are allowed), has the old size or the new one,
reads as before, and the same command run again ends as if nothing had been."""

import json
import random

from testlib import *

requires_fuse()
requires("qemu-img", "qemu-io")
rnd = random.Random(5)
OLD, NEW, LESS = 20 * MIB, 60 * MIB, 3 * MIB


def make():
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k",
        "t.qcow2", str(OLD))
    run("qemu-io", "-c", "write -P 1 0 10M", "-c", "write -z 2M 3M", "-c",
        "write -P 2 15M 5M", "t.qcow2")
    run("qemu-img", "snapshot", "-c", "s", "t.qcow2")
    run("qemu-io", "-c", "write -P 3 1M 1M", "-c", "write -z 8M 1M",
        "t.qcow2")
    run("qemu-img", "convert", "-O", "raw", "t.qcow2", "raw")


def size_of(name):
    return json.loads(run("qemu-img", "info", "--output=json", name))[
        "virtual-size"]


def sound(name, sizes):
    r = subprocess.run(["qemu-img", "check", name], text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert r.returncode in (0, 3), r.stdout
    size = size_of(name)
    assert size in sizes, size
    run("qemu-img", "convert", "-O", "raw", name, "now")
    with open("raw", "rb") as f, open("now", "rb") as g:
        was, now = f.read(), g.read()
    assert now[:size] == was[:size] + bytes(max(0, size - OLD))


def killed(sizes, *args):
    for i in range(int(os.environ.get("KILLS", "5"))):
        shutil.copyfile("t.qcow2", "w.qcow2")
        p = subprocess.Popen(["imgctl", *args, "w.qcow2"] if args[0] ==
                             "amend" else ["imgctl", *args[:-1], "w.qcow2",
                                           args[-1]],
                             stdout=subprocess.DEVNULL)
        time.sleep(rnd.random() * 0.04)     # any moment is as good
        p.kill()
        p.wait()
        sound("w.qcow2", sizes)
        if "--preallocation=full" in args and size_of("w.qcow2") == NEW:
            continue    # it was done; there is nothing to grow any more
        run("imgctl", *args[:-1],
            *(["w.qcow2", args[-1]] if args[0] != "amend" else
              [args[-1], "w.qcow2"]))
        sound("w.qcow2", sizes[-1:])


def cancelled():
    shutil.copyfile("t.qcow2", "w.qcow2")
    m = mount("w.qcow2", options="rw")
    fd = os.open(m + "/ctl", os.O_RDWR)
    for i in range(6):
        os.write(fd, f"resize --preallocation=full {NEW} &".encode())
        job = m + "/jobs/" + os.pread(fd, 20, 0).decode().strip()
        time.sleep(rnd.random() * 0.03)
        try:
            with open(job, "w") as f:
                f.write("cancel")
        except OSError:
            pass                            # it has ended

        def state():
            with open(job) as f:
                return json.load(f)["state"]
        wait_until(30, lambda: state() in ("done", "cancelled", "failed"),
                   "the job does not end")
        end, size = state(), os.stat(m + "/disk").st_size
        assert (end, size) in (("done", NEW), ("cancelled", OLD)), (end, size)
        os.unlink(job)
        if end == "done":
            os.write(fd, f"resize --shrink {OLD}".encode())
    os.close(fd)
    umount(m)
    sound("w.qcow2", [OLD])


make()
killed([OLD, NEW], "resize", "-q", "--preallocation=full", str(NEW))
killed([OLD, LESS], "resize", "-q", "--shrink", str(LESS))
killed([OLD], "amend", "-o", "refcount_bits=64")
cancelled()
run("qemu-img", "snapshot", "-d", "s", "t.qcow2")
killed([OLD], "amend", "-o", "compat=0.10")
