#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# qcow and QED: new images are qemu-img's byte for byte, converted ones are read
# by qemu-img, what it writes is read by us; broken headers get its sentences,
# broken tables are found.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

export IMGCTL_QEMU_COMPAT=7.2
truncate -s 3M data
dd if="$top_srcdir/ARCHITECTURE.md" of=data conv=notrunc status=none
dd if=/usr/bin/env of=data bs=1 seek=1500001 conv=notrunc status=none
truncate -s 2M base.raw
yes base | dd of=base.raw bs=1M count=1 conv=notrunc iflag=fullblock \
	status=none

same_create() {
	imgctl create "$@" ours 3M >out
	qemu-img create "$@" theirs 3M >qout
	assert_same ours theirs
	assert_eq "$(sed 's/ours/theirs/' out)" "$(cat qout)"
	assert_eq "$(imgctl info ours | grep -v "disk size")" \
		"$(qemu-img info ours | grep -v "disk size")"
}
for fmt in qcow qed; do
	same_create -f $fmt
	same_create -f $fmt -b base.raw -F raw
	imgctl create -q -f $fmt -b theirs -F $fmt ours 3M
	qemu-img create -q -f $fmt -b theirs -F $fmt theirs2 3M
	assert_same ours theirs2
	assert_eq "$(imgctl create -f $fmt -o help)" \
		"$(qemu-img create -f $fmt -o help)"

	imgctl convert -O $fmt data a
	qemu-img compare -q -f $fmt -F raw a data
	qemu-img convert -O $fmt data a
	imgctl compare -q -f $fmt -F raw a data
	qemu-io -f $fmt -c 'write -P 7 1M 70000' -c 'write -z 64k 64k' a \
		>/dev/null
	imgctl convert -f $fmt -O raw a got
	qemu-img convert -f $fmt -O raw a want
	assert_same got want
	imgctl check -q -f $fmt a

	# Over a backing file, in both directions.
	imgctl convert -O $fmt -B base.raw -F raw data over 2>/dev/null
	qemu-img convert -O raw over want
	imgctl convert -O raw over got
	assert_same got want
done
same_create -f qed -o cluster_size=4k,table_size=2
imgctl convert -c -O qcow data packed
qemu-img compare -q -F raw packed data
imgctl check -q packed
[ "$(stat -c %s packed)" -lt 200000 ] || fail "not packed"
assert_fails imgctl convert -c -O qed data packed.qed

# Refused with qemu-img's sentence.
refused() { # FORMAT FILE OFFSET BYTES(hex)
	cp "$2" bad
	poke bad "$3" "$4"
	assert_fails imgctl info -f "$1" bad
	if qemu-img info -f "$1" bad >/dev/null 2>qerr; then
		fail "qemu-img takes $3 $4"
	fi
	assert_eq "$(sed 's/imgctl/qemu-img/' err)" "$(cat qerr)"
}
imgctl create -q -f qcow q 10M
refused qcow q 0 00
refused qcow q 4 00000003
refused qcow q 24 0000000000000001
refused qcow q 24 4000000000000000
refused qcow q 24 0004000000000000
refused qcow q 32 08
refused qcow q 33 05
refused qcow q 36 00000002
# A cipher is not there yet: info tells what it can, reading says so.
poke q 36 00000001
assert_contains "$(imgctl info q)" "encrypted: yes"
assert_fails imgctl convert -O raw q out
assert_contains "$(cat err)" "encrypted images are not supported"
imgctl create -q -f qed e 10M
refused qed e 0 00
refused qed e 16 10
truncate -s 64 e
assert_fails imgctl info e
assert_contains "$(cat err)" "QED table offset is invalid"
assert_fails imgctl create -f qcow z 0
assert_contains "$(cat err)" "Image size is too small"
assert_fails imgctl create -f qed -o cluster_size=1000 z 1M
assert_contains "$(cat err)" "QED cluster size must be within range"

# Tables that lie: found by check as by qemu-img's, never followed.
imgctl convert -O qed data good
python3 - <<'END'
import struct
d = open('good', 'rb').read()
l1 = 0x10000
l2 = struct.unpack_from('<Q', d, l1)[0]
first = struct.unpack_from('<Q', d, l2)[0]
for name, at, value in (
        ('far', l2, 0x7fff0000), ('odd', l2, first + 16),
        ('table', l1, 0x50001), ('fartable', l1, 0x7fff0000),
        ('header', l2, 0), ('l1', l2, 0x10000), ('none', l1, 0),
        ('twice', l2 + 8 * 30, first), ('mark', 16, 2)):
    b = bytearray(d)
    struct.pack_into('<Q', b, at, value)
    open('bad.' + name, 'wb').write(b)
END
for bad in bad.*; do
	rc=0 qrc=0
	imgctl check --output=json "$bad" >out 2>/dev/null || rc=$?
	qemu-img check --output=json "$bad" >qout 2>/dev/null || qrc=$?
	assert_eq $rc $qrc "exit code for $bad"
	for key in corruptions leaks; do
		assert_eq "$(grep "\"$key\"" out)" "$(grep "\"$key\"" qout)" \
			"$key of $bad"
	done
done
# What QEMU's repair does, under its name; then all of it.
ln -s "$IMGCTL" qemu-img
for bad in bad.*; do
	for how in leaks all; do
		cp "$bad" ours
		cp "$bad" theirs
		rc=0 qrc=0
		./qemu-img check -r $how --output=json ours >out 2>/dev/null ||
			rc=$?
		qemu-img check -r $how --output=json theirs >qout \
			2>/dev/null || qrc=$?
		assert_eq $rc $qrc "exit code of -r $how for $bad"
		assert_same ours theirs
		for key in corruptions leaks corruptions-fixed; do
			assert_eq "$(grep "\"$key\"" out)" \
				"$(grep "\"$key\"" qout)" "$key of $bad"
		done
	done
	cp "$bad" ours
	imgctl convert -O raw "$bad" before 2>/dev/null || rm -f before
	assert_rc 0 imgctl check -r all ours
	qemu-img check -q ours
	[ ! -e before ] || imgctl compare -q -F raw ours before
	assert_eq "$(od -An -tx1 -j16 -N1 ours)" " 00"
done
rm qemu-img
# Leaks alone: errors stay, and so does their mark.
cp bad.none ours
assert_rc 0 imgctl check -r leaks ours
qemu-img check -q ours
cp bad.twice ours
poke ours 16 02
assert_rc 2 imgctl check -r leaks ours
assert_eq "$(od -An -tx1 -j16 -N1 ours)" " 02"
assert_fails imgctl convert -n -O qed data ours
assert_contains "$(cat err)" "repair it with check -r all"
for bad in far odd table fartable l1; do
	assert_fails imgctl convert -O raw bad.$bad out
done

# Who did not finish: writing goes on if the tables are sound.
qemu-io -c 'write -P 9 0 64k' good >/dev/null
poke good 16 02
imgctl convert -n -O qed data good
assert_eq "$(od -An -tx1 -j16 -N1 good)" " 00"
qemu-img compare -q -F raw good data
