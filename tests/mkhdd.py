#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""mkhdd.py FOLDER SIZE:IMAGE[,IMAGE...]...

Writes FOLDER/DiskDescriptor.xml, which makes a Parallels bundle of images that
are in the folder.  Each argument is a storage of SIZE bytes; the storages follow
each other on the disk.  Its images are its states, the oldest first, as many in
each; those named .raw are plain.  Written from the format's description.
"""
import os
import sys

TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
NONE = "{00000000-0000-0000-0000-000000000000}"


def guid(i, n):
    """Of the i-th of n states."""
    return TOP if i == n - 1 else \
        "{aaaaaaaa-0000-0000-0000-%012d}" % (i + 1)


def image(name, i, n):
    kind = "Plain" if name.endswith(".raw") else "Compressed"
    return f"""            <Image>
                <GUID>{guid(i, n)}</GUID>
                <Type>{kind}</Type>
                <File>{name}</File>
            </Image>
"""


def storage(start, size, names):
    images = "".join(image(f, i, len(names)) for i, f in enumerate(names))
    return f"""        <Storage>
            <Start>{start // 512}</Start>
            <End>{(start + size) // 512}</End>
            <Blocksize>2048</Blocksize>
{images}        </Storage>
"""


def shots(n):
    return "".join(f"""        <Shot>
            <GUID>{guid(i, n)}</GUID>
            <ParentGUID>{guid(i - 1, n) if i else NONE}</ParentGUID>
        </Shot>
""" for i in range(n))


def main():
    folder, *args = sys.argv[1:]
    storages, at, states = "", 0, 0
    for arg in args:
        size, _, names = arg.partition(":")
        names = names.split(",")
        storages += storage(at, int(size), names)
        at += int(size)
        states = len(names)
    with open(os.path.join(folder, "DiskDescriptor.xml"), "w") as f:
        f.write(f"""<?xml version='1.0' encoding='UTF-8'?>
<Parallels_disk_image Version="1.0">
    <Disk_Parameters>
        <Disk_size>{at // 512}</Disk_size>
    </Disk_Parameters>
    <StorageData>
{storages}    </StorageData>
    <Snapshots>
{shots(states)}    </Snapshots>
</Parallels_disk_image>
""")


main()
