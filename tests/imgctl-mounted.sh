#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# imgctl on a path inside a mount, and on an image file that a mount holds open,
# drives that mount: what it says and its exit code are those of a file.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img qemu-io

qemu-img create -q -f raw base.raw 8M
qemu-io -f raw -c 'write -P 1 0 8M' base.raw >/dev/null
qemu-img create -q -f qcow2 -b base.raw -F raw top.qcow2
qemu-io -f qcow2 -c 'write -P 7 1M 1M' top.qcow2 >/dev/null
qemu-img convert -O raw top.qcow2 want.raw

# drive WORDS...: through the mount, with the given output.
drive() {
	out=$("$IMGCTL" "$@" 2>&1) || fail "$*: $out"
	printf '%s\n' "$out"
}

mkdir 'a m'
"$IMGFS" -o rw top.qcow2 'a m'
exec 3<>'a m/disk'
# The image is locked: a file of the mount and the image file both lead to it.
assert_fails qemu-img commit top.qcow2
for path in 'a m/disk' 'a m' 'a m/ctl' top.qcow2 "$PWD/top.qcow2"; do
	assert_eq "$(drive commit -d "$path")" "Image committed." "$path"
done
assert_eq "$(drive commit -q -d -p top.qcow2)" "" "-q"
cmp 'a m/disk' want.raw
cmp 'a m/backing/disk' want.raw
drive snapshot -c "it's one" top.qcow2 >/dev/null
drive snapshot -c two 'a m/disk' >/dev/null
assert_contains "$(drive snapshot -l top.qcow2)" "it's one"
assert_contains "$(drive snapshot -l 'a m')" two
drive snapshot -d two top.qcow2 >/dev/null
drive snapshot -d "it's one" top.qcow2 >/dev/null
assert_eq "$(drive resize top.qcow2 +1M)" "Image resized." resize
assert_eq "$(stat -c %s 'a m/disk')" 9437184 "size of the disk"
drive rebase -b base.raw -F raw top.qcow2 >/dev/null
drive bitmap --add -g 64k top.qcow2 b0 >/dev/null
# Names are those of the caller, not of the image's folder.
qemu-img create -q -f qcow2 other.qcow2 9M
qemu-img bitmap --add other.qcow2 ob
qemu-io -f qcow2 -c 'write 2M 64k' other.qcow2 >/dev/null
(mkdir -p sub && cd sub &&
	drive bitmap --merge ob -b ../other.qcow2 ../top.qcow2 b0) >/dev/null
assert_contains "$(cat 'a m/bitmaps/b0/map.json')" \
	'"start": 2097152, "length": 65536, "dirty": true'
drive bitmap --remove top.qcow2 b0 >/dev/null
assert_eq "$(drive amend -o lazy_refcounts=on -p top.qcow2)" "" amend
assert_contains "$(drive info -U top.qcow2)" "lazy refcounts: true"
assert_contains "$(drive check top.qcow2)" "No errors were found on the image."
assert_eq "$(drive check -q top.qcow2)" "" "check -q"
drive check --output=json 'a m' | python3 -c 'import json, sys
assert json.load(sys.stdin)["check-errors"] == 0'
assert_rc 1 "$IMGCTL" check -r leaks top.qcow2
assert_eq "$(cat err)" "imgctl: The disk is open" "check -r"
for how in '-O qcow2' '-O raw --output json' '-O qcow2 -o cluster_size=4k'; do
	assert_eq "$(drive measure $how top.qcow2)" \
		"$(drive measure -U $how top.qcow2)" "measure $how"
done
assert_rc 1 "$IMGCTL" measure -O qcow2 -l nosuch top.qcow2
assert_contains "$(cat err)" "Failed to load snapshot: Can't find snapshot"
# What fails fails in the mount's words.
if "$IMGCTL" commit -b nosuch top.qcow2 2>err; then
	fail "commit -b nosuch"
fi
assert_contains "$(cat err)" "imgctl: Did not find 'nosuch' in the backing chain"
if "$IMGCTL" resize --shrink 'a m/disk' 1M 2>err; then
	fail "resize of an open disk"
fi
assert_contains "$(cat err)" "disk is open"
# Not what lies below, and not under QEMU's name.
assert_fails "$IMGCTL" commit 'a m/backing/disk'
ln -s "$IMGCTL" qemu-img
assert_fails ./qemu-img commit top.qcow2
exec 3>&-
umount_img 'a m'

# Folders: only what is open is held; without rw it says why not.
mkdir f
cp top.qcow2 f/t.qcow2
cp base.raw f/base.raw
mount_img f m
assert_eq "$(drive commit -d f/t.qcow2)" "Image committed." "not open"
exec 3<m/t.qcow2/disk
if "$IMGCTL" commit f/t.qcow2 2>err; then
	fail "commit of an image that is mounted without rw"
fi
assert_eq "$(cat err)" "imgctl: Mounted without rw" "without rw"
exec 3<&-
umount_img m
qemu-img check -q top.qcow2

# Who changes another image does not touch the mount: it may be unmounted then.
command -v strace >/dev/null || exit 0
mount_img f m
exec 3<m/base.raw/disk
cp top.qcow2 free.qcow2
strace -f -e trace=open,openat,ioctl -o trace "$IMGCTL" snapshot -c s free.qcow2
! grep -F "$tmp/m" trace || fail "a mount is looked at for an image nobody has"
strace -f -e trace=open,openat,ioctl -o trace "$IMGCTL" amend -o compat=1.1 \
	f/base.raw 2>/dev/null || :
grep -qF "$tmp/m" trace || fail "the mount is not looked for"
exec 3<&-
umount_img m
