#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 300
"""Incremental backup with files, as imgfs-tree(7) tells it: while fio writes to
the disk, a full backup and three incremental ones; each restored one is what its
snapshot is.  Once more with an instant that comes 3 seconds late."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

BUILD = os.environ.get("top_builddir", os.path.join(os.path.dirname(
    os.path.abspath(__file__)), ".."))
SIZE = 64 << 20
ROUNDS = 3


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def ranges(path):
    with open(path) as f:
        return [(r["start"], r["length"]) for r in json.load(f)]


def copy_ranges(source, target, todo):
    """Returns how many bytes that were."""
    with open(source, "rb") as s, open(target, "r+b") as t:
        for start, length in todo:
            s.seek(start)
            t.seek(start)
            t.write(s.read(length))
    return sum(length for _, length in todo)


class Writer:
    """fio, writing here and there until it is stopped."""

    def __init__(self, disk, log):
        self.fio = subprocess.Popen(
            ["fio", "--name=w", "--filename=" + disk, "--rw=randwrite",
             "--bs=4k-64k", "--size=%d" % SIZE, "--ioengine=psync",
             "--numjobs=2", "--time_based", "--runtime=200",
             "--rate_iops=150", "--fallocate=none", "--refill_buffers",
             "--fsync=64"], stdout=log, stderr=log)

    def stop(self):
        self.fio.send_signal(signal.SIGINT)
        self.fio.wait()


class Backup:
    def __init__(self, mount, store):
        self.mount, self.store = mount, store
        self.copied = []

    def path(self, *names):
        return os.path.join(self.mount, *names)

    def instant(self, n):
        """Bitmap first, then the snapshot: what it does not show is in the
        bitmap."""
        os.mkdir(self.path("bitmaps", "b%d" % n))
        os.mkdir(self.path("snapshots", "s%d" % n))
        with open(self.path("snapshots", "s%d" % n, "info.json")) as f:
            f.read()            # waits for the instant

    def wait_written(self, n):
        """Until fio has written a little since bitmap n was made."""
        count = 0
        while count < 1 << 20:
            time.sleep(0.05)
            with open(self.path("bitmaps", "b%d" % n, "info.json")) as f:
                count = json.load(f)["count"]

    def full(self):
        self.instant(0)
        shutil.copyfile(self.path("snapshots", "s0", "disk"),
                        os.path.join(self.store, "0"))

    def incremental(self, n):
        self.instant(n)
        todo = ranges(self.path("bitmaps", "b%d" % (n - 1), "map.json"))
        inc = os.path.join(self.store, str(n))
        with open(inc, "wb") as f:
            f.truncate(SIZE)
        self.copied.append(copy_ranges(self.path(
            "snapshots", "s%d" % n, "disk"), inc, todo))
        with open(inc + ".json", "w") as f:
            json.dump(todo, f)
        os.rmdir(self.path("bitmaps", "b%d" % (n - 1)))

    def restore_all(self):
        """Each one from the full and all increments up to it."""
        out = os.path.join(self.store, "restored")
        shutil.copyfile(os.path.join(self.store, "0"), out)
        for n in range(ROUNDS + 1):
            if n:
                inc = os.path.join(self.store, str(n))
                with open(inc + ".json") as f:
                    copy_ranges(inc, out, json.load(f))
            subprocess.run(["cmp", out, self.path(
                "snapshots", "s%d" % n, "disk")], check=True)


def late(fifo):
    """Lets the instant that waits at the pause point happen after 3 s."""
    with open(fifo, "w") as f:
        time.sleep(3)
        f.write("\n")


def run(top, delayed):
    image, mount = os.path.join(top, "a.qcow2"), os.path.join(top, "m")
    store, fifo = os.path.join(top, "store"), os.path.join(top, "fifo")
    env = dict(os.environ)
    os.mkdir(mount)
    os.mkdir(store)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image,
                    str(SIZE)], check=True)
    if delayed:
        os.mkfifo(fifo)
        env["IMGFS_PAUSE"] = PAUSE + ":" + fifo
        threading.Thread(target=late, args=(fifo,), daemon=True).start()
    subprocess.run([os.path.join(BUILD, "imgfs"), "-o", "rw", image, mount],
                   check=True, env=env)
    try:
        with open(os.path.join(top, "fio.log"), "w") as log:
            writer = Writer(os.path.join(mount, "disk"), log)
            b = Backup(mount, store)
            # There shall be something to back up.
            while os.stat(os.path.join(mount, "disk")).st_blocks < 4096:
                time.sleep(0.05)
                assert writer.fio.poll() is None, "fio has ended"
            begun = time.monotonic()
            b.full()
            if delayed:
                assert time.monotonic() - begun >= 2.5, "nothing was late"
            for n in range(1, ROUNDS + 1):
                b.wait_written(n - 1)
                b.incremental(n)
            assert writer.fio.poll() is None, "fio has ended"
            writer.stop()
        b.restore_all()
        assert all(0 < c < SIZE for c in b.copied), b.copied
        print("bytes of the increments:", *b.copied)
    finally:
        subprocess.run(["umount", mount] if os.getuid() == 0 else
                       ["fusermount3", "-u", mount], check=True)
    wait_unlocked(image)
    subprocess.run(["qemu-img", "check", "-q", image], check=True)
    shutil.rmtree(mount)
    shutil.rmtree(store)
    os.unlink(image)


def wait_unlocked(image):
    """umount(2) has returned before the daemon has ended."""
    for _ in range(600):
        if not subprocess.run(["qemu-io", "-c", "quit", image],
                              capture_output=True).returncode:
            return
        time.sleep(0.05)
    sys.exit("the image is still in use")


PAUSE = "snapshot:instant"


def main():
    if not os.path.exists("/dev/fuse"):
        skip("/dev/fuse is missing")
    for program in "qemu-img", "qemu-io", "fio", "cmp":
        if not shutil.which(program):
            skip(program + " is not installed")
    top = tempfile.mkdtemp(prefix="imgfs-incremental.")
    try:
        run(top, False)
        run(top, True)
    finally:
        shutil.rmtree(top, ignore_errors=True)


main()
