# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests/golden/run.py and tests/broken/run.py share: a command's words as
one text in which nothing is left to chance, and texts in files.

What differs from run to run is replaced by a word in angle brackets, so that
who reads the expected text sees that something stood there.  It knows no
format and no behaviour of imgfs.
"""
import difflib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = os.path.abspath(os.environ.get("top_srcdir") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), ".."))
BUILD = os.path.abspath(os.environ.get("top_builddir") or SOURCE)

HEX = "[0-9a-fA-F]"
NEUTRAL = [
    (rf"\b{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}\b",
     "<UUID>"),
    # 4294967295: no parent
    (r"(\bcid\b(?:\": |: ))(?!4294967295\b)\d+", r"\1<CID>"),
    (r"(\bCID=)(?!ffffffff\b)[0-9a-f]+", r"\1<CID>"),
    # what the host's file system takes for it
    (r"(disk size: ).*", r"\1<ON DISK>"),
    (r"(\"actual-size\": )\d+", r"\1<ON DISK>"),
    (r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\b", "<TIME>"),
    (r"(\"date-n?sec\": )\d+", r"\1<TIME>"),
]


def neutral(text, folder):
    text = text.replace(folder, "<FOLDER>")
    for what, word in NEUTRAL:
        text = re.sub(what, word, text)
    return text


def data(n, seed):
    """@n bytes that are always the same ones, and look like noise."""
    out, i = [], 0
    while 32 * i < n:
        out.append(hashlib.sha256(b"%d %d" % (seed, i)).digest())
        i += 1
    return b"".join(out)[:n]


class Folder:
    """A fresh folder that is the current one inside of "with"."""

    def __enter__(self):
        self.path = os.path.realpath(tempfile.mkdtemp(prefix="imgfs-test."))
        os.chdir(self.path)
        return self

    def __exit__(self, *_):
        os.chdir("/")
        shutil.rmtree(self.path, ignore_errors=True)

    def run(self, command):
        """Exit code, and both outputs in the order in which they came."""
        env = dict(os.environ, LC_ALL="C", TZ="UTC", top_srcdir=SOURCE,
                   top_builddir=BUILD, tests=os.path.join(SOURCE, "tests"),
                   PATH=":".join([BUILD, os.path.join(BUILD, "tests"),
                                  "/usr/local/sbin:/usr/local/bin:/usr/sbin",
                                  "/usr/bin:/sbin:/bin"]))
        for name in "IMGCTL_QEMU_COMPAT", "IMGCTL_SAFE", "IMGFS_PAUSE":
            env.pop(name, None)
        p = subprocess.run(["sh", "-c", "umask 022; " + command], env=env,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
        return p.returncode, neutral(p.stdout.decode(errors="replace"),
                                     self.path)


def settle(path, now, update):
    """Is @now what the file says?  If not, it says it from now on, or we say
    what differs."""
    with open(path) as f:
        before = f.read()
    if now == before:
        return True
    if update:
        with open(path, "w") as f:
            f.write(now)
        print("updated:", path)
        return True
    sys.stdout.writelines(difflib.unified_diff(
        before.splitlines(True), now.splitlines(True),
        os.path.relpath(path, SOURCE) + " (expected)", "now"))
    return False


def files(folder, names):
    """The texts in @folder, or those that are named."""
    here = sorted(n for n in os.listdir(folder)
                  if re.fullmatch(r"[a-z0-9]+(-[A-Za-z0-9-]+)?", n))
    for n in names:
        if n not in here:
            sys.exit(f"there is no {n} in {folder}")
    return [os.path.join(folder, n) for n in names or here]
