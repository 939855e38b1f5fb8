#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""check of broken qcow2 images: the same exit code, the same findings in the
same order, the same counts as qemu-img's.  Each image is a good one with some
bytes of a table changed."""
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

IMGCTL = os.path.join(os.environ.get('top_builddir', '.'), 'imgctl')
QEMU_IMG = '/usr/bin/qemu-img'
ENV = dict(os.environ, IMGCTL_QEMU_COMPAT='7.2', LC_ALL='C', TZ='UTC')
ROUNDS = int(os.environ.get('CHECK_ROUNDS', '120'))
done = 0


def run(*args):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL, timeout=60)


def u(d, fmt, at):
    d = d[at:at + 8].ljust(8, b'\0')
    return struct.unpack_from('>' + fmt, d)[0]


def make(name, options, snapshots, bitmaps):
    run(QEMU_IMG, 'create', '-q', '-f', 'qcow2', '-o', options, name, '8M')
    io = ['write -P 1 0 80k', 'write -z 96k 64k', 'write -P 2 3M 70k',
          'write -c -P 3 256k 64k', 'write -c -P 4 320k 64k',
          'write -P 5 512k 64k', 'write -P 6 640k 64k', 'write -z 640k 64k']
    run('qemu-io', *[w for c in io for w in ('-c', c)], name)
    for i in range(snapshots):
        run(QEMU_IMG, 'snapshot', '-c', 's%d' % i, name)
        run('qemu-io', '-c', 'write -P 9 %dk 64k' % (64 * i), name)
    for i in range(bitmaps):
        run(QEMU_IMG, 'bitmap', '--add', '-g', '512', name, 'b%d' % i)
    if bitmaps:
        run('qemu-io', '-c', 'write -P 7 0 64k', name)


def targets(d):
    """Offsets of 8-byte entries, by kind."""
    unit = 1 << u(d, 'I', 20)
    version = u(d, 'I', 4)
    order = u(d, 'I', 96) if version == 3 else 4
    found = {}

    def add(kind, at):
        found.setdefault(kind, []).append(at)

    def l1(kind, at, n):
        for i in range(n):
            add(kind + ' L1', at + 8 * i)
            e = u(d, 'Q', at + 8 * i) & 0xfffffffffffe00
            for j in range(unit // 8 if e else 0):
                if u(d, 'Q', e + 8 * j) or j < 2:
                    add(kind + ' L2', e + 8 * j)

    l1('live', u(d, 'Q', 40), u(d, 'I', 36))
    table = u(d, 'Q', 48)
    for i in range(4):
        add('refcount table', table + 8 * i)
    block = u(d, 'Q', table)
    for i in range(min(unit, (len(d) // unit + 2) << order >> 3) // 8 + 1):
        add('refcount block', block + 8 * i)
    at = u(d, 'Q', 64)
    for i in range(u(d, 'I', 60)):
        l1('snapshot', u(d, 'Q', at), u(d, 'I', at + 8))
        add('snapshot table', at)
        add('snapshot L1 size', at + 8)
        add('snapshot table', at + 32)
        at += (40 + u(d, 'I', at + 36) + u(d, 'H', at + 12) +
               u(d, 'H', at + 14) + 7) // 8 * 8
    if version == 3:
        for at in range(24, 72, 8):
            add('header', at)
    return unit, found


def values(rnd, d, unit, old):
    """What a table entry might become."""
    end = (len(d) + unit - 1) // unit * unit
    inside = rnd.randrange(0, end // unit) * unit
    flags = rnd.choice([0, 0, 1, 1 << 63, 1 << 63, 1 << 62, 3 << 62,
                        1 << 61, 1 << 56, 2, 0x100])
    return rnd.choice([
        0, old ^ (1 << 63), old ^ 1, old ^ (1 << 62), old | flags,
        inside | flags, inside | 1 << 63, (inside + 512) | flags, end | flags,
        end - unit | flags, end + unit | flags, 1 << 40 | flags,
        0xffffffffffffffff, 0x7fffffffffffffff, rnd.getrandbits(64),
        rnd.getrandbits(16)])


def check(program, how):
    p = subprocess.run([program, 'check', '--output=' + how, 't.q'], env=ENV,
                       capture_output=True, text=True, errors='replace',
                       timeout=60)
    err = p.stderr.replace('imgctl: ', 'qemu-img: ')
    # The program's name in front of a finding, and blank ends.
    err = err.replace('qemu-img: ERROR', 'ERROR')
    return p.returncode, p.stdout, [s for s in err.split('\n') if s]


def same(what):
    global done
    done += 1
    for how in 'human', 'json':
        theirs, ours = check(QEMU_IMG, how), check(IMGCTL, how)
        if theirs == ours:
            continue
        if theirs[0] == 1 and ours[0] == 1 and not theirs[1] and \
                'Could not open' in theirs[2][0]:
            # The words of open() have tests of their own.
            continue
        if 'qemu-img: Check failed: Cannot allocate memory' in theirs[2]:
            # An offset of 2^63 or more: QEMU counts it, in vain.
            continue
        keep = os.environ.get('CHECK_KEEP')
        if keep:
            shutil.copy('t.q', keep)
        for i, (a, b) in enumerate(zip(theirs[2] + [''], ours[2] + [''])):
            if a != b:
                print('line %d:\n-%s\n+%s' % (i, a, b))
                break
        sys.exit('%s (%s):\n-%s\n+%s' % (what, how, theirs[:2], ours[:2]))


def poke(base, d, changes, length=None):
    shutil.copy(base, 't.q')
    with open('t.q', 'r+b') as f:
        for at, v in changes:
            f.seek(at)
            f.write(struct.pack('>Q', v))
        if length is not None:
            f.truncate(length)


def mutate(base, rnd, rounds):
    with open(base, 'rb') as f:
        d = f.read()
    unit, found = targets(d)
    kinds = sorted(found)
    for _ in range(rounds):
        changes = []
        for _ in range(rnd.choice([1, 1, 2, 4])):
            kind = rnd.choice(kinds)
            at = rnd.choice(found[kind])
            old = u(d, 'Q', at)
            if kind == 'header':
                # A header that open refuses tells nothing about check.
                v = old ^ (unit << rnd.randrange(0, 4)) if at != 24 else old
            else:
                v = values(rnd, d, unit, old)
            if kind == 'snapshot L1 size':  # not the lengths behind it
                v = v & ~0xffffffff | old & 0xffffffff
            changes.append((at, v))
        length = rnd.randrange(unit, len(d) + 3 * unit) \
            if not rnd.randrange(8) else None
        poke(base, d, changes, length)
        same('%s: %s length %s' % (
            base, ' '.join('%#x=%#x' % c for c in changes), length))


def overflow():
    """More references than a count can hold."""
    for bits, n in (1, 3), (2, 6), (8, 300), (16, 5):
        run(QEMU_IMG, 'create', '-q', '-f', 'qcow2', '-o',
            'cluster_size=4k,refcount_bits=%d' % bits, 'o.q', '8M')
        run('qemu-io', '-c', 'write 0 4k', 'o.q')
        with open('o.q', 'rb') as f:
            d = f.read()
        l2 = u(d, 'Q', u(d, 'Q', 40)) & 0xfffffffffffe00
        data = u(d, 'Q', l2)
        poke('o.q', d, [(l2 + 8 * i, data) for i in range(n)])
        same('%d references, %d bits' % (n, bits))


def main():
    if not os.access(QEMU_IMG, os.X_OK) or not shutil.which('qemu-io'):
        print('needs qemu-img and qemu-io')
        sys.exit(77)
    seed = int(os.environ.get('CHECK_SEED', '1'))
    rnd = random.Random(seed)
    tmp = tempfile.mkdtemp(prefix='imgfs-test.')
    try:
        os.chdir(tmp)
        for i, (options, snapshots, bitmaps) in enumerate((
                ('cluster_size=4k', 0, 0), ('cluster_size=4k', 2, 0),
                ('cluster_size=512', 1, 0), ('cluster_size=64k', 1, 2),
                ('cluster_size=1k,refcount_bits=1', 0, 0),
                ('cluster_size=2k,refcount_bits=64', 2, 1),
                ('cluster_size=4k,compat=0.10', 1, 0),
                ('cluster_size=64k,compression_type=zstd', 1, 0))):
            name = 'base%d.q' % i
            make(name, options, snapshots, bitmaps)
            shutil.copy(name, 't.q')
            same(options)
            mutate(name, rnd, ROUNDS // 8)
        overflow()
    finally:
        os.chdir('/')
        shutil.rmtree(tmp)
    print('%d images alike' % done)


if __name__ == '__main__':
    main()
