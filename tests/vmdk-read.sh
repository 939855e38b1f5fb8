#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 300
# VMDK, reading: every subformat that qemu-img writes is read as qemu-img
# reads it, with the same info, map and check; layers over a parent; extents
# that lie elsewhere or lie about themselves are refused.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

truncate -s 2100M a.raw
for at in 0 1 700 2046 2049; do
	yes "piece $at" | dd of=a.raw bs=1M seek=$at count=1 conv=notrunc \
		iflag=fullblock status=none
done
# Every other grain of a stretch.
for at in 1600 1602 1604 1606; do
	yes "grain $at" | dd of=a.raw bs=64k seek=$at count=1 conv=notrunc \
		iflag=fullblock status=none
done

# Both say the same about an image.
same_words() {
	for words in "info" "info --output=json" "map" "map --output=json" \
		"check" "check --output=json"; do
		rc=0 qrc=0
		# shellcheck disable=SC2086
		IMGCTL_QEMU_COMPAT=7.2 imgctl $words "$1" >out 2>err || rc=$?
		# shellcheck disable=SC2086
		qemu-img $words "$1" >qout 2>qerr || qrc=$?
		assert_eq $rc $qrc "exit code of $words $1"
		assert_same out qout
		sed -i 's/^imgctl/qemu-img/' err
		assert_same err qerr
	done
}

for sub in monolithicSparse monolithicFlat twoGbMaxExtentSparse \
	twoGbMaxExtentFlat streamOptimized; do
	qemu-img convert -O vmdk -o subformat=$sub a.raw $sub.vmdk
	imgctl compare -q a.raw $sub.vmdk
	same_words $sub.vmdk
done

# Zeroed grains; a layer over a parent, and a parent that has changed.
qemu-img create -q -f vmdk -o zeroed_grain=on z.vmdk 4M
qemu-io -c 'write -P 1 0 1M' -c 'write -z 128k 64k' z.vmdk >/dev/null
qemu-img create -q -f vmdk -b z.vmdk -F vmdk top.vmdk
qemu-io -c 'write -P 2 512k 64k' top.vmdk >/dev/null
for i in z.vmdk top.vmdk; do
	imgctl convert -O raw $i out
	qemu-img convert -O raw $i qout
	assert_same out qout
	same_words $i
done
qemu-io -c 'write -P 3 2M 64k' z.vmdk >/dev/null
assert_fails imgctl convert -O raw top.vmdk out
assert_fails qemu-img convert -O raw top.vmdk out

# In a folder: one image, its extents are not; no extent from elsewhere.
if [ -c /dev/fuse ] && [ "$(id -u)" -eq 0 ]; then
	mkdir src
	cp twoGbMaxExtentSparse* src
	echo text >src/notes.txt
	mount_img -o rw src m
	assert_eq "$(ls m)" twoGbMaxExtentSparse.vmdk
	cmp a.raw m/twoGbMaxExtentSparse.vmdk/disk
	assert_contains "$(cat m/twoGbMaxExtentSparse.vmdk/info)" \
		"create type: twoGbMaxExtentSparse"
	dd if=a.raw of=m/twoGbMaxExtentSparse.vmdk/disk bs=1M seek=2047 \
		count=2 conv=notrunc,fsync status=none
	dd if=a.raw of=a.raw bs=1M seek=2047 count=2 conv=notrunc status=none
	cmp a.raw m/twoGbMaxExtentSparse.vmdk/disk
	umount_img m
	qemu-img compare -q a.raw src/twoGbMaxExtentSparse.vmdk
	sed 's|twoGbMaxExtentSparse-s001|../&|' \
		twoGbMaxExtentSparse.vmdk >src/evil.vmdk
	sed "s|SPARSE \"|SPARSE \"$tmp/|" twoGbMaxExtentSparse.vmdk \
		>src/absolute.vmdk
	# A link that leads out; parents that lie outside.
	sed 's|twoGbMaxExtentSparse-s001|link-s001|' \
		twoGbMaxExtentSparse.vmdk >src/link.vmdk
	ln -s "$tmp/twoGbMaxExtentSparse-s001.vmdk" src/link-s001.vmdk
	qemu-img create -q -f vmdk z2.vmdk 4M
	(cd src && qemu-img create -q -f vmdk -b ../z2.vmdk -F vmdk above.vmdk)
	qemu-img create -q -f vmdk -b "$tmp/z2.vmdk" -F vmdk src/root.vmdk
	mount_img src m
	for i in evil absolute link above root; do
		assert_fails cat m/$i.vmdk/disk
		assert_contains "$(cat m/$i.vmdk/status)" "allow-path"
	done
	cmp a.raw m/twoGbMaxExtentSparse.vmdk/disk
	umount_img m
fi

# Parents that lead back: to itself, and to each other.
above() { # NAME PARENT
	sed "s/^# Extent desc.*/parentFileNameHint=\"$2\"\n&/" \
		monolithicFlat.vmdk >"$1"
}
above self.vmdk self.vmdk
above one.vmdk two.vmdk
above two.vmdk one.vmdk
for i in self one two; do
	assert_fails timeout 20 imgctl map $i.vmdk
	assert_contains "$(cat err)" "'$i.vmdk' creates an infinite loop"
done

# Words about what is broken.
refused() { # FILE SENTENCE
	assert_fails timeout 20 imgctl info -f vmdk "$1"
	assert_contains "$(cat err)" "$2"
}
line() { # SED-EXPRESSION SENTENCE
	sed "$1" twoGbMaxExtentSparse.vmdk >bad.vmdk
	refused bad.vmdk "$2"
}
line 's/^createType.*//' "invalid VMDK image descriptor"
line 's/^createType.*/createType="custom"/' "Unsupported image type 'custom'"
line 's/^RW 4194304 SPARSE/RW 4194304 sparse/' "Invalid extent line: RW"
line 's/^RW 4194304/RW 99999999999999999999/' "Invalid extent line: RW"
line 's/^RW 4194304/RW 9007199254740992/' "L1 size too big"
line 's/^RW .*//' "names no extent"
line 's/^parentCID=.*/parentCID=xyz/' "Invalid line in the VMDK descriptor"
line 's/-s002/-s009/' "No such file or directory"
line 's/"twoGbMaxExtentSparse-s002.vmdk"/"a.raw"/' "is no sparse extent"
line 's/"twoGbMaxExtentSparse-s002.vmdk"/"fifo"/' "No such file"
mkfifo fifo
line 's/"twoGbMaxExtentSparse-s002.vmdk"/"fifo"/' "fifo"
: >bad.vmdk
refused bad.vmdk "File is too small"
printf 'version=1\n' >bad.vmdk
refused bad.vmdk "invalid VMDK image descriptor"
header() { # OFFSET BYTES SENTENCE
	cp monolithicSparse.vmdk bad.vmdk
	poke bad.vmdk "$1" "$2"
	refused bad.vmdk "$3"
}
header 4 04000000 "Unsupported VMDK version 4"
header 44 01020000 "L2 table size too big"
header 44 00000000 "L1 entry size is invalid"
header 20 0000000000000000 "L1 entry size is invalid"
header 20 ffffffffffffffff "L1 entry size is invalid"
header 12 ffffffffffffff00 "L1 size too big"
header 56 ffffffffffffffff "Invalid footer"
header 56 ffffffffffffff00 "beyond the end of the file"
header 36 ffffffffffffff00 ""
truncate -s 5000 bad.vmdk
refused bad.vmdk "File truncated, expecting at least"

# Tables and grains that lead nowhere: an error where they are read.
python3 - <<'END'
import struct
data = bytearray(open('monolithicSparse.vmdk', 'rb').read())
gd = struct.unpack_from('<Q', data, 56)[0] * 512
gt = struct.unpack_from('<I', data, gd)[0] * 512
struct.pack_into('<I', data, gt, 0x7fffffff)
open('bad1.vmdk', 'wb').write(data)
struct.pack_into('<I', data, gd, 0xfffffff0)
open('bad2.vmdk', 'wb').write(data)
END
for i in bad1 bad2; do
	rc=0
	imgctl check $i.vmdk >out 2>err || rc=$?
	assert_eq $rc 2 "check of $i"
	assert_contains "$(cat err)" "points after EOF"
	assert_fails imgctl convert -O raw $i.vmdk out
done
