# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
for o in cluster_size=64k cluster_size=1M; do
	"$imgctl" convert -O parallels -o $o "$data" plain
	seed plain
	create $o 4194304
done
"$imgctl" create -q -f parallels -o cluster_size=4k small 1M
"$imgio" -c 'write 4k 1k' -c 'write 64k 600' small
seed small
