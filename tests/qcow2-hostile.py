#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writing to images whose tables point at each other, at the header or outside:
no crash, no hang, and never a byte of the header, the active L1 or the snapshot
table under guest data."""
import os
import shutil
import struct
import subprocess
import sys
import tempfile

TOP = os.environ.get('top_builddir', os.path.dirname(os.path.abspath(__file__))
                     + '/..')
IMGIO = os.path.abspath(TOP + '/tests/imgio')
COPIED = 1 << 63
PACKED = 1 << 62
PATTERN = 0xa7

failures = 0


class Image:
    def __init__(self, unit, options):
        self.unit = unit
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-o',
                        'cluster_size=%d%s' % (unit, options), 'a.qcow2',
                        str(unit * unit // 4)], check=True)
        subprocess.run(['qemu-io', '-f', 'qcow2', '-c',
                        'write 0 %d' % (8 * unit), 'a.qcow2'], check=True,
                       stdout=subprocess.DEVNULL)
        if 'data_file' not in options:
            subprocess.run(['qemu-img', 'snapshot', '-c', 's', 'a.qcow2'],
                           check=True)
        subprocess.run(['qemu-io', '-f', 'qcow2', '-c',
                        'write 0 %d' % (4 * unit), 'a.qcow2'], check=True,
                       stdout=subprocess.DEVNULL)
        with open('a.qcow2', 'rb') as f:
            self.data = bytearray(f.read())
        self.l1 = self.u64(40)
        self.table = self.u64(48)
        self.block = self.u64(self.table)
        self.snapshots = self.u64(64)
        self.l2 = self.u64(self.l1) & ~COPIED

    def u64(self, at):
        return struct.unpack_from('>Q', self.data, at)[0]

    def put(self, at, value):
        struct.pack_into('>Q', self.data, at, value)

    def save(self):
        with open('a.qcow2', 'wb') as f:
            f.write(self.data)


def cases(img):
    """Name, what to break."""
    places = {
        'header': 0, 'l1': img.l1,
        'refcount table': img.table, 'refcount block': img.block,
        'snapshots': img.snapshots, 'l2': img.l2, 'outside': 1 << 40,
        'unaligned': img.l2 + 8, 'far': (1 << 55),
    }
    for name, host in places.items():
        for flags in (COPIED, 0):
            yield 'L2 entry -> %s' % name, \
                lambda: img.put(img.l2, host | flags)
            yield 'L2 zero entry -> %s' % name, \
                lambda: img.put(img.l2, host | flags | 1)
            yield 'L1 entry -> %s' % name, \
                lambda: img.put(img.l1, host | flags)
            yield 'second L1 entry -> %s' % name, \
                lambda: img.put(img.l1 + 8, host | flags)
            yield '2 L1 entries -> %s' % name, \
                lambda: (img.put(img.l1, host | flags),
                         img.put(img.l1 + 8, host | flags))
        yield 'packed -> %s' % name, \
            lambda: img.put(img.l2, (host & (1 << 50) - 1) | PACKED)
        yield 'refcount table -> %s' % name, \
            lambda: img.put(img.table, host)
        yield 'second block -> %s' % name, \
            lambda: img.put(img.table + 8, host)
    for bits in 1 << 32 | 1, (1 << 64) - 1, 0, 1 << 31, 1 << 63:
        yield 'second word %x' % bits, lambda: img.put(img.l2 + 8, bits)
        yield 'second word %x, no host' % bits, \
            lambda: (img.put(img.l2, 0), img.put(img.l2 + 8, bits))
        yield 'second word %x, packed' % bits, \
            lambda: (img.put(img.l2, PACKED | img.l2),
                     img.put(img.l2 + 8, bits))
    yield 'no counts', lambda: img.data.__setitem__(
        slice(img.block, img.block + img.unit), bytes(img.unit))
    yield 'counts at their limit', lambda: img.data.__setitem__(
        slice(img.block, img.block + img.unit), b'\xff' * img.unit)
    yield 'a table of one block', lambda: [
        img.put(img.table + i * 8, img.block) for i in range(img.unit // 8)]
    yield 'all L1 entries alike', lambda: [
        img.put(img.l1 + i * 8, img.l2 | COPIED)
        for i in range(min(8, img.unit // 8))]
    yield 'all L2 entries alike', lambda: [
        img.put(img.l2 + i * 8, img.u64(img.l2)) for i in range(img.unit // 8)]


def commands(unit):
    cover = unit * unit // 8
    for off in (cover + cover // 2, 0, cover):
        yield 'write -P %d %d %d' % (PATTERN, off, 2 * unit)
        yield 'write -z %d %d' % (off + 2 * unit, unit)
        yield 'write -z -u %d %d' % (off + 3 * unit, unit)
        yield 'discard %d %d' % (off + 4 * unit, unit)
        yield 'hole %d %d' % (off + 5 * unit, unit)
        yield 'allocate %d %d' % (off + 6 * unit, unit)
        yield 'write -c -P %d %d %d' % (PATTERN, off + 9 * unit, unit)


def roots(img, data):
    """What no guest may ever write to."""
    n = (img.unit * img.unit // 4 * 8 // img.unit ** 2) * 8
    spots = [(0, 48), (72, 112), (img.l1, img.l1 + n),
             (img.snapshots, img.snapshots + 40)]
    return [bytes(data[a:b]) for a, b in spots]


def play(img, name, threads):
    global failures
    img.save()
    text = '\n'.join(list(commands(img.unit)) + ['wait', 'flush']
                     + list(commands(img.unit))) + '\n'
    try:
        p = subprocess.run([IMGIO, '-f', 'qcow2', '-d', 'unmap', '-T', threads,
                            'a.qcow2'], input=text.encode(), timeout=20,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        status = p.returncode
    except subprocess.TimeoutExpired:
        p, status = None, 'hangs'
    with open('a.qcow2', 'rb') as f:
        after = f.read()
    bad = [r for r in roots(img, after) if bytes([PATTERN]) * 8 in r]
    if status not in (0, 1) or bad:
        failures += 1
        print('FAIL: unit %d, %s: %s%s' % (
            img.unit, name, status, ', guest data over a root' if bad else ''))
        if p and status not in (0, 1):
            print(p.stderr.decode()[-300:])


def main():
    for need in ('qemu-img', 'qemu-io'):
        if not shutil.which(need):
            print('skipped: no', need)
            sys.exit(77)
    here, n = os.getcwd(), 0
    with tempfile.TemporaryDirectory(prefix='imgfs-test.') as tmp:
        os.chdir(tmp)
        for unit, options in ((512, ''), (4096, ''), (65536, ''),
                              (16384, ',extended_l2=on'),
                              (4096, ',data_file=d.raw'),
                              (4096, ',data_file=d.raw,data_file_raw=on')):
            img = Image(unit, options)
            sound = bytes(img.data)
            for name, spoil in cases(img):
                img.data[:] = sound
                spoil()
                play(img, name, '1' if n % 2 else '4')
                n += 1
        os.chdir(here)
    print('%d images, %d failures' % (n, failures))
    sys.exit(failures != 0)


main()
