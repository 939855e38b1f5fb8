#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 240
"""Bitmaps of an image that lies: directory, tables, extension with bytes changed
here and there.  Every command ends by itself, with an error or without, in
little memory and time; what qemu-img can open stays openable."""
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

BUILD = os.environ.get("top_builddir", os.path.join(os.path.dirname(
    os.path.abspath(__file__)), ".."))
RUNS = int(os.environ.get("RUNS", "120"))
MEMORY = 1 << 30
EXT = bytes.fromhex("23852875")


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def sanitized():
    with open(os.path.join(BUILD, "Makefile")) as f:
        return "-fsanitize" in f.read()


def limit():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sanitized():     # whose shadow memory is terabytes
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def places(data):
    """Where the bitmaps' metadata are: (offset, length)."""
    at = data.index(EXT)
    _, _, size, dir_at = struct.unpack(">IIQQ", data[at + 8:at + 32])
    found = [(at, 32), (dir_at, size)]
    entry = dir_at
    while entry < dir_at + size:
        table, n = struct.unpack(">QI", data[entry:entry + 12])
        name, = struct.unpack(">H", data[entry + 18:entry + 20])
        found.append((table, 8 * n))
        entry += (24 + name + 7) // 8 * 8
    return found


def damage(data, rng):
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start, length = rng.choice(places(data))
        at = start + rng.randrange(length)
        kind = rng.randrange(4)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff))
        elif kind == 2:     # a field that names another cluster
            at = start + rng.randrange(length) // 8 * 8
            out[at:at + 8] = struct.pack(">Q", rng.randrange(12) * 4096)
        else:
            at = start + rng.randrange(length) // 8 * 8
            out[at:at + 8] = os.urandom(8)
    return bytes(out)


def run(*args):
    done = subprocess.run(args, capture_output=True, preexec_fn=limit,
                          timeout=30)
    if done.returncode not in (0, 1, 2, 3):
        sys.stderr.write(done.stderr.decode(errors="replace"))
        raise SystemExit("%s: exit code %d" % (" ".join(args),
                                               done.returncode))
    return done.returncode


def main():
    if not shutil.which("qemu-img"):
        skip("qemu-img is not installed")
    imgctl = os.path.join(BUILD, "imgctl")
    imgio = os.path.join(BUILD, "tests", "imgio")
    top = tempfile.mkdtemp(prefix="imgfs-hostile.")
    image = os.path.join(top, "a.qcow2")
    try:
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
            "cluster_size=4k", image, "64M")
        for name in "one", "two":
            run("qemu-img", "bitmap", "--add", "-g", "512", image, name)
        run(imgio, "-f", "qcow2", "-c", "write 0 64k", "-c", "write 30M 3M",
            image)
        with open(image, "rb") as f:
            good = f.read()
        written = 0
        for seed in range(RUNS):
            bad = damage(good, random.Random(seed))
            with open(image, "wb") as f:
                f.write(bad)
            run(imgctl, "info", image)
            run(imgctl, "check", image)
            if not run(imgio, "-f", "qcow2", "-c", "write 20M 1M", image):
                written += 1
            run(imgctl, "bitmap", "--add", "--merge", "one", image, "new")
            run(imgctl, "bitmap", "--clear", "--disable", image, "one")
            run(imgctl, "bitmap", "--remove", image, "two")
            run(imgctl, "check", image)
        print("%d of %d damaged images were written to" % (written, RUNS))
    finally:
        shutil.rmtree(top)


main()
