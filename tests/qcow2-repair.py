#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# timeout: 600
"""check -r leaks and check -r all of broken qcow2 images: exit code, findings,
counts and what the guest and its snapshots read afterwards are the same as
after qemu-img's; a second run finds nothing more to do.  Where the outcome may
differ, and why, is in tests/qcow2-repair.differences, one reason each."""
import filecmp
import importlib.util
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

# qemu-img's repair of some of these images makes files of exabytes where the file
# system lets it (tmpfs), and then reads them without end: as on ext4 here.
resource.setrlimit(resource.RLIMIT_FSIZE, ((1 << 44) - 4096,) * 2)
plain_run = subprocess.run


def limited_run(*args, **kw):
    """SIGXFSZ stays ignored: EFBIG."""
    return plain_run(*args, restore_signals=False, **kw)


subprocess.run = limited_run

here = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location(
    'qcow2_check', os.path.join(here, 'qcow2-check.py'))
qc = importlib.util.module_from_spec(spec)
spec.loader.exec_module(qc)
IMGCTL = os.path.abspath(qc.IMGCTL)
QEMU_IMG = qc.QEMU_IMG
u = qc.u
COPIED = 1 << 63
ROUNDS = int(os.environ.get('REPAIR_ROUNDS', '12'))
BITMAPS_GONE = re.compile(
    'qemu-img: warning: a program lacking bitmap support.*\n'
    'Some clusters may be leaked, run .* on the image file to fix\\.')
AT_THE_END = re.compile(
    'qcow2_free_clusters failed: .*|.*Lost persistent bitmaps during.*|'
    'qemu-img: Failed to flush the refcount block cache: .*')
# Exit codes: sound, leaks, errors, could not be checked (or a crash).
WORSE = {0: 0, 3: 1, 2: 2, 1: 3, -11: 4, -6: 4, 63: 5}
verbose = os.environ.get('REPAIR_VERBOSE')
done = 0
used = {}


def reasons():
    """name, program's words that tell the case (a pattern), reason."""
    found = []
    with open(os.path.join(here, 'qcow2-repair.differences')) as f:
        for line in f:
            if line.strip() and not line.startswith('#'):
                name, pattern, why = line.rstrip('\n').split('\t')
                found.append((name, re.compile(pattern), why))
    return found


REASONS = reasons()


def check(program, name, *args):
    p = subprocess.run([program, 'check', *args, name], env=qc.ENV,
                       capture_output=True, text=True, errors='replace',
                       timeout=60)
    err = p.stderr.replace('imgctl: ', 'qemu-img: ')
    err = err.replace('qemu-img: ERROR', 'ERROR').replace(name, 'X')
    # What it says of bitmaps whenever it opens an image is no finding.
    err = BITMAPS_GONE.sub('', err)
    # What it fails to do at the end: leaks, and bitmaps that are no more.
    err = AT_THE_END.sub('', err)
    return (p.returncode, p.stdout.replace(name, 'X'),
            [s for s in err.split('\n') if s])


def content(name):
    """What the guest and its snapshots read, or why they cannot."""
    out = []
    with open(name, 'rb') as f:
        n = u(f.read(72), 'I', 60)
    for i in range(min(n, 2) + 1):
        snap = ['-l', 'snapshot.id=%d' % i] if i else []
        try:
            os.unlink('o.raw')
        except FileNotFoundError:
            pass
        p = subprocess.run([QEMU_IMG, 'convert', *snap, '-f', 'qcow2', '-O',
                            'raw', name, 'o.raw'], capture_output=True)
        if p.returncode:
            out.append(None)
        else:
            with open('o.raw', 'rb') as f:
                out.append(f.read())
    return out


def why_differs(what, theirs, mode):
    text = '%s -r %s\nexit %d\n' % (what, mode, theirs[0]) + \
        '\n'.join(theirs[2] + [theirs[1]])
    for name, pattern, _ in REASONS:
        if pattern.search(text):
            used[name] = used.get(name, 0) + 1
            return name
    return None


def has_bitmaps(name):
    with open(name, 'rb') as f:
        d = f.read(96)
    return u(d, 'I', 4) == 3 and u(d, 'Q', 88) & 1


def complain(text):
    if not verbose:
        sys.exit(text)
    print(text[:2000], flush=True)


def fail(what, mode, theirs, ours):
    keep = os.environ.get('CHECK_KEEP')
    if keep:
        shutil.copy('t.q', keep)
    for a, b in zip(theirs[2] + [''], ours[2] + ['']):
        if a != b:
            print('-%s\n+%s' % (a, b))
            break
    complain('%s (-r %s):\n-%s\n+%s\n%s' % (
        what, mode, theirs[:2], ours[:2], '\n'.join(theirs[2][-8:])))


def settled(what, mode, ours):
    """A second repair has nothing to do, and does nothing."""
    with open('ours.q', 'rb') as f:
        before = f.read()
    again = check(IMGCTL, 'ours.q', '-r', mode)
    with open('ours.q', 'rb') as f:
        if f.read() != before or 'repaired' in again[1]:
            complain('%s: a second -r %s: %s' % (what, mode, again))
    if ours[0] != again[0]:
        complain('%s: -r %s twice: %s, %s' % (what, mode, ours, again))


def same(what):
    global done
    done += 1
    theirs, ours = check(QEMU_IMG, 't.q'), check(IMGCTL, 't.q')
    refused = ['Could not open' in ' '.join(x[2]) for x in (theirs, ours)]
    if theirs != ours and not (refused[0] and ours[0] == 1) and \
            not why_differs(what, theirs, 'none'):
        fail(what, 'none', theirs, ours)
    if refused[0]:
        return
    plain = theirs
    before = None
    for mode in 'leaks', 'all':
        shutil.copy('t.q', 'theirs.q')
        shutil.copy('t.q', 'ours.q')
        how = ['--output=json'] if done % 4 == 3 else []
        theirs = check(QEMU_IMG, 'theirs.q', '-r', mode, *how)
        ours = check(IMGCTL, 'ours.q', '-r', mode, *how)
        if theirs == ours and filecmp.cmp('ours.q', 'theirs.q', False):
            if not ours[0]:
                settled(what, mode, ours)
            continue
        if before is None:
            before = content('t.q')
        after, after_theirs = content('ours.q'), content('theirs.q')
        for i, old in enumerate(before):
            # Bytes that could be read are still there; unless they are those
            # of a table, which QEMU puts right, too.
            if old is not None and i < len(after) and after[i] != old and \
                    after_theirs[i:i + 1] == [old]:
                complain('%s: -r %s changes what is read' % (what, mode))
        if not ours[0]:
            settled(what, mode, ours)
        left = check(QEMU_IMG, 'ours.q')
        left_theirs = check(QEMU_IMG, 'theirs.q')
        if theirs == ours and left[0] == left_theirs[0] and \
                after == after_theirs:
            continue
        name = why_differs(what, theirs, mode)
        if theirs == ours and has_bitmaps('t.q') and \
                left[0] == (ours if ours[1] else plain)[0]:
            # What it says is so no more when it has stored the bitmaps.
            name = 'bitmaps stored'
        if verbose:
            print('%s -r %s: %s' % (what, mode, name))
        if name is None:
            fail(what, mode, theirs, ours)
        # Zeroes are no error, though they were the guest's data.
        if name != 'data as L2' and \
                WORSE[left[0]] > max(WORSE[left_theirs[0]], WORSE[theirs[0]]):
            fail(what + ': worse than theirs', mode, theirs, ours)


def poke8(base, d, changes, length=None):
    qc.poke(base, d, changes, length)


def refcount(d, cluster, count):
    """An (offset, 8 bytes) change of a 16-bit count."""
    at = u(d, 'Q', u(d, 'Q', 48)) + 2 * cluster
    a = at & ~7
    b = bytearray(d[a:a + 8].ljust(8, b'\0'))
    struct.pack_into('>H', b, at - a, count)
    return a, struct.unpack('>Q', b)[0]


def structures(d):
    """Clusters of each structure, by name; L1 and L2 tables by offset."""
    unit = 1 << u(d, 'I', 20)
    l1 = u(d, 'Q', 40)
    l2 = u(d, 'Q', l1) & 0xfffffffffffe00
    host = u(d, 'Q', l2) & 0xfffffffffffe00
    s = {'header': 0, 'refcount table': u(d, 'Q', 48),
         'refcount block': u(d, 'Q', u(d, 'Q', 48)), 'L1': l1, 'L2': l2,
         'data': host}
    if u(d, 'I', 60):
        at = u(d, 'Q', 64)
        s['snapshot table'] = at
        s['snapshot L1'] = u(d, 'Q', at)
        s['snapshot L2'] = u(d, 'Q', u(d, 'Q', at)) & 0xfffffffffffe00
    return unit, s


def catalogue(base):
    """Each structure x each damage."""
    with open(base, 'rb') as f:
        d = f.read()
    unit, s = structures(d)
    rt, l1, l2 = s['refcount table'], s['L1'], s['L2']
    end = (len(d) + unit - 1) // unit * unit
    for name, at in s.items():
        for count in 0, 2, 7:
            yield 'count %d of %s' % (count, name), \
                [refcount(d, at // unit, count)]
    for name, at in ('L1', l1), ('L2', l2):
        e = u(d, 'Q', at)
        for what, v in (
                ('COPIED', e ^ COPIED), ('reserved', e | 1 << 60),
                ('low reserved', e | 0x100), ('unaligned', e + 512),
                ('beyond the end', COPIED | 1 << 40),
                ('just beyond the end', COPIED | end), ('0', 0)):
            yield '%s: %s' % (name, what), [(at, v)]
    e = u(d, 'Q', l2)
    yield 'two for one', [(l2 + 8 * 40, e)]
    yield 'prealloc unaligned', [(l2, (e + 512) | 1)]
    yield 'header as data', [(l2, COPIED)], None
    packed = [i for i in range(unit // 8) if u(d, 'Q', l2 + 8 * i) >> 62 == 1]
    if packed:
        p = l2 + 8 * packed[0]
        yield 'packed COPIED', [(p, u(d, 'Q', p) | COPIED)]
        yield 'packed beyond', [(p, u(d, 'Q', p) | 1 << 40)]
        yield 'packed gone', [(p, 0)]
    block = u(d, 'Q', rt)
    for what, v in (('0', 0), ('unaligned', block + 512),
                    ('reserved', block | 1), ('outside', 1 << 30),
                    ('L1', l1)):
        yield 'refcount table: %s' % what, [(rt, v)]
    yield 'refcount table: twice', [(rt + 8, block)]
    yield 'refcount table: second outside', [(rt + 8, 1 << 30)]
    if 'snapshot table' in s:
        at, sl1, sl2 = s['snapshot table'], s['snapshot L1'], s['snapshot L2']
        for what, a, v in (
                ('L1 unaligned', at, sl1 + 512), ('L1 beyond', at, 1 << 40),
                ('L1 too large', at + 8, 0x1000000000010001),
                ('L1 entry 0', sl1, 0), ('L1 entry beyond', sl1, 1 << 40),
                ('L2 entry 0', sl2, 0), ('L2 reserved', sl2, 1 << 60),
                ('L2 prealloc unaligned', sl2 + 8 * 40, e & ~COPIED | 0x201),
                ('L2 entry live', sl2 + 8 * 40, e & ~COPIED)):
            yield 'snapshot: ' + what, [(a, v)]
    if u(d, 'I', 4) == 3:
        for bits in 1, 2, 3:
            yield 'marks %d' % bits, [(72, bits)]
            yield 'marks %d and a leak' % bits, [(72, bits), (l2, 0)]
            yield 'marks %d and an error' % bits, [(72, bits),
                                                   (l2, e | 1 << 60)]
            yield 'marks %d and count 0' % bits, \
                [(72, bits), refcount(d, s['data'] // unit, 0)]
        yield 'unknown autoclear', [(88, u(d, 'Q', 88) | 8)]


def snapshot_entries(d):
    """(offset, fixed part, extra data, id and name) of each."""
    at = u(d, 'Q', 64)
    for _ in range(u(d, 'I', 60)):
        at = (at + 7) & ~7
        id_len, name_len = struct.unpack_from('>HH', d, at + 12)
        extra = u(d, 'I', at + 36)
        end = at + 40 + extra + id_len + name_len
        yield at, d[at:at + 40], d[at + 40:at + 40 + extra], \
            d[at + 40 + extra:end]
        at = end


def snapshot_tables(base):
    """Entries that are too short or too long; (name, changes)."""
    with open(base, 'rb') as f:
        d = f.read()
    for which, sizes in ((0,), (0, 16, 1025)), ((0, 1), (8, 1100)), \
            ((1,), (0, 8, 15, 16, 32, 1024, 1025, 4000)):
        for size in sizes:
            table = b''
            for i, (at, fixed, extra, text) in enumerate(snapshot_entries(d)):
                table += bytes(-len(table) % 8)
                if i in which:
                    extra = (extra + bytes(4000))[:size]
                    fixed = fixed[:36] + struct.pack('>I', size)
                table += fixed + extra + text
            table += bytes(-len(table) % 8)
            yield 'snapshots %s: %d bytes of extra data' % (which, size), \
                [(u(d, 'Q', 64) + i, u(table, 'Q', i))
                 for i in range(0, len(table), 8)]


def overhanging(name, n, text, extra):
    """A table of @n snapshots without disks."""
    qc.make(name, 'cluster_size=64k', 0, 0)
    with open(name, 'r+b') as f:
        d = f.read()
        at = len(d) + 65535 & ~65535
        entry = struct.pack('>QIHHIIQII', 0, 0, 0, len(text), 0, 0, 0, 0,
                            extra) + bytes(extra) + text
        entry += bytes(-len(entry) % 8)
        f.seek(at)
        f.write(entry * n)
        f.truncate(at + len(entry) * n + 65535 & ~65535)
        f.seek(60)
        f.write(struct.pack('>IQ', n, at))


def too_many():
    for n, text, extra in (65536 + 3, b'', 24), (65000, b'x' * 60, 1000):
        overhanging('t.q', n, text, extra)
        found = []
        for program in QEMU_IMG, IMGCTL:
            shutil.copy('t.q', 'r.q')
            found.append([check(program, 'r.q', '-r', 'leaks'),
                          check(program, 'r.q', '-r', 'all'),
                          check(QEMU_IMG, 'r.q')])
        if found[0] != found[1]:
            complain('%d snapshots:\n%s\n%s' % (n, *found))


def mutate(base, rnd, rounds):
    with open(base, 'rb') as f:
        d = f.read()
    unit, found = qc.targets(d)
    kinds = sorted(found)
    for _ in range(rounds):
        changes = []
        for _ in range(rnd.choice([1, 1, 2, 4])):
            kind = rnd.choice(kinds)
            at = rnd.choice(found[kind])
            old = u(d, 'Q', at)
            if kind == 'header':
                v = old ^ (unit << rnd.randrange(0, 4)) if at != 24 else old
            else:
                v = qc.values(rnd, d, unit, old)
            if kind == 'snapshot L1 size':
                v = v & ~0xffffffff | old & 0xffffffff
            changes.append((at, v))
        qc.poke(base, d, changes)
        same('%s: %s' % (base, ' '.join('%#x=%#x' % c for c in changes)))


def main():
    if not os.access(QEMU_IMG, os.X_OK) or not shutil.which('qemu-io'):
        print('needs qemu-img and qemu-io')
        sys.exit(77)
    rnd = random.Random(int(os.environ.get('CHECK_SEED', '1')))
    bases = (('cluster_size=4k', 0, 0), ('cluster_size=64k', 2, 0),
             ('cluster_size=512', 1, 0),
             ('cluster_size=1k,refcount_bits=1', 0, 0),
             ('cluster_size=2k,refcount_bits=64', 2, 0),
             ('cluster_size=4k,compat=0.10', 1, 0))
    for i, (options, snapshots, bitmaps) in enumerate(bases):
        name = 'base%d.q' % i
        qc.make(name, options, snapshots, bitmaps)
        shutil.copy(name, 't.q')
        same(options)
        if i == 1:
            with open(name, 'rb') as f:
                d = f.read()
            for case in list(catalogue(name)) + list(snapshot_tables(name)):
                qc.poke(name, d, case[1])
                same('%s: %s' % (name, case[0]))
        mutate(name, rnd, ROUNDS // len(bases))
    too_many()
    print('%d images; differences: %s' % (done, used))


if __name__ == '__main__':
    tmp = tempfile.mkdtemp(prefix='imgfs-test.')
    try:
        os.chdir(tmp)
        main()
    finally:
        os.chdir('/')
        shutil.rmtree(tmp)
