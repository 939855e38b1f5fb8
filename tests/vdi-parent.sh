#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VDI: a differencing image finds its parent by the UUID, in its own folder,
# under the mount as well; discarded blocks of it hide the parent.  No other
# program here knows such images: they are made by hand from the header's
# description.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires python3

imgctl create -q -f vdi base.vdi 10M
io() {
	"$top_builddir/tests/imgio" "$@" >/dev/null
}
io -f vdi -c 'write -P 1 0 10M' base.vdi
mkdir sub
cat >child.py <<'END'
import sys, os
base = open('base.vdi', 'rb').read(1024)
h = bytearray(base)
h[0x188:0x198] = os.urandom(16)
h[0x1a8:0x1b8] = os.urandom(16)
h[0x1b8:0x1c8] = base[0x188:0x198]
h[0x4c:0x50] = (4).to_bytes(4, 'little')
h[0x184:0x188] = bytes(4)
h[0x200:0x228] = b'\xff' * 40
h[0x208:0x20c] = b'\xfe\xff\xff\xff'    # block 2: discarded
for name in 'top.vdi', 'sub/top.vdi':
    open(name, 'wb').write(h)
END
python3 child.py

assert_contains "$(imgctl info top.vdi)" "backing file: base.vdi"
io -f vdi -c 'write -P 2 1000000 100000' top.vdi
imgctl check -q top.vdi
imgctl convert -O raw top.vdi flat
python3 - <<'END'
want = bytearray(b'\1' * (10 << 20))
want[2 << 20:3 << 20] = bytes(1 << 20)
want[1000000:1100000] = b'\2' * 100000
assert open('flat', 'rb').read() == want
END
assert_eq "$(imgctl map --output=json top.vdi | grep -c '"depth": 1')" 1
imgctl info --backing-chain top.vdi >chain
assert_eq "$(grep -c '^image:' chain)" 2

assert_fails imgctl convert -O raw sub/top.vdi x
assert_contains "$(cat err)" "is not in the image's folder"
imgctl convert -O raw --image-opts driver=vdi,file.filename=sub/top.vdi,\
backing.driver=vdi,backing.file.filename=base.vdi x

(requires_fuse) >/dev/null || exit 0
mkdir mnt
mount_img . mnt
assert_same mnt/top.vdi/disk flat
assert_fails cat mnt/sub/top.vdi/disk
umount_img mnt
