#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What cannot be done is refused each time by an errno that leaves the operation
# alive (F13), and no request is left without an answer (F24).
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires_fuse
requires qemu-img python3

mkdir src
qemu-img create -q -f qcow2 src/a.qcow2 4M

try_all() {
	python3 - <<-'END'
	import ctypes, errno, os, sys

	d = "m/a.qcow2/"
	libc = ctypes.CDLL(None, use_errno=True)

	def fallocate(mode):
	    fd = os.open(d + "ctl", os.O_WRONLY)
	    try:
	        if libc.fallocate(fd, mode, ctypes.c_long(0),
	                          ctypes.c_long(4096)) < 0:
	            raise OSError(ctypes.get_errno(), "fallocate")
	    finally:
	        os.close(fd)

	calls = {
	    "mkdir": lambda: os.mkdir(d + "x"),
	    "mknod": lambda: os.mknod(d + "x"),
	    "create": lambda: os.open(d + "x", os.O_CREAT | os.O_WRONLY),
	    "unlink": lambda: os.unlink(d + "info"),
	    "rmdir": lambda: os.rmdir("m/a.qcow2"),
	    "symlink": lambda: os.symlink("x", d + "y"),
	    "link": lambda: os.link(d + "info", d + "y"),
	    "rename": lambda: os.rename(d + "info", d + "y"),
	    "chmod": lambda: os.chmod(d + "disk", 0o777),
	    "chown": lambda: os.chown(d + "disk", 1, 1),
	    "truncate": lambda: os.truncate(d + "disk", 4096),
	    "grow": lambda: os.truncate(d + "disk", 1 << 40),
	    "write info": lambda: os.open(d + "info", os.O_WRONLY),
	    "fallocate": lambda: fallocate(0),
	    "xattr": lambda: os.setxattr(d + "disk", "user.x", b"y"),
	}
	for name, call in calls.items():
	    seen = []
	    for _ in range(2):
	        try:
	            call()
	            sys.exit(name + " succeeded")
	        except OSError as e:
	            seen.append(errno.errorcode[e.errno])
	    print(name, seen[0])
	    if seen[0] != seen[1] or seen[0] == "ENOSYS":
	        sys.exit("%s: %s" % (name, seen))
	# Without effect, without an error.
	os.utime(d + "disk")
	END
}

for mode in ro rw; do
	opts=rw
	[ $mode = rw ] || opts=idle=5
	mount_img -o $opts src m
	try_all || fail "$mode"
	# Every request was answered.
	conn=/sys/fs/fuse/connections/$(mountpoint -d m | cut -d: -f2)
	if [ "$(id -u)" -eq 0 ]; then
		[ -e "$conn" ] || mount -t fusectl none \
			/sys/fs/fuse/connections 2>/dev/null || true
		[ ! -e "$conn/waiting" ] ||
			assert_eq "$(cat "$conn/waiting")" 0 "requests waiting"
	fi
	umount_img m
done
