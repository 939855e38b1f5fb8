#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 240
# A loop device on `disk`: partitions, ext4 and xfs on them, fsck, fstrim gives
# the host's space back, direct I/O of the device, blkdiscard.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires_loop
requires qemu-img mkfs.ext4 e2fsck fstrim sfdisk partx blkdiscard python3

used() {
	echo $(($(stat -c %b "$1") * 512))
}

# fill_and_trim DEVICE MKFS...: files, deleted again; the image shrinks.
fill_and_trim() {
	dev=$1
	shift
	"$@" "$dev" >log 2>&1 || { cat log; fail "$*"; }
	mkdir -p g
	mount "$dev" g
	cp big g/a
	cp big g/b
	sync g/a g/b
	cmp big g/a
	full=$(used a.qcow2)
	rm g/a g/b
	# xfs frees the blocks of removed files in its own time.
	wait_until 20 trimmed_to $((full - 24000000)) ||
		fail "$1: fstrim gave back only $full - $(used a.qcow2)"
	umount g
	sync "$dev"
}

trimmed_to() {
	sync -f g
	fstrim g
	sync m/disk
	[ "$(used a.qcow2)" -le "$1" ]
}

random_file big 16000000
qemu-img create -q -f qcow2 a.qcow2 1G
mount_img -o rw a.qcow2 m
printf '%s\n' 'label: gpt' 'start=2048, size=512MiB' ',' | sfdisk -q m/disk
sync m/disk
loop_attach -P m/disk
# Not every kernel reads partition tables.
wait_until 2 test -b "${loop}p2" || partx -a "$loop"
wait_until 10 test -b "${loop}p2" || fail "no partitions of $loop"
fill_and_trim "${loop}p1" mkfs.ext4 -q -F
e2fsck -fn "${loop}p1" >log 2>&1 || { cat log; fail "e2fsck"; }
modprobe -q xfs 2>/dev/null || :
if command -v mkfs.xfs >/dev/null && grep -qw xfs /proc/filesystems; then
	fill_and_trim "${loop}p2" mkfs.xfs -q -f
	xfs_repair -n "${loop}p2" >log 2>&1 || { cat log; fail "xfs_repair"; }
fi
loop_detach "$loop"

# The same bytes through the partition's own file.
mkdir -p g
mount -o ro,loop m/partitions/1 g
umount g

# Requests of the device reach the image whatever its mode (pitfalls 16, 20).
for dio in off on; do
	loop_attach --direct-io=$dio m/disk
	assert_eq "$(losetup -n -O DIO "$loop" | tr -d ' ')" \
		$([ $dio = on ] && echo 1 || echo 0) "direct I/O"
	dd if=big of="$loop" bs=1M seek=600 conv=fsync status=none
	dd if="$loop" bs=1M skip=600 count=15 status=none | cmp -n 15000000 - big
	blkdiscard -f -o $((600 << 20)) -l $((8 << 20)) "$loop"
	blkdiscard -f -z -o $((608 << 20)) -l $((4 << 20)) "$loop"
	dd if="$loop" bs=1M skip=600 count=12 iflag=direct status=none |
		cmp -n $((12 << 20)) - /dev/zero
	loop_detach "$loop"
	# The loop device closes its file in its own time.
	sync m/disk
	imgctl map -U --output=json a.qcow2 > map
	python3 - <<'END'
import json
for e in json.load(open('map')):
    if e['start'] < 612 << 20 and e['start'] + e['length'] > 600 << 20:
        assert e['zero'] and not e['data'], e
END
done
umount_img m
qemu-img check -q a.qcow2
