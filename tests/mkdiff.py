#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""mkdiff.py vdi|vpc|vhdx BASE NAME [PATH]

Makes the differencing image NAME, without data of its own, over the image BASE
(as imgctl or qemu-img has just made it): a VDI names it by its UUID, a VHD and a
VHDX by PATH and number.  Written from the formats' descriptions.
"""
import os
import struct
import sys
import uuid

MIB = 1 << 20


def vdi(base, name, _):
    with open(base, "rb") as f:
        h = bytearray(f.read(1024))
    h[0x1b8:0x1c8] = h[0x188:0x198]
    h[0x188:0x198] = os.urandom(16)
    h[0x1a8:0x1b8] = os.urandom(16)
    h[0x4c:0x50] = (4).to_bytes(4, "little")
    blocks, = struct.unpack_from("<I", h, 0x180)
    h[0x184:0x188] = bytes(4)
    h[0x200:] = (b"\xff" * 4 * blocks).ljust(-(-4 * blocks // 512) * 512, b"\0")
    with open(name, "wb") as f:
        f.write(h)


def seal(b, at):
    b[at:at + 4] = bytes(4)
    b[at:at + 4] = struct.pack(">I", ~sum(b) & 0xffffffff)


def vpc(base, name, path):
    with open(base, "rb") as f:
        b = f.read(1536)
    foot, head = bytearray(b[:512]), bytearray(b[512:])
    entries, = struct.unpack_from(">I", head, 28)
    table = -(-4 * entries // 512) * 512
    foot[60:64] = struct.pack(">I", 4)
    foot[68:84] = os.urandom(16)
    head[40:56] = b[68:84]
    text = path.replace("/", "\\").encode("utf-16-le")
    head[64:64 + 2 * len(path)] = path.encode("utf-16-be")
    head[576:600] = b"W2ru" + struct.pack(">IIIQ", 512, len(text), 0,
                                          1536 + table)
    seal(foot, 64)
    seal(head, 36)
    with open(name, "wb") as f:
        f.write(foot + head + b"\xff" * table + text.ljust(512, b"\0") + foot)


def utf16(text):
    return text.encode("utf-16le") if isinstance(text, str) else text


def linkage(link):
    return "{%s}" % uuid.UUID(bytes_le=bytes(link))


def locator(keys):
    """@keys: (key, value), of str or bytes."""
    out = uuid.UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913").bytes_le
    out += struct.pack("<HH", 0, len(keys))
    text, at = b"", 20 + 12 * len(keys)
    for k, v in keys:
        k, v = utf16(k), utf16(v)
        out += struct.pack("<IIHH", at + len(text), at + len(text) + len(k),
                           len(k), len(v))
        text += k + v
    return out + text


def vhdx(base, name, path, change=lambda loc, link: loc):
    with open(base, "rb") as f:
        b = bytearray(f.read(8 * MIB))
    heads = [b[i << 16:(i << 16) + 4096] for i in (1, 2)]
    now = max(heads, key=lambda h: struct.unpack_from("<Q", h, 8))
    loc = change(locator([
        ("parent_linkage", linkage(now[32:48])),
        ("relative_path", path.replace("/", "\\"))]), linkage(now[32:48]))
    bat, meta = (struct.unpack_from("<Q", b, 0x30010 + 32 * i + 16)[0]
                 for i in range(2))
    n, = struct.unpack_from("<H", b, meta + 10)
    struct.pack_into("<H", b, meta + 10, n + 1)
    guid = uuid.UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C").bytes_le
    struct.pack_into("<16sIIII", b, meta + 32 + 32 * n, guid, 0x11000,
                     len(loc), 4, 0)
    b[meta + 0x11000:meta + 0x11000 + len(loc)] = loc
    b[meta + 0x10004] |= 2
    b[bat:bat + 65536] = bytes(65536)
    with open(name, "wb") as f:
        f.write(b)


def main():
    fmt, base, name = sys.argv[1:4]
    path = sys.argv[4] if len(sys.argv) > 4 else base
    {"vdi": vdi, "vpc": vpc, "vhdx": vhdx}[fmt](base, name, path)


if __name__ == "__main__":
    main()
