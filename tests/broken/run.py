#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 600
"""run.py [--update] [NAME...]

Images that are damaged in one structure each: what check says about them and
its exit code, what check -r says, that a further check is clean, and what the
guest reads then.  Each file of this folder without a dot in its name, FORMAT or
FORMAT-SUBFORMAT, has recipes:

    # a comment
    image: a.vdi                        the file that is damaged
    structures: header map              each needs a recipe
    format: vdi                         given as -f; else it is probed
    oracle: qemu-img                    its check is clean then, too
    make:                               by sh, see tests/golden/run.py
            imgctl create -q -f vdi a.vdi 10M
            imgio -f vdi -c 'write -P 1 0 1M' a.vdi

    damage map: an entry beyond the end
            le32 0x200 9
    check 2
            ERROR: block index 0 beyond ...
    repair 0
            ...
    data same but 0 1M 0

Damage is done by lines of

    poke AT HEX                 these bytes
    le16 AT N, le32, le64, be16, be32, be64
    copy FROM TO LEN            within the file
    cut N, grow N               the file's length; how many bytes more
    crc32c AT LEN               VHDX: the checksum at AT + 4 is made right
    sum AT LEN FIELD            VHD: the same of AT + FIELD
    $ COMMAND                   by sh

where a number is an expression of numbers (1M is one), end (the file's length),
and le32(AT) and so on, for what stands there.  A damaged image that check
rejects (2, 3) has to say what check -r does: put it right (0), or not; one that
it cannot open may.  "data" is what the guest reads afterwards: the same as
before, but for ranges OFFSET LENGTH BYTE, ...; "data gone": not to be read.
Where check finds nothing (the format has a second copy, or a log) it has to be
said.  "repair none" in the head: check -r is no part of this format.

--update writes down what is printed now; the rest is yours.
"""
import os
import re
import shutil
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                ".."))
import transcript       # noqa: E402

HERE = os.path.join(transcript.SOURCE, "tests/broken")
CODES = {"16": "H", "32": "I", "64": "Q"}
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


# ---- damage ------------------------------------------------------------------

def crc32c_table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
        table.append(i)
    return table


def crc32c(b, table=crc32c_table()):
    crc = 0xffffffff
    for c in b:
        crc = crc >> 8 ^ table[(crc ^ c) & 255]
    return crc ^ 0xffffffff


class Image:
    def __init__(self, path):
        self.f = open(path, "r+b")

    def get(self, at, n):
        self.f.seek(at)
        return self.f.read(n)

    def put(self, at, b):
        self.f.seek(at)
        self.f.write(b)
        self.f.flush()

    def end(self):
        return self.f.seek(0, 2)

    def number(self, text):
        text = re.sub(r"\b(\d+)([KMGT])\b",
                      lambda m: str(int(m[1]) * UNITS[m[2]]), text)
        names = {"end": self.end()}
        for bits, code in CODES.items():
            for order, sign in ("le", "<"), ("be", ">"):
                names[order + bits] = lambda at, c=sign + code: struct.unpack(
                    c, self.get(at, struct.calcsize(c)))[0]
        return eval(text, {"__builtins__": {}}, names)

    def command(self, line):
        word, *args = line.split()
        if word == "poke":
            self.put(self.number(args[0]), bytes.fromhex("".join(args[1:])))
            return
        n = [self.number(a) for a in args]
        if word[:2] in ("le", "be"):
            bits = int(word[2:])
            self.put(n[0], (n[1] & (1 << bits) - 1).to_bytes(
                bits // 8, "little" if word[0] == "l" else "big"))
        elif word == "copy":
            self.put(n[1], self.get(n[0], n[2]))
        elif word == "cut":
            self.f.truncate(n[0])
        elif word == "grow":
            self.f.truncate(self.end() + n[0])
        elif word == "crc32c":
            b = self.get(n[0], n[1])
            self.put(n[0] + 4, struct.pack("<I", crc32c(
                b[:4] + bytes(4) + b[8:])))
        elif word == "sum":
            b = self.get(n[0], n[1])
            s = sum(b) - sum(b[n[2]:n[2] + 4])
            self.put(n[0] + n[2], struct.pack(">I", ~s & 0xffffffff))
        else:
            sys.exit(f"what is '{line}'?")


# ---- a file of recipes ---------------------------------------------------------

class Damage:
    def __init__(self, title):
        self.title = title
        self.how, self.check, self.repair = [], [], []
        self.check_rc = self.repair_rc = None
        self.data = None
        self.comments = []      # what stands in front of it

    def structure(self):
        return self.title.partition(":")[0]

    def text(self):
        out = self.comments + ["damage " + self.title]
        out += ["\t" + line for line in self.how]
        out += [f"check {self.check_rc}"]
        out += ["\t" + line for line in self.check]
        if self.repair_rc is not None:
            out += [f"repair {self.repair_rc}"]
            out += ["\t" + line for line in self.repair]
        if self.data is not None:
            out += [("data " + self.data).rstrip()]
        return out


class Recipes:
    def __init__(self, path):
        self.path = path
        self.head, self.make, self.damages = [], [], []
        self.keys = {}
        self.tail = []
        with open(path) as f:
            lines = f.read().splitlines()
        into, waiting = None, []
        for line in lines:
            word, _, rest = line.partition(" ")
            if line.startswith("\t"):
                into.append(line[1:])
            elif not line or line.startswith("#"):
                waiting.append(line)
            elif word == "damage":
                self.damages.append(Damage(rest))
                self.damages[-1].comments, waiting = waiting, []
                into = self.damages[-1].how
            elif word in ("check", "repair") and self.damages:
                setattr(self.damages[-1], word + "_rc", int(rest))
                into = getattr(self.damages[-1], word)
            elif word == "data":
                self.damages[-1].data = rest
            else:
                self.head += waiting + [line]
                waiting = []
                key, _, value = line.partition(":")
                self.keys[key] = value.strip()
                if key == "make":
                    into = self.make
        self.tail = waiting

    def text(self):
        out = self.head + ["\t" + line for line in self.make]
        for d in self.damages:
            out += d.text()
        return "\n".join(out + self.tail) + "\n"

    def structures(self):
        return self.keys.get("structures", "").split()


# ---- judging -------------------------------------------------------------------

def words(text):
    """Without empty lines, which separate recipes here."""
    return [line for line in text.splitlines() if line]


def content(folder, image):
    rc, _ = folder.run(f"imgctl convert -O raw {image} .now")
    if rc:
        return None
    with open(".now", "rb") as f:
        return f.read()


def expected(before, spec, image):
    """The guest's bytes that @spec ("same but OFF LEN BYTE, ...") names."""
    now = bytearray(before)
    for part in filter(None, spec.partition("but")[2].split(",")):
        off, n, byte = (image.number(x) for x in part.split())
        now[off:off + n] = bytes([byte]) * n
    return bytes(now)


def where(a, b):
    if a is None or b is None or len(a) != len(b):
        return "other length, or not to be read"
    bad = [i for i in range(0, len(a), 512) if a[i:i + 512] != b[i:i + 512]]
    return f"{len(bad)} sectors, at {bad[0]} to {bad[-1]}" if bad else "none"


class Judge:
    def __init__(self, recipes, folder):
        self.r, self.folder = recipes, folder
        self.image = recipes.keys["image"]
        fmt = recipes.keys.get("format")
        self.named = (f"-f {fmt} " if fmt else "") + self.image
        self.bad = []

    def complain(self, d, what):
        self.bad.append(f"{os.path.basename(self.r.path)}, {d.title}: {what}")

    def make(self):
        for line in self.r.make:
            rc, text = self.folder.run(line)
            if rc:
                sys.exit(f"{self.r.path}: {line}: exit code {rc}\n{text}")
        rc, text = self.folder.run(f"imgctl check {self.named}")
        if rc not in (0, 63):
            sys.exit(f"{self.r.path}: the image is not good to begin with\n" +
                     text)
        self.before = content(self.folder, self.named)
        shutil.copytree(".", "../" + os.path.basename(self.folder.path) + ".g")

    def fresh(self):
        good = self.folder.path + ".g"
        for name in os.listdir("."):
            if os.path.isdir(name):
                shutil.rmtree(name)
            else:
                os.unlink(name)
        shutil.copytree(good, ".", dirs_exist_ok=True)

    def damage(self, d):
        for line in d.how:
            if line.startswith("$ "):
                rc, text = self.folder.run(line[2:])
                if rc:
                    sys.exit(f"{d.title}: {line}: {rc}\n{text}")
            else:
                Image(self.image).command(line)

    def repaired(self, d):
        """After a repair that says it was one."""
        rc, text = self.folder.run(f"imgctl check {self.named}")
        if rc:
            self.complain(d, "the second check is not clean:\n" + text)
        if self.r.keys.get("oracle"):
            rc, text = self.folder.run("qemu-img check -q " + self.named)
            if rc not in (0, 63):
                self.complain(d, "qemu-img finds something:\n" + text)

    def look_at_data(self, d):
        spec = d.data or "same"
        now = content(self.folder, self.named)
        want = None if spec.startswith("gone") else \
            expected(self.before, spec, Image(self.image))
        if now != want:
            self.complain(d, "the guest reads something else: " +
                          where(now, want))

    def look(self, d):
        self.fresh()
        self.damage(d)
        d.check_rc, text = self.folder.run(f"imgctl check {self.named}")
        d.check = words(text)
        if d.check_rc not in (0, 1, 2, 3, 63):
            self.complain(d, f"check ends with {d.check_rc}")
        if d.check_rc == 0 and d.data is None:
            self.complain(d, "check finds nothing, and no data is expected")
        wanted = d.check_rc in (2, 3) or d.repair_rc is not None
        if not wanted or "repair" in self.r.keys:
            d.repair, d.repair_rc = [], None
            if d.data is not None:
                self.look_at_data(d)
            return
        d.repair_rc, text = self.folder.run(
            f"imgctl check -r all {self.named}")
        d.repair = words(text)
        if d.repair_rc == 0:
            self.repaired(d)
        self.look_at_data(d)

    def run(self):
        self.make()
        for d in self.r.damages:
            self.look(d)
        done = {d.structure() for d in self.r.damages}
        for s in self.r.structures():
            if s not in done:
                self.bad.append(f"{self.r.path}: nothing damages '{s}'")
        for s in done - set(self.r.structures()):
            self.bad.append(f"{self.r.path}: no structure is called '{s}'")
        shutil.rmtree(self.folder.path + ".g")


def main():
    args = sys.argv[1:]
    update = "--update" in args
    good, total = True, 0
    for path in transcript.files(HERE, [a for a in args if a[0] != "-"]):
        r = Recipes(path)
        if r.keys.get("oracle") and not shutil.which(r.keys["oracle"]):
            print(f"without {r.keys['oracle']}: {os.path.basename(path)}")
            r.keys["oracle"] = ""
        with transcript.Folder() as folder:
            judge = Judge(r, folder)
            judge.run()
        for line in judge.bad:
            print(line)
        good &= not judge.bad
        good &= transcript.settle(path, r.text(), update)
        total += len(r.damages)
    print(f"{total} damaged images are as expected" if good else "not so")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
