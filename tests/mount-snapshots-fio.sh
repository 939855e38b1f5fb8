#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 240
# Snapshots are made, deleted and read while fio writes to the disk and verifies
# it; and one is applied again and again under eight readers (pitfalls 9 and
# 10).  SECONDS_EACH: 8.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires fio python3 qemu-img
seconds=${SECONDS_EACH:-8}

qemu-img create -q -f qcow2 a.qcow2 64M
mount_img -o rw a.qcow2 m
fio --name=v --filename=m/disk --rw=randwrite --bs=4k-64k --ioengine=psync \
	--size=32M --time_based --runtime="$seconds" --verify=crc32c \
	--verify_backlog=200 --verify_fatal=1 --output=fio.log &
fio=$!
n=0
while kill -0 $fio 2>/dev/null; do
	n=$((n + 1))
	mkdir "m/snapshots/s$n"
	head -c 32M "m/snapshots/s$n/disk" > first
	[ $n -le 2 ] || rmdir "m/snapshots/s$((n - 2))"
	cmp -n 33554432 "m/snapshots/s$n/disk" first ||
		fail "snapshot $n changed"
done
wait $fio || fail "fio: $(cat fio.log)"
[ $n -gt 1 ] || fail "only $n snapshots"
echo "$n snapshots beside fio"

# Eight readers see one content or the other, never anything else.
dd if=/dev/zero of=m/disk bs=1M count=64 conv=notrunc status=none
head -c 8M /dev/zero | tr '\0' A | dd of=m/disk bs=1M conv=notrunc status=none
mkdir m/snapshots/A
head -c 8M /dev/zero | tr '\0' B | dd of=m/disk bs=1M conv=notrunc status=none
mkdir m/snapshots/B
python3 - "$seconds" <<'END'
import os, subprocess, sys, threading, time
end = time.monotonic() + int(sys.argv[1])
bad = []
def reader(k):
    fd = os.open("m/disk", os.O_RDONLY)
    while time.monotonic() < end and not bad:
        got = set(os.pread(fd, 4096, (k * 997 * 4096) % (8 << 20)))
        if len(got) != 1 or not got <= {65, 66}:
            bad.append(got)
    os.close(fd)
threads = [threading.Thread(target=reader, args=(k,)) for k in range(8)]
for t in threads:
    t.start()
n = 0
fd = os.open("m/disk", os.O_RDONLY)
while time.monotonic() < end:
    name = "AB"[n % 2]
    with open("m/ctl", "w") as f:
        f.write("snapshot -a %s --force\n" % name)
    # Old handles have no pages of before.
    deadline = time.monotonic() + 5
    while os.pread(fd, 1, 123456) != name.encode():
        assert time.monotonic() < deadline, "stale pages after " + name
    n += 1
os.close(fd)
for t in threads:
    t.join(30)
    assert not t.is_alive(), "a reader hangs"
assert not bad, bad
print("applied", n, "times")
assert n > 2
END
umount_img m
qemu-img check -q a.qcow2
