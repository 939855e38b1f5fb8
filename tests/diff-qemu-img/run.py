#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 600
"""Runs every command line of "lines" with qemu-img 7.2 and with imgctl (called
qemu-img), each in a folder of its own with the same files, and compares stdout,
stderr, exit code, the list of files and what a guest would see in each changed
file.  Differences that are wanted stand in "allowed", at most 20 of them: a
shell pattern of the command line, or of one difference as it is printed (behind
"diff: "), a tab, and the reason.

    run.py [-v] [REGEX]     only lines that match; -v shows the allowed ones

A line is split as a shell would; "[U]" in front runs it as an ordinary user,
"[=]" demands the same bytes of each file, not only the same guest content; all
that create makes has to be so.  After each line both folders are as before.
"""
import fnmatch
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("top_builddir", os.path.join(HERE, "../.."))
QEMU = "/usr/bin/qemu-img"
MAX_ALLOWED = 20
TIMEOUT = 60
HUGE = 1 << 30         # no such image is read whole
EXACT = 1 << 27        # no larger files are compared byte by byte
NOBODY = 65534


def skip(why):
    print("skipped:", why)
    sys.exit(77)


def lines_of(name):
    with open(os.path.join(HERE, name)) as f:
        for line in f:
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                yield line


class Twin:
    """One of the two folders, and the program that runs in it."""

    def __init__(self, top, name, program):
        self.dir = os.path.join(top, name)
        self.program = program
        shutil.copytree(os.path.join(top, "fixtures"), self.dir,
                        symlinks=True, copy_function=sparse_copy)
        restore_modes(os.path.join(top, "fixtures"), self.dir)
        self.pristine = self.files()

    def files(self):
        found = {}
        for folder, dirs, names in os.walk(self.dir):
            for name in dirs + names:
                path = os.path.join(folder, name)
                st = os.lstat(path)
                found[os.path.relpath(path, self.dir)] = (
                    stat.S_IFMT(st.st_mode), st.st_ino, st.st_size,
                    st.st_mtime_ns, st.st_mode)
        return found

    def start(self, args, user):
        def drop():
            if user:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
        env = dict(os.environ, LC_ALL="C", TZ="UTC",
                   IMGCTL_QEMU_COMPAT="7.2")
        return subprocess.Popen(
            [self.program] + args, executable=self.program, cwd=self.dir,
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, preexec_fn=drop)

    def changed(self):
        """Names that are not as they were, to what they are now."""
        now = self.files()
        return {n: now.get(n) for n in set(now) | set(self.pristine)
                if now.get(n) != self.pristine.get(n) and
                not (now.get(n) and stat.S_ISDIR(now[n][0]) and
                     n in self.pristine)}

    def restore(self, top, names):
        for name in names:
            path = os.path.join(self.dir, name)
            if os.path.lexists(path):
                os.unlink(path)
            if name in self.pristine:
                sparse_copy(os.path.join(top, "fixtures", name), path)
                os.chmod(path, stat.S_IMODE(self.pristine[name][4]))
        if names:
            self.pristine = self.files()


def sparse_copy(src, dst, *, follow_symlinks=True):
    subprocess.run(["cp", "-P", "--sparse=always", src, dst], check=True)


def restore_modes(src, dst):
    for folder, dirs, names in os.walk(src):
        for name in dirs + names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                twin = os.path.join(dst, os.path.relpath(path, src))
                os.chmod(twin, stat.S_IMODE(os.lstat(path).st_mode))


def guest(folder, name):
    """The file's guest content as qemu-img reads it: a hash."""
    info = subprocess.run([QEMU, "info", "-U", name], cwd=folder,
                          capture_output=True, text=True)
    if info.returncode:
        return "unreadable: " + info.stderr
    fmt = re.search(r"^file format: (.*)$", info.stdout, re.M).group(1)
    size = int(re.search(r"\((\d+) bytes\)", info.stdout).group(1))
    if size > HUGE:
        return "%s, %d bytes, data at %s" % (fmt, size,
                                             data_runs(folder, name, fmt))
    fmt += bitmaps(folder, name)
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        raw = os.path.join(tmp, "raw")
        done = subprocess.run([QEMU, "convert", "-U", "-f", fmt.split()[0],
                               "-O", "raw",
                               name, raw], cwd=folder, capture_output=True)
        if done.returncode:
            return "unreadable: " + done.stderr.decode()
        return fmt + " " + digest(raw)


def bitmaps(folder, name):
    """The persistent bitmaps: name, granularity, flags, in order."""
    text = subprocess.run([QEMU, "info", "-U", "--output=json", name],
                          cwd=folder, capture_output=True).stdout
    data = json.loads(text).get("format-specific", {}).get("data", {})
    return "".join(" [%s %d %s]" % (b["name"], b["granularity"],
                                    ",".join(b["flags"]))
                   for b in data.get("bitmaps", []))


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for piece in iter(lambda: f.read(1 << 20), b""):
            h.update(piece)
    return h.hexdigest()


def data_runs(folder, name, fmt):
    """Where a huge image does not read as zeroes."""
    text = subprocess.run([QEMU, "map", "-f", fmt, "--output=json", name],
                          cwd=folder, capture_output=True).stdout
    runs = []
    for e in json.loads(text):
        if e["zero"]:
            continue
        if runs and runs[-1][1] == e["start"]:
            runs[-1][1] += e["length"]
        else:
            runs.append([e["start"], e["start"] + e["length"]])
    return runs


def same_bytes(a, b):
    if os.path.getsize(a) > EXACT:
        return False
    if not subprocess.run(["cmp", "-s", a, b]).returncode:
        return True
    with open(a, "rb") as f, open(b, "rb") as g:
        return without_cid(f.read()) == without_cid(g.read())


def without_cid(data):
    """VMDK: the descriptor's random number, of up to eight digits, and what it
    leaves of the zeroes that follow the text."""
    m = re.match(rb"(?s)(.*?# Disk DescriptorFile\nversion=1\nCID=)"
                 rb"([0-9a-f]{1,8})(\n[^\0]*)(\0*)", data[:16384])
    if not m:
        return data
    rest = data[m.start(4):]
    return m[1] + b"0" * 8 + m[3] + rest[min(8 - len(m[2]), len(m[4])):]


def files_differ(a, b, ca, cb, exact):
    """Differences between what two command lines left behind."""
    out = []
    for name in sorted(set(ca) | set(cb)):
        x, y = ca.get(name, "as before"), cb.get(name, "as before")
        if x in (None, "as before") or y in (None, "as before"):
            if x != y and not unchanged(a, b, name, x, y):
                out.append("file %s: %s | %s" % (
                    name, describe(x), describe(y)))
            continue
        if x[0] != y[0] or x[4] != y[4]:
            out.append("kind or mode of %s: %o | %o" % (name, x[4], y[4]))
        elif stat.S_ISREG(x[0]):
            pa, pb = os.path.join(a.dir, name), os.path.join(b.dir, name)
            if same_bytes(pa, pb):
                continue
            if exact and os.path.getsize(pa) <= EXACT:
                out.append("bytes of " + name)
            ga, gb = guest(a.dir, name), guest(b.dir, name)
            if ga != gb:
                out.append("content of %s: %s | %s" % (name, ga, gb))
    return out


def unchanged(a, b, name, x, y):
    """One wrote what was there already, the other did not."""
    if x is None or y is None:
        return False
    pa, pb = os.path.join(a.dir, name), os.path.join(b.dir, name)
    return os.path.isfile(pa) and os.path.isfile(pb) and same_bytes(pa, pb)


def failed(items, ra, rb):
    """Marks what failing commands leave behind."""
    return ["after failing, " + i if ra and rb else i for i in items]


def describe(x):
    return "missing" if x is None else x if isinstance(x, str) else "there"


def text_differs(what, a, b):
    if a == b:
        return []
    return ["%s:\n    - %s\n    + %s" % (
        what, a.decode(errors="replace").replace("\n", "\n    - "),
        b.decode(errors="replace").replace("\n", "\n    + "))]


def run_line(top, a, b, line):
    user, exact = line.startswith("[U] "), line.startswith("[=] ")
    args = shlex.split(line[4:] if user or exact else line)
    exact = exact or args[:1] == ["create"]
    pa, pb = a.start(args, user), b.start(args, user)
    results = []
    for p in (pa, pb):
        try:
            out, err = p.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            p.kill()
            out, err = p.communicate()
            err += b"\n(timeout)"
        # Nodes without a name get a number of QEMU's that varies.
        err = re.sub(rb"#block\d+", b"#blockN", err)
        # Of DMG it says which of its modules are not installed.
        err = re.sub(rb"qemu: module \S+ not found, [^\n]*\n", b"", err)
        # How long bench took.
        out = re.sub(rb"in \d+\.\d{3} seconds", b"in N seconds", out)
        results.append((p.returncode, out, err))
    (ra, oa, ea), (rb, ob, eb) = results
    diff = [] if ra == rb else ["exit code: %d | %d" % (ra, rb)]
    diff += text_differs("stderr", ea, eb) + text_differs("stdout", oa, ob)
    ca, cb = a.changed(), b.changed()
    diff += failed(files_differ(a, b, ca, cb, exact), ra,
                   rb)
    a.restore(top, ca)
    b.restore(top, cb)
    return diff


def allowed_row(patterns, line, item):
    """Which pattern allows this difference of this line?"""
    for i, (pattern, _) in enumerate(patterns):
        what = item if pattern.startswith("diff: ") else line
        if fnmatch.fnmatchcase(what, pattern.removeprefix("diff: ")):
            return i
    return None


def allowed_patterns():
    table = [line.split("\t") for line in lines_of("allowed")]
    for row in table:
        if len(row) != 2 or not row[1].strip():
            sys.exit("allowed: no reason: %r" % row)
    if len(table) > MAX_ALLOWED:
        sys.exit("allowed: more than %d" % MAX_ALLOWED)
    return table


def check_environment():
    if not os.access(QEMU, os.X_OK) or not shutil.which("qemu-io"):
        skip("qemu-img and qemu-io are not installed")
    version = subprocess.run([QEMU, "--version"], capture_output=True,
                             text=True).stdout
    if not version.startswith("qemu-img version 7.2."):
        skip("needs qemu-img 7.2")


def main():
    args = sys.argv[1:]
    verbose = "-v" in args
    only = re.compile(next((a for a in args if a != "-v"), ""))
    check_environment()
    top = tempfile.mkdtemp(prefix="imgfs-diff.")
    os.chmod(top, 0o755)
    try:
        sys.exit(compare(top, verbose, only))
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", top])
        shutil.rmtree(top)


def compare(top, verbose, only):
    for name in ("fixtures", "bin"):
        os.mkdir(os.path.join(top, name))
    ours = os.path.join(top, "bin", "qemu-img")
    os.symlink(os.path.realpath(os.path.join(BUILD, "imgctl")), ours)
    subprocess.run([os.path.join(HERE, "fixtures")], check=True,
                   cwd=os.path.join(top, "fixtures"))
    a, b = Twin(top, "theirs", QEMU), Twin(top, "ours", ours)
    patterns, used = allowed_patterns(), set()
    equal = allowed = differ = 0
    for line in lines_of("lines"):
        if not only.search(line) or (line.startswith("[U] ") and
                                     os.getuid()):
            continue
        diff = run_line(top, a, b, line)
        rows = [allowed_row(patterns, line, item) for item in diff]
        used.update(rows)
        if not diff:
            equal += 1
            continue
        if None in rows:
            differ += 1
        else:
            allowed += 1
        if None in rows or verbose:
            print("%s: %s" % ("DIFFERS" if None in rows else "allowed", line))
            print("  " + "\n  ".join(diff))
    if not only.pattern:
        for i in set(range(len(patterns))) - used:
            print("allowed, but equal:", patterns[i][0])
            differ += 1
    print("%d equal, %d allowed" % (equal, allowed) +
          (", %d differ" % differ if differ else ""))
    return 1 if differ else 0


main()
