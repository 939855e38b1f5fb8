#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sizes changed by us and by qemu-img in turn, with writes in between: after
every step qemu-img reads what a model says and finds the image sound.  Kinds of
images: raw, qed, qcow2 with small and large clusters, subclusters, version 2, a
backing file that is longer, internal snapshots, data files, bitmaps."""

import random

from testlib import *

requires("qemu-img", "qemu-io")
seeds = int(os.environ.get("SEEDS", "1"))


def check(fmt, name, unsound=()):
    r = subprocess.run(["qemu-img", "check", "-f", fmt, name], text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert r.returncode in (0, 63), r.stdout


class Image:
    def __init__(self, rnd, fmt, opts, backing=None, data=None):
        self.rnd, self.fmt, self.data = rnd, fmt, data
        self.model = bytearray(300 * 1024)
        args = ["qemu-img", "create", "-q", "-f", fmt]
        if opts:
            args += ["-o", opts]
        if backing:
            with open("base", "wb") as f:
                f.write(backing)
            args += ["-b", "base", "-F", "raw"]
            self.model[:] = backing[:len(self.model)]
        self.name = "i." + fmt
        run(*args, self.name, str(len(self.model)))
        self.log = []

    def write(self):
        size = len(self.model)
        off = self.rnd.randrange(size // 512) * 512
        n = min(self.rnd.randrange(1, 200) * 512, size - off)
        byte = self.rnd.randrange(1, 256)
        run("qemu-io", "-f", self.fmt, "-c", f"write -P {byte} {off} {n}",
            self.name)
        self.model[off:off + n] = bytes([byte]) * n
        self.log.append(f"write {off} {n}")

    def snapshot(self):
        run("qemu-img", "snapshot", "-c", f"s{self.rnd.random()}", self.name)

    def resize(self, prog, shrink):
        old = len(self.model)
        new = self.rnd.randrange(1, 4 << 20) // 512 * 512
        if prog == "qemu-img":      # leaves what is in a last part of a unit
            new = (new + 65535) // 65536 * 65536
        if new < old and not shrink:
            new = old + new
        mode = self.rnd.choice(["off", "off", "full", "metadata", "falloc"])
        if new <= old or self.fmt != "qcow2":
            mode = "off"
        run(prog, "resize", "-q", "-f", self.fmt, "--preallocation=" + mode,
            *(["--shrink"] if new < old else []), self.name, str(new))
        self.model[new:] = b""
        self.model.extend(bytes(new - len(self.model)))
        self.log.append(f"{prog} resize {old} {new} {mode}")

    def verify(self):
        check(self.fmt, self.name)
        run("qemu-img", "convert", "-f", self.fmt, "-O", "raw", self.name,
            "out")
        with open("out", "rb") as f:
            got = f.read()
        assert len(got) == len(self.model), (len(got), self.log)
        if got != self.model:
            at = next(i for i in range(len(got)) if got[i] != self.model[i])
            raise AssertionError((at, got[at], self.model[at], self.log))
        if self.data == "raw":
            with open("data", "rb") as f:
                data = f.read()
            # QEMU's, with preallocation, ends with a whole cluster.
            ours = self.log[-1].startswith("imgctl")
            assert data[:len(got)] == got, self.log
            assert len(data) == len(got) or not ours, self.log


def story(rnd, fmt, opts="", shrink=True, snapshots=False, **kw):
    img = Image(rnd, fmt, opts, **kw)
    for step in range(8):
        img.write()
        if snapshots and step % 4 == 1:
            img.snapshot()
        # Growing over a longer backing file is right in newer ones only.
        theirs = not kw.get("backing") and step % 4 == 3
        img.resize("qemu-img" if theirs else "imgctl",
                   shrink and not theirs and rnd.random() < 0.5)
        img.verify()


def bitmaps(rnd):
    """A bitmap follows the size; what is new is not dirty."""
    img = Image(rnd, "qcow2", "cluster_size=4k")
    run("qemu-img", "bitmap", "--add", "-g", "4096", img.name, "b")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 8k", img.name)
    for size in "3M", "100k", "1M":
        run("imgctl", "resize", "-q", "--shrink", img.name, size)
        check("qcow2", img.name)
        assert '"name": "b"' in run("qemu-img", "info", "--output=json",
                                    img.name)
        dirty = run("qemu-img", "map", "--output=json", "--image-opts",
                    "driver=qcow2,file.filename=" + img.name)
        assert dirty
    run("qemu-img", "bitmap", "--add", "--merge", "b", img.name, "c")


def main():
    for seed in range(seeds):
        rnd = random.Random(seed)
        story(rnd, "raw")
        story(rnd, "qed", shrink=False)
        story(rnd, "qcow2", "cluster_size=512")
        story(rnd, "qcow2", "cluster_size=4k")
        story(rnd, "qcow2", "compat=0.10")
        story(rnd, "qcow2", "extended_l2=on")
        story(rnd, "qcow2", "cluster_size=4k",
              backing=rnd.randbytes(2 << 20))
        story(rnd, "qcow2", "compat=0.10,cluster_size=4k",
              backing=rnd.randbytes(2 << 20))
        story(rnd, "qcow2", "cluster_size=4k", snapshots=True)
        for raw in "on", "off":
            if os.path.exists("data"):
                os.unlink("data")
            story(rnd, "qcow2", f"data_file=data,data_file_raw={raw}",
                  data="raw" if raw == "on" else "plain")
        bitmaps(rnd)


main()
