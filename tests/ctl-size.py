#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ctl resize and ctl check on a mounted image, and -o growable: sizes of open
files are right afterwards, readers and writers go on, what cannot be done under
an open disk is EBUSY with a sentence; qemu-img finds the image sound and reads
what was written."""

import json
import threading

from testlib import *

requires_fuse()
requires("qemu-img", "qemu-io")


def ctl(m, line):
    """(error's name or "ok", what is read back)"""
    fd = os.open(m + "/ctl", os.O_RDWR)
    try:
        e = errname(os.write, fd, line.encode())
        return e, os.pread(fd, 65536, 0).decode()
    finally:
        os.close(fd)


def ok(m, line):
    e, text = ctl(m, line)
    assert e == "ok", (line, e, text)
    return text


def fails(m, line, error, sentence):
    e, text = ctl(m, line)
    assert e == error and sentence in text, (line, e, text)


def sound(fmt, name, model):
    r = subprocess.run(["qemu-img", "check", "-q", "-f", fmt, name])
    assert r.returncode in (0, 63)
    run("qemu-img", "convert", "-f", fmt, "-O", "raw", name, "out")
    with open("out", "rb") as f:
        assert f.read() == model


def resizing(fmt, cache):
    name = "a." + fmt
    run("qemu-img", "create", "-q", "-f", fmt, name, "1M")
    model = bytearray(MIB)
    m = mount(name, options=f"rw,cache={cache}" +
              (",raw" if fmt == "raw" else ""))
    fd = os.open(m + "/disk", os.O_RDWR)
    assert os.fstat(fd).st_size == MIB

    def put(off, data):
        assert os.pwrite(fd, data, off) == len(data)
        model[off:off + len(data)] = data

    put(1000, b"first" * 1000)
    assert os.pread(fd, 10, MIB - 5) == bytes(5)
    if cache == "writeback":        # F7: the kernel owns the size
        fails(m, "resize +1M", "EBUSY", "The disk is open")
        os.close(fd)
        ok(m, "resize +1M")
        wait_until(10, lambda: os.stat(m + "/disk").st_size == 2 * MIB,
                   "the new size is not seen")
        fd = os.open(m + "/disk", os.O_RDWR)
    else:
        ok(m, "resize +1M")
    model.extend(bytes(MIB))
    assert os.fstat(fd).st_size == 2 * MIB == os.stat(m + "/disk").st_size
    assert os.pread(fd, 10, MIB - 5) == bytes(10)
    assert os.lseek(fd, 0, os.SEEK_END) == 2 * MIB
    put(2 * MIB - 700, b"x" * 700)
    if cache == "writeback":
        os.close(fd)
        ok(m, "resize 2M")
    else:
        assert errname(os.pwrite, fd, b"y", 2 * MIB) == "ENOSPC"
        ok(m, "resize 2M")
    fails(m, "resize 1M", "EPERM", "Use the --shrink option")
    fails(m, "resize", "EINVAL", "resize takes one size")
    fails(m, "resize 1M 2M", "EINVAL", "resize takes one size")
    fails(m, "resize abc", "EINVAL", "expects a non-negative number")
    fails(m, "resize --preallocation=no 3M", "EINVAL",
          "Invalid preallocation mode 'no'")
    fails(m, "resize -- -5M", "EINVAL", "New image size must be positive")
    if fmt != "qed" and cache != "writeback":
        fails(m, "resize --shrink 1M", "EBUSY", "The disk is open")
    if fmt == "qed":
        fails(m, "resize --preallocation=full 4M", "EOPNOTSUPP",
              "Unsupported preallocation mode 'full'")
    else:
        ok(m, "resize --preallocation=falloc 3M")
        model.extend(bytes(MIB))
    if cache != "writeback":
        os.close(fd)
    if fmt != "qed":
        wait_until(10, lambda: os.stat(m + "/disk").st_size == 3 * MIB,
                   "the new size is not seen")
        fd = os.open(m + "/disk", os.O_RDWR)
        put(5 * MIB // 2, b"z" * 3000)
        os.close(fd)
    if fmt != "qed" and cache != "writeback":
        fd = os.open(m + "/disk", os.O_RDWR)
        ok(m, "resize --shrink --force 1300k")
        del model[1300 * 1024:]
        assert os.fstat(fd).st_size == 1300 * 1024
        assert os.pread(fd, 10, 1300 * 1024 - 3) == bytes(3)
        ok(m, "resize +500k")
        model.extend(bytes(500 * 1024))
        assert os.pread(fd, 500 * 1024, 1300 * 1024) == bytes(500 * 1024)
        os.close(fd)
    umount(m)
    sound(fmt, name, model)


def beside_writers():
    """The disk grows while threads write and read all of it."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512",
        "b.qcow2", "256k")
    m = mount("b.qcow2", options="rw")
    fd = os.open(m + "/disk", os.O_RDWR)
    model = bytearray(256 * 1024)
    stop, failed = threading.Event(), []

    def writer(n):
        i = 0
        try:
            while not stop.is_set() or i < 50:
                off = (i * 37 + n * 64) % 256 * 1024 + n * 256
                data = bytes([n * 50 + i % 50 + 1]) * 256
                os.pwrite(fd, data, off)
                assert os.pread(fd, 256, off) == data
                model[off:off + 256] = data
                i += 1
        except Exception as e:      # told by the main thread
            failed.append(e)
    threads = [threading.Thread(target=writer, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for i in range(20):
        ok(m, "resize +700k")
        model.extend(bytes(700 * 1024))
        assert os.fstat(fd).st_size == len(model)
    stop.set()
    for t in threads:
        t.join()
    assert not failed, failed
    os.close(fd)
    umount(m)
    sound("qcow2", "b.qcow2", model)


def growable(fmt):
    name = "g." + fmt
    run("qemu-img", "create", "-q", "-f", fmt, name, "100k")
    m = mount(name, options="rw,growable" + (",raw" if fmt == "raw" else ""))
    model = bytearray(100 * 1024)
    with open(m + "/disk", "r+b", buffering=0) as f:
        for i in range(40):
            f.seek(0, os.SEEK_END)
            data = bytes([i + 1]) * 51200
            assert f.write(data) == len(data)
            model.extend(data)
            assert os.fstat(f.fileno()).st_size == len(model)
        f.seek(len(model) + 70000)
        f.write(b"w" * 512)
        model.extend(bytes(70000) + b"w" * 512)
        model.extend(bytes(-len(model) % 512))
        f.truncate(3 * MIB)
        model.extend(bytes(3 * MIB - len(model)))
        assert os.fstat(f.fileno()).st_size == 3 * MIB
        f.seek(0)
        assert f.read() == model
        os.fsync(f.fileno())
    # What was synced is there after a kill.
    kill(m)
    run("qemu-img", "convert", "-f", fmt, "-O", "raw", name, "out")
    with open("out", "rb") as f:
        assert f.read() == model
    if fmt != "raw":
        assert subprocess.run(["qemu-img", "check", "-q", name],
                              stdout=subprocess.DEVNULL).returncode in (0, 3)


def growing_snapshot():
    """The disk grows, and its L1 table with it, while a snapshot waits for its
    instant, and while others are made: each is the disk of one moment."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512",
        "s.qcow2", "1M")
    os.mkfifo("pause")
    m = mount("s.qcow2", options="rw,growable",
              env={"IMGFS_PAUSE": "snapshot:instant:" + os.getcwd() + "/pause"})
    model, made, failed = bytearray(MIB), {}, []
    fd = os.open(m + "/disk", os.O_RDWR)

    def put(off, data):
        assert os.pwrite(fd, data, off) == len(data)
        model.extend(bytes(max(0, off + len(data) - len(model))))
        model[off:off + len(data)] = data

    def append(n):
        put(len(model), bytes([len(model) >> 16 & 127 | 1]) * n)

    def grow_to(size):
        try:
            while len(model) < size:
                append(51200)
        except Exception as e:          # told by the main thread
            failed.append(e)

    # The size is changed when the snapshot is there; overwriting goes on.  (64
    # tables of 32 KiB fill a cluster of L1.)
    put(0, b"old" * 10000)
    os.mkdir(m + "/snapshots/paused")
    put(0, b"new" * 10000)
    now = bytes(model)
    t = threading.Thread(target=grow_to, args=(5 * MIB,))
    t.start()
    with open("pause", "wb"):
        pass
    with open(m + "/snapshots/paused/disk", "rb") as f:
        made["paused"] = f.read()
    t.join()
    assert made["paused"] == now
    assert len(model) >= 5 * MIB

    t = threading.Thread(target=grow_to, args=(16 * MIB,))
    t.start()
    while t.is_alive():
        name = "s%d" % len(made)
        least = len(model)
        os.mkdir(f"{m}/snapshots/{name}")
        with open(f"{m}/snapshots/{name}/disk", "rb") as f:
            made[name] = f.read()
        assert len(made[name]) >= least, (name, len(made[name]), least)
    t.join()
    assert not failed, failed
    assert len(made) > 2, made.keys()
    os.close(fd)
    umount(m)
    sound("qcow2", "s.qcow2", model)
    for name, data in made.items():
        # One write may be half there: the size comes first.
        n = len(data) - 51200
        assert name == "paused" or data[:n] == model[:n], name
        run("qemu-img", "convert", "-f", "qcow2", "-l", name, "-O", "raw",
            "s.qcow2", "out")
        # QEMU shows a snapshot in the size that the disk has now.
        with open("out", "rb") as f:
            assert f.read(len(data)) == data, name
            assert not any(f.read()), name


def growth_killed():
    """Who waits for a snapshot to be made, to let the disk grow, can be killed
    meanwhile, by whatever call; the disk has not grown."""
    calls = {
        "write": lambda fd: os.pwrite(fd, b"x", 3 * MIB),
        "ftruncate": lambda fd: os.ftruncate(fd, 3 * MIB),
        "fallocate": lambda fd: os.posix_fallocate(fd, 3 * MIB, 4096),
    }
    for name, call in calls.items():
        run("qemu-img", "create", "-q", "-f", "qcow2", "k.qcow2", "1M")
        fifo = os.getcwd() + "/kill." + name
        os.mkfifo(fifo)
        m = mount("k.qcow2", options="rw,growable",
                  env={"IMGFS_PAUSE": "snapshot:instant:" + fifo})
        maker = threading.Thread(target=os.mkdir, args=(m + "/snapshots/s",))
        with open(m + "/disk", "r+b", buffering=0) as f:
            f.write(b"old")
            maker.start()
            with open(fifo, "wb"):
                pid = os.fork()
                if not pid:
                    call(f.fileno())
                    os._exit(0)
                time.sleep(0.3)         # it waits by then, or soon
                assert os.waitpid(pid, os.WNOHANG) == (0, 0), name
                os.kill(pid, signal.SIGKILL)
                wait_until(5, lambda: os.waitpid(pid, os.WNOHANG)[0] == pid,
                           name + " cannot be killed")
                assert os.fstat(f.fileno()).st_size == MIB, name
        maker.join()
        umount(m)
        run("qemu-img", "check", "-q", "k.qcow2")


def checked_while_written():
    """Whoever looks while clusters move finds errors that are none: it looks
    again, and does not call the image corrupt after the last time."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "w.qcow2", "4M")
    run("qemu-io", "-c", "write -P 3 0 4M", "w.qcow2")
    at = iter(range(64))
    for looks in 1, 4:
        fifos = [f"{os.getcwd()}/look.{looks}.{i}" for i in range(looks)]
        for f in fifos:
            os.mkfifo(f)
        m = mount("w.qcow2", options="rw", env={
            "IMGFS_PAUSE": ",".join("check:counted:" + f for f in fifos)})
        fd = os.open(m + "/disk", os.O_RDWR)
        said = []
        t = threading.Thread(target=lambda: said.append(ctl(m, "check")))
        t.start()
        for f in fifos:                 # under each look a cluster goes
            with open(f, "wb"):
                run("fallocate", "-p", "-o", str(next(at) << 16), "-l", "64k",
                    m + "/disk")
                os.fsync(fd)
        t.join()
        code, text = said[0]
        if looks == 1:
            assert code == "ok" and text.startswith("No errors"), said
        else:
            assert code == "EBUSY" and "changed meanwhile" in text, said
        os.close(fd)
        assert ok(m, "check").startswith("No errors")
        umount(m)


def not_growable(fmt):
    """What QEMU cannot resize does not grow here."""
    run("qemu-img", "create", "-q", "-f", fmt, "n." + fmt, "4M")
    m = mount("n." + fmt, options="rw,growable")
    with open(m + "/disk", "r+b", buffering=0) as f:
        size = f.seek(0, os.SEEK_END)
        assert errname(f.truncate, size + MIB) == "EOPNOTSUPP", fmt
        assert errname(f.write, b"x" * 512) in ("EOPNOTSUPP", "ENOSPC"), fmt
        assert os.fstat(f.fileno()).st_size == size
    fails(m, "resize +1M", "EOPNOTSUPP",
          "Image format driver does not support resize")
    umount(m)


def checking():
    run("qemu-img", "create", "-q", "-f", "qcow2", "c.qcow2", "1M")
    run("qemu-io", "-c", "write -P 3 0 300k", "c.qcow2")
    with open("c.qcow2", "r+b") as f:       # a count of what nobody uses
        f.seek(2 * 65536 + 2 * 20)
        f.write(b"\0\1")
        f.truncate(21 * 65536)
    m = mount("c.qcow2", options="rw")
    expect = subprocess.run(["imgctl", "check", "-U", "c.qcow2"], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert expect.returncode == 3
    assert sorted(ok(m, "check").splitlines()) == \
        sorted(expect.stdout.splitlines())
    fd = os.open(m + "/disk", os.O_RDWR)
    fails(m, "check -r leaks", "EBUSY", "The disk is open")
    os.close(fd)
    assert "1 leaked clusters\n" in ok(m, "check -r leaks")
    assert ok(m, "check").startswith("No errors were found on the image.\n")
    fails(m, "check -r x", "EINVAL", "expects 'leaks' or 'all' not 'x'")
    fails(m, "check x", "EINVAL", "check takes no operands")
    with open(m + "/disk", "r+b", buffering=0) as f:    # it goes on
        f.write(b"\4" * 70000)
        f.seek(900000)
        f.write(b"\5" * 100000)
    assert ok(m, "check -r all").startswith("No errors")
    umount(m)
    assert not subprocess.run(["qemu-img", "check", "-q", "c.qcow2"]
                              ).returncode
    m = mount("c.qcow2", point="ro")
    assert ok(m, "check").startswith("No errors")
    fails(m, "check -r all", "EROFS", "rw")
    fails(m, "resize +1M", "EROFS", "rw")
    umount(m)
    # Only a repair may write to an image that is marked as corrupt.
    with open("c.qcow2", "r+b") as f:
        f.seek(72)
        f.write(b"\0\0\0\0\0\0\0\2")
    m = mount("c.qcow2", options="rw")
    assert errname(os.open, m + "/disk", os.O_RDWR) == "EUCLEAN"
    fails(m, "resize +1M", "EUCLEAN", "Image is corrupt")
    fd = os.open(m + "/disk", os.O_RDONLY)
    before = os.pread(fd, MIB, 0)
    fails(m, "check -r all", "EBUSY", "The disk is open")
    os.close(fd)
    assert ok(m, "check -r leaks").startswith("No errors")
    fd = os.open(m + "/disk", os.O_RDWR)
    assert os.pread(fd, MIB, 0) == before
    os.pwrite(fd, b"\6" * 1000, 700000)
    os.close(fd)
    ok(m, "resize +1M")
    umount(m)
    assert json.loads(run("qemu-img", "info", "--output=json", "c.qcow2"))[
        "format-specific"]["data"]["corrupt"] is False
    assert not subprocess.run(["qemu-img", "check", "-q", "c.qcow2"]
                              ).returncode
    run("qemu-img", "create", "-q", "-f", "vdi", "v.vdi", "1M")
    m = mount("v.vdi", options="rw")
    fails(m, "resize +1M", "EOPNOTSUPP",
          "Image format driver does not support resize")
    umount(m)


def amending():
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k",
        "d.qcow2", "1M")
    model = bytearray(MIB)
    m = mount("d.qcow2", options="rw")
    fd = os.open(m + "/disk", os.O_RDWR)
    for i, line in enumerate([
            "refcount_bits=64", "refcount_bits=2", "refcount_bits=16",
            "lazy_refcounts=on", "compat=0.10", "compat=1.1"]):
        data = bytes([i + 1]) * 50000
        os.pwrite(fd, data, i * 60000)
        model[i * 60000:i * 60000 + 50000] = data
        ok(m, "amend -o " + line)
        assert os.pread(fd, MIB, 0) == model
        assert ok(m, "check").startswith("No errors")
    fails(m, "amend -o size=2M", "EBUSY", "The disk is open")
    fails(m, "amend -o refcount_bits=3", "EINVAL", "Refcount width must be")
    fails(m, "amend -o backing_file=x", "EINVAL", "Cannot amend the backing")
    fails(m, "amend -o cluster_size=4k", "EINVAL", "Invalid parameter")
    fails(m, "amend", "EINVAL", "Must specify options")
    os.close(fd)
    ok(m, "amend -o size=2M")
    model.extend(bytes(MIB))
    wait_until(10, lambda: os.stat(m + "/disk").st_size == 2 * MIB, "size")
    umount(m)
    sound("qcow2", "d.qcow2", model)


for fmt in "raw", "qcow2", "qed":
    for cache in "none", "writeback":
        resizing(fmt, cache)
    growable(fmt)
for fmt in "qcow", "vmdk", "vdi", "vpc", "vhdx", "parallels":
    not_growable(fmt)
growing_snapshot()
growth_killed()
checked_while_written()
amending()
beside_writers()
checking()
