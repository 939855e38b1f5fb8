#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Parallels: new images are qemu-img's byte for byte; check and -r find, say and
# repair what it does; the older kind with clusters that are no power of two;
# the Format Extension's bitmaps are shown, and let go by the first write.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

export IMGCTL_QEMU_COMPAT=7.2
for options in cluster_size=1M cluster_size=64k cluster_size=1000 \
	cluster_size=512; do
	for size in 10M 1048064 512 0; do
		rm -f ours theirs
		imgctl create -q -f parallels -o $options ours $size
		qemu-img create -q -f parallels -o $options theirs $size
		assert_same ours theirs
	done
done
assert_eq "$(imgctl create -f parallels -o help)" \
	"$(qemu-img create -f parallels -o help)"
for bad in "-o cluster_size=0 z 1M" "-o cluster_size=4G z 1M" "z 4096T"; do
	# shellcheck disable=SC2086
	assert_fails imgctl create -q -f parallels $bad
	# shellcheck disable=SC2086
	assert_eq "$(sed s/imgctl/qemu-img/ err)" \
		"$(qemu-img create -q -f parallels $bad 2>&1 || :)"
done

truncate -s 3M data
dd if="$top_srcdir/ARCHITECTURE.md" of=data conv=notrunc status=none
dd if=/usr/bin/env of=data bs=1 seek=1500001 conv=notrunc status=none
imgctl convert -O parallels data a
qemu-img compare -q -f parallels -F raw a data
qemu-img check -q -f parallels a
qemu-img convert -O parallels data a
imgctl compare -q -f parallels -F raw a data

# What is wrong with a table, and what becomes of it.
qemu-img create -q -f parallels -o cluster_size=64k b 1M
qemu-io -f parallels -c 'write -P 1 0 100k' b >/dev/null
python3 - <<'END'
import struct
d = open('b', 'rb').read()
def make(name, fmt, at, value, more=b''):
    b = bytearray(d)
    struct.pack_into(fmt, b, at, value)
    open('bad.' + name, 'wb').write(b + more)
make('unclosed', '<I', 44, 0x746f6e59)
make('outside', '<I', 68, 0x100)
make('tail', 'B', 0, ord('W'), bytes(200000))
make('notracks', '<I', 28, 0)
make('tracks', '<I', 28, 0x40000000)
make('tracks2', '<I', 28, 0x3fe010)
make('entries', '<I', 32, 0x7fffffff)
make('few', '<I', 32, 3)
make('version', '<I', 16, 3)
make('extension', '<Q', 56, 3)
make('twice', '<I', 68, 1)
END
for bad in bad.*; do
	[ $bad != bad.twice ] || continue       # newer QEMUs only
	for how in "" "-r leaks" "-r all"; do
		cp $bad x
		rc=0 qrc=0
		# shellcheck disable=SC2086
		qemu-img check $how -f parallels x >qout 2>qerr || qrc=$?
		cp x theirs
		cp $bad x
		# shellcheck disable=SC2086
		imgctl check $how -f parallels x >out 2>err || rc=$?
		sed -i s/imgctl/qemu-img/ err
		assert_eq $rc $qrc "exit code of check $how $bad"
		# qemu-img leaves what its next reader refuses.
		if [ "$bad$how" = "bad.extension-r all" ]; then
			imgctl check -q -f parallels x
			continue
		fi
		assert_same out qout
		assert_same err qerr
		[ $bad != bad.extension ] || continue
		if [ "$how" = "-r all" ] && [ $rc -eq 0 ]; then
			qemu-img check -q -f parallels x
			imgctl compare -q -f parallels -F parallels x theirs
		fi
	done
done
rc=0
imgctl check -f parallels bad.twice >out 2>err || rc=$?
assert_eq $rc 2 "exit code"
assert_contains "$(cat err)" "duplicate offset in BAT entry 1"
imgctl convert -f parallels -O raw bad.twice want
assert_rc 0 imgctl check -r all -f parallels bad.twice
qemu-img check -q -f parallels bad.twice
imgctl compare -q -f parallels -F raw bad.twice want
assert_fails imgctl convert -f parallels -O raw bad.outside out
assert_fails imgctl convert -n -O parallels data bad.unclosed
assert_contains "$(cat err)" "Image was not closed correctly"

# As newer QEMUs: who writes next takes away what the other left behind; but not
# where more is wrong.
cp bad.unclosed next
head -c 200000 /dev/zero | tr '\0' W >>next
IMGCTL_QEMU_COMPAT=10.0 imgctl convert -n -f raw -O parallels data next \
	2>err && fail "a larger disk fits"
truncate -s 1M small
dd if=/usr/bin/env of=small bs=1 seek=700001 count=20000 conv=notrunc \
	status=none
IMGCTL_QEMU_COMPAT=10.0 imgctl convert -n -O parallels small next 2>err
assert_contains "$(cat err)" "Repairing image was not closed correctly"
qemu-img check -q -f parallels next
qemu-img compare -q -f parallels -F raw next small
cp bad.outside next
poke next 44 596e6f74
IMGCTL_QEMU_COMPAT=10.0 assert_fails imgctl convert -n -O parallels small next
assert_contains "$(cat err)" "repair it with check -r all"

# The older kind, by a writer of its own: 63 sectors a cluster, entries in
# sectors, the data where it likes; and an extension with a bitmap.
python3 - <<'END'
import hashlib, os, struct
tracks, n = 63, 10
unit = tracks * 512
def header(magic, extension=0, entries=n):
    return struct.pack('<16sIIIIIQIIIQ', magic, 2, 16, 1, tracks, entries,
                       tracks * n, 0, 0, 0, extension)
disk = bytearray(unit * n)
places = {7: 1, 0: 64, 3: 127}  # cluster -> first sector
body = bytearray(512 * 190)
for cluster, at in places.items():
    piece = bytes([cluster + 1]) * unit
    disk[cluster * unit:(cluster + 1) * unit] = piece
    body[at * 512:at * 512 + unit] = piece
table = b''.join(struct.pack('<I', places.get(i, 0)) for i in range(n))
body[:64] = header(b'WithoutFreeSpace')
body[64:64 + len(table)] = table
open('old', 'wb').write(body)
open('old.raw', 'wb').write(disk)
# Cluster 1 holds the extension, cluster 2 data.
body = bytearray(3 * unit)
body[:64] = header(b'WithouFreSpacExt', tracks)
body[64:68] = struct.pack('<I', 2)
body[2 * unit:] = b'd' * unit
bitmap = struct.pack('<Q16sII', tracks * n, bytes(range(16)), 128, 1) + bytes(8)
feature = struct.pack('<QQII', 0x20385fae252cb34a, 0, len(bitmap), 0) + bitmap
rest = (feature + bytes(24)).ljust(unit - 24, b'\0')
body[unit:2 * unit] = struct.pack('<Q', 0xab234cef23dcea87) + \
    hashlib.md5(rest).digest() + rest
open('ext', 'wb').write(body)
body[unit + 300] ^= 1
open('ext.bad', 'wb').write(body)
tracks = 1 << 13                # 4 MiB hold 65536 bitmaps of 56 bytes
rest = (struct.pack('<QQII', 0x20385fae252cb34a, 0, 32, 0) +
        struct.pack('<Q16sII', tracks, bytes(16), 128, 0)) * 65536
rest = (rest + bytes(24)).ljust(tracks * 512 - 24, b'\0')
with open('ext.many', 'wb') as f:
    f.write(header(b'WithouFreSpacExt', tracks, 1))
    f.seek(tracks * 512)
    f.write(struct.pack('<Q', 0xab234cef23dcea87) +
            hashlib.md5(rest).digest() + rest)
tracks, n = 1 << 19, 1          # a cluster of 256 MiB
with open('ext.large', 'wb') as f:
    f.write(header(b'WithouFreSpacExt', tracks))
    f.seek(tracks * 512)
    f.write(struct.pack('<Q', 0xab234cef23dcea87))
    f.truncate(2 * tracks * 512)
END
imgctl compare -q -f parallels -F raw old old.raw
qemu-img compare -q -f parallels -F raw old old.raw
imgctl check -q -f parallels old
cp old.raw new.raw
yes | dd of=new.raw bs=1000 seek=50 count=60 iflag=fullblock conv=notrunc \
	status=none
imgctl convert -n -O parallels new.raw old
imgctl compare -q -f parallels -F raw old new.raw
qemu-img compare -q -f parallels -F raw old new.raw
assert_contains "$(imgctl info -f parallels ext)" \
	"00010203-0405-0607-0809-0a0b0c0d0e0f"
qemu-img info -f parallels ext >/dev/null
imgctl check -q -f parallels ext
assert_fails imgctl info -f parallels ext.bad
assert_contains "$(cat err)" "Wrong checksum"
assert_fails imgctl info -f parallels ext.many
assert_contains "$(cat err)" "More than 65535 dirty bitmaps"
(ulimit -v 200000; assert_fails imgctl info -f parallels ext.large)
assert_contains "$(cat err)" "too large: a cluster of 268435456 bytes"
imgctl convert -n -O parallels new.raw ext 2>/dev/null
qemu-img compare -q -f parallels -F raw ext new.raw
