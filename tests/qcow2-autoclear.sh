#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Autoclear bits: reading, check and opening for writing without a change leave
# them alone; the first write clears those of which nobody knows what they speak
# of, as QEMU's does, and keeps the others.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io
imgio=$top_builddir/tests/imgio

bits() {
	od -An -tx1 -j 88 -N 8 "$1" | tr -d ' '
}

make_plain() {
	"$IMGCTL" create -q -f qcow2 a.qcow2 1M
}

make_raw() {
	"$IMGCTL" create -q -f qcow2 -o data_file=d.raw,data_file_raw=on \
		a.qcow2 1M
}

make_bitmap() {
	qemu-img create -q -f qcow2 a.qcow2 1M
	qemu-img bitmap --add a.qcow2 b
}

# cleared KIND BYTES LEFT: the field's first and last byte.
cleared() {
	make_$1
	printf "$2" | dd of=a.qcow2 bs=1 seek=88 conv=notrunc status=none
	before=$(bits a.qcow2)
	cp a.qcow2 b.qcow2
	"$IMGCTL" check -q a.qcow2
	"$IMGCTL" convert -O raw a.qcow2 o.raw
	"$IMGCTL" info a.qcow2 >/dev/null
	printf 'read 0 512\n' | "$imgio" -f qcow2 a.qcow2
	cmp a.qcow2 b.qcow2 || fail "$1: reading changed it"
	printf 'write -P 5 0 512\n' | "$imgio" -f qcow2 a.qcow2
	qemu-io -c 'write -P 5 0 512' b.qcow2 >/dev/null
	[ "$(bits a.qcow2)" = "$(bits b.qcow2)" ] ||
		fail "$1, $before: QEMU leaves $(bits b.qcow2), we" \
			"$(bits a.qcow2)"
	[ "$(bits a.qcow2)" = "$3" ] || fail "$1: $(bits a.qcow2) is left"
	qemu-img check -q a.qcow2 || fail "$1: check"
}

z='\0\0\0\0\0\0\0'
cleared plain "$z\\10" 0000000000000000
cleared plain '\200\0\0\0\0\0\0\374' 0000000000000000
cleared raw "$z\\2" 0000000000000002
cleared raw "$z\\12" 0000000000000002
cleared bitmap "$z\\1" 0000000000000001
cleared bitmap '\0\0\0\1\0\0\0\11' 0000000000000001
