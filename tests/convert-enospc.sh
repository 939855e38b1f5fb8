#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert onto a full file system: the sentence names the request, exit code 1.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img
requires_root

random_file src.raw 8388608
mkdir small
mount -t tmpfs -o size=4m tmpfs small

for opts in "-O raw" "-O qcow2" "-c -O qcow2" "-m 1 -O raw" "-W -O raw" \
	"-O qcow2 -o preallocation=metadata"; do
	for who in imgctl qemu-img; do
		rm -f small/o
		[ $who = imgctl ] || opts="$opts -m 1"
		# shellcheck disable=SC2086
		assert_rc 1 $who convert $opts src.raw small/o
		sed "s/^$who: //" err > err.$who
	done
	case $opts in
	*-W*) grep -q '^error while writing at byte .*: No space left' \
		err.imgctl || fail "$(cat err.imgctl)" ;;
	*) diff -u err.qemu-img err.imgctl >&2 || fail "$opts" ;;
	esac
done
rm -f small/o

# Preallocation finds out before anything is copied.
assert_rc 1 imgctl convert -O raw -o preallocation=falloc src.raw small/o
[ ! -e small/o ] || fail "a target that could not be made is left"
