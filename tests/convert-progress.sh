#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert and compare: -p, -q and SIGUSR1.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img

random_file src.raw 8388608

imgctl convert -p -O raw src.raw o > out
tr '\r' '\n' < out > lines
assert_eq "$(head -n 1 lines)" "    (0.00/100%)"
assert_eq "$(tail -n 2 lines)" "    (100.00/100%)"
[ "$(wc -l < lines)" -ge 5 ] || fail "few steps: $(cat lines)"
imgctl convert -q -p -O raw src.raw o > out
assert_eq "$(wc -c < out)" 0 "-q -p"

imgctl compare -p src.raw o > out
tr '\r' '\n' < out > lines
assert_eq "$(head -n 1 lines)" "    (0.00/100%)"
assert_contains "$(cat lines)" "Images are identical."
imgctl compare -q -p src.raw o > out
assert_eq "$(wc -c < out)" 0 "compare -q -p"

rm -f o
paused convert-store imgctl convert -m 1 -O raw src.raw o 2>progress
kill -USR1 "$pid"
wait_until 10 grep -q 100 progress
assert_eq "$(cat progress)" "    (0.00/100%)"
kill -TERM "$pid"
wait "$pid" || :
exec 7>&-

# A rate: 8 MiB at 16 MiB/s.
rm -f o
begin=$(date +%s%N)
imgctl convert -r 16M -O raw src.raw o
end=$(date +%s%N)
[ $((end - begin)) -ge 300000000 ] || fail "too fast: $((end - begin)) ns"
assert_same o src.raw
