#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 600
# Power failures: nothing that was synced is lost, qemu-img finds nothing but
# leaks; and with any one of the engine's mechanisms missing the judge notices.
# CRASHES=44 (make check-judge) is the whole of it, the default a slice.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-nbd

: "${CRASHES:=6}"
judge=$top_builddir/tests/judge/judge
total=0

crashes() {
	"$judge" --dir "$tmp" --seeds "1-$CRASHES" "$@" 2>verdict || {
		cat verdict >&2
		fail "judge $*"
	}
	total=$((total + CRASHES))
}

for cluster in 512 1024 4096 65536 2097152; do
	crashes --cluster $cluster
done
crashes --cluster 65536 --snapshot --packed
crashes --cluster 4096 --snapshot --packed
crashes --cluster 512 --create refcount_bits=1
crashes --cluster 4096 --create compat=0.10 --packed
crashes --cluster 1024 --create refcount_bits=64,lazy_refcounts=on
crashes --cluster 16384 --create extended_l2=on
crashes --cluster 65536 --create extended_l2=on --snapshot --packed
crashes --cluster 131072 --create extended_l2=on --at-sync
crashes --cluster 65536 --data plain
crashes --cluster 65536 --lost-write
crashes --cluster 65536 --bitmap
crashes --cluster 4096 --bitmap
crashes --cluster 512 --bitmap
# Snapshots made and deleted, sizes and bitmaps changed meanwhile.
crashes --cluster 65536 --admin --snapshot --packed
crashes --cluster 65536 --admin --create extended_l2=on --bitmap
crashes --cluster 4096 --admin --bitmap
crashes --cluster 1024 --admin --create refcount_bits=64,lazy_refcounts=on
crashes --cluster 512 --admin --at-sync
crashes --format qcow --cluster 4096
crashes --format qed --cluster 65536
crashes --format qed --create cluster_size=4k,table_size=2 --cluster 4096
crashes --format parallels --create cluster_size=64k --cluster 65536
crashes --format parallels --create cluster_size=1000 --cluster 1024
crashes --format vmdk
crashes --format vmdk --create zeroed_grain=on
crashes --cluster 65536 --data raw
crashes --cluster 4096 --data raw
crashes --cluster 65536 --create extended_l2=on --data raw
echo "$total crashes, 0 failures"

# caught SWITCH OPTION...: one of 100 seeds fails without it.
caught() {
	"$judge" --dir "$tmp" --seeds 1-100 --cluster 65536 --off "$@" \
		--outcomes 6 --expect-failure 2>verdict ||
		fail "nobody misses: $*"
}

caught stages
caught claims
caught quarantine
caught gate
caught sticky --lost-write
caught bitmap-mark --bitmap
caught stages --admin --snapshot
# Of formats that order little beside each other a rare seed fails: the long run.
if [ "$CRASHES" -gt 6 ]; then
	crashes --format vmdk --size 20971520 --seeds 1-100
	crashes --format vmdk --create zeroed_grain=on --ops 60 --seeds 1-60
	for format in qed qcow; do
		crashes --format $format --cluster 65536
		crashes --format $format --cluster 4096 --size 20971520
		caught stages --format $format
	done
	# qcow has no counts and gives nothing back: without claims it loses
	# nothing that a power failure would show.
	caught claims --format qed
	caught stages --format parallels --create cluster_size=1000 \
		--cluster 1024
	caught claims --format parallels --create cluster_size=64k
fi
# What formats that order little beside each other rely on: test-format-power.
