#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Persistent bitmaps of qcow2: what we store QEMU trusts, and the reverse; they
# hold what was written by whatever way; the marks of those in use; the actions
# of `imgctl bitmap`, in order.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
. "$top_srcdir/tests/lib-bitmap.sh"
requires qemu-img qemu-io qemu-nbd python3
imgio=$top_builddir/tests/imgio

checks() {
	qemu-img check -q "$1"
	imgctl check -q "$1"
}

# Ours, theirs, ours again: each goes on where the other stopped.
for cs in 64k 4k 512 2M; do
	qemu-img create -q -f qcow2 -o cluster_size=$cs a.qcow2 64M
	imgctl bitmap --add -g 64k a.qcow2 b0
	assert_eq "$(state a.qcow2 b0)" auto:65536
	"$imgio" -f qcow2 -c 'write 1M 100k' -c 'write 5M 64k' \
		-c 'discard 10M 2M' -c 'write 63M 1M' a.qcow2
	checks a.qcow2
	ours="1048576+131072 5242880+65536 10485760+2097152 66060288+1048576"
	assert_eq "$(qemu_dirty a.qcow2 b0)" "$ours"
	qemu-io -f qcow2 -c 'write 30M 64k' a.qcow2 > qemu.log
	"$imgio" -f qcow2 -c 'write 40M 1' a.qcow2
	checks a.qcow2
	assert_eq "$(qemu_dirty a.qcow2 b0)" \
		"${ours% *} 31457280+65536 41943040+65536 ${ours##* }"
	# Zeroes count where there were none.
	imgctl bitmap --clear a.qcow2 b0
	"$imgio" -f qcow2 -c 'write -z 1M 4k' -c 'write -z -u 63M 1M' a.qcow2
	assert_eq "$(qemu_dirty a.qcow2 b0)" "1048576+65536 66060288+1048576"
	# Everything: a table that says so.
	"$imgio" -f qcow2 -c 'write -z 0 64M' a.qcow2
	assert_eq "$(qemu_dirty a.qcow2 b0)" 0+67108864
	imgctl bitmap --clear a.qcow2 b0
	assert_eq "$(qemu_dirty a.qcow2 b0)" ""
	checks a.qcow2
done

# Reading changes nothing, and what was not used is not marked.
imgctl bitmap --add --disable -g 4k a.qcow2 off
cp a.qcow2 before.qcow2
imgctl info a.qcow2 > /dev/null
imgctl map a.qcow2 > /dev/null
"$imgio" -f qcow2 -c 'read 0 64k' a.qcow2
assert_same a.qcow2 before.qcow2
# One that is killed leaves the one that recorded marked, the other alone.
"$imgio" -f qcow2 -c 'write 0 64k' -c abort a.qcow2
assert_eq "$(state a.qcow2 b0)" in-use,auto:65536
assert_eq "$(state a.qcow2 off)" :4096
checks a.qcow2
for action in --clear --enable --disable '--merge off'; do
	# shellcheck disable=SC2086
	assert_rc 1 imgctl bitmap $action a.qcow2 b0
	assert_contains "$(cat err)" "Bitmap 'b0' is inconsistent and cannot"
done
# It stays as it is, for us and for QEMU, until it is removed.
"$imgio" -f qcow2 -c 'write 1M 64k' a.qcow2
assert_eq "$(state a.qcow2 b0)" in-use,auto:65536
imgctl bitmap --add a.qcow2 b1
assert_eq "$(state a.qcow2 b0)" in-use,auto:65536
imgctl bitmap --remove a.qcow2 b0
assert_eq "$(state a.qcow2 b0)" ""
assert_eq "$(state a.qcow2 b1)" auto:65536
checks a.qcow2

# Theirs in use: not ours to trust either.
qemu-io -f qcow2 -c 'write 2M 64k' -c abort a.qcow2 > qemu.log 2>&1 || :
assert_eq "$(state a.qcow2 b1)" in-use,auto:65536
assert_contains "$(imgctl info a.qcow2)" "[0]: in-use"
assert_rc 1 imgctl bitmap --clear a.qcow2 b1
imgctl bitmap --remove a.qcow2 b1
imgctl bitmap --remove a.qcow2 off
checks a.qcow2
case $(qemu-img info a.qcow2) in
*bitmaps*) fail "an empty list is left" ;;
esac

# In the order of the command line; what was done before a failure stays.
assert_rc 1 imgctl bitmap --add --disable --merge nosuch --enable a.qcow2 z
assert_eq "$(cat err)" "imgctl: Operation merge on bitmap z failed: Dirty\
 bitmap 'nosuch' not found"
assert_eq "$(state a.qcow2 z)" :65536
imgctl bitmap --remove --add -g 2G a.qcow2 z
assert_eq "$(state a.qcow2 z)" auto:2147483648
assert_rc 1 imgctl bitmap --add --remove --clear a.qcow2 z
assert_eq "$(state a.qcow2 z)" auto:2147483648

# Merging: across granularities and from another image.
qemu-img create -q -f qcow2 m.qcow2 64M
imgctl bitmap --add -g 4k m.qcow2 fine
"$imgio" -f qcow2 -c 'write 100k 5k' -c 'write 30M 1' m.qcow2
imgctl bitmap --add -g 64k --merge fine m.qcow2 coarse
assert_eq "$(qemu_dirty m.qcow2 fine)" "102400+8192 31457280+4096"
assert_eq "$(qemu_dirty m.qcow2 coarse)" "65536+65536 31457280+65536"
qemu-img create -q -f qcow2 n.qcow2 64M
imgctl bitmap --add -g 4k --merge coarse -b m.qcow2 -F qcow2 n.qcow2 back
assert_eq "$(qemu_dirty n.qcow2 back)" "65536+65536 31457280+65536"
checks n.qcow2

# Thousands, and a name of 1023 bytes.
long=$(printf '%01023d' 7)
imgctl bitmap --add m.qcow2 "$long"
assert_eq "$(state m.qcow2 "$long")" auto:65536
i=0
while [ $i -lt 60 ]; do
	imgctl bitmap --add m.qcow2 "n$i"
	i=$((i + 1))
done
checks m.qcow2
"$imgio" -f qcow2 -c 'write 50M 1' m.qcow2
assert_eq "$(qemu_dirty m.qcow2 n59)" 52428800+65536
assert_eq "$(qemu_dirty m.qcow2 n0)" 52428800+65536
i=0
while [ $i -lt 60 ]; do
	imgctl bitmap --remove m.qcow2 "n$i"
	i=$((i + 1))
done
checks m.qcow2

# Compressed units, a backing file, a data file, subclusters: through all the
# ways in which bytes are stored.
qemu-img create -q -f raw base.raw 8M
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k -b base.raw \
	-F raw top.qcow2
imgctl bitmap --add -g 4k top.qcow2 b
"$imgio" -f qcow2 -c 'write -c 1M 64k' -c 'write 2M 512' -c 'hole 1M 64k' \
	-c 'allocate 4M 64k' -c 'write -z -u 5M 4k' top.qcow2
assert_eq "$(qemu_dirty top.qcow2 b)" \
	"1048576+65536 2097152+4096 5242880+4096"
checks top.qcow2
qemu-img create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 8M
imgctl bitmap --add -g 4k d.qcow2 b
"$imgio" -f qcow2 -c 'write 3M 4k' -c 'write -z 4M 4k' d.qcow2
assert_eq "$(qemu_dirty d.qcow2 b)" "3145728+4096 4194304+4096"
checks d.qcow2

# Another size: bits stay, what is new is not dirty, what is gone does not come
# back; of those that record nothing as well.
for cs in 512 64k; do
	qemu-img create -q -f qcow2 -o cluster_size=$cs r.qcow2 4M
	imgctl bitmap --add -g 4k r.qcow2 b
	"$imgio" -f qcow2 -c 'write 0 4k' -c 'write 3M 1M' r.qcow2
	imgctl bitmap --add --disable -g 64k --merge b r.qcow2 off
	imgctl resize -q r.qcow2 40M
	checks r.qcow2
	assert_eq "$(qemu_dirty r.qcow2 b)" "0+4096 3145728+1048576"
	assert_eq "$(qemu_dirty r.qcow2 off)" "0+65536 3145728+1048576"
	assert_eq "$(state r.qcow2 off)" :65536
	"$imgio" -f qcow2 -c 'write 39M 4k' r.qcow2
	assert_eq "$(qemu_dirty r.qcow2 b)" \
		"0+4096 3145728+1048576 40894464+4096"
	imgctl resize -q --shrink r.qcow2 3584k
	checks r.qcow2
	assert_eq "$(qemu_dirty r.qcow2 b)" "0+4096 3145728+524288"
	imgctl resize -q r.qcow2 64M
	checks r.qcow2
	assert_eq "$(qemu_dirty r.qcow2 b)" "0+4096 3145728+524288"
	assert_eq "$(qemu_dirty r.qcow2 off)" "0+65536 3145728+524288"
	qemu-img resize -q r.qcow2 70M
	"$imgio" -f qcow2 -c 'write 69M 4k' r.qcow2
	assert_eq "$(qemu_dirty r.qcow2 b)" \
		"0+4096 3145728+524288 72351744+4096"
	checks r.qcow2
done
"$imgio" -f qcow2 -c 'write 0 64k' -c abort r.qcow2
assert_rc 1 imgctl resize -q r.qcow2 80M
assert_contains "$(cat err)" "Bitmap 'b' is inconsistent and cannot be used"

# snapshot -a, beyond QEMU: what is different then counts as written, no more;
# sizes follow the disk's, both ways.
for cs in 64k 4k; do
	rm -f s.qcow2
	qemu-img create -q -f qcow2 -o cluster_size=$cs s.qcow2 8M
	qemu-io -f qcow2 -c 'write -P 1 0 2M' s.qcow2 > qemu.log
	qemu-img snapshot -c small s.qcow2
	qemu-img resize -q s.qcow2 12M
	qemu-img bitmap --add -g 64k s.qcow2 on
	qemu-img bitmap --add --disable -g 64k s.qcow2 off
	qemu-io -f qcow2 -c 'write -P 2 1M 64k' -c 'write -P 3 10M 64k' \
		-c 'write -z -u 128k 64k' s.qcow2 > qemu.log
	imgctl snapshot -c large s.qcow2
	imgctl bitmap --clear s.qcow2 on
	imgctl bitmap --clear s.qcow2 off
	imgctl snapshot -a small s.qcow2
	checks s.qcow2
	assert_eq "$(qemu_dirty s.qcow2 on)" "131072+65536 1048576+65536"
	assert_eq "$(qemu_dirty s.qcow2 off)" ""
	imgctl bitmap --clear s.qcow2 on
	imgctl snapshot -a large s.qcow2
	checks s.qcow2
	assert_eq "$(qemu_dirty s.qcow2 on)" \
		"131072+65536 1048576+65536 8388608+4194304"
	qemu-io -f qcow2 -r -c 'read -P 3 10M 64k' -c 'read -P 0 128k 64k' \
		-c 'read -P 1 0 128k' s.qcow2 | grep -q failed &&
		fail "the disk is not the snapshot's"
	assert_eq "$(state s.qcow2 on)" auto:65536
	assert_eq "$(state s.qcow2 off)" :65536
done
ln -sf "$IMGCTL" qemu-img
assert_rc 1 ./qemu-img snapshot -a small s.qcow2
assert_contains "$(cat err)" "Device has active dirty bitmaps"
rm qemu-img
# One that cannot be kept right is in the way.
"$imgio" -f qcow2 -c 'write 0 64k' -c abort s.qcow2
assert_rc 1 imgctl snapshot -a small s.qcow2
assert_contains "$(cat err)" "Bitmap 'on' is inconsistent and cannot be used"
checks s.qcow2
