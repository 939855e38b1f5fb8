#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# SIGTERM, SIGINT and SIGHUP: requests in flight are finished, what was written
# is durable, the mount is gone, the image sound; files that are still open get
# ENOTCONN.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img

random_file data 4194304

for signal in TERM INT HUP; do
	imgctl create -q -f qcow2 a.qcow2 64M
	mount_img -o rw a.qcow2 m
	pid=$(daemon_of m)
	exec 5<>m/disk
	dd if=data bs=64k status=none >&5
	# Somebody writes on and on meanwhile.
	(while dd if=data of=m/disk bs=4k seek=2048 \
		conv=notrunc,nocreat; do
		:
	done) 2>/dev/null &
	writer=$!
	started="$started $writer"
	kill -s $signal "$pid"
	wait_until 20 gone "$pid" || fail "SIG$signal does not end it"
	exec 4>&2 2>/dev/null
	if echo x >&5; then fail "a dead handle takes writes"; fi
	exec 2>&4 4>&-
	exec 5>&-
	wait $writer || :
	assert_eq "$(mounts_here)" "" "mounts after SIG$signal"
	qemu-img check -q a.qcow2 || fail "the image after SIG$signal"
	qemu-img convert -O raw a.qcow2 a.raw
	cmp -n 4194304 data a.raw || fail "written bytes are lost"
done

# With cache=writeback too, what was fsynced at least.
imgctl create -q -f qcow2 a.qcow2 64M
mount_img -o rw,cache=writeback a.qcow2 m
pid=$(daemon_of m)
exec 5<>m/disk
dd if=data bs=64k conv=notrunc,fsync of=m/disk status=none
kill "$pid"
wait_until 20 gone "$pid" || fail "SIGTERM does not end it"
exec 5>&-
qemu-img check -q a.qcow2
qemu-img convert -O raw a.qcow2 a.raw
cmp -n 4194304 data a.raw

# In the foreground the exit code is 0.
"$IMGFS" -f -o rw a.qcow2 m &
pid=$!
started="$started $pid"
wait_until 10 test -f m/disk
kill "$pid"
rc=0
wait "$pid" || rc=$?
assert_eq $rc 0 "exit code after SIGTERM"
assert_eq "$(mounts_here)" "" "mounts after SIGTERM"
