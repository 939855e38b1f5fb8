#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert of several sources: one behind the other, clusters across the seams.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io

random_file a.raw 1050112
random_file b 3145728 2
qemu-img create -q -f raw b.raw 3145728
dd if=b of=b.raw bs=1k count=700 seek=11 conv=notrunc status=none
qemu-img convert -O qcow2 b.raw b.qcow2
: > empty
cat a.raw b.raw a.raw > all

for fmt in raw qcow2; do
	for opts in "" "-c" "-c -o cluster_size=512k" "-S 0" "-W -m 3"; do
		[ "$fmt-${opts#-c}" != "raw-$opts" ] || continue
		[ "$fmt" = qcow2 ] || case $opts in -c*) continue ;; esac
		rm -f ours theirs back
		# shellcheck disable=SC2086
		imgctl convert $opts -O $fmt a.raw b.qcow2 empty a.raw ours
		# shellcheck disable=SC2086
		qemu-img convert $opts -m 1 -O $fmt a.raw b.qcow2 empty a.raw \
			theirs
		qemu-img convert -f $fmt -O raw ours back
		assert_same back all
		case $opts in
		-W*) ;;
		*) assert_same ours theirs ;;
		esac
	done
done
