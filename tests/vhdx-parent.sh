#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# VHDX that no other program here writes: 4 KiB sectors, and differencing images
# with blocks that are there in part.  The writer is a script made from the
# format's description.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires python3

cat >make.py <<'EOF'
import struct, sys, uuid
M = 1 << 20

def table():
    out = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
        out.append(i)
    return out
T = table()

def seal(b):
    crc = 0xffffffff
    for c in b:
        crc = crc >> 8 ^ T[(crc ^ c) & 255]
    b[4:8] = struct.pack("<I", crc ^ 0xffffffff)
    return bytes(b)

def header(seq, data):
    b = bytearray(4096)
    struct.pack_into("<4sIQ16s16s16sHHIQ", b, 0, b"head", 0, seq,
                     data[:8] + b"f" * 8, data, bytes(16), 0, 1, M, M)
    return seal(b)

def guid(text):
    return uuid.UUID(text).bytes_le

def locator(link, path):
    keys = {"parent_linkage": "{%s}" % uuid.UUID(bytes_le=link),
            "relative_path": path,
            "absolute_win32_path": "C:\\images" + path[1:]}
    head = bytearray(guid("B04AEFB7-D19E-4A81-B789-25B8E9445913"))
    head += struct.pack("<HH", 0, len(keys))
    text, at = b"", 20 + 12 * len(keys)
    for k, v in keys.items():
        k, v = k.encode("utf-16le"), v.encode("utf-16le")
        head += struct.pack("<IIHH", at + len(text), at + len(text) + len(k),
                            len(k), len(v))
        text += k + v
    return bytes(head) + text

def make(name, sector, data, bat, blocks, size, parent=None):
    """1 MiB blocks; bat: {index: entry}, blocks: {MiB of the file: bytes}"""
    with open(name, "wb") as f:
        f.truncate(16 * M)
        f.write(b"vhdxfile")
        for i in 1, 2:
            f.seek(i << 16)
            f.write(header(i, data))
        r = bytearray(65536)
        struct.pack_into("<4sIII", r, 0, b"regi", 0, 2, 0)
        for i, (g, at, n) in enumerate((
                ("2DC27766-F623-4200-9D64-115E9BFD4A08", 2 * M, M),
                ("8B7CA206-4790-4B9A-B8FE-575F050F886E", 3 * M, M))):
            struct.pack_into("<16sQII", r, 16 + 32 * i, guid(g), at, n, 1)
        r = seal(r)
        f.seek(3 << 16)
        f.write(r + r)
        items = [("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", 4,
                  struct.pack("<II", M, 2 if parent else 0)),
                 ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", 6,
                  struct.pack("<Q", size)),
                 ("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", 6,
                  struct.pack("<I", sector)),
                 ("CDA348C7-445D-4471-9CC9-E9885251C556", 6,
                  struct.pack("<I", 4096))]
        if parent:
            items.append(("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", 4,
                          locator(*parent)))
        f.seek(3 * M)
        f.write(struct.pack("<8sHH20x", b"metadata", 0, len(items)))
        at, body = 65536, b""
        for g, flags, value in items:
            f.write(struct.pack("<16sIIII", guid(g), at + len(body),
                                len(value), flags, 0))
            body += value
        f.seek(3 * M + 65536)
        f.write(body)
        for i, e in bat.items():
            f.seek(2 * M + 8 * i)
            f.write(struct.pack("<Q", e))
        for at, b in blocks.items():
            f.seek(at * M)
            f.write(b)

A, B = b"A" * 16, b"B" * 16
SIZE = 5 * M + 4096
for sector in 512, 4096:
    ratio = (sector << 23) // M
    s = str(sector)
    make("base%s.vhdx" % s, sector, A, {0: 6 | 8 * M, 2: 6 | 9 * M,
                                        5: 6 | 10 * M},
         {8: b"a" * M, 9: b"c" * M, 10: b"f" * 4096}, SIZE)
    # Block 0: not here; 1: full; 2: sectors 1, 2 and 9; 5: zeroes.
    bits = bytearray(M)
    for i in 1, 2, 9:
        bits[2 * M // sector // 8 + i // 8] |= 1 << i % 8
    make("top%s.vhdx" % s, sector, B,
         {1: 6 | 8 * M, 2: 7 | 9 * M, 5: 2, ratio: 6 | 10 * M},
         {8: b"B" * M, 9: b"C" * M, 10: bytes(bits)}, SIZE,
         (A, ".\\base%s.vhdx" % s))
    c = bytearray(b"c" * M)
    for i in 1, 2, 9:
        c[i * sector:(i + 1) * sector] = b"C" * sector
    with open("base%s" % s, "wb") as f:
        f.write(b"a" * M + bytes(M) + b"c" * M + bytes(2 * M) + b"f" * 4096)
    with open("top%s" % s, "wb") as f:
        f.write(b"a" * M + b"B" * M + c + bytes(2 * M) + bytes(4096))
EOF
python3 make.py

for s in 512 4096; do
	for i in base$s top$s; do
		imgctl check -q $i.vhdx
		imgctl convert -f vhdx -O raw $i.vhdx out
		assert_same out $i
	done
	# libvhdi knows both sizes of sectors, 7-Zip only one.
	if [ -c /dev/fuse ] && [ "$(id -u)" -eq 0 ] &&
	   command -v vhdimount >/dev/null; then
		mkdir -p theirs
		vhdimount base$s.vhdx theirs >/dev/null
		assert_same theirs/vhdi1 base$s
		umount theirs
		vhdiinfo top$s.vhdx >out
		grep -q "Differential" out
	fi
	if [ $s = 512 ] && command -v 7z >/dev/null; then
		rm -rf out7
		7z x -oout7 -y top$s.vhdx >out || { cat out >&2; fail 7z; }
		assert_same out7/top$s.img top$s
	fi
	imgctl info top$s.vhdx >out
	grep -q "backing file: base$s.vhdx" out
	# A block that is here in part gets a place as a whole; the parent is
	# not touched.
	cp base$s.vhdx before
	"$top_builddir/tests/imgio" -f vhdx -c 'write -P 9 2M 512' \
		-c 'write -P 8 64k 3000' top$s.vhdx
	python3 - top$s <<'EOF'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(2 << 20)
    f.write(b"\x09" * 512)
    f.seek(65536)
    f.write(b"\x08" * 3000)
EOF
	imgctl check -q top$s.vhdx
	imgctl convert -O raw top$s.vhdx out
	assert_same out top$s
	assert_same base$s.vhdx before
	# A parent that was written to is another one.
	"$top_builddir/tests/imgio" -f vhdx -c 'write -P 7 4M 512' base$s.vhdx
	imgctl convert -O raw base$s.vhdx out
	assert_fails imgctl convert -O raw top$s.vhdx out
done

# Parents outside of the image's folder are followed by qemu-img's rule only.
mkdir sub
mv top512.vhdx sub
assert_fails imgctl info --backing-chain sub/top512.vhdx
