# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=sh
# lib.sh - what script tests share.  A test begins with
#
#	. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
#
# and then stands in a fresh folder ($tmp) that is removed when it ends, with
# everything it mounted, attached or started through the functions below.
# imgctl and imgfs of this build come first in PATH ($IMGCTL, $IMGFS).  The
# shell runs with -eu: a command that fails fails the test.
#
# This file knows how to set up and tear down.  It knows no behaviour of imgfs
# beyond "mounting returns once the mount answers".

set -eu

if [ -z "${top_srcdir:-}" ]; then
	top_srcdir=$(cd "$(dirname "$0")/.." && pwd)
fi
: "${top_builddir:=$top_srcdir}"
export top_srcdir top_builddir
IMGCTL=$top_builddir/imgctl
IMGFS=$top_builddir/imgfs
PATH=$top_builddir:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
TZ=UTC
export IMGCTL IMGFS PATH LC_ALL TZ
unset IMGCTL_QEMU_COMPAT IMGCTL_SAFE IMGFS_PAUSE
umask 022

tmp=$(mktemp -d "${TMPDIR:-/tmp}/imgfs-test.XXXXXX")
tmp=$(cd "$tmp" && pwd -P)
chmod 755 "$tmp"
started=	# process ids to end at exit
loops=		# loop devices to detach at exit
fuse_mode=	# of /dev/fuse before as_user changed it

# ---- the end -------------------------------------------------------------

# Mount points below $tmp, innermost first.
mounts_here() {
	awk -v top="$tmp/" 'index($5, top) == 1 { print $5 }' \
		/proc/self/mountinfo | sort -r
}

cleanup() {
	rc=$?
	trap - EXIT
	trap '' HUP INT TERM
	set +eu
	cd /
	for m in $(mounts_here); do
		umount -i "$m" 2>/dev/null ||
			fusermount3 -u "$m" 2>/dev/null ||
			umount -i -l "$m" || fusermount3 -u -z "$m"
	done
	for l in $loops; do
		losetup -d "$l" 2>/dev/null
	done
	for p in $started $(daemons_here); do
		end_process "$p"
	done
	[ -z "$fuse_mode" ] || chmod "$fuse_mode" /dev/fuse
	rm -rf "$tmp"
	exit $rc
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Is process $1 there (and no zombie)?
alive() {
	case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in
	'' | Z* | X*) return 1 ;;
	esac
}

end_process() {
	kill "$1" 2>/dev/null || return 0
	wait_until 5 gone "$1" || kill -9 "$1" 2>/dev/null
	return 0
}

gone() {
	! alive "$1"
}

cd "$tmp"

# ---- verdicts --------------------------------------------------------------

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

skip() {
	echo "skipped: $*"
	exit 77
}

# Programs that must be there.
requires() {
	for need; do
		command -v "$need" >/dev/null 2>&1 || skip "$need is not installed"
	done
}

requires_root() {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
}

requires_fuse() {
	[ -c /dev/fuse ] || skip "/dev/fuse is missing"
	if [ "$(id -u)" -ne 0 ]; then
		[ -r /dev/fuse ] && [ -w /dev/fuse ] ||
			skip "/dev/fuse is closed to ordinary users"
		requires fusermount3
	fi
}

requires_loop() {
	requires_root
	requires losetup
	losetup -f >/dev/null 2>&1 || skip "no loop devices here"
}

assert_eq() {
	[ "$1" = "$2" ] || fail "${3:-values differ}: '$1' is not '$2'"
}

assert_contains() {
	case $1 in
	*"$2"*) ;;
	*) fail "${3:-text}: '$2' is not in '$1'" ;;
	esac
}

# assert_same FILE FILE: byte for byte.
assert_same() {
	cmp "$1" "$2" >&2 || fail "$1 and $2 differ"
}

# assert_rc CODE COMMAND...: stdout and stderr go to $tmp/out and $tmp/err.
assert_rc() {
	want=$1
	shift
	rc=0
	"$@" >"$tmp/out" 2>"$tmp/err" || rc=$?
	[ "$rc" -eq "$want" ] && return 0
	cat "$tmp/out" "$tmp/err" >&2
	fail "exit code $rc, not $want: $*"
}

# The command must fail, but not by a crash.
assert_fails() {
	rc=0
	"$@" >"$tmp/out" 2>"$tmp/err" || rc=$?
	[ "$rc" -ne 0 ] || fail "succeeded: $*"
	[ "$rc" -lt 124 ] || fail "crashed or hung ($rc): $*"
}

# wait_until SECONDS COMMAND...: polls; fails when the time is over.
wait_until() {
	tries=$(($1 * 20))
	shift
	while ! "$@"; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.05
	done
}

# background COMMAND...: starts it; $pid is its id; ended at exit.
background() {
	"$@" &
	pid=$!
	started="$started $pid"
}

# ---- mounts ----------------------------------------------------------------

# mount_img [-o OPTIONS...] SOURCE... MOUNTPOINT: makes the folder, mounts.
mount_img() {
	for mountpoint; do :; done
	mkdir -p "$mountpoint"
	"$IMGFS" "$@" || fail "cannot mount: imgfs $*"
}

# The process that serves the mount point $1.
daemon_of() {
	case $1 in
	/*) served=$1 ;;
	*) served=$PWD/$1 ;;
	esac
	for d in $(daemons_here); do
		last=$(tr '\0' '\n' 2>/dev/null < "/proc/$d/cmdline" | tail -n 1)
		case $last in
		"$served" | "${served#"$PWD"/}" | "${served#"$tmp"/}") echo "$d" ;;
		esac
	done
}

# Daemons whose working folder or arguments lie in $tmp.
daemons_here() {
	for d in $(grep -lsx imgfs /proc/[0-9]*/comm); do
		d=${d%/comm}
		alive "${d#/proc/}" || continue
		case $(readlink "$d/cwd")/$(tr '\0' ' ' 2>/dev/null \
			< "$d/cmdline") in
		*"$tmp/"*) echo "${d#/proc/}" ;;
		esac
	done
}

let_go() {
	if [ "$(id -u)" -eq 0 ]; then
		umount -i "$1" 2>"$tmp/busy"
	else
		fusermount3 -u "$1" 2>"$tmp/busy"
	fi
}

# umount_img MOUNTPOINT: returns when the daemon has ended (all is durable).  What
# a loop device, or who was killed, had open the kernel closes in its own time.
umount_img() {
	served_by=$(daemon_of "$1")
	wait_until 10 let_go "$1" || fail "cannot unmount $1: $(cat "$tmp/busy")"
	for p in $served_by; do
		wait_until 30 gone "$p" ||
			fail "the daemon of $1 is still there after 30 s"
	done
}

# Kills the daemon of a mount without mercy and clears the dead mount point.
kill_img() {
	for p in $(daemon_of "$1"); do
		kill -9 "$p"
		wait_until 10 gone "$p"
	done
	umount -i -l "$1" 2>/dev/null || fusermount3 -u -z "$1"
}

# ---- other users -----------------------------------------------------------

# as_user COMMAND...: as an ordinary user (ourselves, unless we are root), with
# /dev/fuse open to him until the test ends.  The programs of this build are
# copied to where he can read them; $tmp/user is a folder of his.
as_user() {
	if [ "$(id -u)" -ne 0 ]; then
		mkdir -p "$tmp/user"
		"$@"
		return
	fi
	[ -d "$tmp/user" ] || user_setup
	# shellcheck disable=SC2016
	setpriv --reuid=nobody --regid=nogroup --clear-groups -- \
		env HOME="$tmp/user" PATH="$tmp/bin:$PATH" \
		IMGFS="$tmp/bin/imgfs" IMGCTL="$tmp/bin/imgctl" "$@"
}

user_setup() {
	requires setpriv
	# One test at a time may change the mode of /dev/fuse.
	if [ -c /dev/fuse ]; then
		exec 8>/tmp/.imgfs-test-dev-fuse
		flock 8
		fuse_mode=$(stat -c %a /dev/fuse)
		chmod 666 /dev/fuse
	fi
	mkdir -p "$tmp/bin" "$tmp/user"
	for prog in imgfs imgctl mount.imgfs umount.fuse.imgfs; do
		[ ! -x "$top_builddir/$prog" ] ||
			cp "$top_builddir/$prog" "$tmp/bin/"
	done
	chmod 755 "$tmp/bin"
	chown nobody:nogroup "$tmp/user"
}

# ---- loop devices ----------------------------------------------------------

# loop_attach [losetup options] FILE: $loop is the device; detached at exit.
loop_attach() {
	loop=$(losetup -f --show "$@")
	loops="$loops $loop"
}

loop_detach() {
	losetup -d "$1"
	wait_until 10 loop_free "$1"
}

loop_free() {
	[ -z "$(losetup -n -O BACK-FILE "$1" 2>/dev/null)" ]
}

# ---- data and pause points -------------------------------------------------

# random_file NAME BYTES [SEED]: the same bytes for the same seed.
random_file() {
	awk -v n="$2" -v seed="${3:-1}" 'BEGIN {
		srand(seed)
		while (n > 0) {
			line = ""
			for (i = 0; i < 64; i++)
				line = line sprintf("%08x", int(rand() * 2^31))
			k = n < length(line) ? n : length(line)
			printf "%s", substr(line, 1, k)
			n -= k
		}
	}' > "$1"
}

# poke FILE OFFSET BYTES(hex): overwrites them in place.
poke() {
	python3 -c 'import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    f.write(bytes.fromhex(sys.argv[3]))' "$@"
}

# paused POINT COMMAND...: starts the command and returns when it waits at that
# pause point.  resume lets it go on; $pid is its id, for wait.
paused() {
	point=$1
	shift
	rm -f "$tmp/pause"
	mkfifo "$tmp/pause"
	IMGFS_PAUSE=$point:$tmp/pause "$@" &
	pid=$!
	started="$started $pid"
	# Opening returns when the command has opened the other end.
	exec 7>"$tmp/pause"
}

resume() {
	echo >&7
	exec 7>&-
}
