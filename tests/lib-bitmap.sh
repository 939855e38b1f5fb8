# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
# lib-bitmap.sh - what is in a persistent bitmap, as QEMU reads it.

# qemu_dirty IMAGE BITMAP: "START+LENGTH ..." of its dirty ranges, over NBD.
qemu_dirty() {
	qemu-nbd --fork --pid-file="$tmp/nbd.pid" -r -f qcow2 -B "$2" \
		-k "$tmp/nbd.sock" -t "$1"
	qemu-img map --output=json --image-opts \
"driver=nbd,server.type=unix,server.path=$tmp/nbd.sock,\
x-dirty-bitmap=qemu:dirty-bitmap:$2" > "$tmp/nbd.map"
	nbd=$(cat "$tmp/nbd.pid")
	kill "$nbd"
	wait_until 10 gone "$nbd"
	python3 -c 'import json, sys
print(" ".join("%d+%d" % (r["start"], r["length"])
               for r in json.load(open(sys.argv[1])) if not r["data"]))' \
		"$tmp/nbd.map"
}

# state IMAGE BITMAP: its flags and granularity, as QEMU has them.
state() {
	qemu-img info -U --output=json "$1" | python3 -c 'import json, sys
for b in json.load(sys.stdin)["format-specific"]["data"].get("bitmaps", []):
    if b["name"] == sys.argv[1]:
        print(",".join(b["flags"]) + ":" + str(b["granularity"]))' "$2"
}
