#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes that fail because the host's disk is full leave nothing behind, in each
format: no space is lost however often they are tried, and when there is space
again what is written into clusters that were begun reads right, around it too."""

import json
import threading

from testlib import *

requires("qemu-img")
IMGIO = TOP + "/tests/imgio"
KINDS = ("qcow2", ""), ("qcow", ""), ("qed", "cluster_size=4k"), \
    ("parallels", "cluster_size=64k"), ("vmdk", ""), ("vdi", ""), ("vpc", ""), \
    ("vhdx", "block_size=1M")

tmpfs("full", "16m")


def make(fmt, options):
    run("imgctl", "create", "-q", "-f", fmt, *(["-o", options] if options
                                               else []), "full/i", "64M")


def free_when_told():
    wait_until(60, lambda: os.path.exists("go"), "nobody says go")
    os.unlink("full/filler")
    os.unlink("go")


# Whole clusters that fail half-way; afterwards parts of clusters.
FAIL = ["-c", "write -P 9 40M 4M", "-c", "wait"] * 12 + \
    [x for i in range(12) for x in ("-c", f"write -P 9 {20 + i % 2 * 8}M 4M")]
GO = ["-c", "wait", "-c", f"touch {tmp}/go", "-c", "sleep 300"]
AGAIN = [x for i in range(8) for x in
         ("-c", f"write -P {50 + i} {10 * MIB + i * 100000} 5000")]


def spoilt(img):
    with open(img, "rb") as f:
        f.seek(10 * MIB)
        got = f.read(MIB)
    want = bytearray(MIB)
    for i in range(8):
        want[i * 100000:i * 100000 + 5000] = bytes([50 + i]) * 5000
    return got != want


def once(fmt, options, free, threads):
    make(fmt, options)
    subprocess.run([IMGIO, "-f", fmt, "-c", "write -P 1 0 300k", "full/i"],
                   check=True)
    before = os.stat("full/i").st_size
    fill("full", free)
    t = threading.Thread(target=free_when_told)
    t.start()
    r = subprocess.run([IMGIO, "-f", fmt, "-T", str(threads), *FAIL, *GO,
                        *AGAIN, "full/i"], text=True, stderr=subprocess.PIPE)
    t.join()
    where = f"{fmt}, {free} free, {threads} threads: {r.stderr}"
    lines = r.stderr.splitlines()
    assert r.returncode == 1 and len(lines) == 24, where
    assert all("No space left" in x for x in lines), where
    grown = os.stat("full/i").st_size - before
    # qcow2 takes other clusters until the next flush has counted the old ones.
    assert fmt == "qcow2" or grown <= free + 9 * MIB, f"{where} grown by {grown}"
    c = subprocess.run(["imgctl", "check", "--output=json", "-f", fmt,
                        "full/i"], text=True, stdout=subprocess.PIPE)
    found = json.loads(c.stdout)
    # VDI counts a block too many where a later one was stored.
    hole = fmt == "vdi" and threads > 1 and found.get("corruptions") == 1
    assert hole or c.returncode == 0 and not found.get("leaks"), \
        where + c.stdout
    run("imgctl", "convert", "-f", fmt, "-O", "raw", "full/i", "raw")
    assert not spoilt("raw"), where
    os.unlink("full/i")


for kind in KINDS:
    for free, threads in (0, 4), (90112, 1), (1200000, 4):
        once(*kind, free, threads)
