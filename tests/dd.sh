#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# dd: any range of any chain is what qemu-img's dd makes of it; what is about to
# be emptied is not read (the words are compared by tests/diff-qemu-img).
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

qemu-img create -q -f qcow2 base.qcow2 2500096
qemu-io -f qcow2 -c 'write -P 1 0 700k' -c 'write -P 2 1300001 5000' \
	-c 'write -P 3 2400000 100096' base.qcow2 >out
qemu-img create -q -f qcow2 -o cluster_size=4k -b base.qcow2 -F qcow2 top.qcow2
qemu-io -f qcow2 -c 'write -P 4 690000 30000' -c 'write -z 2M 64k' \
	-c 'write -P 5 1500000 1' top.qcow2 >out
qemu-img convert -c -O qcow2 top.qcow2 packed.qcow2
qemu-img convert -O raw top.qcow2 flat.raw

cat >cases.py <<'END'
import random
random.seed(20261129)
for i in range(60):
    bs = random.choice([1, 3, 100, 512, 1000, 4096, 65536, 65537, 1 << 20])
    blocks = 2500096 // bs
    skip = random.choice([0, random.randrange(blocks + 2)])
    count = random.randrange(skip, blocks + 3)
    # A byte at a time takes qemu-img as long as it sounds.
    if bs < 512:
        count = skip + random.randrange(3000)
    print(random.choice(['top.qcow2', 'packed.qcow2', 'flat.raw']),
          random.choice(['raw', 'qcow2']), bs, skip, count,
          0 if i % 10 or bs < 512 else 1)
END
python3 cases.py >cases
while read -r from fmt bs skip count all; do
	set -- -O "$fmt" "bs=$bs" "skip=$skip" "if=$from"
	[ "$all" = 1 ] || set -- "$@" "count=$count"
	rm -f theirs ours
	qemu-img dd "$@" of=theirs 2>theirs.err
	imgctl dd "$@" of=ours 2>ours.err
	[ "$fmt" != raw ] || cmp theirs ours || fail "dd $*"
	qemu-img compare -f "$fmt" -F "$fmt" -q theirs ours || fail "dd $*"
	assert_eq "$(sed 's/^[a-z-]*: //' ours.err)" \
		"$(sed 's/^[a-z-]*: //' theirs.err)" "dd $*"
done <cases

# qemu-img empties it first.
cp flat.raw same.raw
assert_fails imgctl dd if=same.raw of=same.raw bs=1M count=1
assert_fails imgctl dd -U if=same.raw of=same.raw bs=1M count=1
ln same.raw other.raw
assert_fails imgctl dd if=same.raw of=other.raw bs=1M count=1
assert_fails imgctl convert -U same.raw same.raw
assert_fails imgctl convert -U -O qcow2 -o data_file=other.raw same.raw new.qcow2
cmp flat.raw same.raw
assert_fails imgctl dd if=top.qcow2 of=base.qcow2
qemu-img compare -q flat.raw top.qcow2

# Zeroes take no space.
truncate -s 1G hole.raw
imgctl dd if=hole.raw of=hole2.raw bs=1M skip=1
[ "$(stat -c %b hole2.raw)" -le 8 ] || fail "zeroes take space"

# A full disk, and a source that cannot be read.
(requires_root) >/dev/null || exit 0
mkdir small
mount -t tmpfs -o size=256k tmpfs small
assert_fails imgctl dd if=flat.raw of=small/o
assert_contains "$(cat err)" "No space left on device"
(requires_fuse) >/dev/null || exit 0
mkdir mnt
mount_img top.qcow2 mnt
imgctl dd bs=64k skip=7 if=mnt/disk of=o
tail -c +458753 flat.raw | cmp - o
umount_img mnt
