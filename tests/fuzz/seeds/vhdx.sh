# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
for o in subformat=dynamic,block_size=1M subformat=fixed \
	subformat=dynamic,log_size=2M,block_state_zero=off; do
	"$imgctl" convert -O vhdx -o $o "$data" plain
	seed --mend plain
	create $o 4194304
done
# Its writer never finished: a log to replay.
"$imgctl" create -q -f vhdx -o block_size=1M some 16M
"$imgio" -c 'write 3M 1k' -c flush -c abort some || :
seed --mend some
