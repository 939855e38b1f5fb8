# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes DMG images (UDIF) from a list of chunks, for tests: independent of the
program's own reader, and made from dmg.md."""
import base64
import struct
import zlib

ZERO, RAW, IGNORE, COMMENT = 0, 1, 2, 0x7ffffffe
ADC, ZLIB, BZIP2, LZFSE, LZMA, END = (0x80000004, 0x80000005, 0x80000006,
                                      0x80000007, 0x80000008, 0xffffffff)


def adc(data):
    """Plain runs, and a copy where a run repeats the last byte."""
    out, at = b'', 0
    while at < len(data):
        n = 1
        while at + n < len(data) and n < 67 and data[at + n] == data[at]:
            n += 1
        if n >= 6:
            out += bytes([0x80, data[at]]) + bytes([0x40 | n - 1 - 4, 0, 0])
            at += n
            continue
        piece = data[at:at + 100]
        out += bytes([0x80 | len(piece) - 1]) + piece
        at += len(piece)
    return out


def lzvn(data):
    """Literals, and of a run that repeats the last byte a copy from one byte
    before, which further ones go on with."""
    out, at = b'', 0
    while at < len(data):
        n = 1
        while at + n < len(data) and data[at + n] == data[at]:
            n += 1
        if n >= 8:
            # one literal, then 4 bytes at distance 1
            out += bytes([1 << 6 | 1 << 3, 1, data[at]])
            at, n = at + 5, n - 5
            while n >= 16:
                more = min(n, 271)
                out += bytes([0xf0, more - 16])
                at, n = at + more, n - more
            continue
        if len(data) - at < 16:
            out += bytes([0xe1, data[at]])
            at += 1
            continue
        piece = data[at:at + 40]
        out += bytes([0xe0, len(piece) - 16]) + piece
        at += len(piece)
    return out + bytes([6]) + bytes(7)


def lzfse(data):
    """A block that is plain, one of LZVN, the end."""
    half = len(data) // 2
    packed = lzvn(data[half:])
    return b'bvx-' + struct.pack('<I', half) + data[:half] + \
        b'bvxn' + struct.pack('<II', len(data) - half, len(packed)) + \
        packed + b'bvx$'


def mish(chunks, first, count, offset, crc):
    table = b'mish' + struct.pack('>IQQQII', 1, first, count, offset, 2056, 0)
    table += bytes(24) + struct.pack('>III', 2 if crc else 0, 32, crc)
    table += bytes(124) + struct.pack('>I', len(chunks))
    return table + b''.join(struct.pack('>IIQQQQ', t, 0, s, n, off, length)
                            for t, s, n, off, length in chunks)


def plist(tables):
    text = '<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0">' \
        '\n<dict>\n\t<key>resource-fork</key>\n\t<dict>\n' \
        '\t\t<key>blkx</key>\n\t\t<array>\n'
    for i, t in enumerate(tables):
        text += '\t\t\t<dict>\n\t\t\t\t<key>Attributes</key>\n' \
            '\t\t\t\t<string>0x0050</string>\n\t\t\t\t<key>Data</key>\n' \
            '\t\t\t\t<data>\n\t\t\t\t' + \
            base64.encodebytes(t).decode().replace('\n', '\n\t\t\t\t') + \
            '</data>\n\t\t\t\t<key>ID</key>\n' \
            f'\t\t\t\t<string>{i}</string>\n\t\t\t\t<key>Name</key>\n' \
            f'\t\t\t\t<string>disk (Apple_HFS : {i})</string>\n\t\t\t</dict>\n'
    return (text + '\t\t</array>\n\t</dict>\n</dict>\n</plist>\n').encode()


def resources(tables):
    data = b''.join(struct.pack('>I', len(t)) + t for t in tables)
    return struct.pack('>IIII', 256, 256 + len(data), len(data), 50) + \
        bytes(240) + data + bytes(50)


def make(name, tables, sectors, rsrc=False, before=0, offset=0, padding=0,
         crc=True, content=None, align=1):
    """@tables: (first sector, sectors, [(type, start, count, bytes)]).  The
    list and the trailer begin at multiples of @align."""
    fork, sums = bytes(offset), b''
    packed = []
    for first, count, chunks in tables:
        listed = []
        for t, start, n, data in chunks:
            listed.append((t, start, n, len(fork) - offset, len(data)))
            fork += data
        total = 0
        if crc and content:
            total = zlib.crc32(content[first * 512:(first + count) * 512])
        sums += struct.pack('>I', total)
        packed.append(mish(listed, first, count, offset, total))
    if not tables:
        fork = content
    fork += bytes(-len(fork) % align)
    index = (resources if rsrc else plist)(packed) if tables else b''
    koly = bytearray(512)
    koly[:4] = b'koly'
    struct.pack_into('>III', koly, 4, 4, 512, 1)
    struct.pack_into('>QQ', koly, 24, before, len(fork))
    struct.pack_into('>II', koly, 56, 1, 1)
    if crc:
        struct.pack_into('>III', koly, 80, 2, 32, zlib.crc32(fork))
    if crc and content and tables:
        struct.pack_into('>III', koly, 352, 2, 32, zlib.crc32(sums))
    if tables:
        struct.pack_into('>QQ', koly, 40 if rsrc else 216, before + len(fork),
                         len(index))
    struct.pack_into('>IQ', koly, 488, 1, sectors)
    with open(name, 'wb') as f:
        f.write(bytes(before) + fork + index +
                bytes(-len(index) % align) + bytes(koly) + bytes(padding))
