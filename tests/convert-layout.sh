#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert: the guest's disk is the same, and the file is qemu-img's byte for
# byte, whatever the formats and options are.
# timeout: 240
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io

random_file data 3145728
qemu-img create -q -f raw sparse.raw 20M
for at in 0 33 40 1000 2047 3000 4100 4608; do
	dd if=data of=sparse.raw bs=4k count=$((at % 97 + 1)) seek=$at \
		conv=notrunc status=none
done
dd if=/dev/zero of=sparse.raw bs=64k count=20 seek=100 conv=notrunc status=none
cp data dense.raw
head -c 700 data >> dense.raw
qemu-img convert -O qcow2 sparse.raw sparse.qcow2
qemu-img convert -c -O qcow2 dense.raw packed.qcow2
qemu-img create -q -f qcow2 -b sparse.raw -F raw top.qcow2 24M
qemu-io -f qcow2 -c 'write -P 3 1M 200k' -c 'write -z 8M 1M' \
	-c 'write -P 0 10M 64k' -c 'write -P 9 23M 512' top.qcow2 > out

# both SOURCE FORMAT [options]
both() {
	src=$1
	fmt=$2
	shift 2
	rm -f ours theirs
	imgctl convert "$@" -O "$fmt" "$src" ours
	qemu-img convert -m 1 "$@" -O "$fmt" "$src" theirs
	assert_same ours theirs
	qemu-img compare -f "$fmt" ours "$src" >out ||
		fail "$(cat out): $src to $fmt $*"
	if [ "$fmt" = qcow2 ]; then
		qemu-img check -q ours || fail "check: $src $*"
	fi
	# Not more space, but for what the host's file system needs.
	used=$(stat -c %b ours)
	limit=$(($(stat -c %b theirs) + 256))
	[ "$used" -le $limit ] || fail "$used blocks, not $limit: $src $fmt $*"
}

for src in sparse.raw dense.raw sparse.qcow2 packed.qcow2 top.qcow2; do
	both $src raw
	both $src raw -S 0
	both $src raw -S 64k
	both $src raw -W -m 4
	both $src qcow2
	both $src qcow2 -m 8
	both $src qcow2 -S 64k
	both $src qcow2 -S 0
	both $src qcow2 -c
	both $src qcow2 -c -m 8
	both $src qcow2 -c -S 0
	both $src qcow2 -c -o cluster_size=4k,refcount_bits=8
	both $src qcow2 -c -o compression_type=zstd
	both $src qcow2 -o cluster_size=4k,compat=0.10
	both $src qcow2 -o cluster_size=2M,lazy_refcounts=on
	both $src qcow2 -o preallocation=metadata
	both $src qcow2 -o preallocation=falloc
done
