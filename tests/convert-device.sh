#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert onto a block device: what was on it before does not shine through,
# also where the source has holes.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io
requires_loop

qemu-img create -q -f raw src.raw 8M
qemu-io -f raw -c 'write -P 1 1M 300k' -c 'write -P 2 5M 64k' \
	-c 'write -P 0 6M 1M' src.raw > out
head -c 16M /dev/zero | tr '\0' '\252' > dev
loop_attach dev

stale() {
	head -c 16M /dev/zero | tr '\0' '\252' > "$loop"
	sync "$loop"
}

for fmt in raw qcow2; do
	for opts in "" "-S 0" "-W" "-n"; do
		[ "$fmt-$opts" != qcow2--n ] || continue
		stale
		# shellcheck disable=SC2086
		imgctl convert $opts -O $fmt src.raw "$loop"
		qemu-img convert -f $fmt -O raw "$loop" back
		truncate -s 8M back
		assert_same back src.raw
		[ $fmt = raw ] || qemu-img check -q -f qcow2 "$loop" ||
			fail "check: $opts"
	done
done
stale
imgctl convert -O qcow2 -o preallocation=metadata src.raw "$loop"
qemu-img convert -f qcow2 -O raw "$loop" back
assert_same back src.raw
stale
imgctl convert -c -O qcow2 src.raw "$loop"
qemu-img convert -f qcow2 -O raw "$loop" back
assert_same back src.raw

# A device as the source.
imgctl convert -f qcow2 -O raw "$loop" back2
assert_same back2 src.raw

# Too small: refused before a byte of it is touched.
qemu-img create -q -f raw big.raw 20M
stale
assert_rc 1 imgctl convert -O raw big.raw "$loop"
assert_contains "$(cat err)" "Cannot grow device files"
assert_same dev "$loop"
[ -b "$loop" ] || fail "the device is gone"
assert_rc 1 imgctl convert -n -O raw big.raw "$loop"
assert_contains "$(cat err)" "output file is smaller than input file"
