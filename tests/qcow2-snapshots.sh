#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Writing to an image with snapshots inside leaves them alone: what they share
# with the disk (tables, clusters, compressed streams) is copied first.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io
imgio=$top_builddir/tests/imgio

# The guest's view of snapshot $1.
look() {
	qemu-img convert -l "snapshot.name=$1" -O raw a.qcow2 look.raw
	sha256sum look.raw
}

for options in cluster_size=64k cluster_size=512 cluster_size=4k,compat=0.10 \
	cluster_size=64k,refcount_bits=4; do
	qemu-img create -q -f qcow2 -o $options a.qcow2 4M
	qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -P 9 3M 512' \
		a.qcow2 > qemu.log
	case $options in
	*=64k*)	# streams of both share a cluster
		qemu-io -f qcow2 -c 'write -c -P 2 2M 64k' \
			-c 'write -c -P 3 2112k 64k' a.qcow2 > qemu.log ;;
	esac
	qemu-img snapshot -c one a.qcow2
	one=$(look one)
	qemu-io -f qcow2 -c 'write -P 4 512k 64k' a.qcow2 > qemu.log
	qemu-img snapshot -c two a.qcow2
	two=$(look two)

	"$imgio" -f qcow2 -d unmap -T 4 -c 'write -P 5 0 100k' \
		-c 'write -z 256k 64k' -c 'write -z -u 320k 64k' \
		-c 'discard 384k 64k' -c 'write -P 6 560k 700k' \
		-c 'write -P 7 2M 1000' -c 'write -z -u 2112k 64k' \
		-c wait -c flush -c 'write -P 8 384k 64k' \
		-c 'discard 3M 64k' -c flush -c 'write -P 10 3M 64k' a.qcow2
	qemu-img check -q a.qcow2
	[ "$(look one)" = "$one" ]
	[ "$(look two)" = "$two" ]
	qemu-io -f qcow2 -r -c 'read -P 5 0 100k' -c 'read -P 1 100k 156k' \
		-c 'read -P 0 256k 128k' -c 'read -P 8 384k 64k' \
		-c 'read -P 1 448k 64k' -c 'read -P 4 512k 48k' \
		-c 'read -P 6 560k 700k' -c 'read -P 7 2M 1000' \
		-c 'read -P 0 2112k 64k' -c 'read -P 10 3M 64k' \
		a.qcow2 > qemu.log
	if grep -i 'fail\|error' qemu.log; then exit 1; fi
	# And without them nothing is left over.
	qemu-img snapshot -d one a.qcow2
	qemu-img snapshot -d two a.qcow2
	qemu-img check -q a.qcow2
done
