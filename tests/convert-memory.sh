#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# convert and compare stay within 100 MiB, whatever the size of the source.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires qemu-img python3

# All tables there, every cluster allocated in 64 GiB of them, no data.
qemu-img create -q -f qcow2 -o preallocation=metadata big.qcow2 64G
qemu-img create -q -f qcow2 huge.qcow2 1T
qemu-io -f qcow2 -c 'write 1023G 64k' huge.qcow2 > out

# peak COMMAND...: MiB
peak() {
	python3 -c 'import os, sys
pid = os.fork()
if not pid:
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
if status:
    sys.exit("failed")
print(usage.ru_maxrss >> 10)' "$@"
}

for args in "convert -O qcow2 huge.qcow2 out.qcow2" \
	"convert -O raw huge.qcow2 out.raw" \
	"convert -c -m 16 -O qcow2 -o cluster_size=2M huge.qcow2 out.qcow2" \
	"convert -m 16 -O qcow2 big.qcow2 out.qcow2" \
	"convert -O raw big.qcow2 out.raw"; do
	rm -f out.qcow2 out.raw
	# shellcheck disable=SC2086
	mib=$(peak imgctl $args)
	echo "$mib MiB: $args"
	[ "$mib" -le 100 ] || fail "$mib MiB: $args"
done
imgctl compare big.qcow2 out.raw > out
mib=$(peak imgctl compare big.qcow2 out.raw | tail -n 1)
[ "$mib" -le 100 ] || fail "$mib MiB: compare"
