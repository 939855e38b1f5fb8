#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The log of VHDX: qemu-img replays what we wrote there and we replay it too, in
# memory where the image may only be read; damaged copies are mended.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3
imgio=$top_builddir/tests/imgio

# An image that was never closed, and whose table never left the log.
imgctl create -q -f vhdx -o block_size=1M a.vhdx 100M
"$imgio" -f vhdx -c 'write -P 1 0 3M' -c flush -c 'write -P 2 50M 1M' \
	-c flush -c abort a.vhdx || true
cp a.vhdx applied.vhdx
python3 - a.vhdx <<'EOF'
import struct, sys
with open(sys.argv[1], "r+b") as f:
    f.seek(0x200000)
    table = f.read(4096)
    assert struct.unpack_from("<Q", table, 400)[0] & 7 == 6
    f.seek(0x200000)
    # As the first flush left it.
    f.write(table[:400] + struct.pack("<Q", 2) + table[408:])
EOF
head -c 3M /dev/zero | tr '\0' '\1' >want
truncate -s 100M want
head -c 1M /dev/zero | tr '\0' '\2' |
	dd of=want bs=1M seek=50 conv=notrunc status=none

# Reading: nothing is written.
cp a.vhdx before.vhdx
imgctl compare -q a.vhdx want
imgctl compare -q applied.vhdx want
imgctl check -q a.vhdx
assert_same a.vhdx before.vhdx
assert_fails qemu-img check a.vhdx

# Writing, or check -r: into the file.
cp a.vhdx ours.vhdx
imgctl check -r all ours.vhdx >out
grep -q '1 corruptions' out
qemu-img check -q ours.vhdx
qemu-img compare -q -f vhdx -F raw ours.vhdx want
cp a.vhdx theirs.vhdx
qemu-img check -r all theirs.vhdx >out
qemu-img compare -q -f vhdx -F raw theirs.vhdx want
cp a.vhdx ours.vhdx
"$imgio" -f vhdx -c 'write -P 3 99M 1M' ours.vhdx
qemu-io -f raw -c 'write -P 3 99M 1M' want >/dev/null
qemu-img compare -q -f vhdx -F raw ours.vhdx want

# A torn entry is none: the one before it counts.  Here none is left.
cp a.vhdx torn.vhdx
for at in 1048576 1056768; do
	printf X | dd of=torn.vhdx bs=1 seek=$((at + 70)) conv=notrunc \
		status=none
done
assert_fails imgctl info torn.vhdx 2>err

# A flush larger than the log: 70000 blocks need 137 pages of the table, and an
# entry takes at most 126.
imgctl create -q -f vhdx -o block_size=1M many.vhdx 70000M
python3 -c '
for i in range(0, 70000, 500):
    print("write -P 9 %dM 4k" % i)
print("flush\nabort")' >commands
"$imgio" -f vhdx many.vhdx <commands || true
qemu-img check -r all many.vhdx >out
assert_eq "$(qemu-io -f vhdx -r -c 'read -P 9 69500M 4k' -c 'read -P 9 0 4k' \
	many.vhdx | grep -c 'read 4096')" 2 "blocks of two batches"
imgctl check -q many.vhdx

# Copies: one header, one region table.
imgctl create -q -f vhdx h.vhdx 10M
for at in 65540 131076; do
	cp h.vhdx x.vhdx
	printf X | dd of=x.vhdx bs=1 seek=$at conv=notrunc status=none
	printf X | dd of=x.vhdx bs=1 seek=196700 conv=notrunc status=none
	rc=0
	imgctl check -q x.vhdx 2>err || rc=$?
	assert_eq $rc 2 "check of a damaged header"
	imgctl check -q -r all x.vhdx
	imgctl check -q x.vhdx
	qemu-img check -q x.vhdx
done

# Blocks beyond the end, on the log, twice in one place.
imgctl create -q -f vhdx -o block_size=1M b.vhdx 10M
"$imgio" -f vhdx -c 'write -P 1 0 2M' b.vhdx
for entry in 0600000100000000 0600100000000000 0400800000000000; do
	cp b.vhdx x.vhdx
	poke x.vhdx 2097168 $entry
	rc=0
	imgctl check -q x.vhdx 2>err || rc=$?
	assert_eq $rc 2 "check with entry $entry"
	assert_fails imgctl convert -O raw x.vhdx out.raw
	imgctl check -q -r all x.vhdx
	imgctl compare -q x.vhdx b.vhdx
done
