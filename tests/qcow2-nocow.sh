#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# -o nocow=on: on btrfs the image and its data file are not copied on write,
# like those that qemu-img makes; elsewhere it is ignored.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_root
requires qemu-img mkfs.btrfs lsattr

truncate -s 200M disk
mkfs.btrfs -q disk >/dev/null 2>&1
mkdir mnt
mount -o loop disk mnt || skip "no btrfs here"
made() {
	(
		cd mnt
		"$1" create -q -f qcow2 -o nocow=on a.qcow2 10M
		"$1" create -q -f raw -o nocow=on a.raw 10M
		"$1" create -q -f qcow2 -o nocow=on,data_file=d.raw b.qcow2 10M
		"$1" create -q -f qcow2 c.qcow2 10M
		lsattr ./*
		rm ./*
	)
}
made qemu-img >theirs
made "$IMGCTL" >ours
cmp theirs ours || fail "$(cat ours)"
[ "$(grep -c C------ ours)" = 4 ] || fail "$(cat ours)"
"$IMGCTL" create -q -f qcow2 -o nocow=on a.qcow2 10M
