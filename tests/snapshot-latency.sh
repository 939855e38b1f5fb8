#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 900
# make check-snapshot-latency: fio writes at random to a mounted disk of 1 TiB
# with 4 M allocated clusters while snapshots are made and deleted.  Prints the
# longest latency of a write, and of one without snapshots.  SECONDS_EACH (20),
# GOAL_MS (none): fails above it.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires fio python3 qemu-img

seconds=${SECONDS_EACH:-20}
imgctl create -q -f qcow2 -o preallocation=metadata a.qcow2 256G
imgctl resize -q a.qcow2 1T
mount_img -o rw a.qcow2 m

# write_for NAME: the longest latency of a write, in ms, into NAME.
write_for() {
	fio --name="$1" --filename=m/disk --rw=randwrite --bs=4k --ioengine=psync \
		--thread --numjobs=4 --time_based --runtime="$seconds" \
		--size=256G --norandommap --group_reporting \
		--output-format=json --output="$1.json" > /dev/null
	python3 - "$1.json" > "$1" <<-'END'
		import json, sys
		w = json.load(open(sys.argv[1]))["jobs"][0]["write"]
		ns = w["clat_ns"]
		print("%.1f %.1f %d" % (ns["max"] / 1e6,
		      ns["percentile"]["99.900000"] / 1e6, w["iops"]))
	END
}

# How long nobody could write is what is asked for: the image's own time, so the
# disk below is left out by a second run without snapshots.
write_for without
write_for with &
writer=$!
n=0
while kill -0 $writer 2>/dev/null; do
	n=$((n + 1))
	mkdir "m/snapshots/s$n"
	cat "m/snapshots/s$n/info.json" > info
	[ $n -le 2 ] || rmdir "m/snapshots/s$((n - 2))"
	sleep 1
done
wait $writer
umount_img m
qemu-img check -q a.qcow2 || fail "the image is not sound"
echo "without snapshots: longest write, 99.9 %, writes/s: $(cat without)"
echo "with $n snapshots: longest write, 99.9 %, writes/s: $(cat with)"
[ -z "${GOAL_MS:-}" ] ||
	awk -v goal="$GOAL_MS" '$1 > goal { exit 1 }' with || fail "too long"
