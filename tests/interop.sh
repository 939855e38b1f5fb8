#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VDI, VHD and VHDX with programs that are neither QEMU nor we: of each subformat
# 7-Zip and libvhdi read what we wrote, byte for byte; what xmount writes we read.
# Says which of them were there; without any it is skipped.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires python3
asked=

have() {
	command -v "$1" >/dev/null || return 1
	case $asked in
	*" $1"*) ;;
	*) asked="$asked $1" ;;
	esac
}

fuse_works() {
	[ "$(id -u)" -eq 0 ] && [ -c /dev/fuse ]
}

python3 - <<'END'
import hashlib
with open("data", "wb") as f:
    for i in range(0, 5 << 20, 32):
        f.write(hashlib.sha256(b"%d" % i).digest())
    f.seek(11 << 20)
    f.write(b"x" * 5000)
    f.truncate(20 << 20)
END

# read_by_others FILE
read_by_others() {
	if have 7z; then
		rm -rf out
		7z x -oout -y "$1" >said 2>&1 || {
			cat said >&2
			fail "7z does not read $1"
		}
		assert_same out/* data
	fi
	case $1 in
	*.vdi) return 0 ;;
	esac
	if have vhdiinfo; then
		vhdiinfo "$1" >said || fail "vhdiinfo does not take $1"
		assert_contains "$(cat said)" "(20971520 bytes)"
	fi
	if fuse_works && have vhdimount; then
		mkdir -p theirs
		vhdimount "$1" theirs >/dev/null
		assert_same theirs/vhdi1 data
		umount theirs
	fi
}

while read -r format name options; do
	imgctl convert -O "$format" -o "$options" data "$name"
	read_by_others "$name"
	# ... and what was changed in place.
	"$top_builddir/tests/imgio" -f "$format" -c 'write -P 7 13M 70k' \
		-c 'write -P 8 1000 5000' "$name" >/dev/null
	cp data before
	python3 -c '
with open("data", "r+b") as f:
    f.seek(13 << 20)
    f.write(b"\7" * 70 * 1024)
    f.seek(1000)
    f.write(b"\10" * 5000)'
	read_by_others "$name"
	mv before data
	echo "$format $options: read by others"
done <<END
vdi a.vdi static=off
vdi b.vdi static=on
vpc c.vhd subformat=dynamic,force_size=on
vpc d.vhd subformat=fixed,force_size=on
vhdx e.vhdx subformat=dynamic
vhdx f.vhdx subformat=dynamic,block_size=1M,block_state_zero=off
vhdx g.vhdx subformat=fixed,block_size=1M,block_state_zero=off
vhdx h.vhdx subformat=fixed,block_size=1M
END

if fuse_works && have xmount; then
	mkdir -p theirs
	for out in vdi:vdi vhd:vpc; do
		xmount --in raw data --out ${out%:*} theirs >/dev/null
		imgctl check -q -f ${out#*:} theirs/data.${out%:*}
		imgctl convert -f ${out#*:} -O raw theirs/data.${out%:*} back
		umount theirs
		assert_same back data
		echo "xmount's ${out%:*}: read"
	done
fi
[ -n "$asked" ] || skip "neither 7z nor libvhdi-utils nor xmount"
echo "asked:$asked"
