#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# snapshots/ of a mount: mkdir, rmdir, rename, disk and info.json, names that
# are no file names, what is busy, what waits for the instant, and that a
# mkdir can be killed.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img qemu-io python3

qemu-img create -q -f qcow2 a.qcow2 32M
qemu-io -f qcow2 -c 'write -P 1 0 8M' a.qcow2 > qemu.log
qemu-img convert -O raw a.qcow2 0.raw

status_is() {
	assert_eq "$(head -n 1 m/status)" "$1" "status"
}

# ---- a life -----------------------------------------------------------------

mount_img -o rw a.qcow2 m
assert_eq "$(ls m/snapshots)" "" "no snapshots"
mkdir m/snapshots/one
assert_eq "$(ls m/snapshots)" one "one snapshot"
assert_eq "$(ls m/snapshots/one)" "disk
info.json" "what it holds"
assert_eq "$(stat -c '%s %a' m/snapshots/one/disk)" "33554432 444" "its disk"
head -c 4M /dev/urandom | dd of=m/disk bs=64k conv=notrunc status=none
cmp m/snapshots/one/disk 0.raw || fail "the snapshot changed with the disk"
python3 - <<'END'
import json
s = json.load(open("m/snapshots/one/info.json"))
assert s["name"] == "one" and s["id"] == "1", s
assert s["virtual-size"] == 32 << 20, s
END
cp --sparse=auto m/snapshots/one/disk copy.raw
cmp copy.raw 0.raw
[ "$(stat -c %b copy.raw)" -le 16384 ] || fail "holes were copied"
assert_fails sh -c ': 2>/dev/null > m/snapshots/one/disk'
assert_fails mkdir m/snapshots/one 2>/dev/null
cp m/disk 1.raw
mkdir m/snapshots/two
mv m/snapshots/one m/snapshots/first
assert_eq "$(ls m/snapshots | xargs)" "first two" "after a rename"
cmp m/snapshots/first/disk 0.raw
assert_fails mv -T m/snapshots/first m/snapshots/two 2>/dev/null

# What is open stays.
exec 3< m/snapshots/first/disk
assert_fails rmdir m/snapshots/first 2>/dev/null
status_is "Could not delete snapshot 'first': its disk is open"
exec 3<&-
exec 3< m/disk
assert_fails sh -c 'echo snapshot -a first > m/ctl' 2>/dev/null
status_is "Could not apply snapshot 'first': The disk is open (--force goes on)"
echo snapshot -a first --force > m/ctl
cmp - 0.raw <&3 || fail "an open file sees the old content"
exec 3<&-
cmp m/disk 0.raw || fail "pages of the old content"
cmp m/snapshots/two/disk 1.raw
echo snapshot -a two > m/ctl
cmp m/disk 1.raw
assert_fails sh -c 'echo snapshot -a nosuch > m/ctl' 2>/dev/null
assert_fails sh -c 'echo snapshot -d nosuch > m/ctl' 2>/dev/null
exec 3<> m/ctl
echo snapshot -l >&3
grep -q 'first' <&3 || fail "the list is not in ctl"
exec 3>&-
umount_img m
qemu-img check -q a.qcow2
qemu-img convert -l first -O raw a.qcow2 got.raw
cmp got.raw 0.raw
qemu-img convert -l two -O raw a.qcow2 got.raw
cmp got.raw 1.raw

# ---- names -------------------------------------------------------------------

python3 - <<'END'
import subprocess
for name in (b"a/b", b"", b".", b"\xc3\xa4" * 255, b"alike", b"alike",
             b"new\nline", b"50%", b"a%2Fb", b"%", b"x" * 245 + b"/" * 10,
	     b"--", b"-d", b"--force", b"-x=y"):
    subprocess.check_call(["qemu-img", "snapshot", "-c", name, "a.qcow2"])
END
mount_img -o rw a.qcow2 m
python3 - <<'END'
import errno, json, os
d = b"m/snapshots"
got = {}
for f in os.listdir(d):
    assert len(f) <= 255 and os.path.isfile(d + b"/" + f + b"/disk"), f
    got.setdefault(json.load(open(d + b"/" + f + b"/info.json"))["name"],
                   []).append(f)
for name, file in (("a/b", b"a%2Fb"), ("", b"%"), (".", b"%2E"),
                   ("new\nline", b"new%0Aline"), ("50%", b"50%"),
                   ("a%2Fb", b"a%252Fb"), ("%", b"%25"), ("first", b"first"),
                   ("\xe4" * 127 + "\ufffd", b"\xc3\xa4" * 127 + b"\xc3")):
    assert got[name] == [file], (name, got)
assert sorted(got["alike"]) == [b"alike", b"alike%~8"], got["alike"]
long = got["x" * 245 + "/" * 10]
assert len(long) == 1 and long[0].endswith(b"x%2F%2F%~13"), long
# One of two that are alike, by its own name; and mkdir undoes escapes.
os.rmdir(d + b"/alike")
assert [f for f in os.listdir(d) if f.startswith(b"alike")] == [b"alike"]
os.rmdir(d + b"/a%2Fb")
os.mkdir(d + b"/a%2Fb")
assert json.load(open(d + b"/a%2Fb/info.json"))["name"] == "a/b"
# Names that look like options.
for f in (b"--", b"-d", b"--force", b"-x=y"):
    os.rename(d + b"/" + f, d + b"/-l")
    os.rename(d + b"/-l", d + b"/" + f)
    os.rmdir(d + b"/" + f)
    os.mkdir(d + b"/" + f)
# Nothing is cut off on the way.
before = os.listdir(d)
for call in (lambda: os.mkdir(d + b"/" + b"\xc3\xa4" * 255),
             lambda: os.mkdir(d + b"/" + b"y" * 256),
             lambda: os.rename(d + b"/first", d + b"/" + b"z" * 300)):
    try:
        call()
        raise SystemExit("a name of more than 255 bytes was taken")
    except OSError as e:
        assert e.errno == errno.ENAMETOOLONG, e
assert os.listdir(d) == before
for f in os.listdir(d):
    os.rmdir(d + b"/" + f)
assert os.listdir(d) == []
END
umount_img m
qemu-img check -q a.qcow2
assert_eq "$(qemu-img snapshot -l a.qcow2)" "" "all are gone"

# ---- what waits for the instant ------------------------------------------------

mkfifo pause
IMGFS_PAUSE=snapshot:instant:$tmp/pause mount_img -o rw a.qcow2 m
# Who asked for it can be killed (pitfall 11), and is answered before it is there.
mkdir m/snapshots/slow &
victim=$!
sleep 0.1
kill -KILL $victim
wait $victim 2>/dev/null || :
assert_eq "$(ls m/snapshots)" slow "it is there while it is made"
cat m/snapshots/slow/info.json > info &
reader=$!
# A second reader can be killed; and the disk goes on.
cat m/snapshots/slow/disk > /dev/null &
victim=$!
# What is asked for next waits in its turn, as jobs.
mkdir m/snapshots/z m/bitmaps/b m/snapshots/y m/snapshots/x
kill -KILL $victim
wait $victim 2>/dev/null || :
echo new | dd of=m/disk conv=notrunc status=none
[ ! -s info ] || fail "info.json did not wait"
echo > pause
wait $reader
grep -q '"name": "slow"' info
cmp m/snapshots/slow/disk m/disk || fail "the instant was before the write"
cat m/snapshots/x/info.json > info
assert_eq "$(ls m/bitmaps)" b "what was asked for before the last one"
rmdir m/bitmaps/b
umount_img m
qemu-img check -q a.qcow2
assert_eq "$(qemu-img snapshot -l a.qcow2 | awk 'NR > 2 { print $2 }' |
	xargs)" "slow z y x" "in the order in which they were asked for"
for name in x y z; do
	qemu-img snapshot -d $name a.qcow2
done

# Cancelled by rmdir: as if nothing had been.
IMGFS_PAUSE=snapshot:instant:$tmp/pause mount_img -o rw a.qcow2 m
mkdir m/snapshots/never
(sleep 1; echo > pause) &
rmdir m/snapshots/never
assert_eq "$(ls m/snapshots)" slow "cancelled"
wait
umount_img m
qemu-img check -q a.qcow2

# ---- without rw ------------------------------------------------------------------

mount_img a.qcow2 m
assert_fails mkdir m/snapshots/x 2>/dev/null
assert_fails rmdir m/snapshots/slow 2>/dev/null
cmp m/snapshots/slow/disk m/disk
umount_img m
