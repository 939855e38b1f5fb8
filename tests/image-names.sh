#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Names found inside an image lead only below its folder under --safe, whatever
# form they have; FIFOs never hang anybody; without --safe they lead where
# qemu-img goes.

. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img

mkdir -p in/sub beside
truncate -s 1M in/base.raw x.raw beside/o.raw
mkfifo in/fifo
ln -s ../x.raw in/leads-out
ln -s /etc/passwd in/leads-to-etc
ln -s base.raw in/leads-in
cd in

# over NAME [FORMAT]: an image that names NAME as its backing file
over() {
	rm -f top.qcow2
	qemu-img create -q -f qcow2 top.qcow2 1M
	qemu-img rebase -u -b "$1" -F "${2:-raw}" top.qcow2
}

json() {
	printf 'json:{"driver":"raw","file":{"driver":"%s","filename":"%s"}}' \
		"$1" "$2"
}

refused() {
	over "$@"
	if timeout 10 "$IMGCTL" --safe map top.qcow2 >out 2>err; then
		fail "--safe follows $1"
	fi
	grep -q 'Could not open backing file: ' err || fail "$1: $(cat err)"
	grep -q "allow-path=DIR\|regular file" err || fail "$1: $(cat err)"
}

followed() {
	over "$@"
	"$IMGCTL" --safe map top.qcow2 >out || fail "--safe refuses $1"
	IMGCTL_SAFE=1 "$IMGCTL" map top.qcow2 >out
}

followed base.raw
followed "$PWD/base.raw"
followed leads-in
followed sub/../base.raw
followed "$(json file base.raw)"
followed file:base.raw

refused ../x.raw
refused ../beside/o.raw
refused /etc/passwd
refused "$PWD/../x.raw"
refused sub/../../x.raw
refused leads-out
refused leads-to-etc
refused fifo
refused /dev/null
refused file:/etc/passwd
refused file:../x.raw
refused "$(json file /etc/passwd)"
refused "$(json file ../x.raw)"
refused "$(json host_device /dev/null)"
refused "$(json file fifo)"
refused 'json:{"driver":"raw","file.file.filename":"../x.raw",
	"file.driver":"raw","file.file.driver":"file"}'

# Below the second image as well.
qemu-img create -q -f qcow2 other.qcow2 1M
qemu-img rebase -u -b ../x.raw -F raw other.qcow2
refused other.qcow2 qcow2
refused 'json:{"driver":"qcow2","file":{"driver":"file",
	"filename":"other.qcow2"}}' qcow2
# A node that brings its own backing file.
refused 'json:{"driver":"qcow2","file":{"filename":"other.qcow2"},
	"backing":{"driver":"raw","file":{"filename":"/etc/passwd"}}}' qcow2

# The rule is about names inside images, not about the user's.
over base.raw
mv top.qcow2 ../beside/top.qcow2
qemu-img rebase -u -b ../in/base.raw -F raw ../beside/top.qcow2
"$IMGCTL" map ../beside/top.qcow2 >out
"$IMGCTL" --safe map ../x.raw >out

# Without --safe: as qemu-img, but for FIFOs.
over ../x.raw
"$IMGCTL" map top.qcow2 >out
over fifo
assert_rc 1 timeout 10 "$IMGCTL" map top.qcow2
