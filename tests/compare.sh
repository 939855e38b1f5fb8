#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# compare: the verdict, the words and the exit code are qemu-img's for any two
# images, strict or not.  EVERY=9: of every ninth pair (check-valgrind).
# timeout: 240
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io

random_file full.raw 4194304
truncate -s 4M hole.raw
head -c 4M /dev/zero > zero.raw
cp full.raw last.raw
printf x | dd of=last.raw bs=1 seek=4194303 conv=notrunc status=none
cp full.raw longer.raw
truncate -s 6M longer.raw
cp longer.raw tail.raw
printf x | dd of=tail.raw bs=1 seek=5000000 conv=notrunc status=none
qemu-img create -q -f raw some.raw 4M
dd if=full.raw of=some.raw bs=1k skip=1025 seek=1025 count=70 conv=notrunc \
	status=none
for n in full some last; do
	qemu-img convert -O qcow2 $n.raw $n.qcow2
done
qemu-img convert -c -O qcow2 full.raw packed.qcow2
qemu-img convert -S 0 -O qcow2 hole.raw stored.qcow2
qemu-img create -q -f qcow2 empty.qcow2 4M
qemu-img create -q -f qcow2 zero.qcow2 4M
qemu-io -f qcow2 -c 'write -z 0 4M' zero.qcow2 > out
qemu-img create -q -f qcow2 zero2.qcow2 4M
qemu-io -f qcow2 -c 'write -z 0 2M' zero2.qcow2 > out
qemu-img create -q -f qcow2 packed2.qcow2 4M
qemu-io -f qcow2 -c 'write -c -P 1 0 2M' packed2.qcow2 > out
qemu-img create -q -f qcow2 half.qcow2 4M
qemu-io -f qcow2 -c 'write -P 1 0 2M' half.qcow2 > out
qemu-img create -q -f qcow2 turned.qcow2 4M
qemu-io -f qcow2 -c 'write -P 1 2M 2M' -c 'write -P 1 0 2M' turned.qcow2 > out
qemu-img create -q -f qcow2 ones.qcow2 4M
qemu-io -f qcow2 -c 'write -P 1 0 4M' ones.qcow2 > out
qemu-img convert -c -O qcow2 ones.qcow2 packed1.qcow2
qemu-img create -q -f qcow2 -o preallocation=metadata meta.qcow2 4M
qemu-img create -q -f qcow2 -b full.raw -F raw over.qcow2
qemu-img create -q -f qcow2 -b over.qcow2 -F qcow2 over2.qcow2
qemu-io -f qcow2 -c 'write -P 5 2M 64k' over2.qcow2 > out
qemu-img create -q -f qcow2 -b full.raw -F raw -u bigger.qcow2 6M
: > nothing
cp packed.qcow2 bad.qcow2
head -c 65536 /dev/zero | tr '\0' '\377' |
	dd of=bad.qcow2 bs=65536 seek=5 conv=notrunc status=none

all="full.raw hole.raw zero.raw last.raw longer.raw tail.raw some.raw
full.qcow2 some.qcow2 last.qcow2 packed.qcow2 stored.qcow2 empty.qcow2
zero.qcow2 meta.qcow2 over.qcow2 over2.qcow2 bigger.qcow2 nothing bad.qcow2
zero2.qcow2 packed2.qcow2 half.qcow2 turned.qcow2 ones.qcow2 packed1.qcow2"

both() {
	for who in imgctl qemu-img; do
		rc=0
		$who compare "$@" > $who.txt 2> err || rc=$?
		sed "s/^$who: //" err >> $who.txt
		echo "exit code $rc" >> $who.txt
	done
	diff -u qemu-img.txt imgctl.txt >&2 || fail "compare $*"
}

n=0
pair() {
	n=$((n + 1))
	[ $((n % ${EVERY:-1})) -ne 0 ] || both "$@"
}

rest=$all
for a in $all; do
	for b in $rest; do
		pair $a $b
		pair -s $b $a
	done
	rest=${rest#*"$a"}
done
both -q full.raw last.raw
both -q full.raw full.qcow2
both -f raw -F raw full.qcow2 full.raw
