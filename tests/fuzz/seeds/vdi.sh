# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
for o in static=off static=on; do
	"$imgctl" convert -O vdi -o $o "$data" plain
	seed plain
	create $o 4194304
done
"$imgctl" create -q -f vdi some 16M
"$imgio" -c 'write 3M 600' -c 'write 10M 1k' some
seed some
