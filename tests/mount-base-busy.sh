#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The base of an overlay that is open cannot be opened for writing, and the
# sentence says whose base it is; backing/ is never writable.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img python3

mkdir src
qemu-img create -q -f qcow2 src/base.qcow2 4M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 src/top.qcow2

open_errno() {
	python3 - "$1" <<-'END'
	import errno, os, sys
	try:
	    os.close(os.open(sys.argv[1], os.O_RDWR))
	    print("ok")
	except OSError as e:
	    print(errno.errorcode[e.errno])
	END
}

mount_img -o rw,idle=0 src m
exec 3<m/top.qcow2/disk
assert_eq "$(open_errno m/base.qcow2/disk)" EBUSY
assert_contains "$(head -n 1 m/base.qcow2/status)" "'top.qcow2'" status
assert_eq "$(head -c 1 m/base.qcow2/disk | tr '\0' z)" z "reading the base"
case $(open_errno m/top.qcow2/backing/disk) in
EROFS | EACCES) ;;
*) fail "backing/disk is writable" ;;
esac
exec 3<&-
wait_until 5 sh -c 'grep -q closed m/top.qcow2/status'
assert_eq "$(open_errno m/base.qcow2/disk)" ok "without the overlay"
