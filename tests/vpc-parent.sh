#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VHD: a differencing image over its parent, found by a locator and known by its
# UUID; blocks with sectors of both are copied whole when they are written.  The
# image is made from the format's description; libvhdi reads it where it is
# installed.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires python3

imgctl create -q -f vpc -o force_size=on base.vhd 8M
io="$top_builddir/tests/imgio"
"$io" -f vpc -c 'write -P 1 0 5M' base.vhd >/dev/null
cat >child.py <<'END'
import os, struct
base = open('base.vhd', 'rb').read()
def seal(b, at):
    b[at:at + 4] = bytes(4)
    b[at:at + 4] = struct.pack('>I', ~sum(b) & 0xffffffff)
foot = bytearray(base[:512])
foot[60:64] = struct.pack('>I', 4)
foot[68:84] = os.urandom(16)
seal(foot, 64)
head = bytearray(base[512:1536])
head[40:56] = base[68:84]
head[56:60] = base[24:28]
name = 'base.vhd'
head[64:64 + 2 * len(name)] = name.encode('utf-16-be')
path = '.\\base.vhd'.encode('utf-16-le')
head[576:600] = b'W2ru' + struct.pack('>IIIQ', 512, len(path), 0, 2048)
seal(head, 36)
# Block 1: sectors 3 to 9 are here, 0x33; block 3: all, 0x44.
bat = struct.pack('>4I', 0xffffffff, 5, 0xffffffff, 5 + 4097).ljust(512,
                                                                    b'\xff')
bits = bytes([0b00011111, 0b11000000]).ljust(512, b'\0')
data = bytearray(2 << 20)
data[3 * 512:10 * 512] = b'\x33' * (7 * 512)
out = foot + head + bat + path.ljust(512, b'\0') + bits + data + \
    b'\xff' * 512 + b'\x44' * (2 << 20) + foot
open('top.vhd', 'wb').write(out)
want = bytearray(b'\1' * (5 << 20) + bytes(3 << 20))
want[(2 << 20) + 3 * 512:(2 << 20) + 10 * 512] = b'\x33' * (7 * 512)
want[6 << 20:] = b'\x44' * (2 << 20)
open('want', 'wb').write(want)
want[(2 << 20) + 5000:(2 << 20) + 6000] = b'\x55' * 1000
want[100:1100] = b'\x66' * 1000
open('want2', 'wb').write(want)
END
python3 child.py

assert_contains "$(imgctl info top.vhd)" "backing file: base.vhd"
imgctl check -q top.vhd
imgctl convert -O raw top.vhd flat
assert_same flat want
mkdir elsewhere
cp top.vhd elsewhere
assert_fails imgctl convert -O raw elsewhere/top.vhd x
assert_contains "$(cat err)" "is not where the image says"
assert_contains "$(imgctl info elsewhere/top.vhd)" "backing file: base.vhd"
assert_fails imgctl info --backing-chain elsewhere/top.vhd
assert_contains "$(cat err)" "No such file or directory"
if command -v vhdiinfo >/dev/null; then
	vhdiinfo top.vhd >said || fail "vhdiinfo does not take it"
	assert_contains "$(cat said)" "Differential"
fi
if command -v 7z >/dev/null; then
	7z x -oout7 -y top.vhd >said || { cat said >&2; fail "7z"; }
	assert_same out7/top.img want
fi

"$io" -f vpc -c 'write -P 0x55 2102152 1000' -c 'write -P 0x66 100 1000' \
	top.vhd >/dev/null
imgctl check -q top.vhd
imgctl convert -O raw top.vhd flat
assert_same flat want2

(requires_fuse) >/dev/null || exit 0
mkdir mnt
mount_img . mnt
assert_same mnt/top.vhd/disk want2
umount_img mnt
