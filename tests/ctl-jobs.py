#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""jobs/ID: `CMD &` gives a number, the file tells of the job in JSON, poll()
of its end; it is steered by words and dismissed by unlink when it has ended.
"""
import json
import os
import select
import subprocess
import threading

import testlib
from testlib import errname, run

testlib.requires_fuse()
testlib.requires("qemu-img")
run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "8M")
os.mkfifo("pause")
m = testlib.mount("a.qcow2", env={
    "IMGFS_PAUSE": f"fs:background:{testlib.tmp}/pause"})
assert os.listdir(f"{m}/jobs") == []
ctl = os.open(f"{m}/ctl", os.O_RDWR)


def job(number):
    with open(f"{m}/jobs/{number}") as f:
        return json.load(f)


# The first background job stops at the pause point.
os.write(ctl, b"flush &")
number = os.pread(ctl, 100, 0).decode().strip()
assert number == "1", number
stop = open("pause", "wb")      # returns when it is there
assert os.listdir(f"{m}/jobs") == ["1"]
st = os.stat(f"{m}/jobs/1")
assert st.st_mode & 0o7777 == 0o600, oct(st.st_mode)
assert os.stat(f"{m}/jobs").st_mode & 0o200
j = job(1)
assert (j["id"], j["type"], j["command"], j["state"]) == \
    (1, "flush", "flush", "running"), j
assert "error" not in j and "offset" in j and "total" in j, j

fd = os.open(f"{m}/jobs/1", os.O_RDWR)
for word, state in ("pause", "paused"), ("resume", "running"):
    os.pread(fd, 4096, 0)
    p = select.poll()
    p.register(fd, select.POLLIN | select.POLLPRI)
    assert p.poll(0) == [], "an event, and nothing happened"
    assert subprocess.run(["sh", "-c", f"echo {word} > {m}/jobs/1"]
                          ).returncode == 0
    assert p.poll(5000) == [(fd, select.POLLPRI)]
    assert job(1)["state"] == state
os.write(fd, b"rate=50M\n")
assert job(1)["rate"] == 50 << 20
os.write(fd, b"rate=0")
assert job(1)["rate"] == 0
assert errname(os.write, fd, b"bogus") == "EINVAL"
assert errname(os.write, fd, b"rate=x") == "EINVAL"
assert errname(os.unlink, f"{m}/jobs/1") == "EBUSY"
assert errname(os.unlink, f"{m}/jobs/7") == "ENOENT"
assert not os.path.exists(f"{m}/jobs/2")

# poll() sleeps until the job ends.
p = select.poll()
p.register(fd, select.POLLIN)
assert p.poll(0) == []
ended = []
t = threading.Thread(target=lambda: ended.extend(p.poll(20000)))
t.start()
os.write(fd, b"cancel")
stop.close()
t.join()
assert ended == [(fd, select.POLLIN)], ended
j = json.loads(os.pread(fd, 4096, 0))
assert j["state"] == "cancelled" and j["error"] == "Cancelled", j
assert errname(os.write, fd, b"pause") == "ECANCELED"
os.unlink(f"{m}/jobs/1")
assert os.listdir(f"{m}/jobs") == []
assert errname(os.stat, f"{m}/jobs/1") == "ENOENT"
os.pread(fd, 4096, 0)           # who has it open still reads it
os.close(fd)

# One that fails, and one that ends well.
os.write(ctl, b"flush 'a b' &")
number = os.pread(ctl, 100, 0).decode().strip()
testlib.wait_until(10, lambda: job(number)["state"] != "running", "its end")
j = job(number)
assert j["state"] == "failed", j
assert j["command"] == "flush 'a b'", j
assert j["error"] == "flush takes no arguments", j
with open(f"{m}/status") as f:
    assert f.readline() == "flush takes no arguments\n"
os.write(ctl, b"flush & ")
testlib.wait_until(10, lambda: job(3)["state"] == "done", "its end")
assert sorted(os.listdir(f"{m}/jobs")) == ["2", "3"]

# Of those that have ended the last 64 are kept.
def ended():
    for n in os.listdir(f"{m}/jobs"):
        try:
            if job(n)["state"] == "running":
                return False
        except FileNotFoundError:       # ended, and no longer kept
            pass
    return True


for i in range(70):
    os.write(ctl, b"flush x &")
    last = os.pread(ctl, 100, 0).decode().strip()
    testlib.wait_until(10, ended, "their ends")
assert sorted(map(int, os.listdir(f"{m}/jobs"))) == \
    list(range(int(last) - 63, int(last) + 1))
os.close(ctl)
# Jobs that nobody has dismissed go with the mount.
testlib.umount(m)

# Not more than 16 run at a time.  What mkdir left behind when it failed is kept
# apart from them, and not for ever.  (Snapshots and a data file do not go
# together.)
run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data", "b.qcow2",
    "1M")
m = testlib.mount("b.qcow2", options="rw", env={
    "IMGFS_PAUSE": f"fs:background:{testlib.tmp}/pause"})
ctl = os.open(f"{m}/ctl", os.O_RDWR)
for i in range(9):              # the first one waits at the pause point
    os.mkdir(f"{m}/snapshots/s{i}")
left = os.listdir(f"{m}/jobs")
assert len(left) == 9, left
for i in range(16):             # and all for it
    os.write(ctl, b"bitmap --remove none &")
assert errname(os.write, ctl, b"flush &") == "EBUSY"
assert os.pread(ctl, 100, 0) == b"Too many jobs of this image\n"
assert len(os.listdir(f"{m}/jobs")) == 25
with open("pause", "wb"):
    pass
testlib.wait_until(20, ended, "their ends")
states = [(job(n)["type"], job(n)["state"]) for n in os.listdir(f"{m}/jobs")]
assert sorted(states) == [("bitmap", "failed")] * 16 + \
    [("snapshot", "failed")] * 8, states
os.close(ctl)
testlib.umount(m)
