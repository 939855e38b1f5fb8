#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which lock bytes each command and each mount hold on an image.

A second process (this one) asks the kernel while the command waits at a pause
point.  The expected bytes are those that QEMU's programs hold for the same use:
100 + i for a permission that is used, 200 + i for one that is refused to
others, where i is 0 consistent read, 1 write, 3 resize.  Then both directions
against qemu-storage-daemon and qemu-io, where they are installed.
"""

import errno
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

TOP = os.environ.get("top_builddir") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..")
IMGCTL = os.path.join(TOP, "imgctl")
IMGFS = os.path.join(TOP, "imgfs")

F_OFD_GETLK = 36
F_OFD_SETLK = 37
BYTES = list(range(100, 104)) + list(range(200, 204))

NONE = []
SHARED = [100]
READ = [100, 201, 203]
INFO = [201, 203]
WRITE = [100, 101, 103, 201, 203]
RAW_WRITE = [100, 101]

failures = 0
checks = 0


def expect(ok, what):
    global failures, checks
    checks += 1
    if not ok:
        failures += 1
        print("FAIL:", what)


def flock(kind, start):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, 1, 0)


def held(path):
    """A write lock would be refused wherever anybody holds a byte."""
    fd = os.open(path, os.O_RDWR)
    try:
        return [b for b in BYTES if struct.unpack_from("h", fcntl.fcntl(
            fd, F_OFD_GETLK, flock(fcntl.F_WRLCK, b)))[0] != fcntl.F_UNLCK]
    finally:
        os.close(fd)


def expect_held(path, want, what):
    got = held(path)
    expect(got == want, f"{what}: {path} has {got}, not {want}")


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Paused:
    """A command that waits at a pause point."""

    def __init__(self, point, *command):
        self.what = f"{' '.join(command)} at {point}"
        if os.path.exists("fifo"):
            os.unlink("fifo")
        os.mkfifo("fifo")
        self.proc = subprocess.Popen(
            [IMGCTL, *command], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(os.environ, IMGFS_PAUSE=f"{point}:fifo"))
        self.fd = -1

    def open_fifo(self):
        """Succeeds once the command has opened the other end."""
        try:
            self.fd = os.open("fifo", os.O_WRONLY | os.O_NONBLOCK)
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
        return self.fd >= 0 or self.proc.poll() is not None

    def __enter__(self):
        expect(wait_until(self.open_fifo) and self.fd >= 0,
               f"{self.what}: never came there")
        return self

    def __exit__(self, *_):
        if self.fd >= 0:
            os.write(self.fd, b"\n")
            os.close(self.fd)
        err = self.proc.communicate(timeout=30)[1]
        expect(self.proc.returncode == 0,
               f"{self.what}: exit code {self.proc.returncode}: {err}")


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60)


def make_images():
    for name, size in (("base.raw", "1M"), ("alone.raw", "1M")):
        with open(name, "wb") as f:
            f.write(b"x" * 100000)
            f.truncate(1 << 20)
    for args in (["create", "-f", "qcow2", "-b", "base.raw", "-F", "raw",
                  "mid.qcow2"],
                 ["create", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2",
                  "top.qcow2"],
                 ["create", "-f", "qcow2", "-b", "base.raw", "-F", "raw",
                  "same.qcow2"],
                 ["create", "-f", "qcow2", "alone.qcow2", "1M"]):
        done = run(IMGCTL, *args)
        assert done.returncode == 0, done.stderr


# ---- imgctl --------------------------------------------------------------------

def check_readers():
    """Every reading command, with its chain: what each file has.  A raw file
    is kept from writers by convert only."""
    for command in (["check"], ["map"], ["map", "--output=json"],
                    ["compare", "same.qcow2"]):
        name = command[0]
        with Paused("command", *command, "top.qcow2"):
            expect_held("top.qcow2", READ, name)
            expect_held("mid.qcow2", READ, name)
            expect_held("base.raw", SHARED, name)
            if name == "compare":
                expect_held("same.qcow2", READ, name)
        with Paused("command", command[0], "-U", *command[1:], "top.qcow2"):
            expect_held("top.qcow2", SHARED, name + " -U")
            expect_held("mid.qcow2", SHARED, name + " -U")


def check_info():
    with Paused("command", "info", "top.qcow2"):
        expect_held("top.qcow2", INFO, "info")
    with Paused("command", "info", "-U", "top.qcow2"):
        expect_held("top.qcow2", NONE, "info -U")


def check_raw_readers():
    for command in (["map", "-f", "raw"],
                    ["compare", "-f", "raw", "-F", "raw", "base.raw"]):
        with Paused("command", *command, "alone.raw"):
            expect_held("alone.raw", SHARED, " ".join(command))


def check_convert():
    with Paused("command", "convert", "-f", "qcow2", "-O", "qcow2",
                "top.qcow2", "new.qcow2"):
        expect_held("top.qcow2", READ, "convert's source")
        expect_held("mid.qcow2", READ, "convert's source")
        expect_held("base.raw", READ, "convert's source, raw")
        expect_held("new.qcow2", WRITE, "convert's target")
    with Paused("command", "convert", "-f", "raw", "-O", "raw", "alone.raw",
                "new.raw"):
        expect_held("alone.raw", READ, "convert's raw source")
        expect_held("new.raw", RAW_WRITE, "convert's raw target")
    with Paused("command", "convert", "-n", "-U", "-f", "qcow2", "-O",
                "qcow2", "top.qcow2", "new.qcow2"):
        expect_held("top.qcow2", SHARED, "convert -U's source")
        expect_held("new.qcow2", WRITE, "convert -n's target")


def check_create():
    for name, fmt in (("c.qcow2", "qcow2"), ("c.raw", "raw")):
        with Paused("create-truncate", "create", "-f", fmt, name, "1M"):
            expect_held(name, [101, 103, 203], "create, truncating")
    with Paused("create-write", "create", "-f", "qcow2", "c.qcow2", "1M"):
        expect_held("c.qcow2", [101, 103, 201, 203], "create, writing")


def check_injected():
    """One byte held by somebody else: who still works."""
    table = {       # byte: (info, info -U, map, map -U, map raw)
        100: "yyyyy", 101: "nynyy", 102: "yyyyy", 103: "nynyy",
        200: "yynnn", 201: "yyyyy", 202: "yyyyy", 203: "yyyyy"}
    commands = [["info", "alone.qcow2"], ["info", "-U", "alone.qcow2"],
                ["map", "alone.qcow2"], ["map", "-U", "alone.qcow2"],
                ["map", "-f", "raw", "alone.raw"]]
    for byte, row in table.items():
        for command, works in zip(commands, row):
            fd = os.open(command[-1], os.O_RDWR)
            fcntl.fcntl(fd, F_OFD_SETLK, flock(fcntl.F_RDLCK, byte))
            done = run(IMGCTL, *command)
            os.close(fd)
            expect((done.returncode == 0) == (works == "y"),
                   f"byte {byte} held: {command}: {done.stderr}")
            if works == "n":
                expect("Is another process using the image ["
                       in done.stderr, f"{command}: {done.stderr}")


# ---- imgfs ---------------------------------------------------------------------

class Mount:
    def __init__(self, *args):
        os.makedirs("mnt", exist_ok=True)
        self.proc = subprocess.Popen([IMGFS, "-f", *args, "mnt"],
                                     stderr=subprocess.PIPE)

    def __enter__(self):
        expect(wait_until(lambda: os.path.ismount("mnt")
                          or self.proc.poll() is not None)
               and self.proc.poll() is None, "imgfs did not mount")
        return self

    def __exit__(self, *_):
        self.proc.send_signal(signal.SIGTERM)
        self.proc.wait(30)
        subprocess.run(["umount", "-i", "-l", "mnt"],
                       stderr=subprocess.DEVNULL)


def write_some(path):
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, b"y" * 4096, 8192)
    os.fsync(fd)
    return fd


def check_single_mounts():
    for name, read, write in (
            ("top.qcow2", READ, WRITE),
            ("alone.raw", [100, 201], [100, 101, 201])):
        with Mount(name):
            expect_held(name, read, "mount")
        with Mount("-o", "rw", name):
            expect_held(name, read, "mount rw, nothing open")
            fd = write_some("mnt/disk")
            expect_held(name, write, "mount rw, disk open for writing")
            os.close(fd)
            expect(wait_until(lambda: held(name) == read),
                   f"{name}: the write lock stays: {held(name)}")
        with Mount("-o", "share", name):
            expect_held(name, SHARED, "mount -o share")
        expect_held(name, NONE, "after umount")


def check_folder_mount():
    """Listing takes nothing; an open file its image; idle closing all."""
    os.mkdir("folder")
    for n in ("alone.qcow2", "alone.raw"):
        shutil.copy(n, "folder")
    image = "folder/alone.qcow2"
    with Mount("-o", "rw,idle=1", "folder"):
        subprocess.run(["ls", "-lR", "mnt"], stdout=subprocess.DEVNULL)
        expect_held(image, NONE, "after ls -lR")
        expect_held("folder/alone.raw", NONE, "after ls -lR")
        with open("mnt/alone.qcow2/disk", "rb") as f:
            f.read(512)
            expect_held(image, READ, "disk open for reading")
        fd = write_some("mnt/alone.qcow2/disk")
        expect_held(image, WRITE, "disk open for writing")
        os.close(fd)
        expect(wait_until(lambda: held(image) == NONE, 10),
               "idle closing gives no lock back")
        check_qemu_io_on(image)


def check_qemu_io_on(image):
    if shutil.which("qemu-io"):
        done = run("qemu-io", "-c", "write 0 512", image)
        expect(done.returncode == 0, f"qemu-io beside a mount: {done}")


# ---- QEMU, both directions ----------------------------------------------------

def storage_daemon():
    proc = subprocess.Popen(
        ["qemu-storage-daemon",
         "--blockdev", "driver=file,node-name=f,filename=top.qcow2",
         "--blockdev", "driver=qcow2,node-name=q,file=f",
         "--nbd-server", "addr.type=unix,addr.path=socket",
         "--export", "type=nbd,id=e,node-name=q,writable=on"],
        stderr=subprocess.DEVNULL)
    wait_until(lambda: held("top.qcow2") == WRITE)
    expect_held("top.qcow2", WRITE, "qemu-storage-daemon")
    return proc


def check_beside_daemon():
    """QEMU has the image open for writing."""
    proc = storage_daemon()
    try:
        for command, works in ((["info"], False), (["info", "-U"], True),
                               (["check"], False), (["map"], False),
                               (["map", "-U"], True), (["check", "-U"], True)):
            done = run(IMGCTL, *command, "top.qcow2")
            expect((done.returncode == 0) == works,
                   f"beside qemu-storage-daemon: {command}: {done.stderr}")
            if not works:
                expect('Failed to get shared "write" lock' in done.stderr,
                       done.stderr)
        done = run(IMGCTL, "convert", "-n", "-O", "qcow2", "alone.raw",
                   "top.qcow2")
        expect(done.returncode == 1, "convert -n onto a used image works")
        done = run(IMGCTL, "create", "-f", "qcow2", "top.qcow2", "1M")
        expect(done.returncode == 1 and os.path.getsize("top.qcow2") > 0,
               "create over a used image")
        if os.path.exists("mnt"):
            done = run(IMGFS, "top.qcow2", "mnt")
            expect(done.returncode == 1 and "lock" in done.stderr,
                   f"imgfs beside qemu-storage-daemon: {done.stderr}")
            with Mount("-o", "share", "top.qcow2"):
                with open("mnt/disk", "rb") as f:
                    expect(f.read(4) == b"xxxx", "share reads other bytes")
    finally:
        proc.kill()
        proc.wait()


def check_qemu_beside_us():
    with Paused("command", "convert", "-f", "raw", "-O", "qcow2", "alone.raw",
                "new.qcow2"):
        done = run("qemu-io", "-r", "-c", "read 0 512", "new.qcow2")
        expect("lock" in done.stderr + done.stdout, f"qemu-io: {done}")
        done = run("qemu-img", "info", "-U", "new.qcow2")
        expect(done.returncode == 0, f"qemu-img info -U: {done.stderr}")
    with Paused("command", "check", "top.qcow2"):
        done = run("qemu-io", "-c", "write 0 512", "top.qcow2")
        expect("lock" in done.stderr + done.stdout, f"qemu-io: {done}")
        done = run("qemu-img", "check", "top.qcow2")
        expect(done.returncode == 0, f"two readers: {done.stderr}")


def check_rebase(busy, share, works):
    for who in "qemu-img", IMGCTL:
        shutil.copy("over.qcow2", "twin.qcow2")
        done = run(who, "rebase", *share, "-b", "base1.qcow2", "-F", "qcow2",
                   "twin.qcow2")
        what = f"{busy} is written to, {done}"
        expect((done.returncode == 0) == works, what)
        expect((f"lock\nIs another process using the image [{busy}]" in
                done.stderr) == (not works), what)
        info = run("qemu-img", "info", "-U", "twin.qcow2").stdout
        expect(("base1" in info) == works, what + info)


def check_rebase_shared():
    """Who writes to a base is in the way of rebase; with -U that of the new one
    is not."""
    for args in (["base0.qcow2", "1M"], ["base1.qcow2", "1M"],
                 ["-b", "base0.qcow2", "-F", "qcow2", "over.qcow2"]):
        assert run(IMGCTL, "create", "-f", "qcow2", *args).returncode == 0
    for busy in "base0.qcow2", "base1.qcow2":
        with subprocess.Popen(["qemu-io", "-c", "sleep 60000", busy],
                              stdout=subprocess.DEVNULL) as holder:
            try:
                expect(wait_until(lambda: held(busy) == WRITE),
                       f"qemu-io does not hold {busy}")
                check_rebase(busy, [], False)
                check_rebase(busy, ["-U"], busy == "base1.qcow2")
            finally:
                holder.kill()


def main():
    if not os.access(IMGCTL, os.X_OK):
        print("imgctl is not built")
        return 1
    make_images()
    check_readers()
    check_info()
    check_raw_readers()
    check_convert()
    check_create()
    check_injected()
    if os.access("/dev/fuse", os.R_OK | os.W_OK):
        check_single_mounts()
        check_folder_mount()
    else:
        print("/dev/fuse is closed to us: mounts are not looked at")
    if shutil.which("qemu-storage-daemon") and shutil.which("qemu-io"):
        check_beside_daemon()
        check_qemu_beside_us()
        check_rebase_shared()
    else:
        print("QEMU is not installed: that part is not looked at")
    print(f"{checks} checks, {failures} failures")
    return 1 if failures else 0


def in_folder():
    folder = tempfile.mkdtemp(prefix="imgfs-locks.")
    os.chdir(folder)
    try:
        return main()
    finally:
        subprocess.run(["umount", "-i", "-l", "mnt"],
                       stderr=subprocess.DEVNULL)
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)


sys.exit(in_folder())
