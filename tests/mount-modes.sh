#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Owner, group, mode and times are the image file's; no write bits without rw;
# uid=, gid=, umask= override; ctl is 0600; other users are kept out.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires_fuse
requires qemu-img setpriv

mkdir src
qemu-img create -q -f qcow2 src/a.qcow2 4M
qemu-img create -q -f qcow2 src/b.qcow2 4M
chown nobody:nogroup src/a.qcow2
chmod 640 src/a.qcow2
touch -d '2020-02-03 04:05:06' src/b.qcow2
chmod 604 src/b.qcow2

modes() {
	stat -c '%A %U %G' "$@" | tr '\n' ','
}
mount_img -o allow_other src m
assert_eq "$(modes m/a.qcow2 m/a.qcow2/disk m/a.qcow2/info m/a.qcow2/ctl)" \
"dr-xr-x--- nobody nogroup,-r--r----- nobody nogroup,\
-r--r----- nobody nogroup,-rw------- nobody nogroup,"
assert_eq "$(modes m/b.qcow2 m/b.qcow2/disk)" \
	"dr-x---r-x root root,-r-----r-- root root,"
assert_eq "$(stat -c %y m/b.qcow2/disk)" "$(stat -c %y src/b.qcow2)" times
assert_eq "$(stat -f -c %S m/a.qcow2/disk)" \
	"$(stat -f -c %S src/a.qcow2)" "fragment size"
# A third user.
third() {
	setpriv --reuid=12345 --regid=12345 --clear-groups -- "$@"
}
third cat m/b.qcow2/disk >/dev/null
assert_fails third sh -c 'echo flush > m/b.qcow2/ctl'
assert_fails third cat m/a.qcow2/disk
umount_img m

mount_img -o rw src m
assert_eq "$(modes m/a.qcow2/disk m/a.qcow2/info m/b.qcow2/disk)" \
"-rw-r----- nobody nogroup,-r--r----- nobody nogroup,-rw----r-- root root,"
umount_img m

mount_img -o rw,uid=12,gid=34,umask=027 src m
assert_eq "$(stat -c '%a %u %g' m/b.qcow2 m/b.qcow2/disk m/b.qcow2/ctl |
	tr '\n' ',')" "550 12 34,640 12 34,600 12 34,"
