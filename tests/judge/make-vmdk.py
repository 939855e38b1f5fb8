#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMDK images of several files for the judge, smaller than anybody makes them:
an empty "template" and its extents in the current folder.

    make-vmdk.py split|flat|cowd|vmfs       8 MiB, three extents (vmfs, cowd: one)
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                '..'))
import mkvmdk  # noqa: E402

SIZES = 6144, 6144, 4096        # sectors


def sparse(name, sectors):
    """An extent that is an image of its own serves as well."""
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'vmdk', name,
                    str(sectors * 512)], check=True)


def flat(name, sectors):
    with open(name, 'wb') as f:
        f.truncate(sectors * 512)


def several(kind, word, make, more=''):
    extents = []
    for i, sectors in enumerate(SIZES):
        name = 'e%d.vmdk' % (i + 1)
        make(name, sectors)
        extents.append(('RW', sectors, word, name, more))
    mkvmdk.descriptor('template', kind, extents)


def one(kind, word, make):
    make('e1.vmdk', sum(SIZES))
    mkvmdk.descriptor('template', kind,
                      [('RW', sum(SIZES), word, 'e1.vmdk', '')])


def main(kind):
    if kind == 'split':
        several('twoGbMaxExtentSparse', 'SPARSE', sparse)
    elif kind == 'flat':
        several('twoGbMaxExtentFlat', 'FLAT', flat, ' 0')
    elif kind == 'vmfs':
        one('vmfs', 'VMFS', flat)
    elif kind == 'cowd':
        one('vmfsSparse', 'VMFSSPARSE',
            lambda name, sectors: mkvmdk.cowd(name, sectors, {}, 16))
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    main(*sys.argv[1:])
