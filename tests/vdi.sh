#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VDI: what qemu-img writes we read, what we write it reads and finds sound;
# new images are laid out as its own; info, map and check print the same.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

IMGCTL_QEMU_COMPAT=7.2
export IMGCTL_QEMU_COMPAT

# same_words COMMAND...: qemu-img and imgctl say the same.
same_words() {
	rc=0 rc2=0
	imgctl "$@" >ours 2>&1 || rc=$?
	qemu-img "$@" >theirs 2>&1 || rc2=$?
	sed -i 's/^imgctl: /qemu-img: /' ours
	cmp ours theirs >&2 || {
		diff ours theirs >&2 || true
		fail "other words: $*"
	}
	assert_eq $rc $rc2 "exit code of $*"
}

random_file data 3500000
truncate -s 10485760 data
dd if="$top_srcdir/ARCHITECTURE.md" of=data bs=4k seek=2000 conv=notrunc \
	status=none

for static in off on; do
	qemu-img convert -O vdi -o static=$static data theirs.vdi
	imgctl convert -O vdi -o static=$static data ours.vdi
	qemu-img check -q ours.vdi
	imgctl check -q theirs.vdi
	qemu-img convert -O raw ours.vdi back
	assert_same back data
	imgctl convert -O raw theirs.vdi back
	assert_same back data
	# All but the two UUIDs.
	for f in ours theirs; do
		poke $f.vdi 392 "$(printf '%064d' 0)"
	done
	assert_same ours.vdi theirs.vdi
	for size in 0 512 1M 3000000 2T; do
		for who in qemu-img imgctl; do
			$who create -q -f vdi -o static=$static $who.vdi $size
			poke $who.vdi 392 "$(printf '%064d' 0)"
		done
		[ $size = 2T ] || assert_same qemu-img.vdi imgctl.vdi
		[ $size != 2T ] || cmp -n 8389120 qemu-img.vdi imgctl.vdi
		same_words info imgctl.vdi
		same_words info --output=json imgctl.vdi
	done
	same_words info theirs.vdi
	same_words map theirs.vdi
	same_words check theirs.vdi
	same_words check --output=json theirs.vdi
done

# Written in place and appended, block after block.
imgctl create -q -f vdi w.vdi 20M
qemu-img create -q -f vdi w2.vdi 20M
for at in 5M 5000000 0 19M 7340000; do
	qemu-io -f vdi -c "write -P 7 $at 64k" w2.vdi >/dev/null
done
"$top_builddir/tests/imgio" -f vdi -c 'write -P 7 5M 64k' \
	-c 'write -P 7 5000000 64k' -c 'write -P 7 0 64k' \
	-c 'write -P 7 19M 64k' -c 'write -P 7 7340000 64k' w.vdi >/dev/null
qemu-img check -q w.vdi
qemu-img compare -q w.vdi w2.vdi
# ... and on by QEMU, which takes the count for the next free block.
for f in w w2; do
	qemu-io -f vdi -c 'write -P 9 12M 1M' $f.vdi >/dev/null
done
qemu-img check -q w.vdi
imgctl compare -q w.vdi w2.vdi

# Discarded blocks are zeroes and can be written again.
poke w.vdi 532 feffffff
assert_eq "$(python3 -c 'print(open("w.vdi", "rb").read()[532:536].hex())')" \
	feffffff
imgctl check -q -r all w.vdi
qemu-img check -q w.vdi
qemu-img convert -O raw w.vdi back
assert_eq "$(dd if=back bs=1M skip=5 count=1 status=none | tr -d '\0' |
	wc -c)" 0
"$top_builddir/tests/imgio" -f vdi -c 'write -P 3 5M 1M' w.vdi >/dev/null
qemu-img check -q w.vdi
qemu-io -f vdi -r -c 'read -P 3 5M 1M' -c 'read -P 7 19M 64k' \
	-c 'read -P 9 12M 1M' w.vdi >/dev/null

# What cannot be.
same_words create -q -f vdi x.vdi 600T
same_words create -q -f vdi -o preallocation=metadata x.vdi 1M
same_words create -q -f vdi -o static=on,preallocation=bogus x.vdi 1M
hurt() { # OFFSET BYTES(hex)
	cp w2.vdi bad.vdi
	poke bad.vdi "$1" "$2"
	same_words info bad.vdi
}
mkdir bin
ln -s "$IMGCTL" bin/qemu-img
hurt 68 01000000
hurt 340 04020000
hurt 360 00100000
hurt 376 00002000
hurt 384 01000000
hurt 384 ffffffff
hurt 368 ffffffffffffff7f
# Data that begins anywhere is only under QEMU's name an error.
cp w2.vdi bad.vdi
poke bad.vdi 344 00050000
assert_fails bin/qemu-img info bad.vdi
cp err ours
assert_fails qemu-img info bad.vdi
assert_same ours err
imgctl info bad.vdi >/dev/null
truncate -s 40 bad.vdi
same_words info -f vdi bad.vdi
