#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert --salvage: what cannot be read becomes zeroes, with qemu-img's
# warning for each sector.  (A raw source with bad sectors: test-convert.)
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img python3

random_file src 4194304 1
qemu-img convert -c -O qcow2 src stream.qcow2
qemu-img convert -O qcow2 src table.qcow2
# A compressed stream of nonsense; an L2 entry that points into a cluster.
python3 - << 'EOF'
import struct

def u64(f, off):
    f.seek(off)
    return struct.unpack(">Q", f.read(8))[0]

def entry(f, n):
    return (u64(f, u64(f, 40)) & 0x00fffffffffffe00) + 8 * n

with open("stream.qcow2", "r+b") as f:
    host = u64(f, entry(f, 5))
    if not host >> 62 & 1:      # random bytes do not shrink
        f.seek(host & 0x00fffffffffffe00)
        f.seek(entry(f, 5))
        f.write(struct.pack(">Q", 1 << 62 | 0x50000))
    else:
        f.seek(host & (1 << 54) - 1)
        f.write(b"\xff" * 20)
with open("table.qcow2", "r+b") as f:
    f.seek(entry(f, 37))
    f.write(struct.pack(">Q", 1 << 63 | 0x50200))
EOF

warnings() {
	sed 's/^imgctl:/qemu-img:/' "$1" | grep ': warning: ' | sort -u
}

for image in stream table; do
	assert_fails imgctl convert -O raw $image.qcow2 ours
	for opts in "" "-m 1" "-m 16" "-W"; do
		rm -f ours theirs
		# shellcheck disable=SC2086
		imgctl convert --salvage $opts -O raw $image.qcow2 ours \
			2> ours.err
		# shellcheck disable=SC2086
		qemu-img convert --salvage $opts -O raw $image.qcow2 theirs \
			2> theirs.err
		assert_same ours theirs
		warnings ours.err > a
		warnings theirs.err > b
		assert_same a b
	done
	assert_eq "$(grep -c 'while reading offset' a)" 128
	imgctl convert --salvage -q -O qcow2 $image.qcow2 packed 2> err
	assert_eq "$(grep -c warning err || true)" 0
	imgctl convert --salvage -c -O qcow2 $image.qcow2 packed 2> err
	imgctl compare packed ours > out || fail "with -c: $(cat out)"
	assert_eq "$(grep -c 'while reading offset' err)" 128
done

# Without -W the warnings ascend.
imgctl convert --salvage -O raw stream.qcow2 ours 2> err
sed 's/.*offset \([0-9]*\):.*/\1/' err > a
sort -n a > b
assert_same a b

# Zeroes that are stored have no warnings of what is read behind them; with -c a
# cluster has one of its block status.
random_file half 2097152 2
cp half holes
truncate -s 4M holes
dd if=/dev/zero of=holes bs=64k seek=2 count=1 conv=notrunc status=none
qemu-img convert -O qcow2 holes holes.qcow2
python3 - << 'EOF'
import struct
with open("holes.qcow2", "r+b") as f:
    f.seek(40)
    f.seek(struct.unpack(">Q", f.read(8))[0])
    f.seek((struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00) + 8 * 3)
    f.write(struct.pack(">Q", 1 << 63 | 0x50200))
EOF
for opts in "-S 0 -O raw" "-n -O raw" "-n -O qcow2" "-c -O qcow2" \
	"-n -c -O qcow2"; do
	rm -f ours theirs
	case $opts in
	-n*)
		imgctl create -q -f "${opts##*-O }" ours 4M
		imgctl create -q -f "${opts##*-O }" theirs 4M
		;;
	esac
	# shellcheck disable=SC2086
	imgctl convert --salvage $opts holes.qcow2 ours 2> ours.err
	# shellcheck disable=SC2086
	qemu-img convert --salvage $opts holes.qcow2 theirs 2> theirs.err
	qemu-img compare -q ours theirs || fail "$opts: content"
	warnings ours.err > a
	warnings theirs.err > b
	diff a b >&2 || fail "$opts: warnings"
done
