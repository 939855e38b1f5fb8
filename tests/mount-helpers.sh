#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# mount(8) and umount(8) through mount.imgfs and umount.fuse.imgfs: by type, by
# FUSE's own helper, by a line of fstab; umount returns when all is durable, and
# no sooner, whether there is a /run/mount/utab (then it knows no subtypes and
# runs umount.fuse) or none.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires_fuse
requires unshare mount umount findmnt qemu-img

# mount(8) looks in /sbin only: show it ours there, in a private name space.
if [ -z "${IN_NAMESPACE:-}" ]; then
	IN_NAMESPACE=1 unshare -m --propagation private \
		"$top_srcdir/tests/mount-helpers.sh" || exit $?
	exit 0
fi

sbin=$(realpath /sbin)
mkdir sbin own helpers
mount --bind "$sbin" own
for f in own/*; do
	ln -s "$tmp/$f" "sbin/${f#own/}"
done
ln -sf "$top_builddir/mount.imgfs" "$top_builddir/umount.fuse.imgfs" sbin/
ln -sf umount.fuse.imgfs sbin/umount.fuse
# mount.fuse finds imgfs in its PATH, which mount(8) does not hand over.
ln -sf "$top_builddir/imgfs" sbin/
mount --bind sbin "$sbin"

mount -t tmpfs none /run
mkdir -p /run/mount

imgctl create -q -f qcow2 a.qcow2 8M
mkdir m

# unmount_waits: with the daemon held at its end.
unmount_waits() {
	rm -f pause
	mkfifo pause
	IMGFS_PAUSE=mount-end:$tmp/pause \
		mount -t imgfs "$tmp/a.qcow2" "$tmp/m" -o rw
	rm -f /run/mount/utab
	[ "$1" = without ] || : > /run/mount/utab
	umount "$tmp/m" &
	pid=$!
	exec 7>pause
	assert_fails wait_until 1 gone "$pid"
	resume
	wait "$pid"
	assert_eq "$(daemon_of "$tmp/m")" "" "the daemon outlived umount"
}

unmount_waits without
unmount_waits with

write_and_unmount() {
	assert_eq "$(findmnt -n -o FSTYPE "$tmp/m")" fuse.imgfs "type"
	random_file data 300000 "$1"
	dd if=data of=m/disk bs=4k conv=notrunc status=none
	umount "$tmp/m"
	assert_eq "$(daemon_of "$tmp/m")" "" "the daemon outlived umount"
	qemu-img check -q a.qcow2
	qemu-img convert -O raw a.qcow2 a.raw
	cmp -n 300000 data a.raw
}

mount -t imgfs "$tmp/a.qcow2" "$tmp/m" -o rw
write_and_unmount 1

if [ -x /sbin/mount.fuse ]; then
	mount -t fuse.imgfs "$tmp/a.qcow2" "$tmp/m" -o rw
	write_and_unmount 2
fi

# What only an fstab line has.
echo "$tmp/a.qcow2 $tmp/m imgfs rw,noauto,nofail,x-systemd.automount 0 0" \
	> fstab
echo "$tmp/a.qcow2 $tmp/m fuse.imgfs rw,noauto,nofail,_netdev,x-gvfs-hide 0 0" \
	> fstab.fuse
touch /etc/fstab
mount --bind fstab /etc/fstab
mount "$tmp/m"
write_and_unmount 3
if [ -x /sbin/mount.fuse ]; then
	mount --bind fstab.fuse /etc/fstab
	mount "$tmp/m"
	write_and_unmount 4
	umount -i /etc/fstab
fi
umount -i /etc/fstab

# Read-only unless asked; errors reach mount's exit code.
mount -t imgfs "$tmp/a.qcow2" "$tmp/m"
assert_fails dd if=/dev/zero of=m/disk bs=4k count=1 conv=notrunc status=none
umount "$tmp/m"
assert_fails mount -t imgfs "$tmp/missing.qcow2" "$tmp/m"
assert_contains "$(cat err)" missing.qcow2 "mount's message"
