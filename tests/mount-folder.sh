#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A folder shows what its files are: images by their content, raw disks by their
# name; nothing that is no regular file, nothing outside.  Images that come, go and are replaced are seen.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img mkfifo

mkdir src elsewhere
qemu-img create -q -f qcow2 src/a.qcow2 1M
qemu-img create -q -f qcow2 src/noend 2M
qemu-img create -q -f qcow2 elsewhere/out.qcow2 1M
truncate -s 1M src/disk.raw src/cd.ISO src/x.img src/guess
echo text > src/note.txt
mkdir src/sub src/dir.raw
mkfifo src/fifo.raw
ln -s a.qcow2 src/link.qcow2
ln -s "$tmp/src/a.qcow2" src/abs.qcow2
ln -s ../elsewhere/out.qcow2 src/out.qcow2
ln -s fifo.raw src/link.raw
ln -s missing src/dangling.raw

# expect NAMES: the listing, in any order.
expect() {
	assert_eq "$(ls m | sort)" "$(echo "$1" | tr ' ' '\n' | sort)" listing
}

usual="a.qcow2 abs.qcow2 cd.ISO disk.raw link.qcow2 noend"
mount_img src m
expect "$usual x.img"
for f in m/*; do
	[ -d "$f" ] || fail "$f is no directory"
	assert_eq "$(cat "$f/status" | head -n 1)" ok "$f"
done

# What comes and goes; also without a listing in between.
qemu-img create -q -f qcow2 src/new.qcow2 3M
assert_eq "$(stat -c %s m/new.qcow2/disk)" 3145728
expect "$usual new.qcow2 x.img"
rm src/new.qcow2
assert_fails cat m/new.qcow2/disk
wait_until 3 test ! -e m/new.qcow2 || fail "a removed image is still there"
expect "$usual x.img"
mv src/noend src/renamed
assert_fails cat m/noend/disk
assert_eq "$(stat -c %s m/renamed/disk)" 2097152
mv src/renamed src/noend

# Content makes an image, and takes it away.
qemu-img create -q -f qcow2 src/note.txt 1M
expect "$usual note.txt x.img"
echo text again > src/note.txt
expect "$usual x.img"

# Another file of the same name: seen at the next open, while the old one is
# still open too.
qemu-img create -q -f raw src/next 5M
printf 'new' | dd of=src/next conv=notrunc status=none
exec 3<m/disk.raw/disk
mv src/next src/disk.raw
assert_eq "$(head -c 3 m/disk.raw/disk)" new "the file that replaced it"
assert_eq "$(stat -c %s m/disk.raw/disk)" 5242880 "its size"
assert_eq "$(head -c 1 <&3 | tr '\0' z)" z "the old file"
exec 3<&-
umount_img m

# -o raw: every regular file.
mount_img -o raw src m
expect "a.qcow2 abs.qcow2 cd.ISO disk.raw guess link.qcow2 noend note.txt x.img"
umount_img m

# Several sources; a name that is taken gets another.
mkdir more
qemu-img create -q -f qcow2 more/a.qcow2 7M
mount_img src elsewhere/out.qcow2 more m
expect "a.qcow2~2 $usual out.qcow2 x.img"
assert_eq "$(stat -c %s m/a.qcow2/disk m/a.qcow2~2/disk | tr '\n' ' ')" \
	"1048576 7340032 "
