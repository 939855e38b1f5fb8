#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each file and directory of a mount says by ioctl what it is (F12); the root
says which image files are open.  Everything else is ENOTTY."""
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile

build = os.environ.get("top_builddir") or os.path.abspath(
    os.path.join(os.path.dirname(sys.argv[0]), ".."))
HEAD = "=8I2Q256s"
OPEN = "=2Q256s"
SIZE = struct.calcsize(HEAD) + 32 * struct.calcsize(OPEN)
IDENTITY = 2 << 30 | SIZE << 16 | ord("i") << 8 | 1
IS_OPEN, IS_WRITABLE, MOUNT_RW = 1, 2, 4
FOLDER, IMAGE, DISK = 0, 1, 2


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def identity(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        raw = bytearray(SIZE)
        fcntl.ioctl(fd, IDENTITY, raw)
    finally:
        os.close(fd)
    head = struct.unpack_from(HEAD, raw)
    names = ("version", "kind", "layer", "number", "flags", "nr_open", "pid",
             "reserved", "dev", "ino", "name")
    info = dict(zip(names, head))
    info["name"] = info["name"].rstrip(b"\0").decode()
    at = struct.calcsize(HEAD)
    info["open"] = [struct.unpack_from(OPEN, raw, at + i * struct.calcsize(
        OPEN))[:2] for i in range(info["nr_open"])]
    return info


def same_file(info, path):
    st = os.stat(path)
    return (info["dev"], info["ino"]) == (st.st_dev, st.st_ino)


def check(tmp):
    src, m = tmp + "/src", tmp + "/m"
    a = src + "/a.qcow2"
    os.mkdir(src)
    os.mkdir(m)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", a, "1M"],
                   check=True)
    subprocess.run([build + "/imgfs", "-o", "rw", src, m], check=True)
    try:
        root = identity(m)
        assert root["version"] == 1 and root["kind"] == FOLDER, root
        assert root["nr_open"] == 0 and root["flags"] == MOUNT_RW, root
        image = identity(m + "/a.qcow2")
        assert image["kind"] == IMAGE and same_file(image, a), image
        assert image["name"] == "a.qcow2", image
        fd = os.open(m + "/a.qcow2/disk", os.O_RDWR)
        disk = identity(m + "/a.qcow2/disk")
        assert disk["kind"] == DISK and same_file(disk, a), disk
        assert disk["flags"] == IS_OPEN | IS_WRITABLE | MOUNT_RW, disk
        root = identity(m)
        st = os.stat(a)
        assert root["open"] == [(st.st_dev, st.st_ino)], root
        try:
            fcntl.ioctl(fd, 0x80081272, bytes(8))       # BLKGETSIZE64
            raise AssertionError("an unknown ioctl succeeded")
        except OSError as e:
            assert e.errno == errno.ENOTTY, e
        os.close(fd)
    finally:
        subprocess.run(["umount", "-i", m] if os.geteuid() == 0 else
                       ["fusermount3", "-u", m], check=True)


def main():
    if not os.path.exists("/dev/fuse") or not os.access("/dev/fuse", os.W_OK):
        skip("no /dev/fuse for us")
    if not shutil.which("qemu-img"):
        skip("qemu-img is not installed")
    tmp = tempfile.mkdtemp(prefix="imgfs-test.")
    try:
        check(tmp)
    finally:
        shutil.rmtree(tmp)


main()
