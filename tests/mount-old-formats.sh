#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A folder with hundreds of images of the older formats, made by other programs:
# mounts, lists, and each is read; a broken one of each kind harms no other; what
# is written through the mount qemu-img reads, and finds sound.
# timeout: 300
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img python3

mkdir made many
random_file data 600000
truncate -s 3M data
dd if=/usr/bin/env of=data bs=1k seek=2000 conv=notrunc status=none
qemu-img convert -f raw -O qcow data made/a.qcow
qemu-img convert -f raw -O qed data made/a.qed
qemu-img convert -f raw -O parallels data made/a.hds
qemu-img convert -f raw -O parallels -o cluster_size=31k data made/b.hds
python3 - <<'END'
import os, sys, zlib
sys.path.insert(0, os.environ['top_srcdir'] + '/tests')
import mkdmg
d = open('data', 'rb').read()
chunks = [(mkdmg.ZLIB, s, 512, zlib.compress(d[s * 512:(s + 512) * 512]))
          for s in range(0, 6144, 512)]
mkdmg.make('made/a.dmg', [(0, 6144, chunks + [(mkdmg.END, 6144, 0, b'')])],
           6144, content=d)
END
if command -v bximage >/dev/null; then
	cp data flat
	bximage -q -func=convert -imgmode=growing flat made/a.redolog >/dev/null
fi
if command -v create_compressed_fs >/dev/null; then
	create_compressed_fs -q -B 65536 data made/a.cloop >/dev/null 2>&1
fi

for f in made/*; do
	name=${f##*/}
	for i in $(seq 40); do
		cp "$f" "many/$i$name"
	done
	# Cut in the middle of its tables, or of its trailer.
	head -c 100 "$f" >"many/broken$name"
done
n=$(find many -type f | wc -l)
[ "$n" -ge 200 ] || fail "only $n images"

mount_img many m
find m -mindepth 1 -maxdepth 1 -printf '%f\n' | sort >listed
find many -type f -printf '%f\n' | grep -v '^broken' | sort >whole
assert_eq "$(comm -13 listed whole)" "" "not listed"
want=$(sha256sum <data)
while read -r name; do
	assert_eq "$(head -c 3145728 "m/$name/disk" | sha256sum)" "$want" \
		"content of $name"
done <whole
for f in m/broken*; do
	[ -d "$f" ] || continue
	! cat "$f/disk" >/dev/null 2>&1 || fail "$f is read"
	[ -s "$f/status" ] || fail "$f has no status"
done
# Again, and several at once.
for i in 7 8 9; do
	for f in made/*; do
		cmp -n 3145728 "m/$i${f##*/}/disk" data &
	done
done
wait
umount_img m

# Written through a mount.
dd if=/usr/bin/env of=data bs=1 seek=1234567 count=20000 conv=notrunc status=none
mount_img -o rw made m
for name in a.qcow a.qed a.hds b.hds; do
	dd if=data of="m/$name/disk" bs=100k conv=notrunc,fsync status=none
	fallocate -p -o 1M -l 64k "m/$name/disk"
done
for name in a.dmg a.redolog a.cloop; do
	[ -e "made/$name" ] || continue
	assert_fails dd if=data of="m/$name/disk" count=1 conv=notrunc
	assert_contains "$(cat err)" "Read-only file system"
done
umount_img m
dd if=/dev/zero of=data bs=64k seek=16 count=1 conv=notrunc status=none
for name in qcow/a.qcow qed/a.qed parallels/a.hds parallels/b.hds; do
	fmt=${name%/*}
	qemu-img compare -q -f "$fmt" -F raw "made/${name#*/}" data
	[ "$fmt" = qcow ] || qemu-img check -q -f "$fmt" "made/${name#*/}"
	imgctl check -q -f "$fmt" "made/${name#*/}"
done
