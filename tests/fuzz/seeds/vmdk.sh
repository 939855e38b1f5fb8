# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
# Every layout: alone, beside a descriptor, as a stream, with a parent.
for o in subformat=monolithicSparse zeroed_grain=on \
	subformat=streamOptimized; do
	"$imgctl" convert -O vmdk -o $o "$data" x.vmdk
	seed x.vmdk
	create $o,adapter_type=lsilogic,hwversion=7 1048576
done
create compat6=on,toolsversion=9 6442450944
create compat6=on,hwversion=9 1048576
create adapter_type=none 1048576
create subformat=none 1048576
create zeroed_grain=maybe 4096

for o in monolithicFlat twoGbMaxExtentFlat twoGbMaxExtentSparse; do
	"$imgctl" convert -O vmdk -o subformat=$o "$data" y.vmdk
	for second in y-flat.vmdk y-f001.vmdk y-s001.vmdk; do
		[ ! -e $second ] || seed y.vmdk $second
	done
	rm -f y*
done
"$imgctl" create -q -f vmdk base.vmdk 1M
"$imgctl" create -q -f vmdk -b base.vmdk -F vmdk -o zeroed_grain=on top.vmdk
"$imgio" -c 'write 64k 512' -c 'write -z 256k 64k' top.vmdk
seed top.vmdk
seed --chain top.vmdk
# Only others write these.
python3 "$here/../mkvmdk.py" cowd c.vmdk
seed c.vmdk c-delta.vmdk
python3 "$here/../mkvmdk.py" sesparse s.vmdk
seed s.vmdk s-sesparse.vmdk
python3 "$here/../mkvmdk.py" stream v.vmdk
seed v.vmdk
printf '# c\r\nversion=1 \r\nCID=1\r\nparentCID=ffffffff\r
createType="vmfs"\r\nRW 64 VMFS "f"\r\nRDONLY 64 ZERO\r\nNOACCESS 64 FLAT "f" 0\r
RW 1 FLAT "f" 3\r\n' >d.vmdk
seed d.vmdk "$data"
