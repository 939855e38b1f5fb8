# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
for o in subformat=dynamic subformat=fixed subformat=dynamic,force_size=on; do
	"$imgctl" convert -O vpc -o $o "$data" plain
	seed --mend plain
	create $o 4194304
done
"$imgctl" create -q -f vpc some 16M
"$imgio" -c 'write 3M 1k' -c 'write 10M 1k' some
seed --mend some
