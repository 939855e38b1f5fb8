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
# Over a parent, of which it has discarded a block.
"$here/../mkdiff.py" vdi some top
printf '\376\377\377\377' | dd of=top bs=1 seek=520 conv=notrunc status=none
seed top
seed --chain top
# Tables of more than one page, and of more than one look.
create static=off 209715200
