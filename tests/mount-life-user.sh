#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# An ordinary user's mount: closed to others without allow_other, and with it
# under the permissions that ls shows (F25): ctl is for its owner only.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires_fuse
requires fusermount3 setpriv

fuse_mountable() {
	as_user sh -c 'exec 3<>/dev/fuse' 2>/dev/null &&
		[ -u "$(command -v fusermount3)" ]
}
as_user true
fuse_mountable || skip "ordinary users cannot mount here"

other() {
	setpriv --reuid=12345 --regid=12345 --clear-groups -- "$@"
}

cd user
as_user imgctl create -q -f qcow2 a.qcow2 8M
as_user mkdir m
as_user imgfs -o rw a.qcow2 m
as_user sh -c 'echo hello > m/disk && [ "$(head -c 5 m/disk)" = hello ]'
as_user sh -c 'echo flush > m/ctl'
assert_fails other cat m/disk
assert_fails other ls m
as_user fusermount3 -u m

# allow_other needs a word of root's.
conf=/etc/fuse.conf
if ! grep -qs '^user_allow_other' $conf; then
	assert_fails as_user imgfs -o allow_other a.qcow2 m
	requires unshare
	exec 3<&-
	[ -e $conf ] || skip "no $conf"
	(cat $conf; echo user_allow_other) > "$tmp/fuse.conf"
	export tmp conf
	as_user true
	unshare -m --propagation private sh -ec '
		mount --bind "$tmp/fuse.conf" "$conf"
		user="setpriv --reuid=nobody --regid=nogroup --clear-groups --"
		other="setpriv --reuid=12345 --regid=12345 --clear-groups --"
		$user "$tmp/bin/imgfs" -o rw,allow_other a.qcow2 m
		trap "umount -i m" EXIT
		$other head -c 5 m/disk | grep -q hello
		if $other dd if=/dev/zero of=m/disk count=1 conv=notrunc; then
			echo "FAIL: others write"; exit 1
		fi
		if $other sh -c "echo flush > m/ctl"; then
			echo "FAIL: others use ctl"; exit 1
		fi
		[ "$($other stat -c %a m/ctl)" = 600 ]
	' 2>errors || { cat errors >&2; fail "allow_other"; }
fi
