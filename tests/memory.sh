#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Fully allocated images of 1 TiB (sparse on the host) under random reads and
# writes, several at once: memory stays within the cache's bound and 64 MiB.
# SOAK_SECONDS=60 SOAK_IMAGES=10 (make check-soak) is the whole of it.
# timeout: 400
#
# In memory where there is room: a file of a tebibyte with some hundred thousand
# scattered blocks is a test of the host's file system, not of ours.
if [ -w /dev/shm ] && [ "$(df -k --output=avail /dev/shm | tail -n 1)" -gt \
	$((6 * 1048576)) ]; then
	TMPDIR=/dev/shm
	export TMPDIR
fi
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img

: "${SOAK_IMAGES:=2}"
if [ -n "${SOAK_SECONDS:-}" ]; then
	how="-s $SOAK_SECONDS" bound=$((256 * 1048576))
else
	how="-n 150000" bound=$((16 * 1048576))
fi

qemu-img create -q -f qcow2 -o preallocation=metadata,cluster_size=64k \
	1.qcow2 1T
i=1
while [ $i -lt "$SOAK_IMAGES" ]; do
	i=$((i + 1))
	cp --sparse=always 1.qcow2 $i.qcow2
done
# shellcheck disable=SC2086
"$top_builddir/tests/soak" -b $bound $how ./*.qcow2
qemu-img check -q 1.qcow2
