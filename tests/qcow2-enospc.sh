#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The host's file system is full in the middle of writing: that write fails, the
# image is sound and keeps what it had; when there is space again the same
# process goes on.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires qemu-img qemu-io
imgio=$top_builddir/tests/imgio

mkdir full
mount -t tmpfs -o size=6m tmpfs full || skip "no tmpfs here"
for cs in 512 64k; do
	qemu-img create -q -f qcow2 -o cluster_size=$cs full/a.qcow2 64M
	dd if=/dev/zero of=full/filler bs=1M count=3 status=none
	(
		while [ ! -e "$tmp/go" ]; do sleep 0.1; done
		rm full/filler
	) &
	rc=0
	"$imgio" -f qcow2 -c 'write -P 1 0 1M' -c flush \
		-c 'write -P 2 1M 6M' -c flush -c 'write -P 9 20M 3M' \
		-c 'sleep 200' -c "touch $tmp/go" -c 'sleep 1000' \
		-c 'write -P 3 10M 1M' -c flush -c 'write -P 4 600k 100k' \
		full/a.qcow2 2> errors || rc=$?
	wait
	[ $rc = 1 ]
	[ "$(grep -c 'No space left' errors)" = 2 ]
	[ "$(wc -l < errors)" = 2 ]
	qemu-img check -q full/a.qcow2
	qemu-io -r -f qcow2 -c 'read -P 1 0 600k' -c 'read -P 4 600k 100k' \
		-c 'read -P 1 700k 324k' -c 'read -P 3 10M 1M' \
		full/a.qcow2 > qemu.log
	if grep -i 'fail\|error' qemu.log; then exit 1; fi
	rm -f go full/a.qcow2
done
