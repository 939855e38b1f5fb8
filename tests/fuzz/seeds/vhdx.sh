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
# Over a parent, with a block that is here in part.
"$imgctl" create -q -f vhdx -o block_size=1M base 16M
"$here/../mkdiff.py" vhdx base top parent.vhdx
seed --mend top
seed --mend --chain top
python3 -c '
import struct
with open("top", "r+b") as f:
    for at, e in (8, 7 | 8 << 20), (16, 6 | 9 << 20), (8 * 4096, 6 | 10 << 20):
        f.seek((2 << 20) + at)
        f.write(struct.pack("<Q", e))
    f.seek((10 << 20) + 256)
    f.write(b"\x0f\xf0")
    f.truncate(11 << 20)'
seed --mend top
# Damage that check mends.
"$imgctl" create -q -f vhdx -o block_size=1M twice 8M
"$imgio" -c 'write 0 1k' -c 'write 1M 1k' twice
python3 -c '
with open("twice", "r+b") as f:
    f.seek(2 << 20)
    e = f.read(8)
    f.write(e)'
seed --mend twice
# Entries of zeroes in the log, over the table.
python3 -c '
import struct
with open("some", "r+b") as f:
    f.seek(1 << 20)
    b = bytearray(f.read(8192))
    b[24:28] = struct.pack("<I", 2)
    b[96:128] = struct.pack("<4sIQQQ", b"zero", 0, 4096, (2 << 20) + 8192,
                            struct.unpack_from("<Q", b, 16)[0])
    f.seek(1 << 20)
    f.write(b)'
seed --mend some
# An entry that ends inside its own checksum.
printf '\004\000\000\000' |
	dd of=some bs=1 seek=1048584 conv=notrunc status=none
seed --mend some
create block_size=3145728 4194304
create block_size=512M,log_size=5G 4194304
create subformat=odd 4194304
create log_size=1500k,block_size=1 0
create block_size=1M 209715200
