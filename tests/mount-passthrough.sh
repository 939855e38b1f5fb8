#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Disks that the kernel reads from the image file by itself: raw and flat VMDK,
# read-only.  We are asked for no byte of them, and they read the same as ever:
# through read, pread and mmap, opened several times at once, and again when
# they were closed.  All else is read by us.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires_root
requires qemu-img python3
imgfs -V | grep -q '^capabilities.* passthrough' ||
	skip "a libfuse without passthrough"

# serve IMAGE OPTIONS...: mounts it on mnt; libfuse notes every request.
serve() {
	what=$*
	image=$1
	shift
	mkdir -p mnt
	background imgfs -d "$@" "$image" mnt 2>log
	wait_until 20 test -e mnt/disk || fail "not mounted: $what"
}

unserve() {
	umount -i mnt
	wait_until 20 gone "$pid" || fail "still there: $what"
}

# How many reads we were asked for.
reads() {
	grep -c 'opcode: READ (' log || :
}

# by_kernel WANTED IMAGE OPTIONS...: all that was read is as WANTED.
by_kernel() {
	same=$1
	shift
	serve "$@"
	assert_same mnt/disk "$same"
	# Two more at once, one from the middle, one with O_DIRECT.
	exec 5<mnt/disk 6<mnt/disk
	dd if=/proc/self/fd/5 bs=64k skip=7 count=3 status=none >part
	dd if="$same" bs=64k skip=7 count=3 status=none | cmp - part ||
		fail "$what: a part"
	dd if=mnt/disk iflag=direct bs=64k count=4 status=none >part
	dd if="$same" bs=64k count=4 status=none | cmp - part ||
		fail "$what: O_DIRECT"
	exec 5<&-
	python3 - "$same" <<'PY'
import mmap, os, sys
want = open(sys.argv[1], "rb").read()
fd = os.open("mnt/disk", os.O_RDONLY)
with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
    assert m[:] == want, "mmap"
assert os.pread(fd, 100, len(want) - 50) == want[-50:], "the end"
assert os.lseek(fd, 0, os.SEEK_HOLE) <= len(want)
PY
	exec 6<&-
	# All are closed: the next one is another first one.
	assert_same mnt/disk "$same"
	n=$(reads)
	unserve
}

random_file disk.raw $((3 * 1048576)) 1
by_kernel disk.raw disk.raw
direct=$n
# O_DIRECT comes to us, with 4 requests at most; nothing else does.
[ "$n" -le 4 ] || fail "raw: we were asked for $n reads"
qemu-img convert -O vmdk -o subformat=monolithicFlat disk.raw flat.vmdk
by_kernel disk.raw flat.vmdk
assert_eq "$n" "$direct" "flat VMDK: reads that we were asked for"
qemu-img convert -O vmdk -o subformat=twoGbMaxExtentFlat disk.raw two.vmdk
by_kernel disk.raw two.vmdk
assert_eq "$n" "$direct" "an extent beside: reads that we were asked for"

# What is not the file, or may be written, or shall not.
by_us() {
	by_kernel "$@"
	[ "$n" -gt 20 ] || fail "$what: not read by us ($n reads)"
}
by_us disk.raw disk.raw -o no-passthrough
by_us disk.raw disk.raw -o rw
by_us disk.raw disk.raw -o share
by_us disk.raw disk.raw -o cache=none
qemu-img convert -O qcow2 disk.raw a.qcow2
by_us disk.raw a.qcow2
# A last sector that the file does not have.
cp disk.raw odd.raw
printf odd >>odd.raw
cp odd.raw padded
truncate -s $((3 * 1048576 + 512)) padded
by_us padded odd.raw

# A base below is a file, too: it is read by the kernel, the disk above by us.
qemu-img create -q -f qcow2 -b disk.raw -F raw over.qcow2
serve over.qcow2
assert_same mnt/backing/disk disk.raw
assert_eq "$(reads)" 0 "reads of the base"
assert_same mnt/disk disk.raw
[ "$(reads)" -gt 10 ] || fail "the disk above was not read by us"
unserve
echo "raw and flat images: $direct reads came to us, with O_DIRECT"
