# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes VMDK images that no program of Debian writes, for tests: COWD deltas
(vmfsSparse), seSparse and VMware's streams with markers and a footer.  Made from
vmdk.md alone; shares nothing with the driver.

    mkvmdk.py cowd|sesparse|stream NAME.vmdk    a small one with some of all
"""
import struct
import sys
import zlib

SECTOR = 512


def descriptor(name, kind, extents, cid=0x12345678, parent_cid=0xffffffff,
               hint=None):
    """@extents: (access, sectors, type, file, further words)."""
    with open(name, 'w', newline='') as f:
        f.write('# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\n'
                'createType="%s"\n%s\n# Extent description\n'
                % (cid, parent_cid, kind,
                   'parentFileNameHint="%s"' % hint if hint else ''))
        for access, sectors, word, file, more in extents:
            f.write('%s %d %s "%s"%s\n' % (access, sectors, word, file, more))
        f.write('\n# The Disk Data Base\n#DDB\n\n'
                'ddb.adapterType = "lsilogic"\n'
                'ddb.geometry.cylinders = "5"\nddb.geometry.heads = "255"\n'
                'ddb.geometry.sectors = "63"\n')


def place(image, at, data):
    if len(image) < at + len(data):
        image.extend(bytes(at + len(data) - len(image)))
    image[at:at + len(data)] = data


def cowd(name, sectors, grains, grain=1, parent=''):
    """@grains: {number: bytes}.  Section 6."""
    per_table = 4096
    tables = -(-sectors // (grain * per_table))
    at = 4 + -(-tables * 4 // SECTOR)
    image = bytearray(2048)
    directory = [0] * tables
    held = {}
    for number in sorted(grains):
        t = number // per_table
        if not directory[t]:
            directory[t], held[t] = at, [0] * per_table
            at += per_table * 4 // SECTOR
    for number, data in sorted(grains.items()):
        held[number // per_table][number % per_table] = at
        place(image, at * SECTOR, data.ljust(grain * SECTOR, b'\0'))
        at += grain
    place(image, 4 * SECTOR, struct.pack('<%dI' % tables, *directory))
    for t, entries in held.items():
        place(image, directory[t] * SECTOR,
              struct.pack('<%dI' % per_table, *entries))
    place(image, 0, b'COWD' + struct.pack('<7I', 1, 3, sectors, grain, 4,
                                          tables, at))
    place(image, 32, parent.encode().ljust(1024, b'\0'))
    place(image, max(len(image), at * SECTOR), b'')
    with open(name, 'wb') as f:
        f.write(image)


def sesparse(name, sectors, grains, order=None, free_gt=0, replay=0,
             header=None):
    """@grains: {number: bytes, 'zero', 'unmapped'}; @order: where each grain
    that has data lies.  Section 7; @header: {word: value} to change."""
    grain, table = 8, 64
    per_table = table * SECTOR // 8
    tables = -(-sectors // (grain * per_table))
    data = sorted(n for n, what in grains.items() if isinstance(what, bytes))
    order = order or {n: i for i, n in enumerate(data)}
    used = sorted({n // per_table for n in grains})
    pos, spots = 1, {}
    for what, size in (('volatile', 1), ('journal header', 2),
                       ('journal', 64), ('gd', -(-tables * 8 // SECTOR)),
                       ('gt', table * max(1, len(used))), ('bitmap', 64),
                       ('backmap', 64),
                       ('grains', grain * (max(order.values(), default=0)
                                           + 1))):
        pos = -(-pos // grain) * grain if what != 'volatile' else pos
        spots[what] = (pos, size)
        pos += size
    words = [0xcafebabe, 0x0000000200000001, sectors, grain, table, 0,
             0, 0, 0, 0]
    for what in ('volatile', 'journal header', 'journal', 'gd', 'gt',
                 'bitmap', 'backmap', 'grains'):
        words += spots[what]
    for i, value in (header or {}).items():
        words[i] = value
    image = bytearray(pos * SECTOR)
    struct.pack_into('<%dQ' % len(words), image, 0, *words)
    struct.pack_into('<4Q', image, SECTOR, 0xcafecafe, free_gt or len(used),
                     0, replay)
    for index, t in enumerate(used):
        struct.pack_into('<Q', image, spots['gd'][0] * SECTOR + 8 * t,
                         1 << 60 | index)
    for number, what in grains.items():
        entry = {'zero': 2 << 60, 'unmapped': 1 << 60}.get(what) \
            if isinstance(what, str) else None
        if entry is None:
            i = order[number]
            entry = 3 << 60 | (i & 0xfff) << 48 | i >> 12
            place(image, (spots['grains'][0] + i * grain) * SECTOR,
                  what.ljust(grain * SECTOR, b'\0'))
        index = used.index(number // per_table)
        struct.pack_into('<Q', image,
                         (spots['gt'][0] + index * table) * SECTOR
                         + number % per_table * 8, entry)
    with open(name, 'wb') as f:
        f.write(image)


def stream(name, sectors, grains, level=1):
    """@grains: {number: bytes}: as VMware's tools do it (section 4)."""
    grain, gtes = 128, 512
    tables = -(-sectors // (grain * gtes))
    text_at, text_sectors, overhead = 1, 20, 128
    image = bytearray(overhead * SECTOR)

    def header(gd):
        h = b'KDMV' + struct.pack('<IIQQQQIQQQ', 3, 0x30001, sectors, grain,
                                  text_at, text_sectors, gtes, 0, gd, overhead)
        return (h + b'\0' + b'\n \r\n' + struct.pack('<H', 1)).ljust(SECTOR,
                                                                    b'\0')

    def marker(count, kind):
        return struct.pack('<QII', count, 0, kind).ljust(SECTOR, b'\0')

    def append(data):
        at = len(image) // SECTOR
        image.extend(data + bytes(-len(data) % SECTOR))
        return at

    text = ('# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=ffffffff\n'
            'createType="streamOptimized"\n\n# Extent description\n'
            'RDONLY %d SPARSE "%s"\n\n#DDB\nddb.adapterType = "lsilogic"\n'
            % (0x23456789, sectors, name.rsplit('/', 1)[-1]))
    place(image, 0, header(0xffffffffffffffff))
    place(image, text_at * SECTOR, text.encode())
    directory = []
    for t in range(tables):
        entries = [0] * gtes
        for i in range(gtes):
            data = grains.get(t * gtes + i)
            if data is not None:
                whole = min(grain, sectors - (t * gtes + i) * grain) * SECTOR
                z = zlib.compress(data.ljust(whole, b'\0'), level)
                entries[i] = append(struct.pack('<QI', (t * gtes + i) * grain,
                                                len(z)) + z)
        if any(entries):
            append(marker(4, 1))
            directory.append(append(struct.pack('<512I', *entries)))
        else:
            directory.append(0)
    append(marker(-(-tables * 4 // SECTOR), 2))
    gd = append(struct.pack('<%dI' % tables, *directory))
    append(marker(1, 3))
    append(header(gd))
    append(marker(0, 0))
    with open(name, 'wb') as f:
        f.write(image)


def main(kind, name):
    stem = name[:-5]
    if kind == 'cowd':
        cowd(stem + '-delta.vmdk', 2048,
             {0: b'first', 5: b'five', 6: b'six', 2047: b'last'})
        descriptor(name, 'vmfsSparse', [('RW', 2048, 'VMFSSPARSE',
                                         stem + '-delta.vmdk', '')])
    elif kind == 'sesparse':
        sesparse(stem + '-sesparse.vmdk', 65536,
                 {0: b'first', 1: 'zero', 2: 'unmapped', 3: b'three',
                  4: b'four', 8191: b'last'}, {0: 2, 3: 0, 4: 1, 8191: 3})
        descriptor(name, 'seSparse', [('RW', 65536, 'SESPARSE',
                                       stem + '-sesparse.vmdk', '')])
    else:
        stream(name, 2048, {0: b'first', 3: b'three' * 50, 15: b'last'})


if __name__ == '__main__':
    main(*sys.argv[1:])
