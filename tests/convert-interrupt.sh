#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# An interrupted convert removes a target that it has made, and only that; one
# that failed leaves it.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

random_file src.raw 6291456

# A shell starts what runs in the background with SIGINT ignored.
with_signals() {
	paused convert-store python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
}

# ended SIGNAL: the paused program dies of it.
ended() {
	case $1 in
	HUP) want=129 ;;
	INT) want=130 ;;
	TERM) want=143 ;;
	esac
	kill -"$1" "$pid"
	rc=0
	wait "$pid" || rc=$?
	exec 7>&-
	assert_eq $rc $want "exit code after SIG$1"
}

# interrupt SIGNAL [options]: while the first bytes are about to be stored.
interrupt() {
	sig=$1
	shift
	with_signals imgctl convert "$@"
	[ -e out ] || fail "no target yet: $*"
	ended "$sig"
}

for sig in INT TERM HUP; do
	for fmt in raw qcow2; do
		interrupt $sig -O $fmt src.raw out
		[ ! -e out ] || fail "$fmt target left after $sig"
	done
done

# What was there before stays, written over or not.
echo old > out
interrupt TERM -O raw src.raw out
[ -e out ] || fail "a target that was there was removed"
truncate -s 8M out
interrupt TERM -n -O raw src.raw out
[ -e out ] || fail "the target of -n was removed"

# Another file under the name of ours stays.
rm out
with_signals imgctl convert -O raw src.raw out
mv out moved
echo other > out
ended TERM
assert_eq "$(cat out)" other "somebody else's file"

# Complete, or failed: it stays.
rm out
imgctl convert -O raw src.raw out
assert_same src.raw out
rm out
qemu-img convert -c -O qcow2 src.raw bad.qcow2
head -c 65536 /dev/zero | tr '\0' '\377' |
	dd of=bad.qcow2 bs=65536 seek=5 conv=notrunc status=none
assert_rc 1 imgctl convert -O raw bad.qcow2 out
assert_eq "$(cat err)" \
	"imgctl: error while reading at byte 0: Input/output error"
[ -e out ] || fail "a failed convert removed its target"

# Layers of a chain are read in one go, and yet the message names the cluster
# that cannot be read; what lies before it is there.
head -c 262144 /dev/zero | tr '\0' x > plain.raw
qemu-img convert -c -O qcow2 plain.raw base.qcow2
python3 - << 'END'
import struct
with open("base.qcow2", "r+b") as f:
    f.seek(40)
    f.seek(struct.unpack(">Q", f.read(8))[0])
    f.seek((struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00) + 8)
    f.seek(struct.unpack(">Q", f.read(8))[0] & (1 << 54) - 1)
    f.write(b"\xff" * 20)
END
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
qemu-io -c "write -P 1 0 64k" -c "write -P 2 128k 64k" top.qcow2 > /dev/null
assert_rc 1 imgctl convert -m 1 -O raw top.qcow2 ours
assert_eq "$(cat err)" \
	"imgctl: error while reading at byte 65536: Input/output error"
assert_rc 1 qemu-img convert -m 1 -O raw top.qcow2 theirs
assert_contains "$(cat err)" "error while reading at byte 65536"
head -c 65536 /dev/zero | tr '\0' '\001' | cmp -n 65536 - ours
