#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# imgctl create: the same files and words as qemu-img's, but an existing target
# is not touched before everything was checked, and never removed.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img python3

# Both programs, the same words, twin folders: stdout, stderr, code, files.
case $(qemu-img --version) in
*"version 7.2"*) layout=7.2 ;;
*) layout=10.0 ;;
esac
mkdir ours theirs bin
ln -s "$IMGCTL" bin/qemu-img
twin() {
	for who in ours theirs; do
		path=/usr/bin:/bin
		[ $who = theirs ] || path=$tmp/bin:$path
		(cd $who && PATH=$path IMGCTL_QEMU_COMPAT=$layout qemu-img "$@" \
			>"$tmp/$who.out" 2>"$tmp/$who.err"
		 echo "exit $?" >> "$tmp/$who.out") || :
	done
	diff -u theirs.out ours.out >&2 || fail "stdout differs: $*"
	diff -u theirs.err ours.err >&2 || fail "stderr differs: $*"
	diff -r ours theirs >&2 || fail "files differ: $*"
}
[ -x /usr/bin/qemu-img ] || skip "no /usr/bin/qemu-img"

twin create -f raw a.raw 4M
twin create a2.raw 1000
twin create -q -f raw q.raw 1M
twin create -f qcow2 a.qcow2 4M
twin create -f qcow2 -o cluster_size=4k,refcount_bits=8 -o lazy_refcounts=on \
	b.qcow2 1G
twin create -f qcow2 -b a.raw -F raw top.qcow2
twin create -f qcow2 -b a.qcow2 -F qcow2 top2.qcow2 8M
twin create -f qcow2 -o backing_file=a.raw -o backing_fmt=raw top3.qcow2
twin create -u -f qcow2 -b gone -F raw u.qcow2 1M
twin create -f qcow2 -o preallocation=metadata p.qcow2 3M
twin create -f raw -o preallocation=full,nocow=on f.raw 1M
twin create -f raw file:c.raw 1M
twin create -f qcow2 -o help
twin create -f raw -o help x
twin create -f raw -o help
for bad in \
	"create" "create -f qcow2" "create -f qcow2 x" "create -f qcow2 x 1M 2M" \
	"create -f qcow2 x abc" "create -f qcow2 x 8E" "create -f bogus x 1M" \
	"create -f raw foo:bar 1M" "create -f raw json:{} 1M" \
	"create -f raw -o size=1M x 1M" "create -f raw -o foo=1 x 1M" \
	"create -f raw -o , x 1M" "create -f raw -o size=1M, x" \
	"create -f raw -o size=abc x" "create -f raw -b a.raw -F raw x" \
	"create -f raw -F raw x 1M" "create -f qcow2 -b a.raw x" \
	"create -f qcow2 -u -b a.raw x" "create -f qcow2 -u -b a.raw -F raw x" \
	"create -f qcow2 -b nosuch -F raw x" "create -f qcow2 -b nosuch x 1M" \
	"create -f qcow2 -b a.raw -F qcow2 x" "create -f qcow2 -b x -F qcow2 x 1M" \
	"create -f qcow2 -F raw x 1M" "create -f qcow2 nodir/x 1M" \
	"create -f raw nodir/x 1M" "create -f qcow2 -o cluster_size=3k x 1M" \
	"create -f raw x -1" "create -z" "create --object secret x" \
	"create -f raw -o preallocation=bogus x 1M"; do
	# shellcheck disable=SC2086
	twin $bad
	[ ! -e ours/x ] || fail "a file is left behind: $bad"
done
twin create -f qcow2 -b "" -F raw x 1M

# What the format refuses leaves an existing target as it is (qemu-img 7.2
# deletes or empties it).
echo precious > keep
for opts in "-f qcow2 -o cluster_size=3k keep 1M" \
	"-f qcow2 -o compat=0.10,lazy_refcounts=on keep 1M" \
	"-f qcow2 -F raw keep 1M" "-f raw -o preallocation=metadata keep 1M" \
	"-f qcow2 keep 100P"; do
	# shellcheck disable=SC2086
	assert_fails "$IMGCTL" create $opts
	assert_eq "$(cat keep 2>&1)" precious "create $opts"
done

# The backing file under another name of it.
qemu-img create -q -f raw base.raw 1M
sum=$(sha256sum < base.raw)
ln base.raw link.raw
assert_fails "$IMGCTL" create -f qcow2 -b ./base.raw -F raw base.raw
assert_contains "$(cat err)" "same filename as the backing file"
assert_fails "$IMGCTL" create -f qcow2 -b base.raw -F raw link.raw
assert_eq "$(sha256sum < base.raw)" "$sum" "the backing file"

# A locked target is neither emptied nor removed; with 101 held raw refuses as
# well (qemu-img empties a disk that its guest writes to).
cat > hold.py <<'PY'
import fcntl, os, struct, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
for byte in sys.argv[2:]:
    fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, int(byte), 1, 0))
open("held", "w").close()
time.sleep(60)
PY
for byte in 101 103 201 203; do
	cp base.raw locked
	rm -f held
	background python3 hold.py locked $byte
	wait_until 10 test -e held
	for fmt in raw qcow2; do
		# Raw shares 201 of nobody who writes, and 103 neither.
		assert_fails "$IMGCTL" create -f $fmt locked 2M
		assert_contains "$(cat err)" "Is another process using the image [locked]?"
		assert_eq "$(sha256sum < locked)" "$sum" "byte $byte, $fmt"
	done
	end_process "$pid"
done

# Interrupted: what it created goes, what was there stays.
mkfifo gate
interrupted() {
	rm -f held
	IMGFS_PAUSE=create-write:gate "$IMGCTL" create -q -f qcow2 "$1" 1M &
	pid=$!
	started="$started $pid"
	wait_until 10 test -e "$1"
	sleep 0.3
	kill "-$2" $pid
	rc=0
	wait $pid || rc=$?
	[ $rc -gt 128 ] || fail "exit code $rc after SIG$2"
}
interrupted new.qcow2 TERM
[ ! -e new.qcow2 ] || fail "an interrupted create left its file"
echo old > old.qcow2
interrupted old.qcow2 HUP
[ -e old.qcow2 ] || fail "an interrupted create removed what it found"

# FIFOs and the like do not hang it.
mkfifo pipe
assert_rc 1 timeout 10 "$IMGCTL" create -f raw pipe 1M
[ -p pipe ] || fail "the FIFO is gone"
assert_rc 1 "$IMGCTL" create -f qcow2 . 1M
