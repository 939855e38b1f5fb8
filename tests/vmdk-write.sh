#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 300
# VMDK, writing: new images are qemu-img's byte for byte in every subformat but
# for the CID; what is converted, written and zeroed is read by qemu-img; both
# tables are kept in step; the CID changes once when an image is written to; a
# stream is written by convert only.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

export IMGCTL_QEMU_COMPAT=7.2
SUBFORMATS="monolithicSparse monolithicFlat twoGbMaxExtentSparse
	twoGbMaxExtentFlat streamOptimized"

# Without the CID, which may have a digit less; of a flat extent the size.
plain() {
	python3 - "$1"/* <<-'END'
		import os, re, sys
		for name in sys.argv[1:]:
		    size = os.stat(name).st_size
		    if size > 10000000:         # flat
		        open(name, 'w').write(str(size))
		        continue
		    d = open(name, 'rb').read()
		    tail = d[10752:]
		    d = re.sub(rb'\nCID=[0-9a-f]+', b'\nCID=', d, 1)
		    if d[:4] == b'KDMV':
		        d = d[:512] + d[512:10000].rstrip(b'\0') + tail
		    open(name, 'wb').write(d)
	END
}
same_create() { # OPTIONS SIZE [ARGUMENT...]
	options=$1 size=$2
	shift 2
	rm -rf ours theirs
	mkdir ours theirs
	imgctl create -f vmdk -o "$options" "$@" ours/x.vmdk "$size" >out
	qemu-img create -f vmdk -o "$options" "$@" theirs/x.vmdk "$size" >qout
	assert_eq "$(sed 's/ours/theirs/' out)" "$(cat qout)"
	plain ours
	plain theirs
	diff -r ours theirs || fail "create -o $options"
}
qemu-img create -q -f vmdk parent.vmdk 20M
for sub in $SUBFORMATS; do
	same_create subformat=$sub 4500M
	same_create subformat=$sub,adapter_type=buslogic,compat6=on 1000k
	same_create subformat=$sub,hwversion=9,toolsversion=11 1M
	case $sub in
	*Flat)	continue ;;
	esac
	same_create subformat=$sub,zeroed_grain=on 1G
	same_create subformat=$sub 30M -b "$tmp/parent.vmdk" -F vmdk
done
same_words() {
	rc=0 qrc=0
	imgctl "$@" >out 2>&1 || rc=$?
	qemu-img "$@" >qout 2>&1 || qrc=$?
	assert_eq $rc $qrc "exit code of $*"
	assert_eq "$(sed 's/^imgctl/qemu-img/' out)" "$(cat qout)"
}
qemu-img create -q -f raw r.raw 1M
same_words create -f vmdk -o help
same_words create -f vmdk -o subformat=bogus x.vmdk 1M
same_words create -f vmdk -o adapter_type=bogus x.vmdk 1M
same_words create -f vmdk -o compat6=on,hwversion=7 x.vmdk 1M
same_words create -f vmdk -o zeroed_grain=on,subformat=monolithicFlat x.vmdk 1M
same_words create -f vmdk -o subformat=monolithicFlat -b parent.vmdk -F vmdk \
	x.vmdk
same_words create -f vmdk -b r.raw -F raw y.vmdk
same_words create -f vmdk -u -b nosuch.vmdk -F vmdk x.vmdk 1M
same_words create -f vmdk -u -b parent.vmdk -F raw x.vmdk 1M
same_words create -f vmdk -F raw x.vmdk 1M
same_words convert -f raw -O vmdk -o backing_fmt=raw r.raw x.vmdk
[ ! -e y.vmdk ] || fail "y.vmdk was left"

# Converted, by both.
truncate -s 2100M a.raw
head -c 3000000 /dev/urandom | dd of=a.raw bs=1M seek=2046 conv=notrunc \
	iflag=fullblock status=none
yes text | dd of=a.raw bs=1M seek=1 count=2 conv=notrunc iflag=fullblock \
	status=none
truncate -s 2201970688 a.raw
for sub in $SUBFORMATS; do
	for c in "" $([ $sub != monolithicSparse ] || echo -c); do
		imgctl convert $c -O vmdk -o subformat=$sub a.raw $sub.vmdk
		qemu-img compare -q a.raw $sub.vmdk
		imgctl compare -q a.raw $sub.vmdk
		qemu-img check -q $sub.vmdk
	done
done
qemu-img convert -O vmdk -o subformat=streamOptimized a.raw q.vmdk
[ "$(stat -c %s streamOptimized.vmdk)" -le "$(stat -c %s q.vmdk)" ] ||
	fail "the stream is longer than QEMU's"

# The CID: a new one with the first write, none without.
cid() {
	imgctl info --output=json "$1" | sed -n 's/.*"cid": \([0-9]*\).*/\1/p'
}
for i in monolithicSparse twoGbMaxExtentSparse monolithicFlat; do
	before=$(cid $i.vmdk)
	"$top_builddir/tests/imgio" -c 'read 0 4096' $i.vmdk
	assert_eq "$(cid $i.vmdk)" "$before" "read changes the CID"
	"$top_builddir/tests/imgio" -c 'write 5M 100000' -c flush \
		-c 'write 2047M 2M' $i.vmdk
	[ "$(cid $i.vmdk)" != "$before" ] || fail "the CID of $i is the same"
	qemu-io -c 'read -P 205 5M 100000' -c 'read -P 205 2047M 2M' \
		$i.vmdk >out
	! grep "verification failed" out || fail "$i"
	qemu-img check -q $i.vmdk
done

# Both tables say the same.
python3 - monolithicSparse.vmdk twoGbMaxExtentSparse-s001.vmdk \
	twoGbMaxExtentSparse-s002.vmdk streamOptimized.vmdk <<'END'
import struct, sys
for name in sys.argv[1:]:
    d = open(name, 'rb').read()
    size, grain = struct.unpack_from('<QQ', d, 12)
    rgd, gd = struct.unpack_from('<QQ', d, 48)
    n = -(-size // (grain * 512))
    a, b = (struct.unpack_from('<%dI' % n, d, x * 512) for x in (gd, rgd))
    used = 0
    for i, j in zip(a, b):
        assert i != j
        table = d[i * 512:i * 512 + 2048]
        assert table == d[j * 512:j * 512 + 2048], name
        used += any(table)
    assert used, name
END

# A stream takes no other writes, and keeps what it has.
cp streamOptimized.vmdk before
assert_fails "$top_builddir/tests/imgio" -c 'write 0 4096' streamOptimized.vmdk
assert_fails "$top_builddir/tests/imgio" -c 'write 1M 64k' streamOptimized.vmdk
imgctl compare -q a.raw streamOptimized.vmdk

# Grains of zeroes, over a parent.
qemu-io -c 'write -P 1 0 20M' parent.vmdk >/dev/null
imgctl create -q -f vmdk -o zeroed_grain=on -b parent.vmdk -F vmdk top.vmdk
"$top_builddir/tests/imgio" -c 'write -z 1M 3M' -c 'write -P 7 2M 1000' \
	top.vmdk
qemu-io -c 'read -P 1 0 1M' -c 'read -P 0 1M 1M' -c 'read -P 7 2M 1000' \
	-c 'read -P 1 4M 16M' top.vmdk >out
! grep "verification failed" out || fail top.vmdk
[ "$(stat -c %s top.vmdk)" -lt 200000 ] || fail "zeroes were written"

# Extents that may not be written.
sed 's/^RW/RDONLY/' twoGbMaxExtentSparse.vmdk >ro.vmdk
assert_fails "$top_builddir/tests/imgio" -c 'write 0 4096' ro.vmdk
assert_contains "$(cat err)" "read-only"

# Second tables, and entries that lead nowhere, are found and put right.
imgctl convert -O vmdk a.raw good.vmdk
damage() { # PYTHON
	python3 - "$1" <<-'END'
		import struct, sys
		d = bytearray(open('good.vmdk', 'rb').read())
		rgd, gd = (512 * n for n in struct.unpack_from('<QQ', d, 48))
		gt, rgt = (512 * struct.unpack_from('<I', d, n)[0]
		           for n in (gd, rgd))
		def put(at, n):
		    struct.pack_into('<I', d, at, n)
		exec(sys.argv[1])
		open('bad.vmdk', 'wb').write(d)
	END
	assert_rc 2 imgctl check bad.vmdk
	assert_rc 0 imgctl check -r all bad.vmdk
	assert_rc 0 imgctl check bad.vmdk
	qemu-img check -q bad.vmdk
	imgctl compare -q a.raw bad.vmdk
	qemu-img compare -q a.raw bad.vmdk
}
damage 'put(rgt + 64, 77)'
damage 'put(rgd, 0x7fffffff)'
damage 'put(rgd, 0)'
damage 'put(gd, 0x7fffffff)'
damage 'put(gt + 64, 0x7ffffff0)'
damage 'put(gt + 4 * 20, 0x7ffffff0); put(rgt + 4 * 16, 0)'

# A second directory behind the end: a longer file would have data there.
imgctl create -q -f vmdk wild.vmdk 64M
printf '\377\377\377' | dd of=wild.vmdk bs=1 seek=48 conv=notrunc status=none
cp wild.vmdk before
rc=0
"$top_builddir/tests/imgio" -c 'write -P 4 0 1M' wild.vmdk 2>err || rc=$?
[ $rc -ne 0 ] || fail "written beside a second directory that is nowhere"
grep -q 'redundant grain directory .* points after EOF' err
cmp wild.vmdk before
imgctl map wild.vmdk >/dev/null
imgctl check -q -r all wild.vmdk
"$top_builddir/tests/imgio" -c 'write -P 4 0 1M' wild.vmdk
imgctl check -q wild.vmdk
qemu-img check -q wild.vmdk

# A second directory that lies on the first one: another one, with tables.
truncate -s 5G a.raw
imgctl convert -O vmdk a.raw good.vmdk
damage 'struct.pack_into("<Q", d, 48, gd // 512 + 1)'
"$top_builddir/tests/imgio" -c 'write -P 4 4200M 1M' bad.vmdk
imgctl check -q bad.vmdk
python3 - <<'END'
import struct
d = open('bad.vmdk', 'rb').read()
rgd, gd = struct.unpack_from('<QQ', d, 48)
a, b = (struct.unpack_from('<160I', d, 512 * x) for x in (gd, rgd))
assert not set(a) & set(b)
for i, j in zip(a, b):
    assert d[i * 512:i * 512 + 2048] == d[j * 512:j * 512 + 2048]
END
