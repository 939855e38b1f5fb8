#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# info, map and check of a mount are what imgctl prints, byte for byte; they are
# made at the first read, and check again only when the metadata has changed.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img qemu-io

qemu-img create -q -f qcow2 base.qcow2 32M
qemu-io -f qcow2 -c 'write 3M 2M' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 a.qcow2 64M
qemu-io -f qcow2 -c 'write 1M 1M' -c 'write -z 4M 64k' a.qcow2 >/dev/null
truncate -s 5M b.raw
random_file b.head 1000000
dd if=b.head of=b.raw conv=notrunc status=none

# same_as_imgctl IMAGE FOLDER: all forms.
same_as_imgctl() {
	for what in info map check; do
		imgctl $what "$tmp/$1" > want 2>want.err || :
		rc=0
		cat "$2/$what" > got 2>got.err || rc=$?
		assert_same want got
		# What imgctl cannot print, the file cannot hold.
		[ -s want ] || [ $rc -ne 0 ] || fail "$2/$what is empty"
		imgctl $what --output=json "$tmp/$1" > want 2>want.err || :
		cat "$2/$what.json" > got 2>got.err || :
		assert_same want got
	done
}

for pair in a.qcow2 b.raw; do
	mount_img "$tmp/$pair" m
	same_as_imgctl $pair m
	assert_eq "$(stat -c %s m/map)" 0 "size of what is not made yet"
	for reader in cat 'tail -n 100' 'grep ""' 'dd status=none'; do
		eval "$reader" < m/info > got
		imgctl info "$tmp/$pair" > want
		assert_same want got
	done
	cp m/map.json got
	imgctl map --output=json "$tmp/$pair" > want
	assert_same want got
	assert_eq "$(stat -c %s m/status)" "$(wc -c < m/status)" "status"
	umount_img m
done

# Its own backing image.
mount_img "$tmp/a.qcow2" m
imgctl info "$tmp/base.qcow2" | grep -v '^disk size' > want
grep -v '^disk size' m/backing/info > got
sed -i "s,^image: .*/,image: ," got want
assert_same want got
imgctl map --output=json "$tmp/base.qcow2" > want
assert_same want m/backing/map.json
imgctl check "$tmp/base.qcow2" > want
assert_same want m/backing/check
umount_img m

# What is wrong shows, and the exit code of imgctl's has no place here.
cp base.qcow2 leak.qcow2
qemu-io -f qcow2 -c 'write 10M 1M' leak.qcow2 >/dev/null
# The L2 entries of what was just written are lost: leaks.
imgctl map --output=json leak.qcow2 >/dev/null
printf '\0\0\0\0\0\0\0\0' |
	dd of=leak.qcow2 bs=8 conv=notrunc status=none \
	seek=$(((4 * 65536 + 160 * 8) / 8))
rc=0
imgctl check leak.qcow2 > want 2>want.err || rc=$?
assert_eq $rc 3 "leaks"
mount_img "$tmp/leak.qcow2" m
cat want.err want > all
assert_same all m/check
assert_contains "$(cat m/check.json)" '"leaks": 1' "check.json"
umount_img m

# Kept until the metadata changes: the second check would stop for good.
mkfifo pause1 pause2
IMGFS_PAUSE=fs:check:$tmp/pause1,fs:check:$tmp/pause2 "$IMGFS" -o rw a.qcow2 m
background cat m/check
first=$pid
echo > pause1
wait "$first"
cat m/check m/check.json > /dev/null
# An overwrite of what is there changes no metadata.
dd if=b.head of=m/disk bs=64k seek=16 count=4 conv=notrunc,fsync status=none
cat m/check > /dev/null
dd if=b.head of=m/disk bs=64k seek=500 count=4 conv=notrunc,fsync status=none
background cat m/check
second=$pid
sleep 0.3
alive "$second" || fail "the check was not made anew"
echo > pause2
wait "$second"
umount_img m
