#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""DMG: every kind of chunk is read, from property lists and resource forks, as
dmg2img and qemu-img read what they can; checksums are verified; what is broken
is refused in a sentence."""
import bz2
import lzma
import os
import shutil
import subprocess
import sys
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mkdmg  # noqa: E402
import testlib  # noqa: E402
from testlib import run  # noqa: E402

testlib.requires('qemu-img')
N = 512     # sectors of a chunk
SIZE = N * 512
text = (b'all work and no play makes jack a dull boy. ' * 9000)[:SIZE]
noise = bytes(x * x * 7 % 251 for x in range(SIZE))
runs = b''.join(bytes([i % 200]) * (i % 90 + 1) for i in range(9000))[:SIZE]
runs = runs.ljust(SIZE, b'r')


def imgctl(*args):
    return subprocess.run(('imgctl',) + args, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)


def contents(program, name):
    run(program, 'convert', '-f', 'dmg', '-O', 'raw', name, 'out')
    with open('out', 'rb') as f:
        return f.read()


def expect(name, want):
    got = contents('imgctl', name)
    assert got == want, f'{name} is read otherwise'
    p = imgctl('check', '-f', 'dmg', name)
    assert p.returncode == 0, (name, p.stdout, p.stderr)


def fails(name, sentence, *args):
    p = imgctl(*(args or ('info', '-f', 'dmg')), name, *(
        ('out',) if args and args[0] == 'convert' else ()))
    assert 0 < p.returncode < 124, (name, p.returncode)
    assert sentence in p.stderr.decode(), (name, p.stderr)


Z = zlib.compress
tables = [(0, 4 * N, [(mkdmg.ZLIB, 0, N, Z(text)), (mkdmg.RAW, N, N, noise),
                      (mkdmg.ZERO, 2 * N, N, b''),
                      (mkdmg.COMMENT, 0, 0, b''),
                      (mkdmg.ZLIB, 3 * N, N, Z(runs)),
                      (mkdmg.END, 4 * N, 0, b'')]),
          (4 * N, N, [(mkdmg.ZLIB, 0, N, Z(noise)), (mkdmg.END, N, 0, b'')])]
whole = text + noise + bytes(SIZE) + runs + noise

# What qemu-img can read, in every shape.
for i, how in enumerate((dict(), dict(rsrc=True), dict(before=1024),
                         dict(offset=16), dict(padding=1),
                         dict(crc=False))):
    name = f'plain{i}.dmg'
    mkdmg.make(name, tables, 5 * N, content=whole, **how)
    expect(name, whole)
    assert contents('qemu-img', name) == whole
if shutil.which('dmg2img'):
    run('dmg2img', '-s', 'plain0.dmg', 'dmg2img.out')
    with open('dmg2img.out', 'rb') as f:
        assert f.read() == whole, 'dmg2img reads otherwise'
info = run('imgctl', 'info', 'plain0.dmg')
assert 'file format: dmg' in info, info

# What it cannot.
with open(os.path.join(testlib.TOP, 'config.h')) as f:
    has = f.read()
built_in = [lib for lib, word in (('libbz2', 'BZIP2'), ('liblzma', 'LZMA'),
                                  ('liblzfse', 'LZFSE'))
            if f'#define HAVE_{word} 1' in has]
mkdmg.make('adc.dmg', [(0, N, [(mkdmg.ADC, 0, N, mkdmg.adc(runs))])], N,
           content=runs)
expect('adc.dmg', runs)
mkdmg.make('raw.dmg', [], N, content=noise)
expect('raw.dmg', noise)
mkdmg.make('ignore.dmg', [(0, 2 * N, [(mkdmg.IGNORE, 0, N, b''),
                                      (mkdmg.RAW, N, N, noise)])], 2 * N,
           content=bytes(SIZE) + noise)
expect('ignore.dmg', bytes(SIZE) + noise)
# What needs a library is read where that is built in; else it is named, and
# only the chunks that need it fail.
for kind, library, pack in ((mkdmg.BZIP2, 'libbz2', bz2.compress),
                            (mkdmg.LZMA, 'liblzma', lzma.compress),
                            (mkdmg.LZFSE, 'liblzfse', mkdmg.lzfse)):
    mkdmg.make('x.dmg', [(0, 2 * N, [(mkdmg.RAW, 0, N, noise),
                                     (kind, N, N, pack(runs))])], 2 * N,
               content=noise + runs)
    p = imgctl('info', 'x.dmg')
    assert p.returncode == 0, p
    if library not in built_in:
        assert f'built without {library}' in p.stderr.decode(), p
        fails('x.dmg', library, 'convert', '-O', 'raw')
        run('imgctl', 'convert', '-O', 'raw', '--image-opts',
            f'driver=raw,size={SIZE},file.driver=dmg,file.file.filename=x.dmg',
            'out')
        with open('out', 'rb') as f:
            assert f.read() == noise
        print('built without', library)
        continue
    assert not p.stderr, p
    expect('x.dmg', noise + runs)
    if library == 'liblzfse' and shutil.which('lzfse'):
        with open('runs', 'wb') as f:
            f.write(runs)
        run('lzfse', '-encode', '-i', 'runs', '-o', 'packed')
        with open('packed', 'rb') as f:
            mkdmg.make('y.dmg', [(0, N, [(kind, 0, N, f.read())])], N,
                       content=runs)
        expect('y.dmg', runs)
    half = pack(runs)[:len(pack(runs)) // 2]
    mkdmg.make('half.dmg', [(0, N, [(kind, 0, N, half)])], N)
    fails('half.dmg', 'Input/output error', 'convert', '-O', 'raw')
mkdmg.make('other.dmg', [(0, N, [(0x12345678, 0, N, b'?')])], N)
fails('other.dmg', 'unknown type 12345678', 'convert', '-O', 'raw')

# One chunk of 64 MiB, read in small pieces: it is decoded once.
big = text * (64 * 1024 * 1024 // SIZE)
mkdmg.make('big.dmg', [(0, 131072, [(mkdmg.ZLIB, 0, 131072, Z(big, 1))])],
           131072, crc=False)
run('qemu-img', 'convert', '-O', 'raw', 'big.dmg', 'want')
if os.path.exists('/dev/fuse') and os.getuid() == 0:
    with testlib.mounted('big.dmg') as m:
        run('cmp', f'{m}/disk', 'want')
        try:
            os.open(f'{m}/disk', os.O_WRONLY)
            raise AssertionError('opened for writing')
        except OSError:
            pass

# Broken ones.
flipped = bytearray(open('plain0.dmg', 'rb').read())
flipped[len(Z(text)) + 100] ^= 1
open('flipped.dmg', 'wb').write(flipped)
p = imgctl('check', 'flipped.dmg')
assert p.returncode == 2 and b'checksum' in p.stderr, p
# Who exchanged a table changed its sum in the list, too, but not the trailer's
# sum of those sums.  7z knows that one as well.
seven = shutil.which('7z')
for at, error in ((360, True), (None, False)):
    master = bytearray(open('plain0.dmg', 'rb').read())
    if at:
        master[len(master) - 512 + at] ^= 1
    open('master.dmg', 'wb').write(master)
    p = imgctl('check', 'master.dmg')
    assert (p.returncode == 2) == error, p
    assert (b'the checksum of all tables' in p.stderr) == error, p
    if seven:
        said = subprocess.run((seven, 'l', '-slt', 'master.dmg'),
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT).stdout
        assert (b'Master CRC error' in said or b'CRC Error' in said) == error, \
            said
broken = bytearray(open('plain0.dmg', 'rb').read())
broken[10:60] = bytes(50)
open('broken.dmg', 'wb').write(broken)
p = imgctl('check', 'broken.dmg')
assert p.returncode == 2 and b'cannot be decoded' in p.stderr, p
fails('broken.dmg', 'error', 'convert', '-O', 'raw')
open('small.dmg', 'wb').write(b'x' * 100)
fails('small.dmg', 'dmg file must be at least 512 bytes long')
open('none.dmg', 'wb').write(b'x' * 5000)
fails('none.dmg', 'Could not locate UDIF trailer in dmg file')
for name, chunk, sentence in (
        ('count', (mkdmg.ZLIB, 0, 131073, b'x'),
         'sector count 131073 for chunk 0 is larger than max (131072)'),
        ('reach', (mkdmg.ZERO, 1 << 63, 8, b''), 'out of reach'),
        ('twice', (mkdmg.RAW, 4, 8, bytes(4096)), 'Two chunks claim')):
    mkdmg.make(name + '.dmg', [(0, 8, [chunk, (mkdmg.RAW, 0, 8, bytes(4096))])],
               8)
    fails(name + '.dmg', sentence)
mkdmg.make('hole.dmg', [(0, N, [(mkdmg.RAW, 0, 8, noise[:4096])])], N)
fails('hole.dmg', 'error', 'convert', '-O', 'raw')
cut = open('plain0.dmg', 'rb').read()
open('cut.dmg', 'wb').write(cut[len(cut) // 2:])
fails('cut.dmg', 'beyond the end of the file')
fails('plain0.dmg', 'read-only', 'convert', '-n', '-O', 'dmg', 'raw.dmg')
