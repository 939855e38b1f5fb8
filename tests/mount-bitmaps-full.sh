#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Bitmaps of a mount on a full host: one that has no room there is not made and
# one that must stay is not removed, which the caller is told; bits that cannot
# be stored are kept, the image goes on, and they are stored when there is space;
# if the mount ends before, they are stored in a way that needs none, and say more.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires_fuse
requires qemu-img qemu-io python3

# refused COMMAND-LINE: by ctl, with ENOSPC.
refused() {
	python3 - "$1" <<-'END' || fail "not refused for want of space: $1"
	import errno, os, sys
	fd = os.open("m/ctl", os.O_WRONLY)
	try:
	    os.write(fd, sys.argv[1].encode())
	    sys.exit(1)
	except OSError as e:
	    sys.exit(e.errno != errno.ENOSPC)
	END
	assert_contains "$(cat m/status)" 'No space left on device'
}

dirty() {
	python3 -c 'import json, sys
print(" ".join("%d+%d" % (r["start"], r["length"])
               for r in json.load(open(sys.argv[1])) if r["dirty"]))' "$1"
}

put() {
	dd if=/dev/urandom of=m/disk bs=64k seek="$1" count=1 \
		conv=notrunc,fsync status=none
}

status_is() {
	[ "$(cat m/status)" = "$1" ]
}

mkdir host
mount -t tmpfs -o size=12m none host
qemu-img create -q -f qcow2 host/a.qcow2 64M
qemu-io -c 'write -q 0 1M' host/a.qcow2
qemu-img bitmap --add host/a.qcow2 old
qemu-img bitmap --add --disable host/a.qcow2 off
mount_img -o rw host/a.qcow2 m
dd if=/dev/zero of=host/filler bs=4k status=none 2>/dev/null || :

refused 'bitmap --add x'
refused 'bitmap --remove off'
if mkdir m/bitmaps/y 2>err; then
	fail 'a bitmap that has no room was made'
fi
assert_contains "$(cat err)" 'No space left on device'
assert_eq "$(echo m/bitmaps/*)" 'm/bitmaps/off m/bitmaps/old'

# What was written is noted, and noted again, while the note has no room.
late="Could not make 'host/a.qcow2' durable: No space left on device
open for writing"
echo 'bitmap --clear old' > m/ctl
put 3
wait_until 5 status_is "$late" || fail "status: $(cat m/status)"
put 5
echo 'bitmap --merge old off' > m/ctl
assert_eq "$(dirty m/bitmaps/old/map.json)" '196608+65536 327680+65536'
rm host/filler
wait_until 15 status_is 'ok
open for reading' || fail "status: $(cat m/status)"
assert_eq "$(dirty m/bitmaps/old/map.json)" '196608+65536 327680+65536'
assert_eq "$(dirty m/bitmaps/off/map.json)" '196608+65536 327680+65536'
mkdir m/bitmaps/x
echo 'bitmap --remove off' > m/ctl
assert_eq "$(echo m/bitmaps/*)" 'm/bitmaps/old m/bitmaps/x'
umount_img m
qemu-img check -q host/a.qcow2
case $(qemu-img info host/a.qcow2) in
*in-use*) fail 'a bitmap was lost' ;;
esac

# The mount ends while the host is full.
mount_img -o rw,log="$tmp/log" host/a.qcow2 m
echo 'bitmap --clear old' > m/ctl
echo 'bitmap --clear x' > m/ctl
umount_img m
mount_img -o rw,log="$tmp/log" host/a.qcow2 m
dd if=/dev/zero of=host/filler bs=4k status=none 2>/dev/null || :
put 3
umount_img m
rm host/filler
assert_contains "$(cat log)" 'they say more than what was written'
qemu-img check -q host/a.qcow2
case $(qemu-img info host/a.qcow2) in
*in-use*) fail 'a bitmap was lost' ;;
esac
qemu-img convert -O qcow2 --bitmaps host/a.qcow2 copy.qcow2
for img in host/a.qcow2 copy.qcow2; do
	mount_img $img m
	assert_eq "$(dirty m/bitmaps/old/map.json)" '0+67108864' "$img"
	assert_eq "$(dirty m/bitmaps/x/map.json)" '0+67108864' "$img"
	umount_img m
done
