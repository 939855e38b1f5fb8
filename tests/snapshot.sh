#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Snapshots that imgctl makes, applies and deletes are sound and hold what the
# disk held, for qemu-img and for imgctl; and those that qemu-img has made.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io
imgctl=$top_builddir/imgctl

io() {
	qemu-io -f qcow2 "$@" a.qcow2 > qemu.log
	if grep -i 'fail\|error' qemu.log; then exit 1; fi
}

# What the disk holds, in file $1.
disk() {
	qemu-img check -q a.qcow2
	qemu-img convert -O raw a.qcow2 "$1"
}

# Does snapshot $1 hold what is in file $2?
holds() {
	qemu-img check -q a.qcow2
	"$imgctl" check -q a.qcow2
	qemu-img convert -l "$1" -O raw a.qcow2 got.raw
	cmp got.raw "$2"
	"$imgctl" convert -l "snapshot.name=$1" -O raw a.qcow2 got.raw
	cmp got.raw "$2"
}

# $1 and $2 take turns: each understands what the other has made.
story() {
	io -c 'write -P 1 0 1M' -c 'write -P 9 3M 512' -c 'write -z 5M 128k'
	if [ "$compressed" = yes ]; then
		io -c 'write -c -P 2 6M 64k' -c 'write -c -P 3 6208k 64k'
	fi
	disk 0.raw
	"$1" snapshot -c one a.qcow2
	holds one 0.raw
	io -c 'write -P 2 512k 1M' -c 'write -P 7 8M 3M' \
		-c 'write -P 5 6M 1k' -c 'discard 3M 64k'
	disk 1.raw
	"$2" snapshot -c two a.qcow2
	holds one 0.raw
	holds two 1.raw
	io -c 'write -P 3 0 2M'
	disk 2.raw
	"$1" snapshot -c three a.qcow2
	"$1" snapshot -d two a.qcow2
	holds one 0.raw
	holds three 2.raw
	disk now.raw
	cmp now.raw 2.raw
	"$2" snapshot -a one a.qcow2
	disk now.raw
	cmp now.raw 0.raw
	holds three 2.raw
	io -c 'write -P 4 0 2M'
	"$1" snapshot -a three a.qcow2
	disk now.raw
	cmp now.raw 2.raw
	"$1" snapshot -d one a.qcow2
	"$2" snapshot -d three a.qcow2
	disk now.raw
	cmp now.raw 2.raw
	# In place again: no cluster is shared any more.
	before=$(stat -c %s a.qcow2)
	io -c 'write -P 6 0 2M'
	[ "$(stat -c %s a.qcow2)" = "$before" ]
}

while read -r options compressed one two; do
	qemu-img create -q -f qcow2 -o "$options" a.qcow2 16M
	story "$one" "$two"
done <<END
cluster_size=64k yes $imgctl $imgctl
cluster_size=512 no $imgctl qemu-img
cluster_size=4k,compat=0.10 no qemu-img $imgctl
cluster_size=64k,refcount_bits=4 yes $imgctl qemu-img
cluster_size=2M no $imgctl $imgctl
cluster_size=16k,extended_l2=on no qemu-img $imgctl
cluster_size=64k,refcount_bits=64 yes $imgctl $imgctl
END

# Counts that have no room for one more: nothing happens, nothing leaks.
qemu-img create -q -f qcow2 -o refcount_bits=1 a.qcow2 1M
io -c 'write -P 1 0 64k'
if "$imgctl" snapshot -c s a.qcow2 2> err; then exit 1; fi
grep "Could not create snapshot 's': Invalid argument" err
qemu-img check -q a.qcow2

# Dates, clocks, sizes of machines, unknown extra data stay as they are.
qemu-img create -q -f qcow2 a.qcow2 1M
qemu-img snapshot -c old a.qcow2
python3 - <<'END'
import struct
f = open("a.qcow2", "r+b")
f.seek(60)
n, at = struct.unpack(">IQ", f.read(12))
f.seek(at)
e = bytearray(f.read(200))
struct.pack_into(">IIQI", e, 16, 1234567890, 5, 3723004000000, 0)
# 16 bytes more of extra data, then id and name
extra = struct.unpack_from(">I", e, 36)[0]
tail = e[40 + extra:40 + extra + 4]
struct.pack_into(">QQq", e, 40, 77777, 1 << 20, 42)
struct.pack_into(">I", e, 36, extra + 16)
e[40 + extra:] = b"unknown to us..." + tail
f.seek(at)
f.write(e)
END
"$imgctl" snapshot -l a.qcow2 > before
grep '0001:02:03.004 *42' before
"$imgctl" snapshot -c new a.qcow2
"$imgctl" snapshot -d new a.qcow2
"$imgctl" snapshot -l a.qcow2 > after
cmp before after
grep -q 'unknown to us...' a.qcow2
qemu-img check -q a.qcow2
IMGCTL_QEMU_COMPAT=7.2 "$imgctl" snapshot -l a.qcow2 > ours
qemu-img snapshot -l a.qcow2 | cmp - ours

# The state of a machine lies behind the disk's end: it is kept by each snapshot,
# comes back with it, and is no part of the disk when that grows.
qemu-img create -q -f qcow2 -o cluster_size=4k a.qcow2 10M
io -c 'write -P 1 0 3M' -c 'write -b -P 5 0 300k'
"$imgctl" snapshot -c s1 a.qcow2
io -c 'write -P 2 0 3M' -c 'write -b -P 6 0 300k' -c 'write -b -P 7 700k 100k'
"$imgctl" snapshot -c s2 a.qcow2
"$imgctl" snapshot -a s1 a.qcow2
qemu-img check -q a.qcow2
io -c 'read -P 1 0 3M' -c 'read -b -P 5 0 300k' -c 'read -b -P 0 700k 100k'
"$imgctl" amend -o refcount_bits=32 a.qcow2
"$imgctl" resize -q a.qcow2 12M
qemu-img check -q a.qcow2
io -c 'read -P 1 0 3M' -c 'read -P 0 10M 2M'
"$imgctl" snapshot -a s2 a.qcow2
"$imgctl" snapshot -d s1 a.qcow2
qemu-img check -q a.qcow2
io -c 'read -P 2 0 3M' -c 'read -b -P 6 0 300k' -c 'read -b -P 7 700k 100k'

# A snapshot of two, by ID or name, is what map, info, compare, convert and
# measure tell of: its disk converted by qemu-img is the oracle.
qemu-img create -q -f qcow2 a.qcow2 4M
io -c 'write -P 1 0 1M'
qemu-img snapshot -c first a.qcow2
io -c 'write -P 2 512k 2M'
qemu-img snapshot -c 'second one' a.qcow2
io -c 'write -z 0 4M'
for s in snapshot.id=1:first snapshot.name=first:first first:first \
	snapshot.id=2:'second one' 'snapshot.name=second one:second one' \
	'snapshot.id=2,snapshot.name=second one:second one'; do
	key=${s%%:*}
	qemu-img convert -l "${s#*:}" -O raw a.qcow2 want.raw
	qemu-img convert -l "${s#*:}" -O qcow2 a.qcow2 want.qcow2
	"$imgctl" convert -l "$key" -O raw a.qcow2 got.raw
	cmp got.raw want.raw
	"$imgctl" compare --a-snapshot "$key" a.qcow2 want.raw
	"$imgctl" compare -f raw -F qcow2 --b-snapshot "$key" want.raw a.qcow2
	if "$imgctl" compare a.qcow2 want.raw > out; then exit 1; fi
	qemu-img map --output=json want.qcow2 |
		sed 's/, "offset": [0-9]*//' > want.map
	"$imgctl" map --output=json --snapshot "$key" a.qcow2 |
		sed 's/, "offset": [0-9]*//' > got.map
	python3 - <<'END2'
import json
def ranges(name):
    out = []
    for e in json.load(open(name)):
        if out and out[-1][2] == e["data"]:
            out[-1][1] = e["start"] + e["length"]
        else:
            out.append([e["start"], e["start"] + e["length"], e["data"]])
    return out
assert ranges("got.map") == ranges("want.map"), (ranges("got.map"),
                                                 ranges("want.map"))
END2
	"$imgctl" info --snapshot "$key" a.qcow2 > out
	"$imgctl" measure -O qcow2 -l "$key" a.qcow2 > got
	qemu-img measure -O qcow2 -l "$key" a.qcow2 | cmp - got
done
for key in snapshot.id=9 snapshot.name=none snapshot.id=1,snapshot.name=x none
do
	for args in "map --snapshot $key a.qcow2" \
		"info --snapshot $key a.qcow2" \
		"compare --a-snapshot $key a.qcow2 a.qcow2"; do
		if "$imgctl" $args > out 2>&1; then exit 1; fi
		grep -q "Can't find snapshot\|Failed to load snapshot" out
	done
done
# Called as qemu-img there is no such thing.
ln -s "$imgctl" qemu-img
for args in "map --snapshot first a.qcow2" "info --snapshot first a.qcow2" \
	"compare --a-snapshot first a.qcow2 a.qcow2"; do
	if ./qemu-img $args > out 2>&1; then exit 1; fi
	grep -q 'unrecognized option' out
done
