#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Images as large as the format lets them be: an L1 table of 32 MiB, disks of up
# to 2 EiB.  Written by qemu-io and by us at the beginning, in the middle and at
# the end, read by the other, checked and mapped alike; headers that speak of
# more are refused in qemu-img's words.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3
imgio=$top_builddir/tests/imgio
export IMGCTL_QEMU_COMPAT=7.2
K=65536

# same COMMAND...: of l.qcow2, by both programs.
same() {
	a=0
	b=0
	timeout 60 qemu-img "$@" l.qcow2 >theirs 2>&1 || a=$?
	timeout 60 "$IMGCTL" "$@" l.qcow2 >ours 2>&1 || b=$?
	sed -i 's/^imgctl: /qemu-img: /' ours
	[ $a = $b ] && diff theirs ours || fail "$*: $a, $b"
}

at_the_limit() {
	size=$2
	echo "$1: $size bytes"
	rm -f l.qcow2
	"$IMGCTL" create -q -f qcow2 -o "$1" l.qcow2 "$size"
	! "$IMGCTL" create -q -f qcow2 -o "$1" m.qcow2 $((size + 512)) 2>err ||
		fail "$1: more than an L1 table can hold"
	for at in 0 $((size / 2)) $((size - 2 * K)); do
		echo "write -P 8 $at $K"
		[ $at = 0 ] || echo "write -z $((at - 4 * K)) $K"
	done >script
	"$imgio" -f qcow2 l.qcow2 <script || fail "$1: writing"
	qemu-io -f qcow2 -c "write -P 7 $((size / 2 - K)) $K" \
		-c "write -P 7 $((size - K)) $K" l.qcow2 >/dev/null
	qemu-io -f qcow2 -c "read -P 8 0 $K" -c "read -P 8 $((size / 2)) $K" \
		-c "read -P 8 $((size - 2 * K)) $K" l.qcow2 >out
	! grep -q 'verification failed' out || fail "$1: they read otherwise"
	printf 'read -P 7 %s %s\nread -P 7 %s %s\n' $((size / 2 - K)) $K \
		$((size - K)) $K | "$imgio" -f qcow2 l.qcow2 ||
		fail "$1: we read otherwise"
	same check
	same info
	same map -s $((size / 2 - 64 * K)) -l $((128 * K)) --output=json
	same map -s $((size - 64 * K)) -l $((128 * K))
	"$IMGCTL" map --output=json l.qcow2 >out || fail "$1: map"
	python3 -c 'import json, sys
runs = json.load(open("out"))
assert sum(r["length"] for r in runs) == int(sys.argv[1]), runs' "$size"
}

at_the_limit cluster_size=512 $((1 << 37))
at_the_limit cluster_size=64k $((1 << 51))
at_the_limit cluster_size=2M $((1 << 61))
at_the_limit cluster_size=2M,extended_l2=on $((1 << 60))

# What the header says of the disk, with an L1 table that is too small for it.
rm l.qcow2
"$IMGCTL" create -q -f qcow2 l.qcow2 1G
for size in 7fffffffffffffff 7ffffffffffffe00 8000000000000000 \
	ffffffffffffffff 4000000000000000; do
	python3 -c 'import sys
f = open("l.qcow2", "r+b")
f.seek(24)
f.write(bytes.fromhex(sys.argv[1]))' $size
	same info
	same check
	same map
done
