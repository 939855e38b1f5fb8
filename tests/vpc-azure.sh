#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VHD: info reports the geometry, the stated size and which rule decides; of
# 7.2's and 10.0's rules each reads its own size.  subformat=azure makes fixed
# images of whole MiB with the footer right behind, with QEMU and libvhdi as
# witnesses; under the name qemu-img there is no such thing.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img python3

# says FILE KEY VALUE
says() {
	imgctl info -f vpc --output=json "$1" |
		python3 -c 'import json, sys
print(json.dumps(json.load(sys.stdin)["format-specific"]["data"][sys.argv[1]]))
' "$2" >value
	assert_eq "$(cat value)" "$3" "$2 of $1"
}

# ---- geometry -------------------------------------------------------------
qemu-img create -q -f vpc a.vhd 100M
says a.vhd geometry '"1004/12/17"'
says a.vhd geometry-size 104865792
says a.vhd stated-size 104865792
says a.vhd size-rule '"geometry-size"'
says a.vhd azure-ready false
qemu-img create -q -f vpc -o force_size=on b.vhd 100M
says b.vhd size-rule '"stated-size"'
says b.vhd stated-size 104857600
says b.vhd creator '"qem2"'
says b.vhd subformat '"dynamic"'

# By whom it was made, a geometry of 104865792 bytes, and 104857600 stated.
made_by() {
	python3 - "$1" <<'END'
import struct, sys
b = bytearray(open("a.vhd", "rb").read())
for at in 0, len(b) - 512:
    b[at + 28:at + 32] = sys.argv[1].encode().ljust(4, b"\0")
    b[at + 48:at + 56] = struct.pack(">Q", 104857600)
    b[at + 64:at + 68] = bytes(4)
    b[at + 64:at + 68] = struct.pack(">I", ~sum(b[at:at + 512]) & 0xffffffff)
open("c.vhd", "wb").write(b)
END
	new=$(imgctl info --output=json c.vhd | sed -n \
		's/^    "virtual-size": \(.*\),/\1/p')
	old=$(IMGCTL_QEMU_COMPAT=7.2 imgctl info --output=json c.vhd | sed -n \
		's/^    "virtual-size": \(.*\),/\1/p')
	theirs=$(qemu-img info --output=json c.vhd | sed -n \
		's/^    "virtual-size": \(.*\),/\1/p')
	assert_eq "$new $old" "$2" "sizes of $1"
	case $(qemu-img --version) in
	*"version 7."*) assert_eq "$theirs" "$old" "QEMU on $1" ;;
	*"version 10."*) assert_eq "$theirs" "$new" "QEMU on $1" ;;
	esac
}
made_by 'vpc ' "104865792 104865792"
made_by 'qemu' "104865792 104865792"
made_by 'win ' "104857600 104857600"
made_by 'qem2' "104857600 104857600"
made_by 'tap' "104857600 104857600"
made_by 'CTXS' "104857600 104857600"
made_by 'd2v' "104857600 104865792"
made_by 'wa  ' "104857600 104865792"
says c.vhd size-rule '"stated-size"'

# ---- Azure ----------------------------------------------------------------
# azure FILE BYTES: what that cloud asks for, from the file itself.
azure() {
	python3 - "$1" "$2" <<'END'
import struct, sys
b, size = open(sys.argv[1], "rb").read(), int(sys.argv[2])
f = b[-512:]
assert len(b) == size + 512 and size % (1 << 20) == 0, len(b)
assert f[:8] == b"conectix" and struct.unpack(">I", f[60:64]) == (2,)
assert struct.unpack(">Q", f[48:56]) == (size,)
assert f[16:24] == b"\xff" * 8
assert struct.unpack(">I", f[64:68])[0] == \
    ~(sum(f) - sum(f[64:68])) & 0xffffffff
END
	says "$1" azure-ready true
	says "$1" subformat '"fixed"'
	qemu-img info -f vpc "$1" | grep -q "($2 bytes)" ||
		fail "QEMU sees another size of $1"
	if command -v vhdiinfo >/dev/null; then
		vhdiinfo "$1" | grep -q "($2 bytes)" ||
			fail "libvhdi sees another size of $1"
	fi
}
for size in 1:1048576 1M:1048576 3000000:3145728 10M:10485760 \
	100M:104857600; do
	imgctl create -q -f vpc -o subformat=azure x.vhd ${size%:*}
	azure x.vhd ${size#*:}
done
random_file data 2500000
imgctl convert -f raw -O vpc -o subformat=azure data y.vhd
azure y.vhd 3145728
qemu-img convert -f vpc -O raw y.vhd back
truncate -s 3145728 data
assert_same back data
imgctl create -q -f vpc -o subformat=fixed,force_size=on z.vhd 10M
azure z.vhd 10485760
imgctl create -q -f vpc -o subformat=fixed z.vhd 10M
says z.vhd azure-ready false

mkdir bin
ln -s "$IMGCTL" bin/qemu-img
assert_fails bin/qemu-img create -f vpc -o subformat=azure q.vhd 1M
cp err ours
assert_fails qemu-img create -f vpc -o subformat=azure q.vhd 1M
assert_same ours err
! bin/qemu-img info a.vhd | grep -q geometry || fail "QEMU says no such thing"
