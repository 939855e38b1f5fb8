# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
# Numbers are changed where they stand at multiples of their size: in a property
# list's base64 none does, hence most images have their tables in a resource fork.
PYTHONPATH=$here/.. python3 - <<'END'
import bz2, lzma, zlib
import mkdmg as m
t = b'text ' * 205                      # two sectors
t = t[:1024]
kinds = ((m.ZLIB, zlib.compress), (m.BZIP2, bz2.compress), (m.ADC, m.adc),
         (m.LZMA, lzma.compress), (m.LZFSE, m.lzfse), (m.RAW, bytes))
for kind, pack in kinds:
    tables = [(0, 8, [(m.RAW, 0, 2, t), (m.ZERO, 2, 2, b''),
                      (m.COMMENT, 0, 0, b''), (m.IGNORE, 4, 2, b''),
                      (kind, 6, 2, pack(t[::-1])), (m.END, 8, 0, b'')]),
              (8, 2, [(kind, 0, 2, pack(t)), (m.END, 2, 0, b'')])]
    m.make('x%d' % (kind & 15), tables, 10, rsrc=True, align=512)
m.make('plist', tables, 10, align=512)
# One chunk alone, at whose end nothing else is in the way.
m.make('one', [(0, 2, [(m.ZLIB, 0, 2, zlib.compress(t))])], 2, rsrc=True,
       align=512)
m.make('listed', [(0, 2, [(m.ZLIB, 0, 2, zlib.compress(t))])], 2, content=t,
       align=512)
m.make('plain', [], 2, content=t)
END
for i in *; do
	seed "$i"
done
