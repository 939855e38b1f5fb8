#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# cloop: images made by create_compressed_fs are read as qemu-img reads them,
# through imgctl and through a mount; broken ones are refused or reported.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img create_compressed_fs python3

{ cat "$top_srcdir/ARCHITECTURE.md" /usr/bin/python3; } >data
head -c 300000 /dev/zero >>data
for size in 512 65536 1048576; do
	create_compressed_fs -q -B $size data "c$size" >log 2>&1
	imgctl convert -O raw "c$size" out
	qemu-img convert -O raw "c$size" out2
	assert_same out out2
	head -c "$(stat -c %s data)" out | cmp - data
	imgctl check -q "c$size"
done
assert_contains "$(imgctl info c512)" "file format: cloop"

if [ -c /dev/fuse ] && [ "$(id -u)" -eq 0 ]; then
	mount_img -o rw c65536 m
	head -c "$(stat -c %s data)" m/disk | cmp - data
	assert_eq "$(tail -c 100000 m/disk | sha256sum)" \
		"$(tail -c 100000 out2 | sha256sum)" "the end"
	assert_fails dd if=/dev/zero of=m/disk count=1 conv=notrunc status=none
	assert_contains "$(cat err)" "Read-only file system"
	umount_img m
fi

assert_fails imgctl convert -n -O cloop data c512
assert_contains "$(cat err)" "read-only"

hurt() { # OFFSET BYTES(hex) SENTENCE
	cp c65536 bad
	poke bad "$1" "$2"
	assert_fails imgctl info -f cloop bad
	assert_contains "$(cat err)" "$3"
	[ -n "${4:-}" ] && return
	if qemu-img info -f cloop bad >/dev/null 2>qerr; then
		fail "qemu-img takes it"
	fi
	assert_eq "$(sed 's/imgctl/qemu-img/' err)" "$(cat qerr)"
}
hurt 128 000003e8 "block_size 1000 must be a multiple of 512"
hurt 128 00000000 "block_size cannot be zero"
hurt 128 04000200 "block_size 67109376 must be 64 MB or less"
hurt 132 ffffffff "n_blocks 4294967295 must be 536870911 or less"
hurt 132 08000000 "image requires too many offsets"
hurt 136 7fffffffffffffff "offsets not monotonically increasing at index 1"
# Ours alone: the table must be there; older versions are named.
hurt 132 00ffffff "beyond the end of the file" ours
# They are known by what they say of themselves, so that nobody takes one for a
# disk; but not under the name qemu-img.
ln -s "$IMGCTL" qemu-img
mkdir old
for v in 0.68 1.0 1.3 3.0; do
	cp c65536 old/v$v
	printf '#!/bin/sh\n#V%s Format\ninsmod cloop.o file=$0\n' $v |
		dd of=old/v$v conv=notrunc status=none
	for how in "" "-f cloop"; do
		# shellcheck disable=SC2086
		assert_fails imgctl info $how old/v$v
		assert_contains "$(cat err)" "version $v are not supported"
	done
	assert_contains "$(./qemu-img info old/v$v)" "file format: raw"
done
rm qemu-img
if [ -c /dev/fuse ] && [ "$(id -u)" -eq 0 ]; then
	mount_img old m
	assert_eq "$(echo m/*)" "m/v0.68 m/v1.0 m/v1.3 m/v3.0" "listed"
	assert_contains "$(cat m/v0.68/status)" "version 0.68 are not supported"
	! cat m/v0.68/disk >/dev/null 2>&1 || fail "it is read"
	umount_img m
fi
# A script, and a disk that begins as one, are none.
printf '#!/bin/sh\n#V1.0 Format\nexit 0\n' >script
truncate -s 4096 script
assert_contains "$(imgctl info script)" "file format: raw"

# A block that does not decode: an error where it is read, told by check.
cp c65536 bad
python3 - <<'END'
import struct
with open('bad', 'r+b') as f:
    f.seek(136 + 8 * 3)
    at = struct.unpack('>Q', f.read(8))[0]
    f.seek(at + 20)
    f.write(b'\xff' * 200)
END
rc=0
imgctl check bad >out 2>err || rc=$?
assert_eq $rc 2 "exit code"
assert_contains "$(cat err)" "block 3 cannot be decoded"
assert_fails imgctl convert -O raw bad out
assert_fails qemu-img convert -O raw bad out
