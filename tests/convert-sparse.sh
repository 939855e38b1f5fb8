#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert -S: the same blocks of a raw target are allocated as by qemu-img.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img

# Stretches of data and of stored zeroes, of all lengths and at all sectors.
make_source() {
	random_file data 65536 "$1"
	qemu-img create -q -f raw src 5M
	awk -v seed="$1" 'BEGIN {
		srand(seed)
		for (at = 0; at < 10000; at += n) {
			unit = 2 ^ int(rand() * 8)
			n = unit * (1 + int(rand() * 12))
			kind = int(rand() * 4)
			print kind, at, n < 128 ? n : 128
		}
	}' | while read -r kind at n; do
		case $kind in
		0) ;;
		1) dd if=/dev/zero of=src bs=512 seek="$at" count="$n" \
			conv=notrunc status=none ;;
		*) dd if=data of=src bs=512 seek="$at" count="$n" \
			conv=notrunc status=none ;;
		esac
	done
	truncate -s 5M src
}

for seed in 1 2 3; do
	make_source $seed
	for sparse in 512 4k 8k 12k 64k 160k 1M 0; do
		rm -f ours theirs
		imgctl convert -S $sparse -f raw -O raw src ours
		qemu-img convert -S $sparse -f raw -O raw src theirs
		assert_same ours src
		for f in ours theirs; do
			qemu-img map -f raw --output=json $f > $f.map
		done
		diff -u theirs.map ours.map >&2 || fail "-S $sparse, seed $seed"
	done
done
