#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VHD: what qemu-img writes we read, what we write it and libvhdi read; new
# images are laid out as its own, geometry included; info prints the same; check
# finds what is broken and -r all repairs it.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

IMGCTL_QEMU_COMPAT=7.2
export IMGCTL_QEMU_COMPAT

cat >same.py <<'END'
# The same file but for time, UUID and checksum of the footers.
import sys
def load(name):
    data = bytearray(open(name, 'rb').read())
    for at in {0, len(data) - 512}:
        if data[at:at + 8] == b'conectix':
            data[at + 24:at + 28] = bytes(4)
            data[at + 64:at + 84] = bytes(20)
    return data
sys.exit(load(sys.argv[1]) != load(sys.argv[2]))
END
same_info() {
	imgctl info -f vpc "$1" >ours
	qemu-img info -f vpc "$1" >theirs
	assert_same ours theirs
}

random_file data 6500000
truncate -s 20M data
dd if="$top_srcdir/ARCHITECTURE.md" of=data bs=4k seek=4000 conv=notrunc \
	status=none
truncate -s 20M data

for how in subformat=dynamic subformat=fixed force_size=on \
	subformat=fixed,force_size=on; do
	for size in 0 1 1M 10M; do
		qemu-img create -q -f vpc -o $how a $size
		imgctl create -q -f vpc -o $how b $size
		python3 same.py a b || fail "other layout: $how $size"
		[ $size = 0 ] || same_info b
	done
	for size in 100M 504M 1G 8G 32G 127G 200G; do
		rm -f a b
		qemu-img create -q -f vpc -o $how a $size
		imgctl create -q -f vpc -o $how b $size
		assert_eq "$(stat -c %s a)" "$(stat -c %s b)" "length"
		[ $size = 0 ] || same_info b
		imgctl info -f vpc a >theirs
		sed 's/: b$/: a/' ours >ours2
		sed '/disk size/d' theirs >t
		sed '/disk size/d' ours2 >o
		assert_same o t
	done
	rm -f a b
	qemu-img convert -O vpc -o $how data theirs.vhd
	imgctl convert -O vpc -o $how data ours.vhd
	for f in theirs ours; do
		imgctl convert -f vpc -O raw $f.vhd back
		qemu-img convert -f vpc -O raw $f.vhd back2
		assert_same back back2
		cmp -n 20971520 back data
		imgctl check -q -f vpc $f.vhd
		imgctl map -f vpc $f.vhd >map
		same_info $f.vhd
	done
	if command -v vhdiinfo >/dev/null; then
		vhdiinfo ours.vhd >said
		assert_contains "$(cat said)" "$(qemu-img info -f vpc \
			--output=json ours.vhd | sed -n \
			's/.*"virtual-size": \([0-9]*\).*/(\1 bytes)/p')"
	fi
done

# A fixed one is found by its footer, but only by this name and not by QEMU's.
assert_contains "$(imgctl info ours.vhd)" "file format: vpc"
cp ours.vhd ours.bin
assert_contains "$(imgctl info ours.bin)" "file format: raw"

# Blocks in any order, by us and on by QEMU.
imgctl create -q -f vpc w.vhd 30M
io="$top_builddir/tests/imgio"
"$io" -f vpc -c 'write -P 7 25M 64k' -c 'write -P 8 1000 3M' \
	-c 'write -P 9 11M 1k' w.vhd >/dev/null
imgctl check -q w.vhd
qemu-io -f vpc -c 'write -P 10 15M 4M' -c 'read -P 7 25M 64k' \
	-c 'read -P 8 1000 3M' -c 'read -P 9 11M 1k' \
	-c 'read -P 0 11265k 1k' w.vhd >read
assert_eq "$(grep -c failed read)" 0
imgctl check -q w.vhd
"$io" -f vpc -c 'write -P 11 20M 1M' w.vhd >/dev/null
imgctl check -q w.vhd
qemu-io -r -f vpc -c 'read -P 10 15M 4M' -c 'read -P 11 20M 1M' \
	-c 'read -P 7 25M 64k' w.vhd >read
assert_eq "$(grep -c failed read)" 0

# A crash left a block that nothing names, and no footer behind it.
cp w.vhd c.vhd
truncate -s +3000000 c.vhd
assert_rc 2 imgctl check c.vhd
"$io" -f vpc -c 'write -P 12 4M 2M' c.vhd >/dev/null
imgctl check -q c.vhd
qemu-io -r -f vpc -c 'read -P 12 4M 2M' -c 'read -P 10 15M 4M' c.vhd >read
assert_eq "$(grep -c failed read)" 0

# broken OFFSET BYTES(hex) SENTENCE
broken() {
	cp w.vhd b.vhd
	poke b.vhd "$1" "$2"
	rc=0
	imgctl check b.vhd >out 2>err || rc=$?
	assert_eq $rc 2
	assert_contains "$(cat err)" "$3"
	assert_rc 0 imgctl check -r all b.vhd
	imgctl check -q b.vhd
	qemu-io -r -f vpc -c 'read -P 7 25M 64k' b.vhd >read
	assert_eq "$(grep -c failed read)" 0
}
first=$(python3 -c 'print(open("w.vhd", "rb").read()[1536:1540].hex())')
broken 548 00000000 "wrong checksum of the dynamic header"
broken 1544 "$first" "a block lies over another one"
broken 1544 00000001 "a block lies over the header"
broken 1544 00ffffff "a block is beyond the end of the file"
broken $(($(stat -c %s w.vhd) - 512)) 00000000 "no footer at the end"

# What cannot be is refused in qemu-img's words.
refused() {
	cp w.vhd b.vhd
	poke b.vhd "$1" "$2"
	assert_fails imgctl info b.vhd
	sed 's/^imgctl/qemu-img/' err >ours
	! qemu-img info b.vhd >out 2>theirs || fail "qemu-img takes it"
	assert_same ours theirs
}
refused 48 11
refused 512 00
refused 544 00300000
refused 540 00000001
refused 1544 00ffffff
