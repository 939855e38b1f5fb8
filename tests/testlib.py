# SPDX-License-Identifier: LGPL-2.1-or-later
"""What script tests in Python share: lib.sh's counterpart.

Importing it leaves the test in a fresh folder that is removed when the test
ends, with everything that was mounted through mounted().  It knows no
behaviour of imgfs beyond "mounting returns once the mount answers".
"""

import atexit
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.abspath(os.environ.get("top_builddir") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), ".."))
IMGFS = os.path.join(TOP, "imgfs")
IMGCTL = os.path.join(TOP, "imgctl")
MIB = 1 << 20

os.environ.update(LC_ALL="C", TZ="UTC")
os.environ["PATH"] = TOP + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:" \
    "/usr/bin:/sbin:/bin"
for name in "IMGCTL_QEMU_COMPAT", "IMGCTL_SAFE", "IMGFS_PAUSE":
    os.environ.pop(name, None)
os.umask(0o022)

tmp = os.path.realpath(tempfile.mkdtemp(prefix="imgfs-test."))
os.chdir(tmp)
mounts = {}     # mount point -> daemon's id


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def requires(*programs):
    for p in programs:
        if not shutil.which(p):
            skip(p + " is not installed")


def requires_root():
    if os.getuid():
        skip("needs root")


def requires_fuse():
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        skip("/dev/fuse is missing or closed")


def run(*args, **kw):
    """The command must succeed; its stdout as text."""
    return subprocess.run(args, check=True, text=True,
                          stdout=subprocess.PIPE, **kw).stdout


def name_of(code):
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode[code]


def errname(fn, *args, **kw):
    """The name of the OSError that @fn raises, or "ok"."""
    try:
        fn(*args, **kw)
    except OSError as e:
        return name_of(e.errno)
    return "ok"


def wait_until(seconds, condition, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def daemon_of(point):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as f:
                if f.read().strip() != "imgfs":
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if f.read().split(b"\0")[-2].decode() == point:
                    return int(pid)
        except (OSError, IndexError):
            continue
    return None


def mount(*sources, point="m", options="", env=None):
    """Mounts; the absolute mount point."""
    point = os.path.join(tmp, point)
    os.makedirs(point, exist_ok=True)
    args = [IMGFS] + (["-o", options] if options else [])
    subprocess.run(args + list(sources) + [point], check=True,
                   env=dict(os.environ, **(env or {})))
    mounts[point] = daemon_of(point)
    return point


def umount(point, lazy=False):
    args = ["umount", "-i"] if os.getuid() == 0 else ["fusermount3", "-u"]
    if lazy:
        args.append("-l" if os.getuid() == 0 else "-z")
    # An imgctl somewhere may be asking every mount what it has open.
    end = time.monotonic() + 10
    while subprocess.run(args + [point], stderr=subprocess.DEVNULL).returncode:
        assert time.monotonic() < end, point + " is busy"
        time.sleep(0.05)
    pid = mounts.pop(point)
    if pid:
        wait_until(30, lambda: not alive(pid), "the daemon does not end")


def kill(point):
    """Without mercy; clears the dead mount point."""
    pid = mounts[point]
    os.kill(pid, signal.SIGKILL)
    wait_until(10, lambda: not alive(pid), "the daemon does not die")
    umount(point, lazy=True)


def tmpfs(name, size):
    """A host's file system of that size at ./name, until the test ends."""
    requires_root()
    os.mkdir(name)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs",
                       name], stderr=subprocess.DEVNULL).returncode:
        skip("no tmpfs here")
    mounts[os.path.join(tmp, name)] = None


def fill(name, free):
    """All of that file system but @free bytes, by the file "filler"."""
    st = os.statvfs(name)
    with open(name + "/filler", "wb") as f:
        os.posix_fallocate(f.fileno(), 0, st.f_bavail * st.f_frsize - free)


@contextlib.contextmanager
def mounted(*sources, **kw):
    point = mount(*sources, **kw)
    yield point
    umount(point)


def cleanup():
    os.chdir("/")
    for point, pid in list(mounts.items()):
        if pid and alive(pid):
            os.kill(pid, signal.SIGKILL)
        try:
            umount(point, lazy=True)
        except (AssertionError, subprocess.CalledProcessError):
            pass
    shutil.rmtree(tmp, ignore_errors=True)


def ended(signum, frame):
    sys.exit(128 + signum)


atexit.register(cleanup)
signal.signal(signal.SIGTERM, ended)
signal.signal(signal.SIGHUP, ended)
