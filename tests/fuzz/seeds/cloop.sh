# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
if have create_compressed_fs; then
	create_compressed_fs -q -B 4096 "$data" plain >/dev/null 2>&1
	seed plain
fi
