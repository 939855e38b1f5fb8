#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# bench: which requests it sends, when it flushes, and that it ends whatever
# fails (words and exit codes are compared by tests/diff-qemu-img).
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io strace

said() {
	assert_eq "$(sed -n '$s/[0-9]*\.[0-9]\{3\} seconds/N seconds/p' out)" \
		"Run completed in N seconds."
}

# What it writes and what not: the position goes round.
imgctl create -q -f qcow2 a.qcow2 4M
imgctl bench -f qcow2 -w -c 7 -d 3 -s 1000 -S 1500000 --pattern 0x41 a.qcow2 >out
said
python3 - <<'END'
want = bytearray(4 << 20)
at = 0
for i in range(7):
    want[at:at + 1000] = b'\x41' * 1000
    at = (at + 1500000) % len(want)
open('want', 'wb').write(want)
END
qemu-img convert -O raw a.qcow2 got
cmp got want
qemu-img check -q a.qcow2

# What does not fit before the end begins anew; qemu-img fails there.
truncate -s 10000 odd.raw
imgctl bench -f raw -w -c 5 -d 1 -s 4096 --pattern 1 odd.raw >out
said
assert_eq "$(tr -d '\000' <odd.raw | wc -c)" 8192

# 100 writes, a flush at 90, 60, 30 and 0 left, and none between.
truncate -s 4M a.raw
flushes() {
	strace -f -e trace=fdatasync,fsync,sync_file_range,pwrite64,pwritev \
		-o trace "$top_builddir/imgctl" bench -f raw -w -t writeback \
		-c 100 "$@" a.raw >out
	said
}
flushes -d 8 --flush-interval 30
grep -v resumed trace | sed -n 's/.*\(pwrite\|fdatasync\|fsync\).*/\1/p' |
	uniq -c | awk '{print $1, $2}' >got
assert_eq "$(grep pwrite got | tr '\n' ' ')" \
	"10 pwrite 30 pwrite 30 pwrite 30 pwrite "
flushes -d 8 --flush-interval 30 --no-drain
[ "$(grep -c 'fdatasync(\|fsync(' trace)" -ge 2 ] || fail "no flush between"

# More at a time than there are threads, none at all, an empty disk.
imgctl bench -f raw -c 3000 -d 100000 a.raw >out
said
imgctl bench -f raw -c 10 -s 0 a.raw >out
said
truncate -s 0 empty.raw
assert_rc 1 imgctl bench -f raw -c 10 empty.raw
assert_contains "$(cat err)" "Failed request: Input/output error"
assert_rc 1 imgctl bench -d 0 a.raw
assert_contains "$(cat err)" "Invalid queue depth specified"

# An image that somebody else writes, and a full disk: it ends.
(requires_root) >/dev/null || exit 0
mkdir small
mount -t tmpfs -o size=1m tmpfs small
imgctl create -q -f qcow2 small/a.qcow2 64M
assert_rc 1 imgctl bench -f qcow2 -w -c 100 -s 64k -d 16 --flush-interval 20 \
	small/a.qcow2
assert_contains "$(cat err)" "Failed request: No space left on device"
qemu-img check small/a.qcow2 >out || [ $? -eq 3 ] || fail "$(cat out)"
