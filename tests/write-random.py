#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random writes, zeroes, holes, discards and compressed writes to images, by one
thread and by many at once: the guest reads what was stored last, whoever asks
(qemu-img), and qemu-img check finds nothing, not even a leak.  Programs that end
without a flush leak, and do no other harm.

    tests/write-random.py [SEED [ROUNDS]]    more of it
"""
import os
import random
import shutil
import subprocess
import sys
import tempfile

TOP = os.environ.get('top_builddir', os.path.dirname(os.path.abspath(__file__))
                     + '/..')
IMGIO = os.path.abspath(TOP + '/tests/imgio')

SHAPES = [      # format, create options, cluster size, size
    ('qcow2', 'cluster_size=512', 512, 700 * 1024),
    ('qcow2', 'cluster_size=512,refcount_bits=64', 512, 700 * 1024 + 512),
    ('qcow2', 'cluster_size=512,refcount_bits=1', 512, 300 * 1024),
    ('qcow2', 'cluster_size=1k,compat=0.10', 1024, 1 << 20),
    ('qcow2', 'cluster_size=4k,refcount_bits=8', 4096, (6 << 20) + 1536),
    ('qcow2', 'cluster_size=64k', 65536, 8 << 20),
    ('qcow2', 'cluster_size=64k,compat=0.10', 65536, (8 << 20) + 512),
    ('qcow2', 'cluster_size=64k,compression_type=zstd,refcount_bits=32',
     65536, 8 << 20),
    ('qcow2', 'cluster_size=2M,refcount_bits=2', 2 << 20, 16 << 20),
    ('qcow2', 'cluster_size=16k,extended_l2=on', 16384, (4 << 20) + 512),
    ('qcow2', 'cluster_size=64k,extended_l2=on,compression_type=zstd', 65536,
     8 << 20),
    ('qcow2', 'cluster_size=4k,data_file=d.raw', 4096, (6 << 20) + 1536),
    ('qcow2', 'cluster_size=4k,data_file=d.raw,data_file_raw=on', 4096,
     6 << 20),
    ('qcow2', 'cluster_size=64k,extended_l2=on,data_file=d.raw', 65536,
     8 << 20),
    ('qcow2', 'cluster_size=64k,extended_l2=on,data_file=d.raw,'
     'data_file_raw=on', 65536, 8 << 20),
    ('qcow', '', 4096, (8 << 20) + 512),
    ('qed', 'cluster_size=4k,table_size=2', 4096, (6 << 20) + 1536),
    ('qed', 'cluster_size=64k', 65536, (8 << 20) + 512),
    ('parallels', 'cluster_size=64k', 65536, (8 << 20) + 512),
    ('parallels', 'cluster_size=3k', 3072, (2 << 20) + 512),
    ('vmdk', '', 65536, (8 << 20) + 512),
    ('vmdk', 'zeroed_grain=on', 65536, 40 << 20),
    ('vmdk', 'subformat=twoGbMaxExtentSparse', 65536, 8 << 20),
]
# What a format can do; qemu-img's exit codes for it: checked when all is well,
# and after the end of a program.
CAN_PUNCH = {'qcow2'}
GOOD = {'qcow2': {0}, 'qed': {0, 3}, 'qcow': {63},
        'parallels': {0, 2, 3}, 'vmdk': {0}}
LEFT = {'qcow2': {0, 3}, 'qed': {0, 3}, 'qcow': {63},
        'parallels': {2}, 'vmdk': {0}}


def run(*args, **kw):
    return subprocess.run(args, check=True, **kw)


class Model(bytearray):
    """What the guest reads."""
    below = b''     # what it reads where nothing is stored
    fmt = ''
    raw = False     # the data file is to be the same


def create(rng, fmt, options, size):
    """An image, perhaps over a backing file."""
    model = Model(size)
    model.fmt = fmt
    args = ['qemu-img', 'create', '-q', '-f', fmt]
    args += ['-o', options] if options else []
    model.raw = 'data_file_raw' in options
    if rng.random() < 0.5 and fmt != 'parallels' and not model.raw:
        n = rng.choice([size, size // 2 // 512 * 512, size + 65536])
        base = bytes(rng.randrange(1, 256) for _ in range(64)) * (n // 64)
        with open('base.raw', 'wb') as f:
            f.write(base)
        model[:min(n, size)] = base[:min(n, size)]
        below = 'raw'
        if fmt == 'vmdk':               # takes no other parent
            below = fmt
            run('qemu-img', 'convert', '-O', fmt, 'base.raw', 'base.vmdk')
        args += ['-b', 'base.' + below, '-F', below]
    run(*args, 'a.img', str(size))
    model.below = bytes(model)
    return model


def a_range(rng, size, unit, lo, hi):
    off = lo + rng.randrange(hi - lo)
    n = 1 + int((hi - lo) * rng.random() ** 6)
    if rng.random() < 0.5:
        off = off // unit * unit
        n = (n + unit - 1) // unit * unit
    return off, min(n, hi - off, size - off)


def one(rng, model, unit, lo, hi, packs):
    """A command that changes [lo, hi), done to the model as well."""
    off, n = a_range(rng, len(model), unit, lo, hi)
    p = rng.randrange(1, 256)
    kind = rng.random()
    if kind < 0.5:
        model[off:off + n] = bytes([p]) * n
        return 'write -P %d %d %d' % (p, off, n)
    if kind < 0.6:
        model[off:off + n] = bytes(n)
        return 'write -z %s %d %d' % (rng.choice(['', '-u']), off, n)
    if kind < 0.65:
        return 'allocate %d %d' % (off, n)
    if kind < 0.7 and model.fmt in CAN_PUNCH:
        first, end = -(-off // unit) * unit, (off + n) // unit * unit
        if off + n == len(model):       # that unit is whole as well
            end = off + n
        if end <= first:
            return 'flush'
        model[first:end] = model.below[first:end]
        return 'hole %d %d' % (off, n)
    if kind < 0.85 or not packs:
        # Afterwards undefined: made defined at once.
        model[off:off + n] = bytes([p]) * n
        return 'discard %d %d\nwrite -P %d %d %d' % (off, n, p, off, n)
    off = off // unit * unit
    if off < lo or off + unit > hi:
        return 'flush'
    # What has data is not replaced by a compressed unit: made zeroes first.
    model[off:off + unit] = bytes([p]) * unit
    return 'write -z -u %d %d\nwrite -c -P %d %d %d' % (off, unit, p, off, unit)


def batch(rng, model, unit, threads, packs):
    """Commands that may run at once: each on a stretch of its own.  Stretches
    share L2 tables and, where not aligned, no cluster."""
    if threads == 1:
        return [one(rng, model, unit, 0, len(model), packs) for _ in range(12)]
    slots = min(64, len(model) // unit)
    edges = sorted(rng.sample(range(len(model) // unit + 1), slots))
    jobs = [one(rng, model, unit, a * unit, b * unit, packs)
            for a, b in zip(edges, edges[1:])]
    # Two commands that belong together: all firsts, then all seconds.
    return [j.split('\n')[0] for j in jobs] + ['wait'] + \
        [j.split('\n')[1] for j in jobs if '\n' in j]


def check(fmt, good):
    p = subprocess.run(['qemu-img', 'check', '-q', '-f', fmt, 'a.img'],
                       stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    if p.returncode not in good:
        sys.exit("check: %d %s" % (p.returncode, (p.stdout + p.stderr).decode()[:1000]))
    return p.returncode


def imgio(fmt, lines, threads):
    run(IMGIO, '-f', fmt, '-d', 'unmap', '-T', str(threads), 'a.img',
        input='\n'.join(lines + ['']).encode())


def guest(fmt):
    run('qemu-img', 'convert', '-f', fmt, '-O', 'raw', 'a.img', 'a.raw')
    with open('a.raw', 'rb') as f:
        return f.read()


def data_file(model, got):
    if model.raw:
        with open('d.raw', 'rb') as f:
            if f.read() != got:
                sys.exit('the data file is not what the guest reads')


def differ(got, want):
    """Where they do."""
    step = 4096
    for at in range(0, len(want), step):
        if got[at:at + step] != want[at:at + step]:
            yield from (i for i in range(at, min(at + step, len(want)))
                        if got[i] != want[i])


def session(rng, model, unit, packs):
    threads = rng.choice([1, 8])
    lines = []
    for _ in range(4):
        lines += batch(rng, model, unit, threads, packs)
        lines += ['wait'] + rng.choice([[], ['flush']])
    imgio(model.fmt, lines, threads)
    check(model.fmt, GOOD[model.fmt])
    got = guest(model.fmt)
    data_file(model, got)
    for i in differ(got, model):
        sys.exit('byte %d is %d, not %d' % (i, got[i], model[i]))


def by_qemu(rng, model, unit):
    """QEMU leaves what we do not: clusters stored in part."""
    cmds = []
    for _ in range(10):
        off, n = a_range(rng, len(model), 512, 0, len(model))
        off, n = off // 512 * 512, max(n // 512, 1) * 512
        n = min(n, unit, len(model) - off)
        p = rng.randrange(1, 256)
        if rng.random() < 0.6:
            cmds += ['-c', 'write -P %d %d %d' % (p, off, n)]
            model[off:off + n] = bytes([p]) * n
        else:
            cmds += ['-c', 'write -z %s %d %d' %
                     (rng.choice(['', '-u']), off, n)]
            model[off:off + n] = bytes(n)
    run('qemu-io', *cmds, 'a.img', stdout=subprocess.DEVNULL)


def killed(rng, model, unit, packs):
    """Ends without a flush: some space may leak, nothing else is wrong, and
    every byte is what it was or what became of it."""
    before = bytes(model)
    imgio(model.fmt, batch(rng, model, unit, 8, packs) + ['abort'], 8)
    left = check(model.fmt, LEFT[model.fmt])
    got = guest(model.fmt)
    data_file(model, got)
    for i in differ(got, model):
        if got[i] not in (before[i], 0, model.below[i]):
            sys.exit('byte %d is %d, neither %d nor %d' %
                     (i, got[i], before[i], model[i]))
    if left and model.fmt in ('qcow2', 'parallels'):
        run('qemu-img', 'check', '-q', '-r', 'leaks' if model.fmt == 'qcow2'
            else 'all', '-f', model.fmt, 'a.img',
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    model[:] = got


def play(rng, fmt, options, unit, size):
    for leftover in ('a.img', 'base.raw'):
        if os.path.exists(leftover):
            os.unlink(leftover)
    model = create(rng, fmt, options, size)
    if fmt == 'qcow':           # it chooses smaller ones over a backing file
        with open('a.img', 'rb') as f:
            unit = 1 << f.read(33)[32]
    # It has to be a hole before.
    packs = fmt == 'qcow2' and 'compat' not in options and \
        'data_file' not in options
    for _ in range(2):
        if fmt == 'qcow2':
            by_qemu(rng, model, unit)
        session(rng, model, unit, packs)
        killed(rng, model, unit, packs)


def main():
    if not shutil.which('qemu-img'):
        print('skipped: no qemu-img')
        sys.exit(77)
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    here = os.getcwd()
    with tempfile.TemporaryDirectory(prefix='imgfs-test.') as tmp:
        os.chdir(tmp)
        try:
            for s in range(seed, seed + rounds):
                for fmt, options, unit, size in SHAPES:
                    print('seed', s, fmt, options, flush=True)
                    play(random.Random('%d %s%s' % (s, fmt, options)), fmt,
                         options, unit, size)
        except BaseException:
            keep = os.environ.get('KEEP')
            if keep:
                shutil.copytree(tmp, keep, dirs_exist_ok=True)
            raise
        finally:
            os.chdir(here)


main()
