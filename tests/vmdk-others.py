#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMDK that no program of Debian writes (COWD, seSparse, VMware's streams, vmfs),
made by mkvmdk.py: read as it says and as qemu-img, vmdkmount and 7z read them;
COWD is written; seSparse is not, and is refused in QEMU's words when its header
is wrong.  Delta chains of mixed layers; what a descriptor says is kept."""
import os
import random
import re
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mkvmdk  # noqa: E402
import testlib  # noqa: E402
from testlib import run  # noqa: E402

testlib.requires('qemu-img', 'qemu-io')
IMGIO = os.path.join(testlib.TOP, 'tests/imgio')
WORDS = 'info', 'info --output=json', 'map', 'map --output=json', 'check'
OLD = dict(os.environ, IMGCTL_QEMU_COMPAT='7.2')
rnd = random.Random(3)


def text(n):
    return bytes(rnd.choice(b'abcdefgh') for _ in range(n))


def load(name):
    with open(name, 'rb') as f:
        return f.read()


def tried(*args, env=None):
    p = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, env=env)
    return p.returncode, p.stdout, re.sub(r'(?m)^(qemu-img|imgctl): ', '',
                                          p.stderr)


def same_words(name):
    """Both programs say the same about an image."""
    for words in WORDS:
        theirs = tried('qemu-img', *words.split(), name)
        ours = tried('imgctl', *words.split(), name, env=OLD)
        assert ours == theirs, (name, words, ours, theirs)


def expect(name, want):
    for program in 'imgctl', 'qemu-img':
        run(program, 'convert', '-O', 'raw', name, 'out')
        assert load('out') == want, f'{program} reads {name} otherwise'
    assert tried('imgctl', 'check', '-q', name)[0] == 0, name


def mounted_by_libvmdk(name, want):
    if not shutil.which('vmdkmount') or not os.access('/dev/fuse', os.W_OK):
        return
    os.makedirs('m', exist_ok=True)
    run('vmdkmount', name, 'm')
    try:
        assert load('m/vmdk1') == want, f'vmdkmount reads {name} otherwise'
    finally:
        run('fusermount', '-u', 'm')


def disk_of(sectors, grain, grains, below=None):
    """What the guest sees: grains of @grain sectors over @below."""
    disk = bytearray(below or bytes(sectors * 512))
    for n, data in grains.items():
        size = min(grain * 512, len(disk) - n * grain * 512)
        if isinstance(data, bytes):
            data = data.ljust(size, b'\0')[:size]
        else:
            data = bytes(size)
        disk[n * grain * 512:n * grain * 512 + size] = data
    return bytes(disk)


def io(program, name, *commands):
    args = [x for c in commands for x in ('-c', c)]
    out = run(program, '-f', 'raw' if name == 'raw' else 'vmdk', *args, name)
    assert 'failed' not in out, out


# ---- COWD -----------------------------------------------------------------------

def cowd_entries(name):
    """Host sectors of all grains, from the file itself."""
    data = load(name)
    grain, gd, tables, free = struct.unpack_from('<4I', data, 16)
    found = []
    for t in struct.unpack_from('<%dI' % tables, data, gd * 512):
        if t:
            found += [e for e in struct.unpack_from('<4096I', data, t * 512)
                      if e]
    return grain, found, free, len(data)


for grain, sectors in (1, 20000), (8, 70000), (128, 100000):
    count = sectors // grain
    grains = {n: text(grain * 512) for n in
              [0, 1, 2, 4095, 4096, count - 1] +
              [rnd.randrange(count) for _ in range(20)] if n < count}
    mkvmdk.cowd('c-delta.vmdk', sectors, grains, grain)
    mkvmdk.descriptor('c.vmdk', 'vmfsSparse', [
        ('RW', sectors, 'VMFSSPARSE', 'c-delta.vmdk', '')])
    disk = disk_of(sectors, grain, grains)
    expect('c.vmdk', disk)
    same_words('c.vmdk')
    mounted_by_libvmdk('c.vmdk', disk)

    # Written to: by us, seen by qemu-img; no grain twice, free sector true.
    with open('raw', 'wb') as f:
        f.write(disk)
    end = sectors * 512
    writes = [f'write -P {i + 1} {at} {n}' for i, (at, n) in enumerate(
        [(0, 100), (700, 70000), (end // 2, 512), (end - 1000, 1000),
         (end // 3, 300000)])]
    io(IMGIO, 'c.vmdk', *writes)
    io('qemu-io', 'raw', *writes)
    expect('c.vmdk', load('raw'))
    mounted_by_libvmdk('c.vmdk', load('raw'))
    step, entries, free, size = cowd_entries('c-delta.vmdk')
    assert len(set(entries)) == len(entries), 'grains share a place'
    assert free * 512 == size and max(entries) + step <= free, (free, size)
    io('qemu-io', 'c.vmdk', 'write -P 9 1M 70000')
    io('qemu-io', 'raw', 'write -P 9 1M 70000')
    expect('c.vmdk', load('raw'))

# The same without a descriptor: no disk.
assert tried('imgctl', 'info', '-f', 'vmdk', 'c-delta.vmdk')[0] == 1

# ---- seSparse -------------------------------------------------------------------

SECTORS = 3 * 4096 * 8 + 24


def make_sesparse(grains, **how):
    mkvmdk.sesparse('s-sesparse.vmdk', SECTORS, grains, **how)
    mkvmdk.descriptor('s.vmdk', 'seSparse', [
        ('RW', SECTORS, 'SESPARSE', 's-sesparse.vmdk', '')])


grains = {n: text(4096) for n in rnd.sample(range(SECTORS // 8), 60)}
grains.update({0: b'first', 1: 'zero', 2: 'unmapped', 3: b'x', 4: b'y',
               SECTORS // 8 - 1: text(4096)})
make_sesparse(grains)
expect('s.vmdk', disk_of(SECTORS, 8, grains))
same_words('s.vmdk')
# Grains in any order, numbers of more than 12 bits, no second table.
few = {n: d for n, d in grains.items() if not 4096 <= n < 8192}
data = [n for n, d in few.items() if isinstance(d, bytes)]
places = rnd.sample(range(4000, 4300), len(data))
make_sesparse(few, order=dict(zip(data, places)))
expect('s.vmdk', disk_of(SECTORS, 8, few))
same_words('s.vmdk')
rc, _, err = tried(IMGIO, '-c', 'write 0 4096', 's.vmdk')
assert rc and 'No write support for seSparse images available' in err, err

for change in ({0: 0xcafebabf}, {1: 0x0000000200000002}, {3: 16}, {4: 128},
               {5: 1}, {6: 1}, {9: 5}, {10: 2}, {}):
    make_sesparse(grains, header=change, replay=not change)
    ours = tried('imgctl', 'info', 's.vmdk', env=OLD)
    theirs = tried('qemu-img', 'info', 's.vmdk')
    assert ours == theirs, (change, ours, theirs)
make_sesparse(grains, header={17: 0})
assert 'smaller than the disk' in tried('imgctl', 'info', 's.vmdk')[2]
make_sesparse(grains, header={18: 1 << 60})     # no table is there
assert tried('imgctl', 'convert', '-O', 'raw', 's.vmdk', 'out')[0] == 1
assert tried('imgctl', 'check', 's.vmdk')[0] == 2

# Grains that share a place.
make_sesparse(grains, order={n: 0 for n, d in grains.items()
                             if isinstance(d, bytes)})
rc, out, err = tried('imgctl', 'check', 's.vmdk')
assert rc == 2 and 'has the place of another one' in out + err, (out, err)

# ---- a stream of VMware's, and vmfs ---------------------------------------------

grains = {n: text(65536) for n in (0, 1, 2, 511, 512, 1600)}
sectors = 1600 * 128 + 40               # the last one is short
mkvmdk.stream('v.vmdk', sectors, grains)
disk = disk_of(sectors, 128, grains)
expect('v.vmdk', disk)
same_words('v.vmdk')
if shutil.which('7z'):
    out = subprocess.run(['7z', 'x', '-so', 'v.vmdk'], check=True,
                         stdout=subprocess.PIPE).stdout
    assert out == disk, '7z reads the stream otherwise'
rc, _, err = tried(IMGIO, '-c', 'write 0 64k', 'v.vmdk')
assert rc and 'finished stream' in err, err

with open('f-flat.vmdk', 'wb') as f:
    f.write(disk)
mkvmdk.descriptor('f.vmdk', 'vmfs', [('RW', sectors, 'VMFS', 'f-flat.vmdk',
                                      '')])
expect('f.vmdk', disk)
same_words('f.vmdk')
io(IMGIO, 'f.vmdk', 'write -P 5 3M 100000')
with open('raw', 'wb') as f:
    f.write(disk)
io('qemu-io', 'raw', 'write -P 5 3M 100000')
expect('f.vmdk', load('raw'))

# ---- chains of deltas -----------------------------------------------------------

MIB = 1 << 20


def cid(name):
    return re.search(r'\bCID=(\w+)\n', load(name)[:20000].decode(
        'latin1')).group(1)


for maker, writer in (('qemu-img', IMGIO), ('imgctl', 'qemu-io')):
    for n in 'base', 'mid', 'top':
        if os.path.exists(n + '.vmdk'):
            os.unlink(n + '.vmdk')
    with open('raw', 'wb') as f:
        f.truncate(20 * MIB)
    below = []
    for i, n in enumerate(('base', 'mid', 'top')):
        run(maker, 'create', '-q', '-f', 'vmdk', '-o', 'zeroed_grain=on',
            *below, n + '.vmdk', *(['20M'] if not below else []))
        commands = [f'write -P {i + 1} {at}k 70k' for at in
                    (100 + 60 * i, 5000 + 2000 * i, 20000)]
        io(writer, n + '.vmdk', *commands)
        io('qemu-io', 'raw', *commands)
        if i:
            io(writer, n + '.vmdk', 'write -z 9M 1M')
            io('qemu-io', 'raw', 'write -z 9M 1M')
            said = re.search(r'parentCID=(\w+)', load(n + '.vmdk')[
                :20000].decode('latin1')).group(1)
            assert said == cid(below[1]), (n, said, below)
        below = ['-b', n + '.vmdk', '-F', 'vmdk']
    expect('top.vmdk', load('raw'))
    same_words('top.vmdk')
    assert tried('imgctl', 'info', '--backing-chain', '--output=json',
                 'top.vmdk', env=OLD) == tried(
        'qemu-img', 'info', '--backing-chain', '--output=json', 'top.vmdk')

# A COWD over it, as ESX does it; its parent changes: no more.
grains = {3: text(4096), 4000: text(4096)}
mkvmdk.cowd('d-delta.vmdk', 40960, grains, 8, 'top.vmdk')
mkvmdk.descriptor('d.vmdk', 'vmfsSparse', [
    ('RW', 40960, 'VMFSSPARSE', 'd-delta.vmdk', '')],
    parent_cid=int(cid('top.vmdk'), 16), hint='top.vmdk')
expect('d.vmdk', disk_of(40960, 8, grains, load('raw')))
io(IMGIO, 'd.vmdk', 'write -P 8 100k 1M')
io('qemu-io', 'raw', 'write -P 8 100k 1M')
expect('d.vmdk', disk_of(40960, 8, grains, load('raw')))
io('qemu-io', 'top.vmdk', 'write 15M 64k')
for program in 'imgctl', 'qemu-img':
    assert tried(program, 'convert', '-O', 'raw', 'd.vmdk', 'out')[0] == 1

# ---- what a descriptor says is kept ---------------------------------------------

SAID = 'adapter_type=lsilogic,hwversion=11,toolsversion=10304'
for sub in 'monolithicSparse', 'twoGbMaxExtentSparse', 'monolithicFlat':
    run('imgctl', 'create', '-q', '-f', 'vmdk', '-o', f'subformat={sub},{SAID}',
        'k.vmdk', '30M')
    before = load('k.vmdk')
    io(IMGIO, 'k.vmdk', 'write 0 1M')
    after = load('k.vmdk')
    assert cid('k.vmdk').encode() in after and before != after

    def words(data):
        at = data.index(b'# Disk DescriptorFile')
        end = data.index(b'ddb.toolsVersion')
        return re.sub(rb'\nCID=\w+', b'', data[at:end + 60])
    assert words(before) == words(after), sub
    for word in (b'ddb.adapterType = "lsilogic"', b'ddb.geometry.heads = "255"',
                 b'ddb.virtualHWVersion = "11"', b'ddb.toolsVersion = "10304"'):
        assert word in after, (sub, word)
