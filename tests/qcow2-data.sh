#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Data files of qcow2 images: found from the image's folder, then from the
# current one; an existing one is emptied only when there is an image to use it;
# what one program writes the other reads.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io
imgio=$top_builddir/tests/imgio

# refused WORDS OPTIONS TARGET: the file d.raw keeps what it holds.
refused() {
	echo keep >d.raw
	! "$IMGCTL" create -q -f qcow2 -o "$2" "$3" 4M 2>err ||
		fail "$2 $3: accepted"
	grep -q "$1" err || fail "$2 $3: $(cat err)"
	[ "$(cat d.raw)" = keep ] || fail "$2 $3: the data file is gone"
}
refused 'No such file' data_file=d.raw nodir/x.qcow2
refused 'power of two' data_file=d.raw,cluster_size=3k x.qcow2
refused 'compatibility level' data_file=d.raw,compat=v2 x.qcow2
refused 'Is a directory' data_file=d.raw /tmp
refused 'No such file' data_file=nodir/d.raw x.qcow2
refused 'same filename as its data file' data_file=d.raw d.raw
refused 'same filename as its data file' data_file=$PWD/d.raw d.raw
refused 'is its backing file' backing_file=d.raw,backing_fmt=raw,data_file=d.raw \
	x.qcow2
[ ! -e x.qcow2 ] || fail "a target was left"

# Somebody else writes to the data file: neither it nor an image that was there
# before loses a byte, whoever makes the new one.  Nor where the data file cannot
# become as large.
qemu-img create -q -f qcow2 x.qcow2 1M
qemu-io -c 'write -P 3 0 64k' x.qcow2 >/dev/null
cp x.qcow2 before.qcow2
truncate -s 4M source.raw
cat >hold.py <<'PY'
import fcntl, os, struct, time
fd = os.open("d.raw", os.O_RDWR)
for byte in 101, 103, 201, 203:
    fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, byte, 1, 0))
open("held", "w").close()
time.sleep(60)
PY
unchanged() {
	[ "$(cat d.raw)" = keep ] || fail "the data file is gone"
	assert_same x.qcow2 before.qcow2
}
background python3 hold.py
wait_until 10 test -e held
refused 'Failed to get "write" lock' data_file=d.raw x.qcow2
unchanged
! "$IMGCTL" convert -O qcow2 -o data_file=d.raw source.raw x.qcow2 2>err ||
	fail "convert to a data file in use"
grep -q 'Failed to get "write" lock' err || fail "convert: $(cat err)"
unchanged
end_process "$pid"
! (ulimit -f 8192 && trap '' XFSZ && "$IMGCTL" create -q -f qcow2 \
	-o data_file=d.raw x.qcow2 64M) 2>err || fail "a data file too large"
grep -q 'File too large' err || fail "too large: $(cat err)"
unchanged
! (ulimit -f 8192 && trap '' XFSZ && "$IMGCTL" create -q -f qcow2 \
	-o data_file=new.raw x.qcow2 64M) 2>err || fail "a data file too large"
[ ! -e new.raw ] || fail "a data file was left"
unchanged
rm x.qcow2 before.qcow2

# Nor is what lies deeper in the chain emptied, as target or as data file; nor a
# file that the new image would then be led to.
echo keep >d.raw
truncate -s 1M d.raw
cp d.raw before.raw
qemu-img create -q -f qcow2 -b d.raw -F raw mid.qcow2
kept() {
	! "$IMGCTL" "$@" 2>err || fail "$*: accepted"
	assert_same d.raw before.raw
	[ ! -e x.qcow2 ] || fail "$*: a target was left"
}
kept create -q -f qcow2 -b mid.qcow2 -F qcow2 -o data_file=d.raw x.qcow2
assert_contains "$(cat err)" 'data file belongs to its backing chain'
kept create -q -f qcow2 -b mid.qcow2 -F qcow2 d.raw
assert_contains "$(cat err)" 'belongs to its own backing chain'
kept convert -O qcow2 -B mid.qcow2 -F qcow2 -o data_file=d.raw before.raw x.qcow2
led_astray() {
	! "$IMGCTL" convert -O qcow2 -o data_file=d.raw source.raw \
		other/x.qcow2 2>err || fail "led to another file"
	assert_contains "$(cat err)" "taken for 'other/d.raw'"
	assert_same other/d.raw before.raw
	[ ! -e other/x.qcow2 ] || fail "a target was left"
}
mkdir other
mv d.raw other
led_astray
cp before.raw d.raw
led_astray
assert_same d.raw before.raw
rm -r other mid.qcow2 before.raw

# "file:" is no part of the name; other protocols are unknown.
"$IMGCTL" create -q -f qcow2 -o data_file=file:d.raw x.qcow2 1M
assert_eq "$(qemu-img info x.qcow2 | sed -n 's/.*data file: //p')" d.raw
qemu-io -c 'write -P 5 0 64k' x.qcow2 >/dev/null
"$IMGCTL" compare -q x.qcow2 x.qcow2
rm x.qcow2
refused "Unknown protocol 'json'" data_file=json:{} x.qcow2
refused "Unknown protocol 'nbd'" data_file=nbd:d.raw x.qcow2
refused "Unknown protocol 'd'" data_file=file:d:raw x.qcow2

mkdir sub
for raw in on off; do
	rm -f d.raw sub/d.raw
	(cd sub && "$IMGCTL" create -q -f qcow2 \
		-o data_file=d.raw,data_file_raw=$raw x.qcow2 4M)
	printf 'write -P 5 100000 300000\nwrite -z 65536 65536\n' |
		"$imgio" -f qcow2 -d unmap sub/x.qcow2
	(cd sub && qemu-io -c 'write -P 7 1M 70k' -c 'write -z 0 64k' \
		-c 'write -z -u 192k 64k' x.qcow2 >/dev/null)
	# Ours where QEMU left zeroes as flags.
	printf 'write -P 9 1000 3000\ndiscard 1048576 65536\n' |
		"$imgio" -f qcow2 -d unmap sub/x.qcow2
	(cd sub && qemu-img check -q x.qcow2 &&
		qemu-img convert -O raw x.qcow2 theirs.raw)
	"$IMGCTL" convert -O raw sub/x.qcow2 ours.raw
	cmp ours.raw sub/theirs.raw || fail "raw=$raw: content"
	[ $raw = off ] || cmp ours.raw sub/d.raw || fail "data file"
	mv sub/d.raw .
	"$IMGCTL" convert -O raw sub/x.qcow2 again.raw
	cmp ours.raw again.raw || fail "from the current folder"
done
rm d.raw
! "$IMGCTL" map sub/x.qcow2 2>err || fail "no data file"
grep -q "d.raw': No such file or directory" err ||
	fail "$(cat err)"
"$IMGCTL" info sub/x.qcow2 >/dev/null

# The image itself is no data file.
qemu-img create -q -f qcow2 -o data_file=y.raw y.qcow2 1M
rm y.raw
ln y.qcow2 y.raw
! "$IMGCTL" map y.qcow2 2>err || fail "its own data file"

# What map, info and check say of QEMU's is what qemu-img says.
export IMGCTL_QEMU_COMPAT=7.2
for o in off,extended_l2=on on,extended_l2=off off,preallocation=metadata \
	off,extended_l2=on,preallocation=falloc on,preallocation=full; do
	qemu-img create -q -f qcow2 -o data_file=m.raw,data_file_raw=$o m.qcow2 1M
	qemu-io -c 'write -P 3 128k 70k' -c 'write -z 256k 64k' \
		-c 'write -z -u 320k 64k' -c 'discard 128k 64k' m.qcow2 >/dev/null
	for c in map 'map --output=json' info 'info --output=json' check; do
		qemu-img $c m.qcow2 >theirs
		"$IMGCTL" $c m.qcow2 >ours
		diff theirs ours || fail "$c: data_file_raw=$o"
	done
done

# Nothing compressed goes to a data file, whether it would shrink or not.
head -c 1M /dev/urandom >dense
head -c 1M /dev/zero | tr '\0' a >text
for source in dense text; do
	assert_rc 1 "$IMGCTL" convert -c -O qcow2 -o data_file=d.raw $source o
	assert_contains "$(cat err)" \
		"error while writing at byte 0: Operation not supported"
done
