#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""VHDX: sequence numbers, GUIDs and checksums of headers, region tables and the
log, as MS-VHDX has them, after each kind of session.  The reader here is a script
made from the format's description: nothing of it is shared with the driver."""
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from testlib import MIB, run, IMGCTL, TOP       # noqa: E402

IMGIO = os.path.join(TOP, "tests/imgio")
NONE = bytes(16)


def crc_table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
        table.append(i)
    return table


def crc32c(b, table=crc_table()):
    crc = 0xffffffff
    for c in b:
        crc = crc >> 8 ^ table[(crc ^ c) & 255]
    return crc ^ 0xffffffff


def sealed(b):
    return struct.unpack_from("<I", b, 4)[0] == \
        crc32c(b[:4] + bytes(4) + b[8:])


class Header:
    def __init__(self, b):
        assert b[:4] == b"head" and sealed(b), "a header is not sound"
        self.seq, = struct.unpack_from("<Q", b, 8)
        self.file, self.data, self.log = b[16:32], b[32:48], b[48:64]
        self.log_version, self.version, self.log_len, self.log_at = \
            struct.unpack_from("<HHIQ", b, 64)
        self.rest = b[8 + 8:]
        assert (self.log_version, self.version) == (0, 1)
        assert self.log_len % MIB == 0 and self.log_at % MIB == 0
        assert not any(b[80:])


class Entry:
    def __init__(self, log, at):
        b = log[at:at + 64]
        (self.crc, self.len, self.tail, self.seq, self.count, _, self.guid,
         self.flushed, self.last) = struct.unpack_from("<IIIQII16sQQ", b, 4)
        assert 0 < self.len <= len(log) // 2 and self.len % 4096 == 0
        self.at = at
        self.bytes = (log + log)[at:at + self.len]
        assert sealed(self.bytes), "an entry of the log is not sound"
        self.pages = {}
        first = -(-(64 + 32 * self.count) // 4096)
        assert self.len == 4096 * (first + self.count)
        for i in range(self.count):
            self.take(i, first + i)

    def take(self, i, sector):
        sig, trail, lead, off, seq = struct.unpack_from(
            "<4s4s8sQQ", self.bytes, 64 + 32 * i)
        s = self.bytes[4096 * sector:4096 * (sector + 1)]
        assert sig == b"desc" and seq == self.seq and off % 4096 == 0
        assert s[:4] == b"data"
        high, low = struct.unpack("<I", s[4:8])[0], \
            struct.unpack("<I", s[-4:])[0]
        assert high << 32 | low == self.seq
        self.pages[off] = lead + s[8:-4] + trail


class Vhdx:
    def __init__(self, name):
        with open(name, "rb") as f:
            self.head = f.read(MIB)
            self.end = f.seek(0, 2)
            self.headers = [Header(self.head[i << 16:(i << 16) + 4096])
                            for i in (1, 2)]
            regions = [self.head[i << 16:(i + 1) << 16] for i in (3, 4)]
            for r in regions:
                assert r[:4] == b"regi" and sealed(r)
            assert regions[0] == regions[1]
            a, b = self.headers
            self.now = max(a, b, key=lambda h: h.seq)
            f.seek(self.now.log_at)
            self.log = f.read(self.now.log_len)
        self.name = name

    def entries(self):
        """Those that bear the current log's number, by number."""
        found = [Entry(self.log, at) for at in range(0, len(self.log), 4096)
                 if self.log[at:at + 4] == b"loge" and
                 self.log[at + 32:at + 48] == self.now.log]
        return sorted(found, key=lambda e: e.seq)

    def place(self, off):
        with open(self.name, "rb") as f:
            f.seek(off)
            return f.read(4096)


def imgio(name, *commands):
    args = [IMGIO, "-f", "vhdx"]
    for c in commands:
        args += ["-c", c]
    subprocess.run(args + [name], check=True)


def settled(v):
    """Between sessions: no log, both headers alike, one number apart."""
    a, b = v.headers
    assert abs(a.seq - b.seq) == 1 and a.rest == b.rest
    assert v.now.log == NONE


def session_of_a_writer(name):
    before = Vhdx(name)
    settled(before)
    imgio(name, "read 0 4k")
    same = Vhdx(name)
    assert same.head == before.head, "reading wrote something"
    imgio(name, "write -P 1 0 1M", "flush", "write -P 2 5M 4k")
    after = Vhdx(name)
    settled(after)
    assert after.now.seq > before.now.seq + 1
    assert after.now.file not in (NONE, before.now.file)
    assert after.now.data not in (NONE, before.now.data)


def session_of_a_reader(name):
    before = Vhdx(name)
    run(IMGCTL, "convert", "-f", "vhdx", "-O", "raw", name, "out.raw")
    run(IMGCTL, "check", "-q", name)
    run(IMGCTL, "info", name)
    assert Vhdx(name).head == before.head


def session_that_dies(name):
    before = Vhdx(name)
    imgio(name, "write -P 3 7M 4k", "flush", "write -P 4 9M 4k", "flush",
          "write -P 5 3M 4k", "flush", "abort")
    v = Vhdx(name)
    assert v.now.log != NONE and v.now.seq > before.now.seq
    entries = v.entries()
    assert len(entries) == 3, len(entries)
    at = entries[0].at
    for before, e in zip([None] + entries, entries):
        assert before is None or e.seq == before.seq + 1
        assert e.at == at
        at = (at + e.len) % len(v.log)
        # Each is complete in itself.
        assert e.tail == e.at
        assert e.flushed <= v.end and e.last <= v.end
        assert e.flushed <= e.last
    for off, page in entries[-1].pages.items():
        assert v.place(off) == page
    # Reading sees it; writing replays it and lets the log go.
    session_of_a_reader(name)
    imgio(name, "write -P 6 11M 4k")
    settled(Vhdx(name))
    imgio(name, "read -P 3 7M 4k", "read -P 4 9M 4k", "read -P 5 3M 4k",
          "read -P 6 11M 4k")


def batches(name):
    """A flush of 200 pages of the table, with a log of 256 sectors."""
    run(IMGCTL, "create", "-q", "-f", "vhdx", "-o", "block_size=1M", name,
        "102400M")
    imgio(name, *("write -P 9 %dM 512" % i for i in range(0, 102400, 512)),
          "flush", "abort")
    v = Vhdx(name)
    entries = v.entries()
    assert len(entries) >= 2, len(entries)
    assert [e.seq for e in entries] == list(range(
        entries[0].seq, entries[0].seq + len(entries)))
    assert sum(e.count for e in entries) == 200
    for e in entries:
        assert e.len <= len(v.log) // 2 and e.tail == e.at
        for off, page in e.pages.items():
            assert v.place(off) == page
    os.unlink(name)


def main():
    for options in "block_size=1M", "log_size=3M,block_size=2M", \
            "subformat=fixed,block_size=1M,block_state_zero=off":
        run(IMGCTL, "create", "-q", "-f", "vhdx", "-o", options, "a.vhdx",
            "20M")
        session_of_a_writer("a.vhdx")
        session_of_a_reader("a.vhdx")
        if "fixed" not in options:
            session_that_dies("a.vhdx")
        session_of_a_writer("a.vhdx")
    batches("b.vhdx")


main()
