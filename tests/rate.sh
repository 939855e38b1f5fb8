#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert -r by the clock (make check-rate): 64 MiB at 16 MiB/s take 3.5 to 5
# seconds, with all the ways to write.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"

random_file src $((64 * 1048576)) 1
for opts in "-O raw" "-O qcow2" "-O raw -W -m 8" "-O raw -C" "-c -O qcow2"; do
	begin=$(date +%s%N)
	# shellcheck disable=SC2086
	imgctl convert -f raw -r 16M $opts src copy
	ms=$((($(date +%s%N) - begin) / 1000000))
	echo "convert -r 16M $opts: $ms ms"
	if [ $ms -lt 3500 ] || [ $ms -gt 5000 ]; then
		fail "not in 3.5 to 5 seconds"
	fi
done
