#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A slice of what tests/fuzz/mutate can do: damaged images make no command
# crash, hang or eat memory.  FUZZ_ROUNDS asks for more.
# timeout: 240
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires python3

mkdir images
"$top_srcdir/tests/fuzz/mutate" --rounds "${FUZZ_ROUNDS:-150}" \
	--seed "${FUZZ_SEED:-1}" images
