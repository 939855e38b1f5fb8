#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# partitions/N is what the kernel calls partition N: numbers, starts and sizes
# are compared with those of a loop device, for GPT and MBR (logical ones too),
# for sectors of 512 and 4096 bytes, and the files' bytes with the disk's.
# A kernel that knows no partition tables is replaced by partx.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires_loop
requires fdisk mke2fs qemu-img

requires partx

# What the kernel sees: "number start size" in bytes; extended ones are tiny.
kernels() {
	loop_attach -r -P -b "$2" "$1"
	for p in /sys/block/"${loop#/dev/}"/"${loop#/dev/}"p*; do
		[ -e "$p/partition" ] || continue
		echo "$(cat "$p/partition") $(($(cat "$p/start") * 512))" \
			"$(($(cat "$p/size") * 512))"
	done | sort -n > kernel
	if [ -s kernel ]; then
		by=kernel
		awk -v s="$2" '$3 == s { $3 = 1024 } { print }' kernel
	else
		by=partx
		partx -g -o NR,START,SECTORS,TYPE "$loop" | awk '
			{ print $1, $2 * 512, $4 == "0x5" ? 1024 : $3 * 512 }'
	fi > want
	loop_detach "$loop"
}

# What the mount says.  The kernel makes the extended partition tiny.
ours() {
	python3 - "$1/partitions/table.json" <<-'END'
		import json, sys
		for p in json.load(open(sys.argv[1]))["partitions"]:
		    size = 1024 if p.get("extended") else p["size"]
		    print(p["number"], p["start"], size)
	END
}

check() {
	name=$1
	sector=$2
	kernels "$name.raw" "$sector"
	[ -s want ] || fail "neither the kernel nor partx sees partitions"
	qemu-img convert -f raw -O qcow2 "$name.raw" "$name.qcow2"
	mount_img "$name.qcow2" m
	ours m > got
	diff want got >&2 || fail "$name: partitions differ from the kernel's"
	while read -r number start size; do
		[ "$size" != 1024 ] || continue
		assert_eq "$(stat -c %s "m/partitions/$number")" "$size" size
		cmp -n "$size" -i "0:$start" "m/partitions/$number" \
			"$name.raw" || fail "$name: bytes of $number"
		cmp -n "$size" -i "0:$start" "m/partitions/$number" \
			m/disk || fail "$name: bytes of $number"
	done < want
	umount_img m
}

fill() {
	random_file filling 3000000 "$2"
	dd if=filling of="$1.raw" bs=1M seek=1 conv=notrunc status=none
	dd if=filling of="$1.raw" bs=1M seek=20 conv=notrunc status=none
}

# make NAME SECTOR COMMANDS: by fdisk; one unit of 1 MiB is $m sectors.
make() {
	truncate -s 64M "$1.raw"
	fill "$1" "$2"
	printf '%s\n' "$3" | tr ' ' '\n' | sed 's/^-$//' |
		fdisk -w always -b "$2" "$1.raw" >log 2>&1 ||
		{ cat log >&2; fail "fdisk"; }
}

for sector in 512 4096; do
	m=$((1048576 / sector))
	make gpt-$sector $sector "g n 1 $m $((3 * m - 1)) n 9 $((20 * m)) \
$((22 * m - 1)) n 3 $((30 * m)) $((30 * m)) w"
	check gpt-$sector $sector

	make mbr-$sector $sector "o n p 1 $m $((2 * m - 1)) n p 4 $((4 * m)) \
$((5 * m - 1)) n e 2 $((8 * m)) $((40 * m - 1)) n l $((9 * m)) \
$((10 * m - 1)) n l $((20 * m)) $((22 * m - 1)) w"
	check mbr-$sector $sector
done

# A table whose last partition hangs over the end of the disk.
if [ $by = kernel ]; then
	truncate -s 21M mbr-512.raw
	check mbr-512 512
fi

# A disk that holds a file system and no table has no partitions.
truncate -s 8M fs.raw
mke2fs -q fs.raw
mount_img fs.raw m
[ ! -e m/partitions ] || assert_eq "$(ls m/partitions | grep -v json)" "" fs
umount_img m
