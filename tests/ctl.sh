#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# ctl: each write is run when it returns, its errno is the outcome in any shell
# and under any cache=, the sentence can be read back, status keeps it.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img bash dash python3

qemu-img create -q -f qcow2 a.qcow2 8M

# status_is LINE: the first line of status.
status_is() {
	assert_eq "$(head -n 1 m/status)" "$1" "status"
}

for how in ro rw rw,cache=none rw,cache=writeback rw,cache=unsafe; do
	# -o ro would be the kernel's own (F25): the default is read-only too.
	if [ $how = ro ]; then
		mount_img a.qcow2 m
	else
		mount_img -o "$how" a.qcow2 m
	fi
	assert_eq "$(stat -c %a m/ctl)" 600 "mode of ctl"
	for sh in bash dash; do
		$sh -c 'echo flush > m/ctl' || fail "$sh: flush"
		status_is ok
		$sh -c 'echo flush >> m/ctl' || fail "$sh: flush, O_APPEND"
		assert_fails $sh -c 'echo bad > m/ctl'
		status_is "Unknown command 'bad'"
		assert_fails $sh -c 'echo bad >> m/ctl'
		assert_fails $sh -c 'printf "flush\nbad\n" > m/ctl'
		assert_fails $sh -c 'echo flush now > m/ctl'
		status_is "flush takes no arguments"
		$sh -c 'printf "flush\n\n  flush\n" > m/ctl' || fail "$sh: printf"
		status_is ok
	done
	bash -c 'echo bad > m/ctl' 2>err || :
	assert_contains "$(cat err)" "Invalid argument" "bash"
	assert_fails bash -c 'echo snapshot -a x > m/ctl' 2>err
	echo flush | tee m/ctl >/dev/null || fail "tee"
	printf 'flush\nbad\nflush\n' > lines
	assert_fails cp lines m/ctl
	status_is "Unknown command 'bad'"
	echo flush > lines
	cp lines m/ctl || fail "cp"
	cat lines > m/ctl || fail "cat"
	status_is ok
	# FLUSH is not the end of a file (pitfall 8).
	exec 3>m/ctl 4>&3
	exec 4>&-
	echo flush >&3 || fail "after a close of another descriptor"
	if echo bad >&3 2>/dev/null; then
		fail "an error after a close of another descriptor"
	fi
	exec 3>&-
	# The sentence comes back on the same file, wherever the offset is.
	exec 3<>m/ctl
	echo bad >&3 2>/dev/null || :
	read -r line <&3
	assert_eq "$line" "Unknown command 'bad'" "the sentence"
	echo flush >&3
	read -r line <&3
	assert_eq "$line" ok "the sentence of a success"
	exec 3>&-
	python3 - <<'END'
import errno, os
fd = os.open('m/ctl', os.O_RDWR)
assert os.pread(fd, 100, 0) == b''

def put(data):
    try:
        return os.write(fd, data)
    except OSError as e:
        return errno.errorcode[e.errno]

assert put(b'flush\n') == 6
assert put(b'flush') == 5
assert put(b'\n') == 1
assert put(b'bad') == 'EINVAL'
for _ in range(2):
    assert os.pread(fd, 4096, 0) == b"Unknown command 'bad'\n"
    assert os.pread(fd, 4, 8) == b'comm'
assert put(b'commit') in ('EROFS', 'EINVAL')
assert put(b'convert a b') == 'EINVAL'
assert put(b'flush &') == 7
assert os.pread(fd, 4096, 0) == b'1\n', os.pread(fd, 4096, 0)
assert put(b"flush '") == 'EINVAL'
assert os.pread(fd, 4096, 0) == b'A quote is not closed\n'
assert put(b"'fl'\\u\"sh\"") == 10
assert put(b'flush\0') == 'EINVAL'
assert put(b'flush\n' * 682) == 4092
assert put(b' ' * 4097) == 'E2BIG'
assert b'4096' in os.pread(fd, 4096, 0)
assert put(b'flush') == 5
assert os.pread(fd, 4096, 0) == b'ok\n'
END
	umount_img m
done
