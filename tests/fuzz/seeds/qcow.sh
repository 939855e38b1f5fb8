# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
"$imgctl" convert -O qcow "$data" plain
seed plain
"$imgctl" convert -c -O qcow "$data" packed
seed packed
"$imgctl" create -q -f qcow -b "$data" -F raw overlay
"$imgio" -c 'write 4k 1k' overlay
seed overlay
seed --chain overlay
create "" 1048576
