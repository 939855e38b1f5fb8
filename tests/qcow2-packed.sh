#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Compressed clusters, many of them in one host cluster (as many as a reference
# count can say), overwritten in part, as a whole, with zeroes and with holes:
# the neighbours keep what they hold, and no count is wrong.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3
imgio=$top_builddir/tests/imgio

python3 -c '
for i in range(64):
    print("%d\n" % i * 40000, end="", file=open("data", "a"))'
truncate -s 4M data

# Streams in the fullest host cluster.
fullest() {
	python3 -c '
import collections, struct, sys
f = open(sys.argv[1], "rb")
d = f.read()
u = lambda at: struct.unpack_from(">Q", d, at)[0]
bits = struct.unpack_from(">I", d, 20)[0]
step = 16 if u(72) & 16 else 8
found = collections.Counter()
for i in range(struct.unpack_from(">I", d, 36)[0]):
    l2 = u(u(40) + 8 * i) & 0xfffffffffffe00
    for at in range(l2, l2 + (1 << bits), step) if l2 else ():
        if u(at) >> 62 & 1:
            found[(u(at) & (1 << 70 - bits) - 1) >> bits] += 1
print(max(found.values()))' "$1"
}

# shared OPTIONS AT-LEAST AT-MOST
shared() {
	cp data want.raw
	"$IMGCTL" convert -c -f raw -O qcow2 -o "$1" data a.qcow2
	n=$(fullest a.qcow2)
	echo "$1: $n streams in a cluster"
	[ "$n" -ge "$2" ] && [ "$n" -le "$3" ] || fail "not $2 to $3"
	# All bytes of the first: its neighbours in the host cluster stay.
	for c in 'write -P 1 0 65536' 'write -P 2 70000 100' \
		'write -P 3 200000 150000' 'write -z 458752 65536' \
		'write -z 600000 70000' 'write -P 4 1048000 3000' \
		'write -P 5 4194000 304'; do
		echo "$c"
		qemu-io -f raw -c "$c" want.raw >/dev/null
	done | "$imgio" -f qcow2 a.qcow2
	qemu-img check -q a.qcow2 || fail "$1: check"
	qemu-img compare -q -f raw -F qcow2 want.raw a.qcow2 ||
		fail "$1: content"
	# Again compressed ones where there is room now, then none at all.
	for c in 'write -c -P 6 458752 65536' 'write -c -P 7 524288 65536'; do
		echo "$c"
		qemu-io -f raw -c "$(echo "$c" | sed 's/-c //')" want.raw \
			>/dev/null
	done >script
	case $1 in
	*cluster_size=64k*)
		printf 'hole 458752 131072\nflush\n' |
			"$imgio" -f qcow2 a.qcow2
		"$imgio" -f qcow2 a.qcow2 <script
		qemu-img check -q a.qcow2 || fail "$1: check, compressed again"
		qemu-img compare -q -f raw -F qcow2 want.raw a.qcow2 ||
			fail "$1: content, compressed again"
		;;
	esac
	printf 'write -z -u 0 4194304\n' | "$imgio" -f qcow2 a.qcow2
	qemu-img check -q a.qcow2 || fail "$1: check, emptied"
	[ -z "$(qemu-img map a.qcow2 | sed 1d)" ] || fail "$1: not empty"
}

shared cluster_size=64k 30 512
shared cluster_size=64k,compression_type=zstd 30 1024
shared cluster_size=2M,refcount_bits=64 2 4096
shared cluster_size=64k,extended_l2=on 30 512
shared cluster_size=64k,refcount_bits=1 1 1
shared cluster_size=64k,refcount_bits=4 15 15
shared cluster_size=64k,refcount_bits=2 3 3
