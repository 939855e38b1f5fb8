#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 240
# The same writes put every cluster, table and reference count where QEMU puts
# it: whole files are equal.  (QEMU uses freed space at once, imgfs after a
# flush: hence the flushes.)
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io
imgio=$top_builddir/tests/imgio
equal=0

# both NAME CREATE-OPTIONS SIZE COMMAND...: makes q.qcow2 (QEMU's), i.qcow2
both() {
	name=$1
	# shellcheck disable=SC2086
	qemu-img create -q -f qcow2 $2 q.qcow2 "$3"
	cp q.qcow2 i.qcow2
	shift 3
	for c; do
		set -- "$@" -c "$c"
		shift
	done
	qemu-io -f qcow2 -d unmap "$@" q.qcow2 > qemu.log
	if grep -i 'error\|fail' qemu.log; then exit 1; fi
	"$imgio" -f qcow2 -d unmap "$@" i.qcow2
	qemu-img check -q i.qcow2
}

same() {
	both "$@"
	cmp q.qcow2 i.qcow2 || { echo "FAIL: $name"; exit 1; }
	equal=$((equal + 1))
}

# The same but for bytes in clusters that are free again.
alike() {
	both "$@"
	for f in q i; do
		qemu-img map --output=json $f.qcow2 > $f.map
		qemu-img check --output=json $f.qcow2 |
			grep -v filename > $f.check
	done
	cmp q.map i.map && cmp q.check i.check ||
		{ echo "FAIL: $name"; exit 1; }
	equal=$((equal + 1))
}

same whole '' 10M 'write 0 64k' 'write 1M 256k' 'write -P 3 2000k 200k'
same parts '' 10M 'write 0 4k' 'write 130k 1k' 'write 2000k 201k'
same end '' 10000384 'write 9999872 512'
same zero '' 10M 'write -z 0 128k' 'write 64k 64k'
same 'zero over data' '' 10M 'write 0 256k' 'write -z 0 64k' \
	'write -z -u 64k 64k' flush 'write 0 128k'
same 'data over kept zeroes' '' 10M 'write 0 256k' 'write -z 0 128k' \
	'write 64k 128k' 'write 0 4k'
same 'version 2' '-o compat=0.10' 10M 'write 0 256k' 'write -z 0 64k' flush \
	'write 1M 4k' 'write -z -u 1M 64k' flush
same 'one freed' '' 10M 'write 0 64k' 'write 64k 64k' 'write 128k 64k' \
	'discard 64k 64k' flush 'write 1M 128k' 'write 2M 64k'
same 'some freed' '' 10M 'write 0 256k' 'discard 64k 128k' flush \
	'write 1M 192k' 'write 2M 64k' 'write 3M 64k' 'write 4M 64k'

qemu-img create -q -f raw base.raw 10M
qemu-io -f raw -c 'write -P 7 0 10M' base.raw > qemu.log
same backing '-b base.raw -F raw' 10M 'write 0 4k' 'write 256k 100k' \
	'write -z 1M 64k' 'write -z -u 2M 70k' 'discard 0 64k' flush \
	'write 4M 1k' 'discard 3M 64k'
same 'backing, version 2' '-b base.raw -F raw -o compat=0.10' 10M \
	'write 0 4k' 'write 256k 100k' 'write 4M 1k' 'write -z 1M 64k' \
	'write -z 1100k 3k' 'discard 256k 64k'

for n in 5000 20000 40000 60000; do
	{ head -c $n /dev/urandom; head -c 65536 /dev/zero; } |
		head -c 65536 > $n.raw
done
for bits in 1 2 16; do
	same "streams, refcount_bits=$bits" "-o refcount_bits=$bits" 10M \
		'write -c 0 64k' 'write -c 64k 64k' \
		'write -c -s 40000.raw 128k 64k' \
		'write -c -s 40000.raw 192k 64k' \
		'write 1M 64k' 'write -c -s 40000.raw 256k 64k' \
		'write -c -s 5000.raw 320k 64k' \
		'write -c -s 60000.raw 384k 64k' \
		'write -c -s 5000.raw 448k 64k' \
		'write -c -s 20000.raw 512k 64k' 'write 3M 64k'
done

for bits in 1 2 4 8 16 32 64; do
	for cs in 512 1k 4k 64k 2M; do
		[ $bits$cs != 64512 ] || continue       # see below
		same "$cs, $bits bits" "-o cluster_size=$cs,refcount_bits=$bits" \
			16M 'write 0 1M' 'write 3M 300k' 'write 5M 512' \
			'write 8M 512k' 'write 9M 1k' 'write -z 10M 2M' \
			'write 10M 512' 'discard 0 512k' flush \
			'write 14M 2M' 'write 2M 5k' 'write 2050k 1k' \
			'write 0 64k'
	done
done

# Larger refcount tables, more than once; where a block cannot count itself.
alike 'table grows' '-o cluster_size=512,refcount_bits=64' 16M 'write 0 13M'
alike 'table grows, 1k' '-o cluster_size=1k,refcount_bits=64' 70M \
	'write 0 32M' 'write 32M 35M'
same 'block at an edge' '-o cluster_size=512,refcount_bits=64' 1M \
	'write -z 32k 512' 'write 0 29696' 'write 32768 512' \
	'write 33280 512' 'write 64k 512'

echo "$equal images equal"
