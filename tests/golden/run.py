#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 300
"""run.py [--update] [NAME...]

What info, map, check and create print, word for word.  Each file of this folder
without a dot in its name, FORMAT or FORMAT-SUBFORMAT, is a transcript:

    # a comment
    $ imgctl create -f vdi a.vdi 10M
    Formatting 'a.vdi', fmt=vdi size=10485760 static=off
    $ imgctl check b.vdi
    imgctl: Could not open 'b.vdi': ...
    [1]

Lines with a "$ " are run by sh, in a fresh folder, with imgctl, imgio and
$tests (this source's tests/) at hand; a line that ends in a backslash goes on
with the next one.  What they print on both outputs follows, then the exit code
in brackets if it is not 0.  The folder holds data.raw at the start: 3 MiB of
which the second one is zeroes, the rest noise, always the same.  UUIDs, CIDs,
times and the space that a file takes on the host are words in angle brackets.

--update writes down what is printed now: read the difference before you commit
it.  A line "# needs PROGRAM..." leaves the transcript out where there is no such
program.
"""
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                ".."))
import transcript       # noqa: E402

HERE = os.path.join(transcript.SOURCE, "tests/golden")
WORDS = "info", "map", "check", "create"
MIB = 1 << 20


def missing(lines):
    for line in lines:
        if line.startswith("# needs "):
            return [p for p in line.split()[2:] if not shutil.which(p)]
    return []


def play(lines):
    """The transcript as it is now."""
    out, commands = [], []
    with transcript.Folder() as folder:
        with open("data.raw", "wb") as f:
            f.write(transcript.data(MIB, 1) + bytes(MIB) +
                    transcript.data(MIB, 3))
        i = 0
        while i < len(lines):
            line = lines[i]
            i += 1
            if line.startswith("#") or (not line and
                                        lines[i:i + 1] and
                                        lines[i].startswith("# ")):
                out.append(line)
            if not line.startswith("$ "):
                continue
            out.append(line)
            command = line[2:]
            while line.endswith("\\"):
                line = lines[i]
                i += 1
                out.append(line)
                command = command[:-1] + line.lstrip()
            commands.append(command)
            rc, text = folder.run(command)
            out += text.splitlines()
            if rc:
                out.append(f"[{rc}]")
    return out, commands


def words_of(commands):
    return {w for c in commands for w in WORDS
            if re.search(rf"\bimgctl {w}\b", c)}


def main():
    args = sys.argv[1:]
    update = "--update" in args
    good, ran, left_out = True, 0, []
    said = {}
    for path in transcript.files(HERE, [a for a in args if a[0] != "-"]):
        name = os.path.basename(path)
        with open(path) as f:
            lines = f.read().splitlines()
        gone = missing(lines)
        if gone:
            left_out.append(f"{name} ({' '.join(gone)} not installed)")
            continue
        now, commands = play(lines)
        said.setdefault(name.split("-")[0], set()).update(words_of(commands))
        good &= transcript.settle(path, "\n".join(now) + "\n", update)
        ran += 1
    for fmt, words in said.items():
        for w in WORDS:
            if w not in words and not left_out:
                print(f"{fmt}: no transcript has {w}")
                good = False
    print(f"{ran} transcripts are as expected" if good else "they differ")
    for what in left_out:
        print("left out:", what)
    if good and left_out and not ran:
        return 77
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
