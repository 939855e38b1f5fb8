# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
PYTHONPATH=$here/.. python3 - <<'END'
import bz2, lzma, zlib
import mkdmg as m
t = b'text ' * 205                      # two sectors
t = t[:1024]
def lz(d):
    return lzma.compress(d)
for kind, pack in ((m.ZLIB, zlib.compress), (m.BZIP2, bz2.compress),
                   (m.ADC, m.adc), (m.LZMA, lz), (m.RAW, bytes)):
    tables = [(0, 8, [(kind, 0, 2, pack(t)), (m.ZERO, 2, 2, b''),
                      (m.COMMENT, 0, 0, b''), (m.IGNORE, 4, 2, b''),
                      (kind, 6, 2, pack(t[::-1])), (m.END, 8, 0, b'')]),
              (8, 2, [(m.RAW, 0, 2, t), (m.END, 2, 0, b'')])]
    m.make('x%d' % (kind & 15), tables, 10, rsrc=kind == m.ZLIB)
m.make('plain', [], 2, content=t)
END
for i in *; do
	seed "$i"
done
