#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VMDK, VDI, VHD and VHDX with programs that are neither QEMU nor we: of each
# subformat 7-Zip, libvmdk and libvhdi read what we wrote, byte for byte; what
# xmount writes we read.  (What nobody writes: vmdk-others.py, *-parent.sh.)
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

# mounted_by PROGRAM FILE SHOWN
mounted_by() {
	fuse_works && have "$1" || return 0
	mkdir -p theirs
	"$1" "$2" theirs >/dev/null
	assert_same "theirs/$3" data
	umount theirs
}

# read_by_others FILE
read_by_others() {
	# 7-Zip wants markers in a stream, which QEMU's layout has not; libvmdk
	# knows no monolithicFlat.
	if [ "$1" != stream.vmdk ] && have 7z; then
		rm -rf out
		7z x -oout -y "$1" >said 2>&1 || {
			cat said >&2
			fail "7z does not read $1"
		}
		assert_same out/* data
	fi
	case $1 in
	*.vdi) return 0 ;;
	*.vmdk) info=vmdkinfo ;;
	*) info=vhdiinfo ;;
	esac
	if have $info; then
		$info "$1" >said || fail "$info does not take $1"
		assert_contains "$(cat said)" "(20971520 bytes)"
	fi
	case $1 in
	flat.vmdk) ;;
	*.vmdk) mounted_by vmdkmount "$1" vmdk1 ;;
	*) mounted_by vhdimount "$1" vhdi1 ;;
	esac
}

while read -r format name options; do
	imgctl convert -O "$format" -o "$options" data "$name"
	read_by_others "$name"
	if [ "$name" = stream.vmdk ]; then
		echo "$format $options: read by others"
		continue
	fi
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
vmdk i.vmdk subformat=monolithicSparse
vmdk j.vmdk subformat=monolithicSparse,zeroed_grain=on
vmdk flat.vmdk subformat=monolithicFlat
vmdk k.vmdk subformat=twoGbMaxExtentSparse
vmdk l.vmdk subformat=twoGbMaxExtentFlat
vmdk stream.vmdk subformat=streamOptimized
END

if fuse_works && have xmount; then
	mkdir -p theirs
	for out in vdi:vdi vhd:vpc vmdk:vmdk; do
		xmount --in raw data --out ${out%:*} theirs >/dev/null
		imgctl check -q -f ${out#*:} theirs/data.${out%:*}
		imgctl convert -f ${out#*:} -O raw theirs/data.${out%:*} back
		umount theirs
		assert_same back data
		echo "xmount's ${out%:*}: read"
	done
fi
[ -n "$asked" ] || skip "neither 7z nor libvmdk-utils nor libvhdi-utils nor xmount"
echo "asked:$asked"
