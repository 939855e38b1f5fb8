#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert -o compression_level: qemu-img reads what comes out, a higher level
# is no larger, and without the option the size is qemu-img's.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img

tar cf src -C / usr/include 2> /dev/null || true
truncate -s 12M src

size() {
	stat -c %s "$1"
}

for type in zlib zstd; do
	last=
	for level in 1 6 9; do
		imgctl convert -c -f raw -O qcow2 \
			-o compression_type=$type,compression_level=$level \
			src q
		qemu-img check -q q
		qemu-img compare -q -f raw -F qcow2 src q
		[ -z "$last" ] || [ "$(size q)" -le "$last" ] ||
			fail "$type $level: $(size q) after $last"
		last=$(size q)
	done
	imgctl convert -c -f raw -O qcow2 -o compression_type=$type src q
	qemu-img convert -c -f raw -O qcow2 -o compression_type=$type src theirs
	assert_eq "$(size q)" "$(size theirs)" "size with $type"
done

refused() {
	assert_fails imgctl convert -f raw "$@" src new 2> err
	[ ! -e new ] || fail "$*: made a target"
}
for level in 0 10 -1 x; do
	refused -c -O qcow2 -o compression_level=$level
done
refused -c -O qcow2 -o compression_type=zstd,compression_level=23
refused -O qcow2 -o compression_level=1
refused -O raw -o compression_level=1

# It is listed where it can be given, and under our own name only.
assert_contains "$(imgctl convert -O qcow2 -o help a b)" compression_level
ln -s "$IMGCTL" qemu-img
for help in "imgctl convert -O raw" "imgctl create -f qcow2" \
	"./qemu-img convert -O qcow2"; do
	! $help -o help a b | grep compression_level || fail "$help"
done
