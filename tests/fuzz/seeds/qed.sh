# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
for o in cluster_size=4k,table_size=1 cluster_size=4k,table_size=2 \
	cluster_size=64k; do
	"$imgctl" convert -O qed -o $o "$data" plain
	seed plain
	create $o 4194304
done
"$imgctl" create -q -f qed -b "$data" -F raw -o cluster_size=4k,table_size=1 \
	overlay
"$imgio" -c 'write 4k 1k' -c 'write -z 16k 8k' overlay
seed overlay
seed --chain overlay
