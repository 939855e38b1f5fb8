# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
if have bximage; then
	bximage -q -func=create -hd=10M -imgmode=growing plain >/dev/null
	seed plain
fi
