#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# An image with lazy refcounts whose writer died: reading changes nothing, the
# first opening for writing makes its counts true, with qemu-img's words.  Ours
# are marked like QEMU's while they are written to, and no longer.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io
requires_fuse
imgio=$top_builddir/tests/imgio

dirty() {
	rm -f a.qcow2 b.qcow2 d.raw
	qemu-img create -q -f qcow2 -o "lazy_refcounts=on,$1" a.qcow2 8M
	(ulimit -c 0; qemu-io -c 'write -P 5 0 100k' -c 'write -P 6 1M 500k' \
		-c 'write -P 7 5M 1k' -c flush -c 'sigraise 9' a.qcow2) \
		>/dev/null 2>&1 || :
	qemu-img info a.qcow2 | grep -q 'cleanly shut down: no' ||
		fail "$1: not dirty"
	cp a.qcow2 b.qcow2
	qemu-img convert -O raw a.qcow2 want.raw
}

truncate -s 4M patch.raw
qemu-io -f raw -c 'write -P 9 0 4M' patch.raw >/dev/null
for o in cluster_size=4k cluster_size=64k cluster_size=512,refcount_bits=1 \
	cluster_size=16k,extended_l2=on cluster_size=4k,data_file=d.raw; do
	dirty "$o"
	"$IMGCTL" convert -O raw a.qcow2 have.raw 2>err || fail "$o: $(cat err)"
	cmp want.raw have.raw || fail "$o: read"
	cmp a.qcow2 b.qcow2 || fail "$o: reading changed it"
	# What is there already is written.
	printf 'write -P 5 0 512\n' | "$imgio" -f qcow2 a.qcow2 >/dev/null 2>ours ||
		fail "$o: $(cat ours)"
	qemu-io -c 'write -P 5 0 512' b.qcow2 >/dev/null 2>theirs
	sed 's/^imgio: //' ours | cmp - theirs || fail "$o: other words"
	for i in a b; do
		qemu-img check -q $i.qcow2 || fail "$o: check of $i.qcow2"
		! qemu-img info $i.qcow2 | grep -q 'cleanly shut down: no' ||
			fail "$o: $i.qcow2 is dirty still"
	done
	qemu-img compare -q -f raw -F qcow2 want.raw a.qcow2 ||
		fail "$o: content"
	printf 'write -P 3 3145728 300000\n' | "$imgio" -f qcow2 a.qcow2 ||
		fail "$o: write"
	qemu-img check -q a.qcow2 || fail "$o: check after a write"
done

# marked: is a.qcow2?
marked() {
	qemu-img info -U a.qcow2 | grep -q 'cleanly shut down: no'
}

for o in cluster_size=4k cluster_size=64k,extended_l2=on \
	cluster_size=4k,data_file=d.raw,data_file_raw=on; do
	rm -f a.qcow2 d.raw
	"$IMGCTL" create -q -f qcow2 -o "lazy_refcounts=on,$o" a.qcow2 8M
	printf 'read 0 512\n' | "$imgio" -f qcow2 a.qcow2
	printf 'write -P 1 0 100000\nwrite -P 2 1048576 70000\n' |
		"$imgio" -f qcow2 a.qcow2
	! marked || fail "$o: marked after an orderly end"
	qemu-img check -q a.qcow2 || fail "$o: check"
	# The counts of what was discarded would leak.
	printf 'discard 0 100000\nwrite -P 3 5000000 50000\nflush\nabort\n' |
		"$imgio" -f qcow2 -d unmap a.qcow2 || :
	marked || fail "$o: not marked"
	qemu-img convert -O raw a.qcow2 want.raw
	printf 'write -P 4 7000000 3\n' | "$imgio" -f qcow2 a.qcow2 2>ours ||
		fail "$o: $(cat ours)"
	! marked || fail "$o: marked still"
	qemu-img check -q a.qcow2 || fail "$o: leaks"
	qemu-io -f raw -c 'write -P 4 7000000 3' want.raw >/dev/null
	qemu-img compare -q -f raw -F qcow2 want.raw a.qcow2 ||
		fail "$o: content"
done

# A longer L1 as the first change: the mark, and autoclear bits that go, are in
# the same sector of the header as the new table.
longer_first() {
	rm -f a.qcow2 want.raw
	qemu-img create -q -f qcow2 -o "cluster_size=512,$1" a.qcow2 704K
	qemu-io -c 'write -P 5 0 400k' a.qcow2 >/dev/null
	[ -z "$2" ] || printf '\010' | dd of=a.qcow2 bs=1 seek=95 \
		conv=notrunc status=none
	qemu-img convert -O raw a.qcow2 want.raw
	truncate -s "$3" want.raw
}

longer_is() {
	qemu-img check -q a.qcow2 || fail "$1: check"
	qemu-img compare -q -f raw -F qcow2 want.raw a.qcow2 ||
		fail "$1: content"
}

for mark in '' autoclear; do
	for o in lazy_refcounts=off lazy_refcounts=on; do
		longer_first "$o" "$mark" 768K
		"$IMGCTL" resize -q a.qcow2 768K
		longer_is "resize, $o $mark"
		longer_first "$o" "$mark" 800K
		mount_img -o rw,growable a.qcow2 m
		truncate -s 800K m/disk
		umount_img m
		longer_is "mount, $o $mark"
	done
done
