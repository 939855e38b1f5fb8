#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Bochs: disks made by bximage are read as qemu-img reads them; a layer is read
# over its disk as bximage commits it; broken ones are refused or reported.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img bximage python3

bx() {
	bximage -q "$@" >bx.log 2>&1 || fail "bximage: $(tail -c 300 bx.log)"
}

# Some data, some of it in single sectors, and holes.
bx -func=create -hd=10M -imgmode=flat disk
for at in 0 7 9 1000 1001 20000; do
	yes "sector $at" | dd of=disk bs=512 seek=$at count=1 conv=notrunc \
		iflag=fullblock status=none
done
dd if="$top_srcdir/ARCHITECTURE.md" of=disk bs=512 seek=5000 conv=notrunc \
	status=none
cp disk copy
bx -func=convert -imgmode=growing copy grown

assert_contains "$(imgctl info grown)" "file format: bochs"
imgctl compare -q disk grown
qemu-img compare -q disk grown
imgctl convert -O raw grown out
qemu-img convert -O raw grown out2
assert_same out out2
imgctl check -q grown

# A layer over the disk, and what committing it makes of the disk.  bximage
# makes no layers, but the kind is a word in the header.
python3 - <<'END'
import shutil
for kind in ('Undoable', 'Volatile'):
    data = bytearray(open('grown', 'rb').read())
    data[48:64] = kind.encode().ljust(16, b'\0')
    data[84:88] = bytes(4)          # the disk's date
    open(kind.lower() + '.redolog', 'wb').write(data)
END
head -c 10321920 /dev/zero | tr '\0' x >undoable
cp undoable volatile
cp undoable base
assert_contains "$(imgctl info undoable.redolog)" "backing file: undoable"
cp undoable.redolog log
bx -func=commit base log
imgctl compare -q -F raw undoable.redolog base
imgctl compare -q -F raw volatile.redolog base
cp undoable.redolog nameless
assert_fails imgctl convert -O raw nameless out
assert_contains "$(cat err)" "must be called as the disk below it"

# Writing is refused, as is what is absurd.
assert_fails imgctl convert -n -O bochs disk grown
assert_contains "$(cat err)" "read-only"
hurt() { # OFFSET BYTES(hex) SENTENCE
	cp grown bad
	poke bad "$1" "$2"
	assert_fails imgctl info -f bochs bad
	assert_contains "$(cat err)" "$3"
	if qemu-img info -f bochs bad >/dev/null 2>qerr; then
		fail "qemu-img takes it"
	fi
	assert_eq "$(sed 's/imgctl/qemu-img/' err)" "$(cat qerr)"
}
hurt 0 00 "Image not in Bochs format"
hurt 72 ffffffff "Catalog size is too large"
hurt 72 01000000 "Catalog size is too small for this disk size"
hurt 80 01100000 "Extent size 4097 is not a power of two"
hurt 80 01000000 "Extent size must be at least 512"
hurt 80 00000001 "Extent size 16777216 is too large"

# An extent behind the end, and one that is used twice.
python3 - <<'END'
import struct
data = bytearray(open('grown', 'rb').read())
at = struct.unpack_from('<I', data, 68)[0]
used = [i for i in range(600)
        if struct.unpack_from('<I', data, at + 4 * i)[0] != 0xffffffff]
struct.pack_into('<I', data, at + 4 * used[0], 0x7fffffff)
data[at + 4 * used[2]:at + 4 * used[2] + 4] = \
    data[at + 4 * used[1]:at + 4 * used[1] + 4]
open('bad', 'wb').write(data)
END
rc=0
imgctl check bad >out 2>err || rc=$?
assert_eq $rc 2 "exit code"
assert_contains "$(cat err)" "beyond the end of the file"
assert_contains "$(cat err)" "is used twice"
assert_fails imgctl convert -O raw bad out
