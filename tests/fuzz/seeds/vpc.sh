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
# Over a parent, with a block that is here in part.
"$here/../mkdiff.py" vpc some top parent.vhd
"$imgio" -f vpc -c 'write 5M 1k' top || :
seed --mend top
seed --mend --chain top
python3 -c '
import struct
with open("top", "r+b") as f:
    f.seek(1536 + 4)
    f.write(struct.pack(">I", 5))
    f.seek(5 * 512)
    f.write(b"\x0f\xf0".ljust(512, b"\0") + b"text" * 900)
    f.truncate((5 + 1 + 4096 + 1) * 512)'
seed --mend top
# A byte short at the end, as the oldest are.
head -c 4194815 plain >short
seed --mend short
create subformat=azure 1000000
create subformat=odd 4194304
create force_size=on 2191507062784
create force_size=on 419430400
