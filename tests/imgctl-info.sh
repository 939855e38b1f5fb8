#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# imgctl info and map: 7.2's layout equals qemu-img's output, 10.0's is what is
# written down here.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io

mkdir sub
qemu-img create -q -f raw a.raw 4M
qemu-io -f raw -c 'write -P 1 0 2M' a.raw > out
qemu-img create -q -f qcow2 -b ../a.raw -F raw sub/mid.qcow2
qemu-io -f qcow2 -c 'write -P 2 1M 64k' -c 'write -z 3M 64k' sub/mid.qcow2 > out
qemu-img create -q -f qcow2 -b sub/mid.qcow2 -F qcow2 top.qcow2 8M
qemu-io -f qcow2 -c 'write -P 3 5M 192k' top.qcow2 > out
qemu-img convert -c -O qcow2 a.raw c.qcow2
qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 1M
qemu-img create -q -f qcow2 snap.qcow2 1M
qemu-img snapshot -c s1 snap.qcow2
qemu-img snapshot -c "two words" snap.qcow2
qemu-img create -q -f qcow2 e.qcow2 0
: > empty
qemu-img create -q -u -f qcow2 -b loop.qcow2 -F qcow2 loop.qcow2 1M 2>/dev/null ||
	qemu-img create -q -f qcow2 loop.qcow2 1M
qemu-img rebase -u -b loop.qcow2 -F qcow2 loop.qcow2
qemu-img create -q -u -f qcow2 -b gone.raw -F raw broken.qcow2 1M

mkdir bin
ln -s "$IMGCTL" bin/qemu-img
[ -x /usr/bin/qemu-img ] || skip "no /usr/bin/qemu-img"
both() {
	IMGCTL_QEMU_COMPAT=7.2 bin/qemu-img "$@" >ours.out 2>ours.err &&
		rc=0 || rc=$?
	/usr/bin/qemu-img "$@" >theirs.out 2>theirs.err && want=0 || want=$?
	diff -u theirs.out ours.out >&2 || fail "stdout differs: $*"
	diff -u theirs.err ours.err >&2 || fail "stderr differs: $*"
	assert_eq $rc $want "exit code of $*"
}

for img in a.raw sub/mid.qcow2 top.qcow2 c.qcow2 v2.qcow2 snap.qcow2 e.qcow2 \
	empty loop.qcow2 broken.qcow2 nosuch . file:a.raw foo:bar; do
	for opts in "" "--output=json" "--backing-chain" \
		"--backing-chain --output=json" "-U" "-f qcow2" "-f raw" \
		"-f bogus"; do
		# shellcheck disable=SC2086
		both info $opts $img
	done
	[ $img != loop.qcow2 ] || continue
	for opts in "" "--output=json" "--start-offset=1000" \
		"--output=json --start-offset=1000 --max-length=3M" \
		"-s 3M -l 100 --output=json" "--max-length=0" \
		"--start-offset=99M --output=json" "-U" "-f raw"; do
		# shellcheck disable=SC2086
		both map $opts $img
	done
done
both info
both info a.raw top.qcow2
both info --output=xml a.raw
both info -p a.raw
both info --image-opts driver=qcow2,file.filename=top.qcow2
both info --image-opts driver=raw,offset=1M,size=1M,file.filename=a.raw
both info --image-opts -f raw a.raw
both map
both map --start-offset=abc a.raw
both map --max-length=8E a.raw
both map --output=xml a.raw
both check
both check --output=xml v2.qcow2
both check -T bogus v2.qcow2
for img in a.raw top.qcow2 c.qcow2 v2.qcow2 snap.qcow2 e.qcow2 broken.qcow2; do
	both check $img
	both check --output=json $img
	both check -q $img
done

# ---- 10.0 ----
mkdir ten
cd ten
qemu-img create -q -f qcow2 x.qcow2 1M
truncate -s 197120 x.qcow2
used=$(du -B1 x.qcow2 | cut -f1)
"$IMGCTL" info x.qcow2 | sed 's/^\( *\)disk size: .*/\1disk size: N/' > got
cat > want <<'TEXT'
image: x.qcow2
file format: qcow2
virtual size: 1 MiB (1048576 bytes)
disk size: N
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: x.qcow2
    protocol type: file
    file length: 192 KiB (197120 bytes)
    disk size: N
TEXT
diff -u want got >&2 || fail "info in 10.0's layout"
"$IMGCTL" info --output=json x.qcow2 > got
cat > want <<TEXT
{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 197120,
                "filename": "x.qcow2",
                "format": "file",
                "actual-size": $used,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "virtual-size": 1048576,
    "filename": "x.qcow2",
    "cluster-size": 65536,
    "format": "qcow2",
    "actual-size": $used,
    "format-specific": {
        "type": "qcow2",
        "data": {
            "compat": "1.1",
            "compression-type": "zlib",
            "lazy-refcounts": false,
            "refcount-bits": 16,
            "corrupt": false,
            "extended-l2": false
        }
    },
    "dirty-flag": false
}
TEXT
diff -u want got >&2 || fail "info --output=json in 10.0's layout"
"$IMGCTL" map --output=json x.qcow2 > got
echo '[{ "start": 0, "length": 1048576, "depth": 0, "present": false,' \
	'"zero": true, "data": false, "compressed": false}]' > want
diff -u want got >&2 || fail "map --output=json in 10.0's layout"
"$IMGCTL" map --output=json ../c.qcow2 > got
assert_contains "$(cat got)" '"data": true, "compressed": true}'
assert_rc 1 "$IMGCTL" check --output=xml x.qcow2
assert_contains "$(cat "$tmp/err")" \
	"imgctl: --output expects 'human' or 'json' not 'xml'
Try 'imgctl check --help' for more info"
"$IMGCTL" info -b ../top.qcow2 > got
assert_eq "$(grep -c '^image:' got)" 3 "images of the chain"
