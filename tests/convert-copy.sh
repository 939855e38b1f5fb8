#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert -C: where the file system can share blocks nothing is copied, and
# what it cannot share is copied right.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_loop
requires qemu-img qemu-io

mib=1048576

used() {
	sync -f mnt
	df -k --output=used mnt | tail -n 1
}

# shared BEFORE WHAT: less than 4 MiB more are in use since.
shared() {
	now=$(used)
	[ $((now - $1)) -lt 4096 ] || fail "$2 took $((now - $1)) KiB"
}

on() {
	cd mnt
	random_file src $((20 * mib)) 1
	truncate -s 128M src
	dd if=src of=src bs=1M seek=70 count=20 conv=notrunc status=none
	dd if=/dev/zero of=src bs=1M seek=100 count=2 conv=notrunc status=none
	cd ..
	before=$(used)
	imgctl convert -C -f raw -O raw mnt/src mnt/raw
	shared "$before" "raw to raw on $1"
	assert_same mnt/src mnt/raw
	# Stored zeroes stay stored: qemu-img-cli.md, "convert -C".
	assert_eq "$(stat -c %b mnt/raw)" "$(stat -c %b mnt/src)"
	imgctl convert -C -f raw -O qcow2 mnt/src mnt/qcow2
	shared "$before" "raw to qcow2 on $1"
	qemu-img check -q mnt/qcow2
	qemu-img compare -q mnt/src mnt/qcow2
	imgctl convert -C -O raw mnt/qcow2 mnt/back
	shared "$before" "qcow2 to raw on $1"
	assert_same mnt/src mnt/back
	# Through a chain, and onto what is there already.
	imgctl create -q -f qcow2 -b qcow2 -F qcow2 mnt/top
	qemu-io -c 'write -P 7 1M 1M' mnt/top > /dev/null
	imgctl convert -C -O raw mnt/top mnt/flat
	imgctl convert -n -C -O raw mnt/top mnt/raw
	imgctl convert -n -C -O qcow2 mnt/top mnt/qcow2-old
	qemu-img compare -q mnt/top mnt/flat
	qemu-img compare -q mnt/top mnt/raw
	qemu-img compare -q mnt/top mnt/qcow2-old
	qemu-img check -q mnt/qcow2-old
}

for fs in xfs btrfs; do
	command -v mkfs.$fs > /dev/null && grep -qw $fs /proc/filesystems ||
		continue
	rm -f disk
	truncate -s 600M disk
	mkfs.$fs disk > /dev/null 2>&1
	mkdir -p mnt
	mount -o loop disk mnt
	imgctl create -q -f qcow2 mnt/qcow2-old 128M
	qemu-io -c 'write -P 9 0 3M' -c 'write -P 9 71M 3M' mnt/qcow2-old \
		> /dev/null
	on $fs
	umount mnt
	tested=1
done

# Sizes and offsets that no block fits, and no sharing at all.
random_file odd 3000001 2
truncate -s 5000704 odd
for fmt in raw qcow2; do
	for opts in "" "-o cluster_size=4k" "-o preallocation=metadata"; do
		[ $fmt = qcow2 ] || opts=
		# shellcheck disable=SC2086
		imgctl convert -C -f raw -O $fmt $opts odd copy
		qemu-img compare -q -f raw -F $fmt odd copy
	done
	imgctl convert -C -f raw -O $fmt -T none -t none odd copy
	qemu-img compare -q -f raw -F $fmt odd copy
done
imgctl convert -c -O qcow2 odd packed
imgctl convert -C -O raw packed odd packed2
cat odd odd > two
assert_same packed2 two
imgctl convert -C -r 1G -O raw packed odd packed2
assert_same packed2 two
[ -n "${tested:-}" ] || skip "neither XFS nor btrfs here"
