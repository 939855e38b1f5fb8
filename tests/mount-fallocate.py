#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""fallocate's modes on `disk`: what they leave in the file and in the image.

Compared with what the bytes must be and with what qemu-img says about the
image; every refused call is made twice, as an ENOSYS would switch the operation
off for the whole mount (F13).
"""
import ctypes
import mmap
import os

import testlib
from testlib import MIB

KEEP, PUNCH, ZERO, COLLAPSE = 1, 2, 0x10, 8
libc = ctypes.CDLL(None, use_errno=True)


def fallocate(fd, mode, off, length):
    if libc.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(length)):
        return testlib.name_of(ctypes.get_errno())
    return 'ok'


def host_bytes(path):
    return os.stat(path).st_blocks * 512


def pattern(n):
    return bytes(range(1, 251)) * (n // 250) + b'\1' * (n % 250)


def one(fmt, options, keeps):
    testlib.run('qemu-img', 'create', '-q', '-f', fmt, 'a', '16M')
    with testlib.mounted('a', options=options + f',format={fmt}') as m:
        fd = os.open(m + '/disk', os.O_RDWR)
        want = bytearray(pattern(8 * MIB) + bytes(8 * MIB))
        os.pwrite(fd, want[:8 * MIB], 0)
        os.fsync(fd)
        full = host_bytes('a')

        def check(what):
            got = os.pread(fd, 16 * MIB, 0)
            assert got == want, what
            # ... and not only in the kernel's pages:
            dfd = os.open(m + '/disk', os.O_RDONLY | os.O_DIRECT)
            buf = mmap.mmap(-1, 16 * MIB)
            at = 0
            while at < len(want):
                n = os.preadv(dfd, [memoryview(buf)[at:]], at)
                assert n > 0, what
                at += n
            os.close(dfd)
            assert buf[:] == want, what + ' (direct)'

        def do(mode, off, length, what):
            assert fallocate(fd, mode, off, length) == 'ok', what
            if mode & (PUNCH | ZERO):
                want[off:off + length] = bytes(len(want[off:off + length]))
            check(what)

        do(PUNCH | KEEP, MIB, 2 * MIB, 'punch')
        do(PUNCH | KEEP, 4 * MIB + 100, MIB + 777, 'ragged punch')
        do(PUNCH | KEEP, 15 * MIB, 1 << 40, 'punch beyond the end')
        os.fsync(fd)
        if keeps:
            assert host_bytes('a') >= full, 'discard=ignore gave space back'
        else:
            assert host_bytes('a') <= full - 2 * MIB, 'no space came back'
        do(ZERO, 6 * MIB, MIB, 'zero')
        do(ZERO | KEEP, 7 * MIB + 1, 4000, 'ragged zero')
        do(ZERO | KEEP, 16 * MIB, MIB, 'zero beyond the end')
        before = host_bytes('a')
        do(0, 10 * MIB, 2 * MIB, 'allocate')
        do(KEEP, 9 * MIB, 64 * MIB, 'allocate, keep size')
        os.fsync(fd)
        assert host_bytes('a') >= before + 6 * MIB, 'nothing was allocated'
        assert os.fstat(fd).st_size == 16 * MIB
        for _ in range(2):
            assert fallocate(fd, 0, 15 * MIB, 2 * MIB) == 'ENOSPC'
            assert fallocate(fd, ZERO, 17 * MIB, MIB) == 'ENOSPC'
            assert fallocate(fd, COLLAPSE, 0, MIB) == 'EOPNOTSUPP'
            assert fallocate(fd, PUNCH | KEEP, 3 * MIB, 4096) == 'ok'
        want[3 * MIB:3 * MIB + 4096] = bytes(4096)
        check('after refusals')
        os.close(fd)
        for _ in range(2):
            fd = os.open(m + '/ctl', os.O_RDWR)
            assert fallocate(fd, 0, 0, 10) in ('EOPNOTSUPP', 'ENODEV')
            os.close(fd)
    testlib.run('qemu-img', 'convert', '-f', fmt, '-O', 'raw', 'a', 'out')
    assert open('out', 'rb').read() == want
    if fmt == 'qcow2':
        testlib.run('qemu-img', 'check', '-q', 'a')
    os.unlink('a')


testlib.requires_fuse()
testlib.requires('qemu-img')
for fmt in 'raw', 'qcow2':
    one(fmt, 'rw', False)
    one(fmt, 'rw,discard=ignore', True)
