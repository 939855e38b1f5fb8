#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 300
# imgctl is killed at 51 moments of making, applying and deleting snapshots: the
# image is sound but for leaks, and its content the old or the new one.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

qemu-img create -q -f qcow2 -o cluster_size=4k base.qcow2 256M
qemu-io -f qcow2 -c 'write -P 1 0 24M' base.qcow2 > qemu.log
qemu-img snapshot -c old base.qcow2
qemu-io -f qcow2 -c 'write -P 2 8M 24M' base.qcow2 > qemu.log

python3 - "$IMGCTL" <<'END'
import random, shutil, subprocess, sys, time

imgctl = sys.argv[1]
PARTS = {"old": ((1, 0, 24), (0, 24, 8)), "now": ((1, 0, 8), (2, 8, 24))}

def holds(what, *how):
    for pattern, first, n in PARTS[what]:
        r = subprocess.run(["qemu-io", "-r", "-f", "qcow2", *how, "-c",
                            "read -P %d %dM %dM" % (pattern, first, n),
                            "a.qcow2"], capture_output=True, text=True)
        if r.returncode or "fail" in r.stdout + r.stderr:
            return False
    return True

def names():
    out = subprocess.check_output(["qemu-img", "snapshot", "-l", "a.qcow2"],
                                  text=True)
    return {line.split()[1] for line in out.splitlines()[2:]}

def new():
    shutil.copyfile("base.qcow2", "a.qcow2")

random.seed(7)
killed = 0
for op, name in (("-c", "new"), ("-a", "old"), ("-d", "old")):
    new()
    begin = time.monotonic()
    subprocess.check_call([imgctl, "snapshot", op, name, "a.qcow2"])
    took = time.monotonic() - begin
    for i in range(17):
        new()
        p = subprocess.Popen([imgctl, "snapshot", op, name, "a.qcow2"])
        time.sleep(random.random() * took)
        p.kill()
        killed += p.wait() != 0
        rc = subprocess.run(["qemu-img", "check", "-q", "a.qcow2"],
                            capture_output=True).returncode
        assert rc in (0, 3), (op, i, rc)
        got = names()
        assert got - {"new"} <= {"old"}, got
        if op != "-d":
            assert "old" in got, got
        assert holds("now") or (op == "-a" and holds("old")), (op, i)
        # And it can be done (again).
        subprocess.check_call([imgctl, "check", "-q", "-r", "leaks",
                               "a.qcow2"], stderr=subprocess.DEVNULL)
        if op != "-d" or "old" in got:
            subprocess.check_call([imgctl, "snapshot", op, name, "a.qcow2"])
        subprocess.check_call(["qemu-img", "check", "-q", "a.qcow2"])
print("killed", killed, "of 51")
assert killed > 10
END
