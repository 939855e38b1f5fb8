#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Dirty bitmaps in the Format Extension of Parallels, by a writer of its own:
# info names them, a mount shows what is dirty, convert --bitmaps takes them along
# in a way that qemu-img knows; a broken one harms no other; the first write lets
# all go.  The largest extension takes no memory.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img python3

python3 - <<'END'
import hashlib, os, struct
n = 10


def image(name, bitmaps, clusters, tracks=63):
    """Cluster 1 holds the extension, 2 data, the others @clusters."""
    unit = tracks * 512
    text = b''
    for number, sectors, granularity, l1 in bitmaps:
        b = struct.pack('<Q16sII', sectors, bytes([number] * 16), granularity,
                        len(l1)) + struct.pack('<%dQ' % len(l1), *l1)
        text += struct.pack('<QQII', 0x20385fae252cb34a, 0, len(b), 0) + b
    text += bytes(24)
    md5 = hashlib.md5(text)
    for at in range(24 + len(text), unit, 1 << 20):
        md5.update(bytes(min(1 << 20, unit - at)))
    with open(name, 'wb') as f:
        f.write(struct.pack('<16sIIIIIQIIIQ', b'WithouFreSpacExt', 2, 16, 1,
                            tracks, n, tracks * n, 0, 0, 0, tracks))
        f.write(struct.pack('<I', 2))
        f.seek(unit)
        f.write(struct.pack('<Q', 0xab234cef23dcea87) + md5.digest() + text)
        f.seek(2 * unit)
        f.write(b'd' * min(unit, 32256))
        for i, c in enumerate(clusters):
            f.seek((3 + i) * unit)
            f.write(c)
        f.truncate((3 + len(clusters)) * unit)


size = 63 * n
bits = b'\x0e' + bytes(77) + b'\x03'    # sectors 1 to 3, 624 and 625
image('good', [(1, size, 128, [0]), (2, size, 1, [1]), (3, size, 1, [189])],
      [bits])
image('bad', [(1, size - 1, 1, [1]), (2, size, 1, [1 << 40]), (3, size, 1, []),
              (4, size, 1, [189]), (4, size, 8, [1]),
              (5, size, 1 << 31, [1])], [bits])
# More bits than one cluster has: 10 of 512 bytes, an entry for each 4096.
image('long', [(1, n, 1, [1])], [], 1)
# The first feature is sound, the second one is not.
image('half', [(1, size, 1, [1]), (2, size, 3, [1])], [])
image('huge', [(1, 131072 * n, 128, [1])], [], 131072)
END
one=01010101-0101-0101-0101-010101010101
two=02020202-0202-0202-0202-020202020202
three=03030303-0303-0303-0303-030303030303
four=04040404-0404-0404-0404-040404040404

assert_contains "$(imgctl info good)" "name: $three"
ln -s "$IMGCTL" qemu-img
assert_eq "$(IMGCTL_QEMU_COMPAT=7.2 ./qemu-img info good)" "$(qemu-img info good)"
rm qemu-img

# Into a format whose bitmaps qemu-img knows.
imgctl convert --bitmaps -O qcow2 good good.qcow2
qemu-img info good.qcow2 >text
for b in $one $two $three; do
	assert_contains "$(cat text)" "name: $b"
done
assert_fails imgctl convert --bitmaps -O qcow2 bad bad.qcow2
assert_contains "$(cat err)" "is of a disk of another size"
assert_fails imgctl convert --bitmaps -O parallels good.qcow2 x
assert_contains "$(cat err)" "does not support bitmaps"
assert_fails imgctl bitmap --add -g 64k good new
assert_contains "$(cat err)" "Operation not supported"
assert_contains "$(imgctl info good)" "name: $three"

assert_fails imgctl info half
assert_contains "$(cat err)" "Broken dirty bitmap"
(ulimit -v 200000 && imgctl info huge >out)
assert_contains "$(cat out)" "name: $one"

[ -c /dev/fuse ] && [ "$(id -u)" -eq 0 ] || exit 0
dirty() { # NAME: ranges
	sed -n 's/.*"start": \([0-9]*\), "length": \([0-9]*\).*/\1+\2/p' \
		"m/bitmaps/$1/map.json" | xargs
}
mount_img good m
assert_eq "$(cd m/bitmaps && echo *)" "$one $two $three"
assert_eq "$(dirty $one)" ""
assert_eq "$(dirty $two)" "0+322560"
assert_eq "$(dirty $three)" "512+1536 319488+1024"
assert_eq "$(cat m/bitmaps/$three/enabled)" 0
umount_img m
mount_img good.qcow2 m
assert_eq "$(dirty $three)" "512+1536 319488+1024"
umount_img m
mount_img bad m
assert_eq "$(dirty $four)" "512+1536 319488+1024"
for b in $one $two $three; do
	assert_fails cat m/bitmaps/$b/map.json
done
umount_img m
mount_img long m
assert_eq "$(dirty $one)" "0+5120"
umount_img m

# Who writes lets them go; who only could does not.
mount_img -o rw good m
: <>m/disk
assert_contains "$(cat m/info)" "name: $three"
echo x | dd of=m/disk conv=notrunc status=none
case $(cat m/info) in
*"name: $three"*) fail "still shown by info" ;;
esac
[ ! -e m/bitmaps/$three ] || fail "still in bitmaps/"
umount_img m
case $(imgctl info good) in
*"name: $three"*) fail "still in the file" ;;
esac
rc=0
qemu-img check -q good 2>/dev/null || rc=$?
assert_eq $rc 3 "only leaks, QEMU says"
