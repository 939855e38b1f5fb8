#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Parallels .hdd bundles: two storages, three states each, expanding and plain
# images, by an independent writer; the state is what its images, read by
# qemu-img, say together.  Names lead nowhere that they may not; what is broken
# is refused in a sentence.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img qemu-io python3

mkdir d.hdd
export TOP='{5fbaabe3-6958-40ff-92a7-860e329aab41}'
python3 - <<'END'
import os, random, struct, subprocess
rnd = random.Random(4)
CL = 65536
top = os.environ['TOP']
guids = ['{aaaaaaaa-0000-0000-0000-000000000001}',
         '{AAAAAAAA-0000-0000-0000-000000000002}', top]
no = '{00000000-0000-0000-0000-000000000000}'
sizes = [20 * CL, 3 * CL + 5120]        # of the storages; a ragged end
disk = bytearray(sum(sizes))
older = [bytearray(len(disk)), bytearray(len(disk))]


def image(path, size, writes):
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'parallels', '-o',
                    f'cluster_size={CL}', path, str(size)], check=True)
    for cluster in writes:
        n = min(CL, size - cluster * CL)
        subprocess.run(['qemu-io', '-f', 'parallels', '-c',
                        f'write -P {writes[cluster]} {cluster * CL} {n}',
                        path], check=True, stdout=subprocess.DEVNULL)


text, at = '', 0
for s, size in enumerate(sizes):
    text += f'<Storage><Start>{at // 512}</Start><End>{(at + size) // 512}' \
        '</End><Blocksize>128</Blocksize>'
    for k, guid in enumerate(guids):
        name = f'd & {s}.{k}.hds'
        plain = s == 1 and k == 0
        n = -(-size // CL)
        writes = {c: rnd.randrange(1, 250)
                  for c in sorted(rnd.sample(range(n), (n + 1) // 2))}
        if plain:
            body = rnd.randbytes(size)
            open('d.hdd/' + name, 'wb').write(body)
            disk[at:at + size] = body
        else:
            image('d.hdd/' + name, size, writes)
            for c, byte in writes.items():
                end = min(size, (c + 1) * CL)
                disk[at + c * CL:at + end] = bytes([byte]) * (end - c * CL)
        if k < 2:
            older[k][at:at + size] = disk[at:at + size]
        text += f'<Image><GUID>{guid}</GUID><Type>' \
            f'{"Plain" if plain else "Compressed"}</Type>' \
            f'<File>{name.replace("&", "&amp;")}</File></Image>'
    text += '</Storage>\n'
    at += size
shots = ''.join(f'<Shot><GUID>{g}</GUID><ParentGUID>{p}</ParentGUID></Shot>\n'
                for g, p in zip(guids, [no] + [g.lower() for g in guids]))
open('d.hdd/DiskDescriptor.xml', 'w').write(
    '<?xml version="1.0" encoding="UTF-8"?>\n<!-- > by hand < -->\n'
    '<Parallels_disk_image Version="1.0">\n<Disk_Parameters>'
    f'<Disk_size>{len(disk) // 512}</Disk_size><Name a=">"/>'
    f'</Disk_Parameters>\n<StorageData>\n{text}</StorageData>\n'
    f'<Snapshots>\n{shots}</Snapshots>\n</Parallels_disk_image>\n')
open('want', 'wb').write(disk)
for k in 0, 1:
    open(f'want.{k}', 'wb').write(older[k])
END
x=d.hdd/DiskDescriptor.xml

assert_contains "$(imgctl info $x)" "file format: parallels-bundle"
assert_contains "$(imgctl info --output=json $x)" \
	'"parent": "{aaaaaaaa-0000-0000-0000-000000000001}"'
imgctl convert -O raw $x got
assert_same got want
imgctl check -q $x
imgctl convert -O qcow2 $x got.qcow2
qemu-img compare -q -f qcow2 -F raw got.qcow2 want
# An older state: the descriptor says so.
sed "s/<Snapshots>/&<TopGUID>{aaaaaaaa-0000-0000-0000-000000000002}<\/TopGUID>/" \
	$x >older && cp $x newer && cp older $x
imgctl convert -O raw $x got
cmp -s got want && fail "the older state is the newer one"
qemu-img convert -f parallels -O raw "d.hdd/d & 0.1.hds" mid
python3 - <<'END'
import json, subprocess
got, mid = open('got', 'rb').read(), open('mid', 'rb').read()
m = json.loads(subprocess.run(['qemu-img', 'map', '-f', 'parallels',
                               '--output=json', 'd.hdd/d & 0.1.hds'],
                              stdout=subprocess.PIPE).stdout)
for r in m:
    if r['data']:
        a, b = r['start'], r['start'] + r['length']
        assert got[a:b] == mid[a:b], r
END
cp newer $x

# The older states are its snapshots.
assert_eq "$(imgctl snapshot -l $x | awk '/{/ { print $1, $2 }' | xargs)" \
	"1 {aaaaaaaa-0000-0000-0000-000000000001} 2 {aaaaaaaa-0000-0000-0000-000000000002}"
imgctl convert -l snapshot.id=1 -O raw $x got
assert_same got want.0
imgctl convert -l '{aaaaaaaa-0000-0000-0000-000000000002}' -O raw $x got
assert_same got want.1
assert_fails imgctl convert -l "$TOP" -O raw $x got
assert_fails imgctl snapshot -c new $x
assert_contains "$(cat err)" "read-only"

# A state beside the newest one, of which a file is missing: all others are there.
python3 - <<'END'
other = '{cccccccc-0000-0000-0000-000000000003}'
s = open('d.hdd/DiskDescriptor.xml').read()
s = s.replace('</Storage>', f'<Image><GUID>{other}</GUID><Type>Compressed</Type>'
              '<File>gone.hds</File></Image></Storage>')
s = s.replace('</Snapshots>', f'<Shot><GUID>{other}</GUID><ParentGUID>'
              '{aaaaaaaa-0000-0000-0000-000000000001}</ParentGUID></Shot>'
              '</Snapshots>')
s = s.replace('<Snapshots>', '<Snapshots><TopGUID>{5fbaabe3-6958-40ff-92a7-'
              '860e329aab41}</TopGUID>')
open('branch', 'w').write(s)
END
cp branch $x
imgctl convert -O raw $x got
assert_same got want
imgctl convert -l snapshot.id=2 -O raw $x got
assert_same got want.1
assert_fails imgctl convert -l snapshot.id=4 -O raw $x got
assert_contains "$(cat err)" "Could not open 'gone.hds' of the snapshot"
rc=0
imgctl check $x >out 2>err || rc=$?
assert_eq $rc 2 "exit code"
assert_contains "$(cat err)" "gone.hds: cannot be opened"
cp newer $x

# As a folder, through a mount; writing is refused, and so is a way out.
if [ -c /dev/fuse ] && [ "$(id -u)" -eq 0 ]; then
	mount_img -o rw d.hdd m
	assert_same m/DiskDescriptor.xml/disk want
	for i in 0 1; do
		g={aaaaaaaa-0000-0000-0000-00000000000$((i + 1))}
		assert_same "m/DiskDescriptor.xml/snapshots/$g/disk" want.$i
	done
	assert_eq "$(ls m/DiskDescriptor.xml/snapshots | wc -l)" 2
	assert_fails mkdir m/DiskDescriptor.xml/snapshots/new
	assert_fails dd if=/dev/zero of=m/DiskDescriptor.xml/disk count=1 \
		conv=notrunc
	assert_contains "$(cat err)" "Read-only file system"
	umount_img m
	cp "d.hdd/d & 0.2.hds" away.hds
	sed 's/d &amp; 0.2.hds/..\/away.hds/' newer >$x
	imgctl compare -q -F raw $x want        # imgctl follows names ...
	assert_fails imgctl info --safe $x      # unless it must not
	assert_contains "$(cat err)" "away.hds"
	mount_img d.hdd m
	! cat m/DiskDescriptor.xml/disk >/dev/null 2>&1 || fail "followed"
	assert_contains "$(cat m/DiskDescriptor.xml/status)" "allow-path"
	umount_img m
	cp newer $x
fi
assert_fails imgctl convert -n -O parallels-bundle want $x
assert_contains "$(cat err)" "read-only"

# Nothing of it under the name qemu-img, nor under another name of the file.
cp newer other.xml
assert_contains "$(imgctl info other.xml)" "file format: raw"
ln -s "$IMGCTL" qemu-img
assert_contains "$(./qemu-img info $x)" "file format: raw"
assert_fails ./qemu-img info -f parallels-bundle $x
assert_contains "$(cat err)" "Unknown driver 'parallels-bundle'"
! ./qemu-img --help | grep -q parallels-bundle || fail "help names it"

# Broken descriptors.
broken() { # SENTENCE SED-EXPRESSION
	sed "$2" newer >$x
	cmp -s newer $x && fail "nothing is broken: $2"
	assert_fails imgctl convert -f parallels-bundle -O raw $x out
	assert_contains "$(cat err)" "$1"
}
broken "ends too early" '/<\/Parallels_disk_image>/d'
broken "an end without a beginning" 's/<\/Snapshots>/<\/Snap>/'
broken "an unknown entity" 's/&amp;/\&bomb;/'
broken "declarations are not read" 's/<!--/<!DOCTYPE/'
broken "endless comment" 's/-->/--/'
broken "no number of sectors" 's/<Disk_size>/&-/'
broken "no number of sectors" 's/<Disk_size>/&99999999999999999999/'
broken "do not follow each other" 's/<Start>0/<Start>1/'
broken "shorter than the disk" 's/<Disk_size>/&9/'
broken "in a circle" 's/{00000000-0000-0000-0000-000000000000}/'"$TOP"'/'
broken "has no image of" 's/<GUID>{aaaa[^<]*1}<\/GUID><Type>C/<GUID>x<\/GUID><Type>C/'
broken "are not supported" 's/Compressed/Encrypted/'
broken "has no name" 's/<File>[^<]*/<File>/'
broken "No such file" 's/0.1.hds/0.9.hds/'
broken "Image not in Parallels format" 's/>Plain</>Compressed</'
broken "within each other" 's/<Snapshots>/<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>/'
awk '{ print } /<StorageData>/ { for (i = 0; i < 300; i++)
	print "<Storage></Storage>" }' newer >$x
assert_fails imgctl info -f parallels-bundle $x
assert_contains "$(cat err)" "too many parts"
head -c 1100000 /dev/zero >$x
assert_fails imgctl info -f parallels-bundle $x
assert_contains "$(cat err)" "too large"

# A table that lies.
cp newer $x
poke "d.hdd/d & 0.2.hds" 64 ffffff0f
rc=0
imgctl check $x >out 2>err || rc=$?
assert_eq $rc 2 "exit code"
assert_contains "$(cat err)" "cluster 0 is outside image"
assert_fails imgctl convert -O raw $x out
