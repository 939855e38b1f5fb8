# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
for o in cluster_size=64k cluster_size=1M; do
	"$imgctl" convert -O parallels -o $o "$data" plain
	seed plain
	create $o 4194304
done
"$imgctl" create -q -f parallels -o cluster_size=4k small 1M
"$imgio" -c 'write 4k 1k' -c 'write 64k 600' small
seed small
# By the description alone: both magics, entries that are wrong, who did not
# finish, the extension with bitmaps, and what makes up a bundle.
python3 - <<'END'
import struct, hashlib
CL = 2048


def image(name, entries, magic=b'WithouFreSpacExt', mark=0, extension=b'',
          clusters=3):
    head = magic + struct.pack('<IIIIIQIIIQ', 2, 16, 1, CL // 512, len(entries),
                               len(entries) * CL // 512, mark, 4, 0,
                               (1 + clusters) * CL // 512 if extension else 0)
    table = struct.pack('<%dI' % len(entries), *entries)
    data = (head + table).ljust(CL, b'\0')
    for i in range(clusters):
        data += bytes([i + 1]) * 40 + bytes(CL - 40)
    open(name, 'wb').write(data + extension)


def feature(magic, flags, data):
    body = struct.pack('<QQII', magic, flags, len(data), 0) + data
    return body + bytes(-len(body) % 8)


def extension(*features):
    body = b''.join(features).ljust(CL - 24, b'\0')
    return (struct.pack('<Q', 0xab234cef23dcea87) + hashlib.md5(body).digest()
            + body)


def bitmap(granularity, l1):
    return feature(0x20385fae252cb34a, 0,
                   struct.pack('<Q16sII', 20, bytes(range(16)), granularity,
                               len(l1)) + struct.pack('<%dQ' % len(l1), *l1))


image('old', [4, 0, 8, 12, 0], b'WithoutFreeSpace')
image('wrong', [1, 1, 0, 77, 2])
image('left', [1, 0, 2], mark=0x746f6e59, clusters=5)
ext = extension(feature(0x1234, 0, b'unknown'), bitmap(8, [0, 1, 12]),
                bitmap(128, []))
image('bits', [1, 0, 2, 3], extension=ext)
image('sized', [1, 0, 2, 3], extension=extension(
    bitmap(1, [1]).replace(struct.pack('<Q', 20), struct.pack('<Q', 16)),
    bitmap(1, [12]).replace(struct.pack('<Q', 20), struct.pack('<Q', 16))
    .replace(bytes(range(16)), bytes(16))))
image('half', [1, 0, 2, 3], extension=extension(bitmap(8, [0]),
                                                bitmap(3, [0])))
image('need', [1, 0, 2, 3], extension=extension(feature(0x1234, 1, b'x')))
image('long', [1, 2, 3], extension=extension(
    bitmap(8, [0] * 240)))
image('badsum', [1, 2, 3], extension=ext[:24] + b'x' + ext[25:])

NO = '{00000000-0000-0000-0000-000000000000}'
TOP = '{5fbaabe3-6958-40ff-92a7-860e329aab41}'
one = ('<Image><GUID>%s</GUID><Type>%s</Type><File>a&amp;b</File></Image>')
shot = '<Shot><GUID>%s</GUID><ParentGUID>%s</ParentGUID></Shot>'


def bundle(name, storages, shots, top=''):
    at, text = 0, ''
    for size, images in storages:
        text += ('<Storage><Start>%d</Start><End>%d</End><Blocksize>4'
                 '</Blocksize>' % (at, at + size)
                 + ''.join(one % i for i in images) + '</Storage>\n')
        at += size
    open(name, 'w').write(
        '<?xml version="1.0"?>\n<Parallels_disk_image><Disk_Parameters>'
        '<Disk_size>%d</Disk_size></Disk_Parameters>\n<StorageData>%s'
        '</StorageData>\n<Snapshots>%s%s</Snapshots></Parallels_disk_image>\n'
        % (at, text, top, ''.join(shot % s for s in shots)))


bundle('b1', [(16, [('{aa}', 'Plain'), (TOP, 'Compressed')]),
              (4, [(TOP, 'Compressed'), ('{aa}', 'Compressed')])],
       [('{aa}', NO), (TOP, '{AA}')])
bundle('b2', [(16, [('{aa}', 'Compressed'), ('{bb}', 'Compressed')])],
       [('{aa}', NO), ('{bb}', '{aa}')], '<TopGUID>{bb}</TopGUID>')
bundle('b3', [(16, [('{aa}', 'Compressed')])], [])
bundle('b4', [(16, [('{aa}', 'Compressed')])],
       [('{aa}', '{bb}'), ('{bb}', '{aa}')])
bundle('b5', [(16, [('{aa}', 'Odd')])], [('{aa}', NO)])
bundle('b6', [(16, [('{aa}', 'Plain')])], [('{aa}', NO), ('{bb}', NO)])
END
for i in old wrong left badsum; do
	seed $i
done
for i in bits sized half need long; do
	seed --mend $i
done
for i in b1 b2 b3 b4 b5 b6; do
	seed --bundle $i bits
done
seed --bundle b2 old
seed --bundle b3 wrong
