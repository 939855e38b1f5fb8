#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The older formats and programs that are neither ours nor QEMU's: what we write
# they read, what they write we read.  (bochs.sh: bximage; cloop.sh:
# create_compressed_fs; dmg.py: dmg2img; parallels.sh: a script of its own.)
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires python3
n=0

truncate -s 3M data
dd if=/usr/bin/env of=data bs=1k seek=1000 conv=notrunc status=none
imgctl convert -O qcow data a.qcow
imgctl create -q -f qcow written.qcow 3M
"$top_builddir/tests/imgio" -f qcow -c 'write -P 7 5000 70000' \
	-c 'write -P 8 2M 4k' written.qcow
imgctl convert -O raw written.qcow written.raw
if command -v qcowinfo >/dev/null; then
	n=$((n + 1))
	qcowinfo a.qcow >text
	assert_contains "$(cat text)" "Media size		: 3.0 MiB"
fi
if command -v qcowmount >/dev/null && [ -c /dev/fuse ] &&
		[ "$(id -u)" -eq 0 ]; then
	n=$((n + 1))
	mkdir m
	for name in a.qcow:data written.qcow:written.raw; do
		qcowmount "${name%:*}" m >log 2>&1
		cmp m/qcow1 "${name#*:}" || fail "libqcow reads ${name%:*}"
		umount m
	done
fi
if command -v 7z >/dev/null; then
	n=$((n + 1))
	7z e -so a.qcow 2>/dev/null | cmp - data
	7z e -so written.qcow 2>/dev/null | cmp - written.raw
	python3 - <<'END'
import os, sys, zlib
sys.path.insert(0, os.environ['top_srcdir'] + '/tests')
import mkdmg
d = open('data', 'rb').read()
chunks = [(mkdmg.ZLIB, s, 512, zlib.compress(d[s * 512:(s + 512) * 512]))
          for s in range(0, 6144, 512)]
mkdmg.make('a.dmg', [(0, 6144, chunks + [(mkdmg.END, 6144, 0, b'')])], 6144,
           content=d)
END
	# What we read 7z reads alike.
	7z e -tdmg -so a.dmg 2>/dev/null | cmp - data
	imgctl compare -q -F raw a.dmg data
fi
if command -v extract_compressed_fs >/dev/null; then
	n=$((n + 1))
	create_compressed_fs -q -B 65536 data a.cloop >/dev/null 2>&1
	extract_compressed_fs a.cloop - >x 2>/dev/null
	cmp x data
	imgctl compare -q -F raw a.cloop data
fi
[ $n -gt 0 ] || skip "none of these programs is installed"
echo "$n other programs agree"
