#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VDI: check finds in a damaged map what qemu-img finds; -r all leaves an image
# in which qemu-img finds nothing, with the data that was there; the count is
# made true when an image is opened for writing.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3
IMGCTL_QEMU_COMPAT=7.2
export IMGCTL_QEMU_COMPAT

# Blocks 0, 1, 2 and 8 of the disk are the blocks 0 to 3 of the file.
qemu-img create -q -f vdi a.vdi 10M
qemu-io -f vdi -c 'write -P 1 0 1M' -c 'write -P 2 1M 1M' \
	-c 'write -P 3 2M 1M' -c 'write -P 4 8M 1M' a.vdi >/dev/null

# damaged OFFSET BYTES(hex) [READ...]: then these patterns are there.
damaged() {
	cp a.vdi b.vdi
	poke b.vdi "$1" "$2"
	shift 2
	rc=0 rc2=0
	imgctl check b.vdi >ours 2>&1 || rc=$?
	qemu-img check b.vdi >theirs 2>&1 || rc2=$?
	cmp ours theirs >&2 || fail "other words"
	assert_eq $rc $rc2 "exit code"
	assert_rc 63 qemu-img check -r all b.vdi
	repaired "$@"
}

repaired() {
	assert_rc 0 imgctl check -r all b.vdi
	assert_rc 0 imgctl check b.vdi
	qemu-img check -q b.vdi
	for what; do
		qemu-io -f vdi -r -c "read -P $what" b.vdi >read
		assert_contains "$(cat read)" "1 MiB, 1 ops"
		if grep -q failed read; then
			fail "read -P $what"
		fi
	done
}

damaged 388 03000000 '1 0 1M' '4 8M 1M'
damaged 388 06000000 '1 0 1M' '4 8M 1M'
damaged 388 ffffffff '1 0 1M' '4 8M 1M'
damaged 512 01000000 '2 0 1M' '2 1M 1M' '3 2M 1M' '4 8M 1M'
damaged 512 010000000100000001000000 '2 0 1M' '2 1M 1M' '2 2M 1M' '4 8M 1M'
damaged 512 0a000000 '0 0 1M' '2 1M 1M' '3 2M 1M' '4 8M 1M'
damaged 512 ffffff7f '0 0 1M' '2 1M 1M' '3 2M 1M' '4 8M 1M'
damaged 512 feffffff '0 0 1M' '2 1M 1M' '3 2M 1M' '4 8M 1M'
damaged 516 ffffffff '1 0 1M' '0 1M 1M' '3 2M 1M' '4 8M 1M'

# qemu-img reads zeroes where the file has been cut off; to us that is damage.
cp a.vdi b.vdi
truncate -s 2098176 b.vdi
assert_rc 2 imgctl check b.vdi
assert_contains "$(cat err)" "block index 8 beyond the end of the file, is 3"
repaired '1 0 1M' '2 1M 1M' '0 2M 1M'

# A crash: blocks were counted whose entries never came to the disk.
cp a.vdi b.vdi
poke b.vdi 388 06000000
poke b.vdi 516 ffffffff
truncate -s +2M b.vdi
assert_rc 2 qemu-img check b.vdi
"$top_builddir/tests/imgio" -f vdi -c 'write -P 5 6M 1M' b.vdi >/dev/null
qemu-img check -q b.vdi
qemu-io -f vdi -r -c 'read -P 1 0 1M' -c 'read -P 0 1M 1M' \
	-c 'read -P 3 2M 1M' -c 'read -P 5 6M 1M' -c 'read -P 4 8M 1M' \
	b.vdi >read
assert_eq "$(grep -c failed read)" 0

# Half a million findings: in the order that QEMU prints them in, what is on
# stdout last, and in as many writes as a buffer needs.
qemu-img create -q -f vdi many.vdi 600G
python3 - <<'END'
with open('many.vdi', 'r+b') as f:
    f.seek(512)
    f.write(b'\xff\xff\xff\x7f' * 500000)
END
assert_rc 2 qemu-img check many.vdi
mv err theirs
assert_rc 2 imgctl check many.vdi
cmp err theirs
for program in qemu-img imgctl; do
	$program check many.vdi >$program.out 2>&1 || :
done
cmp qemu-img.out imgctl.out
if command -v strace >/dev/null; then
	strace -o trace -e trace=write imgctl check many.vdi >out 2>err || :
	n=$(wc -l <trace)
	[ "$n" -lt 2000 ] || fail "$n writes for half a million lines"
fi
