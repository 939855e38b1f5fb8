#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Parents of VDI, VHD and VHDX that lie outside of the mounted folder, above it,
# by an absolute path or behind a link: refused by the path policy, by imgfs and
# by imgctl --safe; not even opened (strace sees it).  allow-path lets them in;
# imgctl without --safe follows the names.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires python3
requires_fuse

mkdir in far
imgctl create -q -f vdi far/base.vdi 4M
imgctl create -q -f vpc -o force_size=on far/base.vhd 4M
imgctl create -q -f vhdx -o block_size=1M far/base.vhdx 4M
for f in vdi:vdi vpc:vhd vhdx:vhdx; do
	"$top_builddir/tests/imgio" -f ${f%:*} -c 'write -P 1 0 4M' \
		far/base.${f#*:} >/dev/null
done

cat >children.py <<'END'
# Images without data of their own, over far/base.*; @path is their parent's.
import os, struct, sys, uuid
OUT = os.path.abspath("far")

def vdi(name):
    base = open("far/base.vdi", "rb").read(1024)
    h = bytearray(base)
    h[0x188:0x198] = os.urandom(16)
    h[0x1a8:0x1c8] = os.urandom(16) + base[0x188:0x198]
    h[0x4c:0x50] = (4).to_bytes(4, "little")
    h[0x184:0x188] = bytes(4)
    h[0x200:0x210] = b"\xff" * 16
    open(name, "wb").write(h)

def seal(b, at):
    b[at:at + 4] = bytes(4)
    b[at:at + 4] = struct.pack(">I", ~sum(b) & 0xffffffff)

def vpc(name, path):
    base = open("far/base.vhd", "rb").read(2048)
    foot, head = bytearray(base[:512]), bytearray(base[512:1536])
    foot[60:64] = struct.pack(">I", 4)
    foot[68:84] = os.urandom(16)
    head[40:56] = base[68:84]
    path = path.replace("/", "\\").encode("utf-16-le")
    head[576:600] = b"W2ru" + struct.pack(">IIIQ", 512, len(path), 0, 2048)
    seal(foot, 64)
    seal(head, 36)
    open(name, "wb").write(foot + head + b"\xff" * 512 +
                           path.ljust(512, b"\0") + foot)

TABLE = []
for i in range(256):
    for _ in range(8):
        i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
    TABLE.append(i)

def vhdx(name, path):
    b = bytearray(open("far/base.vhdx", "rb").read(8 << 20))
    heads = [b[i << 16:(i << 16) + 4096] for i in (1, 2)]
    link = max(heads, key=lambda h: struct.unpack_from("<Q", h, 8))[32:48]
    keys = {"parent_linkage": "{%s}" % uuid.UUID(bytes_le=bytes(link)),
            "relative_path": path.replace("/", "\\")}
    loc = uuid.UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913").bytes_le
    loc += struct.pack("<HH", 0, len(keys))
    text, at = b"", 20 + 12 * len(keys)
    for k, v in keys.items():
        k, v = k.encode("utf-16le"), v.encode("utf-16le")
        loc += struct.pack("<IIHH", at + len(text), at + len(text) + len(k),
                           len(k), len(v))
        text += k + v
    loc += text
    meta = 3 << 20
    n, = struct.unpack_from("<H", b, meta + 10)
    struct.pack_into("<H", b, meta + 10, n + 1)
    guid = uuid.UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C").bytes_le
    struct.pack_into("<16sIIII", b, meta + 32 + 32 * n, guid, 0x11000,
                     len(loc), 4, 0)
    b[meta + 0x11000:meta + 0x11000 + len(loc)] = loc
    b[meta + 0x10004] |= 2
    b[2 << 20:(2 << 20) + 1024] = bytes(1024)
    open(name, "wb").write(b)

for n, path in ("above", "../far/base."), ("absolute", OUT + "/base."), \
        ("link", "link."), ("near", "base."):
    vpc("in/%s.vhd" % n, path + "vhd")
    vhdx("in/%s.vhdx" % n, path + "vhdx")
vdi("in/near.vdi")
END
python3 children.py
head -c 4M /dev/zero | tr '\0' '\1' >want

# refused COMMAND...: by the policy, and in its words.
refused() {
	assert_fails "$@"
	assert_contains "$(cat err)" "outside of the folders" "$*"
}

for ext in vhd vhdx; do
	ln -s "$PWD/far/base.$ext" in/link.$ext.real
	mv in/link.$ext in/linked.$ext
	mv in/link.$ext.real in/link.$ext
	for n in above absolute linked; do
		refused imgctl convert --safe -O raw in/$n.$ext x
		imgctl convert -O raw in/$n.$ext x
		assert_same x want
	done
	assert_fails imgctl convert -O raw in/near.$ext x
done

mount_img in mnt
for ext in vhd vhdx; do
	for n in above absolute linked; do
		assert_fails cat mnt/$n.$ext/disk
		assert_contains "$(cat mnt/$n.$ext/status)" \
			"outside of the folders"
	done
done
# A VDI names no path at all: only the folder is looked at, and what is there
# leads out.
assert_fails cat mnt/near.vdi/disk
ln -s "$PWD/far/base.vdi" in/base.vdi
assert_fails cat mnt/near.vdi/disk
umount_img mnt

mount_img -o "allow-path=$PWD/far" in mnt
for ext in vhd vhdx; do
	for n in above absolute linked; do
		assert_same mnt/$n.$ext/disk want
	done
done
assert_same mnt/near.vdi/disk want
umount_img mnt

# Of what is refused not even the folder is opened.
if command -v strace >/dev/null; then
	for f in above.vhd above.vhdx linked.vhd linked.vhdx; do
		strace -f -e trace=open,openat,openat2 -o calls \
			imgctl convert --safe -O raw in/$f x 2>/dev/null || :
		if grep -E '"(base\.|[^"]*/far/base)' calls | grep -v ENOENT |
		   grep -q ' = [0-9]'; then
			cat calls >&2
			fail "$f: the parent was opened"
		fi
	done
fi
