#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# imgfs goes to the background only once the mount answers: what fails before
# is a sentence on stderr and exit code 1, with no mount and no process left.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-io

imgctl create -q -f qcow2 a.qcow2 8M
mkdir m

refused() {
	sentence=$1
	shift
	assert_rc 1 "$IMGFS" "$@"
	assert_eq "$(cat out)" "" "stdout of imgfs $*"
	assert_contains "$(cat err)" "$sentence" "imgfs $*"
	assert_eq "$(mounts_here)" "" "mounts after imgfs $*"
	assert_eq "$(daemons_here)" "" "daemons after imgfs $*"
}

refused "imgfs: Expecting a mount point behind 'a.qcow2'" a.qcow2
refused "imgfs: Invalid parameter 'foo'" -o foo a.qcow2 m
refused "Try 'imgfs --help'" -o idle=x a.qcow2 m
refused "nowhere" a.qcow2 nowhere
refused "is not a folder" a.qcow2 a.qcow2
refused "missing.qcow2" missing.qcow2 m
refused "missing.qcow2" -f missing.qcow2 m
refused "bogus" -o format=bogus a.qcow2 m
refused "log" -o log=nowhere/log a.qcow2 m

# The mount may not read itself.
cp a.qcow2 m/inside.qcow2
refused "below the mount point" m/inside.qcow2 m
refused "below the mount point" m m
rm m/inside.qcow2

# What cannot be opened: broken, or locked by somebody else.
cp a.qcow2 broken.qcow2
printf '\377\377\377\377' |
	dd of=broken.qcow2 bs=1 seek=20 conv=notrunc status=none
refused "broken.qcow2" broken.qcow2 m
mkfifo hold
qemu-io a.qcow2 <hold >held 2>&1 &
started="$started $!"
exec 6>hold
echo "read 0 512" >&6
wait_until 10 grep -q "read 512" held
refused "Is another process using the image" a.qcow2 m
exec 6>&-
wait

# All is well: exit code 0, and the mount answers at once.  Nobody is kept
# waiting by what the daemon inherited.
assert_rc 0 sh -c '"$IMGFS" a.qcow2 m | cat'
[ -f m/disk ] || fail "no disk"
assert_eq "$(wc -c < m/disk)" 8388608 "size"
umount_img m

# A relative source is found again after idle closing.
mount_img -o idle=0 a.qcow2 m
cmp -n 4096 m/disk /dev/zero
sleep 1
cmp -n 4096 m/disk /dev/zero
umount_img m

# In the foreground: it ends with the mount.
"$IMGFS" -f a.qcow2 m 2>messages &
started="$started $!"
wait_until 10 test -f m/disk || fail "-f does not mount"
umount_img m
wait $! || fail "exit code $? of -f"
assert_eq "$(cat messages)" "" "messages"

assert_rc 0 "$IMGFS" --help
assert_contains "$(cat out)" "allow_other"
assert_rc 0 "$IMGFS" -V
assert_contains "$(cat out)" "libfuse"
