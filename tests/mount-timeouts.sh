#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the kernel may remember (F6, F20, F23): attributes and pages of an image
# that we hold for as long as we do, of others for a second; pages also over a
# closing if nobody changed the file; names that are not there.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img qemu-io

mkdir src m
qemu-img create -q -f raw src/a.raw 4M
background imgfs -d -o idle=3 src m 2>log
wait_until 10 mountpoint -q m

# sends N..M KIND COMMAND...: it makes so many requests of that kind.
sends() {
	want=$1 kind=$2
	shift 2
	before=$(grep -c "opcode: $kind" log) || true
	"$@" >/dev/null 2>&1 || true
	after=$(grep -c "opcode: $kind" log) || true
	case $want in
	some) [ $((after - before)) -gt 0 ] || fail "no $kind: $*" ;;
	*) assert_eq $((after - before)) "$want" "$kind of $*" ;;
	esac
}
closed() {
	grep -q closed m/a.raw/status
}

ls m >/dev/null
sends 1 LOOKUP stat m/missing
sends 0 LOOKUP stat m/missing
exec 3<m/a.raw/disk
cat m/a.raw/disk >/dev/null
sends 0 READ cat m/a.raw/disk
# Of the folder, which may change, it is asked each second.
getattr="GETATTR (3), nodeid: $(stat -c %i m/a.raw/disk)"
sleep 1.2
stat m/a.raw/disk >/dev/null    # what was learned before it was locked is old
sleep 1.2
sends 0 "$getattr" stat m/a.raw/disk
exec 3<&-

# Closed, and opened again: the same pages, but for those that the kernel took
# back meanwhile (it may, of what nobody has open).
reads() {
	grep -c "opcode: READ" log || true
}
all=$(reads)
kept=
for _ in 1 2 3; do
	wait_until 10 closed
	before=$(reads)
	cat m/a.raw/disk >/dev/null
	[ $((2 * ($(reads) - before))) -ge "$all" ] || kept=yes
done
[ -n "$kept" ] || fail "all is read again after closing"
wait_until 10 closed
sleep 1.2
sends 1 "$getattr" stat m/a.raw/disk
qemu-io -f raw -c 'write -P 65 1M 4k' src/a.raw >/dev/null
sends some READ cat m/a.raw/disk
assert_eq "$(dd if=m/a.raw/disk bs=1M skip=1 count=1 status=none |
	head -c 1)" A
