# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
for o in cluster_size=512 cluster_size=4k,compat=0.10 \
	cluster_size=1k,refcount_bits=1 cluster_size=2k,refcount_bits=64 \
	cluster_size=16k,extended_l2=on lazy_refcounts=on; do
	"$imgctl" convert -O qcow2 -o $o "$data" plain
	seed plain
	"$imgctl" convert -c -O qcow2 -o $o "$data" packed
	seed packed
	create $o,preallocation=metadata 4194304
done
"$imgctl" convert -c -O qcow2 -o compression_type=zstd,cluster_size=4k \
	"$data" zstd
seed zstd
"$imgctl" create -q -f qcow2 -b "$data" -F raw -o cluster_size=512 overlay
seed overlay
seed --chain overlay
"$imgctl" convert -O qcow2 -o data_file=d,data_file_raw=on "$data" split
seed split d
if have qemu-img; then
	"$imgctl" convert -O qcow2 -o cluster_size=4k "$data" snapshots
	qemu-img snapshot -c one snapshots
	qemu-img snapshot -c two snapshots
	qemu-img bitmap --add snapshots bits
	seed snapshots
fi
