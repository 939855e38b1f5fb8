#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Parents of VDI, VHD and VHDX that an attacker chose: the image itself, a loop,
names that are no UTF-16, that hold a NUL, "..", a device, a protocol or 64 KiB,
locators that lie nowhere.  Each is a sentence on stderr, at once, and the sound
name behind a hostile one is still followed.  A folder of all of them is listed,
and its disks answer with an error."""
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mkdiff  # noqa: E402
import testlib  # noqa: E402
from testlib import run  # noqa: E402

BASES = {"vdi": "static=off", "vpc": "force_size=on", "vhdx": "block_size=1M"}
FOUND, refused = bytes([1]) * (4 << 20), []

os.mkdir("in")
os.chdir("in")
for f, options in BASES.items():
    run("imgctl", "create", "-q", "-f", f, "-o", options, "base." + f, "4M")
    run(os.path.join(testlib.TOP, "tests/imgio"), "-f", f, "-c",
        "write -P 1 0 4M", "base." + f)


def load(name):
    with open(name, "rb") as f:
        return bytearray(f.read())


def save(name, data):
    with open(name, "wb") as f:
        f.write(data)


def tried(*words):
    p = subprocess.run(["imgctl", *words], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=30)
    return p.returncode, p.stderr.decode("utf-8", "replace")


def refuses(name, *sentences):
    """Info may do without the parent; nothing else reads it."""
    for words in ["info"], ["info", "--backing-chain"]:
        assert tried(*words, name)[0] in (0, 1), (name, words)
    for words in ["map"], ["convert", "-O", "raw"]:
        rc, err = tried(*words, name, *(["out"] if "-O" in words else []))
        assert rc == 1 and err.count("imgctl: ") == 1, (name, words, rc, err)
        assert any(s in err for s in sentences), (name, words, err)
    refused.append(name)


def follows(name):
    assert tried("convert", "-O", "raw", name, "out") == (0, ""), name
    assert load("out") == FOUND, name


# ---- loops: itself, and two that are each other's -------------------------------

def vdi(name, own, parent):
    mkdiff.vdi("base.vdi", name, None)
    b = load(name)
    b[0x188:0x198], b[0x1b8:0x1c8] = own, parent
    save(name, b)


def vpc(name, path=b"", header=b"", own=None, parent=None, **locator):
    """@locator: at, length, code, of the first of them."""
    mkdiff.vpc("base.vpc", name, "base.vpc")
    b = load(name)
    foot, head, rest = b[:512], b[512:1536], b[1536:-512]
    table = len(rest) - 512
    if own:
        foot[68:84], head[40:56] = own, parent
    head[64:576] = header.ljust(512, b"\0")
    path = mkdiff.utf16(path)
    head[576:600] = locator.get("code", b"W2ru") + struct.pack(
        ">IIIQ", 512, locator.get("length", len(path)), 0,
        locator.get("at", 1536 + table))
    for b, at in (foot, 64), (head, 36):
        mkdiff.seal(b, at)
    save(name, foot + head + rest[:table] + path.ljust(512, b"\0") + foot)


A, B = bytes([10]) * 16, bytes([11]) * 16
vdi("self.vdi", A, A)
vpc("self.vpc", "self.vpc", own=A, parent=A)
mkdiff.vhdx("base.vhdx", "self.vhdx", "self.vhdx")
vdi("a.vdi", B, bytes([12]) * 16)
vdi("b.vdi", bytes([12]) * 16, B)
vpc("a.vpc", "b.vpc", own=A, parent=B)
vpc("b.vpc", "a.vpc", own=B, parent=A)
mkdiff.vhdx("base.vhdx", "a.vhdx", "b.vhdx")
mkdiff.vhdx("base.vhdx", "b.vhdx", "a.vhdx")
for n in "self", "a", "b":
    for f in BASES:
        refuses(f"{n}.{f}", "creates an infinite loop")

# ---- VDI: all that lies in the folder is looked at ------------------------------

os.mkfifo("fifo.vdi")
os.symlink("/dev/zero", "zero.vdi")
os.symlink("gone.vdi", "gone.vdi")
vdi("none.vdi", A[::-1], b"\xfe" * 16)
refuses("none.vdi", "is not in the image's folder")

# ---- names ----------------------------------------------------------------------

NAMES = {
    "up": "..\\" * 300 + "etc\\passwd", "root": "\\etc\\passwd",
    "device": "\\dev\\zero", "fifo": "fifo.vdi", "dots": "..", "slash": "\\",
    "percent": "%s%n%s", "json": 'json:{"driver":"raw"}', "net": "nbd://x/y",
    "line": "base\n.vpc", "high": b"\0\xd8" * 9, "low": b"\0\xdc" * 9,
    "half": b"\0\xd8a\0", "odd": b"b\0a", "long": "x" * 1000,
    "longer": "x" * 32767, "deep": "a\\" * 16383, "empty": "",
}
for n, path in NAMES.items():
    vpc(n + ".vpc", path)
    refuses(n + ".vpc", "The parent '", "Could not open '",
            "to be a regular file")
    mkdiff.vhdx("base.vhdx", n + ".vhdx", "", lambda _, link: mkdiff.locator(
        [("parent_linkage", link), ("relative_path", path)]))
    refuses(n + ".vhdx", "Could not open backing file", "locator of the VHDX")

# ---- VHD: locators, then the header's name --------------------------------------

sound = "base.vpc".encode("utf-16be")
for n, how in enumerate([
        {"at": at} for at in (0, 1 << 40, (1 << 63) - 1, 1 << 63,
                              (1 << 64) - 1)] + [
        {"length": n} for n in (0, 1, 2049, 65536, 0xffffffff)] + [
        {"code": b"MacX"}, {"code": b"\xff" * 4}]):
    vpc(f"l{n}.vpc", "nosuch", **how)
    refuses(f"l{n}.vpc", "is not where the image says")
    vpc(f"ok{n}.vpc", "nosuch", sound, **how)
    follows(f"ok{n}.vpc")
vpc("surrogates.vpc", header=b"\xd8\0" * 256)
refuses("surrogates.vpc", "Could not open", "The parent '")

# ---- VHDX: locators -------------------------------------------------------------

HEAD = mkdiff.locator([])[:16]
OTHER = "{12345678-1234-1234-1234-123456789abc}"
PATH = "relative_path", "base.vhdx"


def keyed(*keys):
    """@ is the right number."""
    return lambda _, link: mkdiff.locator(
        [(k, link if v == "@" else v) for k, v in keys])


LINK = "parent_linkage", "@"
for n, change in enumerate([
        keyed(), keyed(PATH), keyed(LINK), keyed(*[LINK] * 100),
        keyed(("parent_linkage", ""), PATH),
        keyed(("parent_linkage", "{zz}"), PATH),
        keyed(("parent_linkage", OTHER[:14]), PATH),
        keyed((b"\0\xd8", "x"), LINK, PATH), keyed(("", "x"), LINK, PATH),
        keyed(LINK, ("relative_path", "base.vhdx\0")),
        lambda loc, _: loc[:18] + b"\xff\xff" + loc[20:],
        lambda loc, _: HEAD, lambda loc, _: bytes(16) + loc[16:],
        lambda loc, _: HEAD + struct.pack("<HHIIHH", 0, 1, 0xffffffff,
                                          0xfffffffe, 65535, 65535),
        lambda loc, _: HEAD + struct.pack("<HH", 0, 64) + struct.pack(
            "<IIHH", 0, 0, 65534, 65534) * 64 + b"a\0" * 32767]):
    mkdiff.vhdx("base.vhdx", f"l{n}.vhdx", "", change)
    refuses(f"l{n}.vhdx", "The parent locator of the VHDX image is invalid")
mkdiff.vhdx("base.vhdx", "other.vhdx", "",
            keyed(("parent_linkage", OTHER), PATH))
refuses("other.vhdx", "is another image, or was written to")
mkdiff.vhdx("base.vhdx", "ok.vhdx", "", keyed(
    ("parent_linkage", OTHER), ("parent_linkage2", "@"),
    ("relative_path", "nosuch"), ("volume_path", "\\\\?\\Volume{1}\\base.vhdx")))
follows("ok.vhdx")

# ---- a folder of them -----------------------------------------------------------

os.unlink("out")
if os.access("/dev/fuse", os.R_OK | os.W_OK):
    m = testlib.mount(".")
    assert set(refused) <= set(os.listdir(m))
    for n in refused:
        why = testlib.errname(load, f"{m}/{n}/disk")
        assert why != "ok", (n, why, load(f"{m}/{n}/status"))
        assert load(f"{m}/{n}/status"), n
    for n in "ok.vhdx", "ok0.vpc", "base.vdi":
        assert load(f"{m}/{n}/disk") == FOUND, n
