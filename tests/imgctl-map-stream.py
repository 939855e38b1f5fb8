#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# map streams: an image whose L1 entries share one L2 table has millions of
# extents in a few hundred KiB; the memory of map does not grow with them, and
# what it says agrees with the table.
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile

CLUSTER = 65536
L2_ENTRIES = CLUSTER // 8
TABLES = 128            # a million extents
LIMIT = 64 << 20

imgctl = os.path.join(os.environ.get("top_builddir", "."), "imgctl")


def build(path):
    """header | L1 | one L2, all of whose entries are one data cluster."""
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16,
                         TABLES * L2_ENTRIES * CLUSTER, 0, TABLES, CLUSTER,
                         5 * CLUSTER, 1, 0, 0)
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    l2 = struct.pack(">Q", 3 * CLUSTER) * L2_ENTRIES
    with open(path, "wb") as f:
        f.write(header.ljust(CLUSTER, b"\0"))
        f.write(struct.pack(">Q", 2 * CLUSTER) * TABLES)
        f.seek(2 * CLUSTER)
        f.write(l2)
        f.write(b"x" * CLUSTER)
        f.truncate(6 * CLUSTER)


def stream(path, *options):
    """The lines of map, one at a time; checks the exit code."""
    with subprocess.Popen([imgctl, "map", "-f", "qcow2", *options, path],
                          stdout=subprocess.PIPE, text=True) as p:
        yield from p.stdout
    assert p.returncode == 0, p.returncode


def check_json(path):
    n = 0
    for line in stream(path, "--output=json"):
        if n % 4099 == 0:
            e = json.loads(line.strip().lstrip("[").rstrip(",").rstrip("]"))
            assert e["start"] == n * CLUSTER and e["length"] == CLUSTER, e
            assert e["offset"] == 3 * CLUSTER and e["data"], e
        n += 1
    assert n == TABLES * L2_ENTRIES, n


def check_human(path):
    n = sum(1 for _ in stream(path, "--max-length=16G"))
    assert n == 1 + (16 << 30) // CLUSTER, n


with tempfile.TemporaryDirectory() as tmp:
    image = os.path.join(tmp, "shared-l2.qcow2")
    build(image)
    check_json(image)
    check_human(image)
    # Stops early when nobody reads any more.
    subprocess.run([f"'{imgctl}' map --output=json '{image}' | head -n 1"],
                   shell=True, stdout=subprocess.DEVNULL, timeout=20,
                   check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(f"{TABLES * L2_ENTRIES} extents, peak {peak >> 20} MiB")
sys.exit(0 if peak <= LIMIT else f"more than {LIMIT >> 20} MiB")
