#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What imgctl create makes is byte for byte qemu-img's file: cluster sizes,
versions, refcount widths, sizes, preallocation, compression, backing files,
subclusters, data files (which are as large, and take as much space)."""
import os
import shutil
import subprocess
import sys
import tempfile

IMGCTL = os.path.join(os.environ.get('top_builddir', '.'), 'imgctl')
QEMU_IMG = '/usr/bin/qemu-img'
ENV = dict(os.environ, IMGCTL_QEMU_COMPAT='7.2', LC_ALL='C')
done = 0
after_create = None


def extents(fd, size):
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def first_difference(a, b):
    """Of two files that may be sparse and huge; None: equal."""
    with open(a, 'rb') as fa, open(b, 'rb') as fb:
        size = os.fstat(fa.fileno()).st_size
        if size != os.fstat(fb.fileno()).st_size:
            return 'the sizes'
        for f in fa, fb:
            for start, end in extents(f.fileno(), size):
                while start < end:
                    n = min(end - start, 1 << 20)
                    if os.pread(fa.fileno(), n, start) != \
                            os.pread(fb.fileno(), n, start):
                        return 'byte %d or later' % start
                    start += n
    return None


def create(program, name, args):
    p = subprocess.run([program, 'create', '-q', '-f', 'qcow2', '-u',
                        *args[:-1], name, args[-1]], env=ENV,
                       capture_output=True, text=True, timeout=60)
    if after_create:
        after_create(name)
    return p


def same(*args):
    """args: options, then the size."""
    global done
    done += 1
    for name in 'theirs', 'ours':
        if os.path.exists(name):
            os.unlink(name)
    theirs = create(QEMU_IMG, 'theirs', args)
    ours = create(IMGCTL, 'ours', args)
    said = [p.stderr.replace('imgctl: ', 'qemu-img: ').replace(n, 'x')
            for p, n in ((theirs, 'theirs'), (ours, 'ours'))]
    if theirs.returncode != ours.returncode or said[0] != said[1]:
        sys.exit('create %s:\n%s%s' % (args, *said))
    if theirs.returncode:
        return
    where = first_difference('theirs', 'ours')
    if where:
        sys.exit('create %s: %s differ' % (args, where))
    a, b = (os.stat(n).st_blocks for n in ('theirs', 'ours'))
    # The host's extent trees may differ a little.
    if abs(a - b) > max(16, a // 64):
        sys.exit('create %s: %d and %d blocks in use' % (args, a, b))


def matrix():
    for cs in '512', '1k', '4k', '8k', '64k', '2M':
        for width in 1, 2, 4, 8, 16, 32, 64:
            for size in '0', '1000000', '1G':
                same('-o', 'cluster_size=%s,refcount_bits=%d' % (cs, width),
                     size)
        for size in '0', '512', '1G':
            same('-o', 'compat=0.10,cluster_size=' + cs, size)
        same('-o', 'compression_type=zstd,lazy_refcounts=on,cluster_size='
             + cs, '1G')
        for compat in '0.10', '1.1':
            same('-o', 'cluster_size=%s,compat=%s' % (cs, compat),
                 '-b', '../base,x.raw', '-F', 'raw', '64M')


def preallocated():
    for cs in '512', '1k', '4k', '64k', '2M':
        for width in 1, 16, 64:
            for mode in 'metadata', 'falloc', 'full':
                for size in '0', '1000000', '3M':
                    same('-o', 'cluster_size=%s,refcount_bits=%d,'
                         'preallocation=%s' % (cs, width, mode), size)
    same('-o', 'cluster_size=2M,refcount_bits=64,preallocation=metadata',
         '600G')
    same('-o', 'cluster_size=16k,refcount_bits=64,preallocation=metadata',
         '2G')


def subclusters():
    for cs, width in ('16k', 1), ('64k', 16), ('2M', 64):
        for mode in 'off', 'metadata', 'falloc', 'full':
            for size in '1000000', '3M':
                same('-o', 'extended_l2=on,cluster_size=%s,'
                     'refcount_bits=%d,preallocation=%s'
                     % (cs, width, mode), size)
        for mode in 'off', 'metadata', 'falloc', 'full':
            same('-o', 'extended_l2=on,lazy_refcounts=on,'
                 'compression_type=zstd,cluster_size=%s,preallocation=%s'
                 % (cs, mode), '-b', '../base,x.raw', '-F', 'raw', '5M')
    same('-o', 'extended_l2=on,cluster_size=16k,refcount_bits=64,'
         'preallocation=metadata', '1G')


def data_files():
    for options in '', ',extended_l2=on', ',cluster_size=4k', \
            ',cluster_size=2M,refcount_bits=64', ',lazy_refcounts=on':
        for raw in 'off', 'on':
            for mode in 'off', 'metadata', 'falloc', 'full':
                # (Of other sizes QEMU forgets the space again.)
                for size in ('1000000', '6M') if mode == 'metadata' else \
                        ('6M',):
                    same_data('-o', 'data_file=DATA,data_file_raw=%s,'
                              'preallocation=%s%s' % (raw, mode, options),
                              size)


def same_data(*args):
    """As same(), each program's data file being DATA in turn."""
    global after_create
    kept = []

    def keep(name):
        kept.append(os.stat('DATA') if os.path.exists('DATA') else None)
        if kept[-1]:
            os.rename('DATA', name + '.data')

    after_create = keep
    same(*args)
    after_create = None
    a, b = kept
    # QEMU's may end behind the disk, in its last cluster: then nothing that
    # reads the disk is equal to it (cmp).
    more = a.st_size - b.st_size if a and b else -1
    if not 0 <= more < 2 << 20 or \
            abs(a.st_blocks - b.st_blocks) > 16 + more // 512:
        sys.exit('create %s: data files %s, %s' % (args, a, b))
    os.truncate('theirs.data', b.st_size)
    if first_difference('theirs.data', 'ours.data'):
        sys.exit('create %s: the data files differ' % (args,))


def large():
    """L1 tables that need refcount blocks and a larger refcount table."""
    for size in '8G', '32G', '33G', '128G', '129G':
        same('-o', 'cluster_size=512', size)
    for size in '8G', '40G':
        same('-o', 'cluster_size=512,refcount_bits=64', size)
    same('-o', 'cluster_size=1k', '512G')
    same('2P')
    same('100P')
    same('9223372036854775807')
    same('9223372036854775296')


def refused():
    for options in ('cluster_size=3k', 'cluster_size=4M', 'refcount_bits=3',
                    'compat=v4', 'compat=v2,lazy_refcounts=on',
                    'compat=v2,refcount_bits=8', 'compression_type=lzma',
                    'compat=v2,compression_type=zstd', 'preallocation=some',
                    'backing_file=a,backing_fmt=raw,preallocation=full',
                    'compat=v2,extended_l2=on', 'data_file_raw=on',
                    'extended_l2=on,cluster_size=8k', 'encryption=on',
                    'compat=v2,data_file=d', 'encrypt.format=rot13',
                    'encrypt.key-secret=s', 'encrypt.format=luks'):
        same('-o', options, '1M')
    for n in 375, 376, 377, 1023, 1024:
        for cs in '512', '1k', '64k':
            same('-o', 'cluster_size=' + cs, '-b', 'b' * n, '-F', 'raw', '1M')


def main():
    if not os.access(QEMU_IMG, os.X_OK):
        print('no /usr/bin/qemu-img')
        sys.exit(77)
    tmp = tempfile.mkdtemp(prefix='imgfs-test.')
    try:
        os.chdir(tmp)
        matrix()
        preallocated()
        subclusters()
        data_files()
        large()
        refused()
    finally:
        os.chdir('/')
        shutil.rmtree(tmp)
    print('%d files alike' % done)


if __name__ == '__main__':
    main()
