#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 400
"""check, check -r leaks and check -r all of qcow2 images of every kind (cluster
sizes, extended L2, widths of counts, data files, snapshots, bitmaps, compressed
clusters), each with one or two damages: exit code, findings, counts and what is
read afterwards are the same as with qemu-img; a second run finds nothing more to
do.  Where the outcome may differ, and why, is in tests/qcow2-repair.differences.

What is always the same is short.  More, of kinds chosen at random:

    MIX_ROUNDS=1000 [MIX_SEED=1] [REPAIR_VERBOSE=1] [CHECK_KEEP=FILE]"""
import importlib.util
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location(
    'qcow2_repair', os.path.join(here, 'qcow2-repair.py'))
qr = importlib.util.module_from_spec(spec)
spec.loader.exec_module(qr)
qc, u = qr.qc, qr.u
COPIED = 1 << 63
HOST = 0xfffffffffffe00
SEED = int(os.environ.get('MIX_SEED', '1'))
ROUNDS = int(os.environ.get('MIX_ROUNDS', '0'))
PER_KIND = 12
# What is always tried: all that is not the default.
ALWAYS = (
    dict(unit=65536, subs=True, snapshots=2, packed=True),
    dict(unit=16384, subs=True, data='raw', bitmaps=1, bits=8),
    dict(unit=16384, subs=True, data='mapped', bits=64),
    dict(unit=4096, bits=1, bitmaps=2, packed=True),
    dict(unit=512, bits=32, snapshots=1, packed=True, zstd=True),
    dict(unit=524288, subs=True, bits=2, data='mapped'),
    dict(unit=4096, old=True, snapshots=1),
    dict(unit=1024, lazy=True, data='raw'),
)


# ---- images ------------------------------------------------------------------

def unit_text(unit):
    return '%dk' % (unit // 1024) if unit >= 1024 else str(unit)


def random_kind(rnd):
    """Whatever QEMU can make."""
    k = {'unit': rnd.choice([512, 1024, 4096, 4096, 16384, 16384, 16384, 65536,
                             65536, 524288]), 'old': not rnd.randrange(12)}
    if not k['old']:
        k['bits'] = rnd.choice([1, 2, 8, 16, 16, 32, 64])
        k['subs'] = k['unit'] >= 16384 and rnd.random() < .6
        k['data'] = rnd.choice([None, None, None, 'mapped', 'raw'])
        k['lazy'] = not rnd.randrange(6)
    # More counts than these have room for.
    if not k.get('data') and k.get('bits', 16) >= 8:
        k['snapshots'] = rnd.choice([0, 0, 1, 2])
    # Of images with both see loses_snapshots().
    if not k['old'] and not k.get('snapshots'):
        k['bitmaps'] = rnd.choice([0, 0, 1, 2])
    if not k.get('data') and rnd.random() < .6:
        k['packed'] = True
        k['zstd'] = not k['old'] and rnd.random() < .3
    return Kind(**k)


class Kind:
    """What an image is like."""
    unit = 65536
    bits = 16
    snapshots = bitmaps = 0
    old = subs = packed = zstd = lazy = False
    data = None

    def __init__(self, **what):
        self.__dict__.update(what)
        self.size = 8 << 20
        if self.subs and self.unit == 16384:
            self.size = 20 << 20
        if self.unit >= 524288:
            self.size = 16 << 20

    def options(self):
        o = ['cluster_size=%d' % self.unit]
        if self.old:
            o.append('compat=0.10')
        else:
            o.append('refcount_bits=%d' % self.bits)
        if self.subs:
            o.append('extended_l2=on')
        if self.zstd:
            o.append('compression_type=zstd')
        if self.lazy:
            o.append('lazy_refcounts=on')
        if self.data:
            o.append('data_file=d.bin,data_file_raw=%s' % (
                'on' if self.data == 'raw' else 'off'))
        return ','.join(o)

    def name(self):
        return '%s,snapshots=%d,bitmaps=%d%s' % (
            self.options(), self.snapshots, self.bitmaps,
            ',packed' if self.packed else '')


def writes(kind, rnd):
    """qemu-io's commands: all states of a cluster, more than one L2 table."""
    unit, end = kind.unit, kind.size
    step = max(unit // 32, 512)
    io = []
    if kind.packed:
        for i in 7, 10, 11, 12, 13:
            if (i + 1) * unit <= end:
                io.append('write -c -P %d %d %d' % (i, i * unit, unit))
    io += ['write -P 1 0 %d' % min(5 * unit, 2 << 20),
          'write -z %d %d' % (8 * unit, unit),
          'write -P 5 %d %d' % (end - unit, unit)]
    if end > 32 * unit:
        io += ['write -P 2 %d %d' % (end // 2, min(3 * unit, 1 << 20)),
               'write -z -u %d %d' % (end // 2 + unit, unit),
               'write -P 6 %d %d' % (20 * unit, 2 * unit),
               'write -z %d %d' % (20 * unit, unit),
               'discard %d %d' % (2 * unit, unit)]
    for _ in range(4):
        at = rnd.randrange(0, min(end, 24 * unit) // step) * step
        io.append('write -P %d %d %d' % (rnd.randrange(1, 255), at, step))
    if kind.subs:
        io.append('write -z %d %d' % (4 * unit + step, 3 * step))
    return io


def make(name, kind, rnd):
    for f in name, 'd.bin':
        if os.path.exists(f):
            os.unlink(f)
    qc.run(qr.QEMU_IMG, 'create', '-q', '-f', 'qcow2', '-o', kind.options(),
           name, str(kind.size))
    qc.run('qemu-io', '-d', 'unmap',
           *[w for c in writes(kind, rnd) for w in ('-c', c)], name)
    for i in range(kind.snapshots):
        qc.run(qr.QEMU_IMG, 'snapshot', '-c', 's%d' % i, name)
        qc.run('qemu-io', '-c', 'write -P 9 %d %d' % (i * kind.unit, 2 *
               kind.unit), name)
    for i in range(kind.bitmaps):
        qc.run(qr.QEMU_IMG, 'bitmap', '--add', '-g', '512', name, 'b%d' % i)
    if kind.bitmaps:
        qc.run('qemu-io', '-c', 'write -P 7 0 %d' % kind.unit, name)


# ---- damages -----------------------------------------------------------------

class Image:
    """Where what is in an image, as offsets of 8-byte words, by kind."""

    def __init__(self, d):
        self.d = d
        self.unit = 1 << u(d, 'I', 20)
        self.new = u(d, 'I', 4) == 3
        self.order = u(d, 'I', 96) if self.new else 4
        self.subs = self.new and u(d, 'Q', 72) & 16
        self.found = {}
        self.clusters = set()
        self.table('L1', 'L2', u(d, 'Q', 40), u(d, 'I', 36))
        self.counts()
        self.snapshots()
        if self.new:
            self.bitmaps()
            self.add('marks', 72)
            self.add('autoclear', 88)
        self.add('table offset', 48)
        self.add('table size', 56)
        self.add('L1 offset', 40)
        if 'bitmaps' not in self.found:
            # Otherwise QEMU loses what it says, see the list.
            self.add('snapshots', 60)
            self.add('snapshots offset', 64)

    def add(self, kind, at):
        self.found.setdefault(kind, []).append(at)

    def table(self, l1, l2, at, n):
        d, size = self.d, 16 if self.subs else 8
        for i in range(n):
            e = u(d, 'Q', at + 8 * i) & HOST
            if e or i < 4:
                self.add(l1, at + 8 * i)
            for j in range(0, self.unit if e else 0, size):
                self.l2_entry(l2, e + j, j < 4 * size)

    def l2_entry(self, name, at, anyhow):
        e = u(self.d, 'Q', at)
        if not e and not anyhow:
            return
        self.add(name + (' packed' if e >> 62 & 1 else ''), at)
        if self.subs:
            self.add(name + ' bits', at + 8)
        if e & HOST and not e >> 62 & 1:
            self.clusters.add(e & HOST)

    def counts(self):
        d, at, n = self.d, u(self.d, 'Q', 48), u(self.d, 'I', 56)
        for i in range(min(6, n * self.unit // 8)):
            self.add('refcount table', at + 8 * i)
            block = u(d, 'Q', at + 8 * i)
            used = len(d) // self.unit + 3 << self.order >> 6
            for j in range(min(self.unit // 8, used + 1) if block else 0):
                self.add('counts', block + 8 * j)

    def snapshots(self):
        for at, fixed, _, _ in qr.snapshot_entries(self.d):
            self.table('snapshot L1', 'snapshot L2', u(fixed, 'Q', 0),
                       u(fixed, 'I', 8))
            self.add('snapshot place', at)
            self.add('snapshot L1 size', at + 8)
            self.add('snapshot extra', at + 32)

    def bitmaps(self):
        d, at = self.d, u(self.d, 'I', 100)
        while u(d, 'I', at) not in (0, 0x23852875):
            at += 8 + (u(d, 'I', at + 4) + 7) // 8 * 8
        if not u(d, 'I', at):
            return
        self.add('bitmaps', at + 8)
        self.add('bitmaps', at + 16)
        self.add('bitmaps', at + 24)
        place = u(d, 'Q', at + 24)
        for _ in range(u(d, 'I', at + 8)):
            table, n = u(d, 'Q', place), u(d, 'I', place + 8)
            self.add('bitmap entry', place)
            self.add('bitmap entry', place + 8)
            self.add('bitmap entry', place + 16)
            for i in range(min(n, 4)):
                self.add('bitmap table', table + 8 * i)
            place += (24 + u(d, 'H', place + 18) + u(d, 'I', place + 20) +
                      7) // 8 * 8


def new_bits(rnd, old):
    i = rnd.randrange(32)
    return rnd.choice([0, old ^ 1 << i, old ^ 1 << (32 + i), old | 1 << i |
                       1 << (32 + i), 0xffffffff, 0xffffffff << 32,
                       rnd.getrandbits(64), (1 << 64) - 1])


def new_count(rnd, image, old):
    """Another count among those of a word."""
    bits = 1 << image.order
    if rnd.randrange(4) == 0:
        return rnd.choice([0, (1 << 64) - 1, rnd.getrandbits(64)])
    shift = rnd.randrange(64 // bits) * bits
    value = rnd.choice([0, 1, 2, 7, (1 << bits) - 1])
    mask = (1 << bits) - 1
    return old & ~(mask << shift) | (value & mask) << shift


def new_value(rnd, image, kind, at):
    d, unit = image.d, image.unit
    old = u(d, 'Q', at)
    if kind == 'counts':
        return new_count(rnd, image, old)
    if kind.endswith('bits'):
        return new_bits(rnd, old)
    if kind == 'marks':
        return old ^ rnd.choice([1, 2, 3])
    if kind == 'autoclear':
        # Unknown ones: see the list.
        return old ^ rnd.choice([1, 2])
    if kind in ('table size', 'snapshots'):
        n = old >> 32
        return old & 0xffffffff | max(0, rnd.choice(
            [n - 1, n + 1, n + 1, 2 * n, 0])) << 32
    if kind == 'snapshot L1 size':
        return old ^ rnd.choice([1, 2, 0x10000, 1 << 24, 1 << 31]) << 32
    if kind == 'snapshot extra':
        return old & ~0xffff | rnd.choice([0, 8, 16, 1025])
    if kind == 'bitmap entry' and rnd.randrange(2):
        return old ^ 1 << rnd.randrange(64)
    if kind.startswith(('L2', 'L1', 'snapshot L')) and image.clusters and \
            not rnd.randrange(4):
        # Somebody else's cluster.
        return rnd.choice(sorted(image.clusters)) | rnd.choice([0, COPIED])
    return qc.values(rnd, d, unit, old)


def damages(rnd, image):
    changes, names = [], []
    for _ in range(rnd.choice([1, 1, 2])):
        kind = rnd.choice(sorted(image.found))
        at = rnd.choice(image.found[kind])
        v = new_value(rnd, image, kind, at)
        changes.append((at, v))
        names.append('%s %#x=%#x' % (kind, at, v))
    return changes, ' '.join(names)


def damaged(kind, rnd, rounds, judge):
    """Images of @kind, each with damages of its own."""
    make('base.q', kind, rnd)
    with open('base.q', 'rb') as f:
        image = Image(f.read())
    shutil.copy('base.q', 't.q')
    judge(kind.name())
    for _ in range(rounds):
        changes, what = damages(rnd, image)
        length = rnd.randrange(image.unit, len(image.d) + 3 * image.unit) \
            if not rnd.randrange(12) else None
        qc.poke('base.q', image.d, changes, length)
        judge('%s: %s%s' % (kind.name(), what, '' if length is None
                            else ' length %d' % length))


# ---- what only such images can lack ------------------------------------------

def subclusters(image):
    """Cases of extended L2 entries: bits that contradict."""
    l2 = u(image.d, 'Q', u(image.d, 'Q', 40)) & HOST
    entries = [l2 + 16 * i for i in range(image.unit // 16)]

    def one(wanted):
        return next(e for e in entries
                    if wanted(u(image.d, 'Q', e), u(image.d, 'Q', e + 8)))

    data = one(lambda e, bits: e & HOST and not e >> 62 & 1 and bits)
    host = u(image.d, 'Q', data)
    none = one(lambda e, bits: not e and not bits)
    yield 'both bits', [(data + 8, 1 << 32 | 1)]
    yield 'all bits', [(data + 8, (1 << 64) - 1)]
    yield 'no bit', [(data + 8, 0)]
    yield 'bits without a cluster', [(none + 8, 0xffffffff)]
    yield 'zeroes without a cluster', [(none + 8, 0xffffffff << 32)]
    yield 'unaligned data', [(data, host + 512)]
    yield 'unaligned, no bit', [(data, host + 512), (data + 8, 0)]
    yield 'unaligned, zeroes', [(data, host + 512),
                                (data + 8, 0xffffffff << 32)]
    yield 'the old zero bit', [(data, host | 1)]
    yield 'packed', [(data, host & ~COPIED | 1 << 62)]
    yield 'packed, no bits', [(data, host & ~COPIED | 1 << 62), (data + 8, 0)]
    yield 'not COPIED', [(data, host & ~COPIED)]
    yield 'elsewhere', [(data, COPIED | 7 * image.unit)]


def data_files(image):
    """Cases of images with a data file: no snapshots."""
    for at, n in (3 * image.unit, 1), (len(image.d) // image.unit *
                                       image.unit, 2):
        yield '%d snapshots at %#x' % (n, at), \
            [(60, n << 32 | at >> 32), (68, (at & 0xffffffff) << 32 |
                                        u(image.d, 'I', 72))]


def catalogue(kind, cases):
    make('base.q', kind, random.Random(1))
    with open('base.q', 'rb') as f:
        image = Image(f.read())
    for what, changes in cases(image):
        qc.poke('base.q', image.d, changes)
        qr.same('%s: %s' % (kind.name(), what))


# ---- where QEMU is not the measure -------------------------------------------

def nr_snapshots(name):
    with open(name, 'rb') as f:
        return u(f.read(72), 'I', 60)


def alone(what):
    """A repair by itself: what was read still is, what is left is what it says,
    a second one has nothing to do."""
    before = qr.content('t.q')
    plain = qr.check(qr.QEMU_IMG, 't.q')
    if 'Could not open' in ' '.join(plain[2]):
        return
    qr.done += 1
    for mode in 'leaks', 'all':
        shutil.copy('t.q', 'ours.q')
        ours = qr.check(qr.IMGCTL, 'ours.q', '-r', mode)
        left = qr.check(qr.QEMU_IMG, 'ours.q')
        if qr.WORSE[left[0]] > qr.WORSE[plain[0]] or \
                (ours[1] and left[0] != ours[0]) or \
                left != qr.check(qr.IMGCTL, 'ours.q'):
            qr.fail(what, mode, left, ours)
        if not ours[0]:
            qr.settled(what, mode, ours)
        for old, new in zip(before, qr.content('ours.q')):
            if old is not None and old != new:
                qr.complain('%s: -r %s changes what is read' % (what, mode))


def loses_snapshots():
    """"bitmaps": an image without a fault, and one with a leak."""
    make('base.q', Kind(snapshots=2, bitmaps=1), random.Random(1))
    with open('base.q', 'rb') as f:
        d = f.read()
    for changes in [], [qr.refcount(d, len(d) // 65536 - 1, 5)]:
        qc.poke('base.q', d, changes)
        shutil.copy('t.q', 'theirs.q')
        qr.check(qr.QEMU_IMG, 'theirs.q', '-r', 'leaks')
        if nr_snapshots('theirs.q'):
            qr.complain('QEMU keeps snapshots beside bitmaps: a difference'
                        ' less')
        alone('snapshots and bitmaps: %s' % changes)


def wild_places():
    """"wild place": an entry points just behind the file, where a repair would
    put what it makes anew."""
    for kind in Kind(unit=4096), Kind(unit=16384, subs=True), \
            Kind(unit=4096, snapshots=1):
        make('base.q', kind, random.Random(1))
        with open('base.q', 'rb') as f:
            d = f.read()
        end = (len(d) + kind.unit - 1) // kind.unit * kind.unit
        l2 = u(d, 'Q', u(d, 'Q', 40)) & HOST
        for i in 0, 1, 2:
            changes = [(l2 + (16 if kind.subs else 8) * 5,
                        COPIED | end + i * kind.unit)]
            changes.append((u(d, 'Q', 64) + 32, 0) if kind.snapshots else
                           (u(d, 'Q', 48), 0))
            qc.poke('base.q', d, changes)
            alone('%s: wild place %d' % (kind.name(), i))


def data_as_l2():
    """"data as L2": an L1 entry leads to a cluster of the guest's, whose bytes
    look like unaligned preallocated clusters.  They stay."""
    make('base.q', Kind(unit=4096), random.Random(1))
    qc.run('qemu-io', '-c', 'write -P 0x85 6M 4k', 'base.q')
    with open('base.q', 'rb') as f:
        d = f.read()
    at = d.index(bytes([0x85]) * 4096)
    qc.poke('base.q', d, [(u(d, 'Q', 40) + 8, COPIED | at)])
    for program, kept in (qr.QEMU_IMG, False), (qr.IMGCTL, True):
        shutil.copy('t.q', 'r.q')
        qr.check(program, 'r.q', '-r', 'all')
        with open('r.q', 'rb') as f:
            now = f.read()[at:at + 4096]
        if (now == bytes([0x85]) * 4096) != kept:
            qr.complain('%s -r all: data as L2: %s' % (program, now[:16]))


def sanitized():
    """Whose memory says nothing."""
    with open(os.path.join(os.path.dirname(qr.IMGCTL), 'Makefile')) as f:
        return '-fsanitize' in f.read()


def rebuild_at_the_limit():
    """A refcount table as long as one may be and without a block, in a file
    that is longer than it can count: what is in use can be counted."""
    make('t.q', Kind(unit=512, bits=64), random.Random(1))
    with open('t.q', 'r+b') as f:
        end = f.seek(0, os.SEEK_END) + 511 & ~511
        f.seek(48)
        f.write(struct.pack('>QI', end, (8 << 20) // 512))
        f.truncate(1 << 36)
    before = qr.content('t.q')
    p = subprocess.Popen([qr.IMGCTL, 'check', '-q', '-r', 'all', 't.q'],
                         stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode or qr.check(qr.IMGCTL, 't.q')[0] or \
            qr.content('t.q') != before:
        qr.complain('the largest refcount table: exit code %d' % p.returncode)
    if usage.ru_maxrss > 96 << 10 and not sanitized():
        qr.complain('the largest refcount table: %d KiB' % usage.ru_maxrss)


def main():
    if not os.access(qr.QEMU_IMG, os.X_OK) or not shutil.which('qemu-io'):
        print('needs qemu-img and qemu-io')
        sys.exit(77)
    rnd = random.Random(SEED)
    for _ in range((ROUNDS + PER_KIND - 1) // PER_KIND):
        damaged(random_kind(rnd), rnd, PER_KIND, qr.same)
    if not ROUNDS:
        for what in ALWAYS:
            damaged(Kind(**what), rnd, 5, qr.same)
        catalogue(Kind(unit=16384, subs=True), subclusters)
        catalogue(Kind(unit=16384, subs=True, data='mapped'), subclusters)
        catalogue(Kind(unit=4096, data='raw'), data_files)
        damaged(Kind(unit=4096, snapshots=1, bitmaps=1), rnd, 4, alone)
        loses_snapshots()
        wild_places()
        data_as_l2()
        rebuild_at_the_limit()
    print('%d images; differences: %s' % (qr.done, qr.used))


if __name__ == '__main__':
    tmp = tempfile.mkdtemp(prefix='imgfs-test.')
    try:
        os.chdir(tmp)
        main()
    finally:
        os.chdir('/')
        shutil.rmtree(tmp)
