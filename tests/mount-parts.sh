#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The extents that a VMDK's descriptor names are not listed beside it, until the
# descriptor is gone.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img

mkdir src
qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse src/v.vmdk 4G
qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse src/w.vmdk 1M
[ -e src/v-s002.vmdk ] || fail "no extents to hide"
mount_img src m
assert_eq "$(ls m | tr '\n' ' ')" "v.vmdk w.vmdk "
assert_eq "$(stat -c %s m/v.vmdk/disk)" 4294967296
ls m/v-s001.vmdk 2>/dev/null && fail "an extent is found by its name"
rm src/v.vmdk
assert_eq "$(ls m | grep -c '^v')" "$(ls src | grep -c '^v')" \
	"extents without their descriptor"
