#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 600
# Power failures, format by format: nothing that was synced is lost, our driver
# and qemu-img read the same disk, and check finds nothing but what the format
# allows after a crash (see judge.c).  One line of verdict for each format.
#
#	judge-formats.sh [FORMAT...]
#
# CRASHES=50 (make check-judge-formats) makes it 200 and more for each; the
# default is a slice.  test-format-power shows that each mechanism is missed.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img
: "${CRASHES:=2}"
chosen=" ${*:-vdi vpc vhdx vmdk split flat cowd vmfs qcow qed parallels} "
judge=$top_builddir/tests/judge/judge
vmdk="$top_srcdir/tests/judge/make-vmdk.py"
# The headers, the log and the table of a VHDX.
torn=0x10000-0x300000

# judged_as NAME OPTIONS...: counts.
judged_as() {
	name=$1
	shift
	case $chosen in
	*" $name "*) ;;
	*) return 0 ;;
	esac
	"$judge" --dir "$tmp" --seeds "1-$CRASHES" --name "$name" "$@" \
		>>lines 2>verdict </dev/null || {
		cat verdict >&2
		fail "judge --name $name $*"
	}
}

judged() {
	judged_as "$1" --format "$@"
}

judged vdi --cluster 1048576
judged vdi --cluster 1048576 --at-sync --ops 60
judged vdi --cluster 1048576 --create static=on
judged vdi --cluster 1048576 --threads 1
judged vpc --cluster 2097152 --size 31457280
judged vpc --cluster 2097152 --size 31457280 --at-sync --ops 60
judged vpc --cluster 2097152 --size 31457280 --create force_size=on
judged vpc --cluster 2097152 --size 31457280 --threads 1
judged vhdx --cluster 1048576 --create block_size=1M
judged vhdx --cluster 1048576 --create block_size=1M --at-sync --ops 60
judged vhdx --cluster 1048576 --create block_size=1M,block_state_zero=off
judged vhdx --cluster 1048576 --threads 1 --create block_size=1M,subformat=fixed
judged vhdx --cluster 1048576 --create block_size=1M --torn $torn
judged vhdx --cluster 1048576 --create block_size=1M --torn $torn --twice \
	--ops 60
judged vdi --cluster 1048576 --twice --ops 60
judged vpc --cluster 2097152 --size 31457280 --twice --ops 60
judged vmdk --twice --ops 60
judged qcow --cluster 4096 --twice --ops 60
judged qed --twice --ops 60
judged parallels --create cluster_size=64k --twice --ops 60
# VMDK of several files, each on a disk of its own.
while read -r kind cluster files; do
	for how in "" "--at-sync --ops 60" "--threads 1" "--twice --ops 60"; do
		# shellcheck disable=SC2086
		judged_as "$kind" --format vmdk --size 8388608 \
			--cluster "$cluster" --make "python3 '$vmdk' $kind" \
			$files $how
	done
done <<END
split 65536 --file e1.vmdk --file e2.vmdk --file e3.vmdk
cowd 8192 --file e1.vmdk
flat 65536 --file e1.vmdk --file e2.vmdk --file e3.vmdk
vmfs 65536 --file e1.vmdk
END
judged vmdk
judged vmdk --at-sync --ops 60
judged vmdk --create zeroed_grain=on
judged vmdk --threads 1 --size 40000000
judged qcow
judged qcow --cluster 4096 --at-sync --ops 60
judged qcow --cluster 4096 --size 20971520
judged qcow --cluster 4096 --threads 1
judged qed
judged qed --at-sync --ops 60
judged qed --create cluster_size=4k,table_size=2 --cluster 4096
judged qed --threads 1 --size 40000000
judged parallels --create cluster_size=64k
judged parallels --create cluster_size=64k --at-sync --ops 60
judged parallels --create cluster_size=1000 --cluster 1024
judged parallels --threads 1

# caught SWITCH NAME OPTIONS...: one of 100 seeds fails without it.  flat and vmfs
# order nothing; what else VHDX relies on is in test-format-power.
caught() {
	case $chosen in
	*" $2 "*) ;;
	*) return 0 ;;
	esac
	switch=$1
	shift
	name=$1
	shift
	"$judge" --dir "$tmp" --seeds 1-100 --outcomes 6 --expect-failure \
		--off "$switch" --name "$name" "$@" >verdict 2>&1 </dev/null ||
		fail "nobody misses $switch in $name $*"
}

several="--format vmdk --size 8388608 --file e1.vmdk"
if [ "$CRASHES" -gt 6 ]; then
	caught barriers vhdx --format vhdx --cluster 1048576 --at-sync --ops 8 \
		--create block_size=1M --torn $torn
	caught stages vhdx --format vhdx --cluster 1048576 \
		--create block_size=1M
	for off in stages claims; do
		caught $off vmdk --format vmdk
		# shellcheck disable=SC2086
		caught $off split $several --cluster 65536 --file e2.vmdk \
			--file e3.vmdk --make "python3 '$vmdk' split"
		# shellcheck disable=SC2086
		caught $off cowd $several --cluster 8192 \
			--make "python3 '$vmdk' cowd"
	done
fi

# "vdi, cluster 1048576: 50 crashes, 0 failures"
awk '{ sub(",", "", $1) }
	match($0, /: [0-9]+ crashes/) {
		n[$1] += substr($0, RSTART + 2)
		if ($0 !~ / 0 failures/)
			bad[$1]++
	}
	END {
		for (f in n) {
			printf "%s: %d power failures, %s\n", f, n[f],
				bad[f] ? "FAILED" : "0 bytes lost"
			if (bad[f])
				rc = 1
		}
		exit rc
	}' lines
