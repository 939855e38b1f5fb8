#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Neither a reader of stdout that has gone nor a limit of file sizes kills what
# is changing an image.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img python3
requires_fuse

random_file src.raw 6291456

# unread COMMAND...: its stdout is a pipe that nobody reads; SIGPIPE is as a
# shell leaves it.
unread() {
	python3 -c 'import os, signal, subprocess, sys
r, w = os.pipe()
os.close(r)
sys.exit(subprocess.call(sys.argv[1:], stdout=w, restore_signals=True) & 255)
' "$@"
}

# qemu-img carries on, so do we; what only prints ends.
unread qemu-img convert -p -O qcow2 src.raw theirs.qcow2
unread imgctl convert -p -O qcow2 src.raw ours.qcow2
qemu-img compare src.raw ours.qcow2
unread imgctl create -f qcow2 new.qcow2 1M
qemu-img check -q new.qcow2
if unread imgctl map --output=json ours.qcow2; then
	fail "map did not hear that nobody reads it"
fi

# Blocks of 512 bytes: 2 MiB for root's files, too.
(
	ulimit -f 4096
	assert_rc 1 imgctl convert -O raw src.raw big.raw
	grep -q 'too large' err || fail "$(cat err)"
)

imgctl create -q -f qcow2 img.qcow2 16M
(
	ulimit -f 4096
	mount_img -o rw img.qcow2 mnt
)
if dd if=src.raw of=mnt/disk bs=64k conv=notrunc 2> dd.err; then
	fail "the limit of file sizes does not work"
fi
grep -q 'File too large' dd.err || fail "$(cat dd.err)"
[ -e mnt/disk ] || fail "the daemon is gone"
cmp -n 1048576 src.raw mnt/disk
umount_img mnt
qemu-img check img.qcow2
