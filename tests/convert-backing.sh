#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert -B: what the source's top layer holds is stored, the rest is left to
# the new backing file; and zeroes for a target that has a backing file.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io

random_file base.raw 8388608
qemu-img create -q -f qcow2 -b base.raw -F raw mid.qcow2
qemu-io -f qcow2 -c 'write -P 4 512k 128k' mid.qcow2 > out
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
qemu-io -f qcow2 -c 'write -P 3 1M 200k' -c 'write -z 2M 128k' \
	-c 'write -P 0 3M 64k' -c 'write -z 7M 1M' top.qcow2 > out
qemu-img create -q -f raw holes.raw 8M
qemu-io -f raw -c 'write -P 1 1k 512' -c 'write -P 2 3M 64k' \
	-c 'write -P 0 4M 1M' -c 'write -P 3 5255168 4k' holes.raw > out

# Without the host's holes: where a cluster's rest was never written is ours.
map() {
	cp --sparse=never "$1" full
	qemu-img map -f qcow2 --output=json full
}

# both SOURCE [options]: the same map, the same content.
both() {
	src=$1
	shift
	rm -f o.ours o.theirs
	imgctl convert "$@" -O qcow2 "$src" o.ours
	qemu-img convert -m 1 "$@" -O qcow2 "$src" o.theirs
	map o.ours > ours.map
	map o.theirs > theirs.map
	diff -u theirs.map ours.map >&2 || fail "map: $src $*"
	qemu-img compare o.ours o.theirs >out || fail "content: $src $*"
	qemu-img check -q o.ours || fail "check: $src $*"
}

for opts in "" "-S 0" "-S 64k" "-c" "-o cluster_size=4k" "-c -o cluster_size=4k" \
	"-o cluster_size=512k"; do
	# shellcheck disable=SC2086
	{
		both top.qcow2 -B mid.qcow2 -F qcow2 $opts
		both top.qcow2 -B base.raw -F raw $opts
		both holes.raw -B base.raw -F raw $opts
		both mid.qcow2 -B base.raw -F raw $opts
	}
done
# The source as a whole, with the backing file it has.
qemu-img compare o.ours mid.qcow2 >out

# An old target: everything that is zero has to be said.
old() {
	fmt=$1
	src=$2
	shift 2
	for who in ours theirs; do
		qemu-img convert -O "$fmt" base.raw o.$who
	done
	imgctl convert -n "$@" -O "$fmt" "$src" o.ours
	qemu-img convert -m 1 -n "$@" -O "$fmt" "$src" o.theirs
	for who in ours theirs; do
		if [ "$fmt" = raw ]; then
			qemu-img map -f raw --output=json o.$who
		else
			map o.$who
		fi > $who.map
	done
	diff -u theirs.map ours.map >&2 || fail "map: $fmt $src $*"
	qemu-img compare -f "$fmt" o.ours "$src" >out || fail "content: $fmt $src"
}

for src in holes.raw top.qcow2; do
	old raw $src
	old raw $src -S 0
	old qcow2 $src
	old qcow2 $src -S 0
done

# Behind the end of a shorter source the old target is left alone.
cp base.raw longer.raw
truncate -s 4M holes.raw
imgctl convert -n -O raw holes.raw longer.raw
cmp -n 4194304 holes.raw longer.raw >&2
cmp -i 4194304 base.raw longer.raw >&2
